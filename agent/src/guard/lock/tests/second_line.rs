//! Locked files that are changed behind their holder's back.

use super::*;
use crate::guard::lock::second::{Busy, Copies};

#[tokio::test]
async fn a_change_by_no_tool_of_the_holder_is_seen_and_can_be_undone() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o754)).unwrap();
    running.write(1, &path).await.unwrap();
    let (busy, dir) = (Busy::default(), bed.dir.path().join("copies"));
    let mut copies = Copies::new(dir.clone());
    let at = UnixMs(5);
    let look = |copies: &mut Copies| copies.look(&running.locks.list(), &busy, at);
    assert_eq!(look(&mut copies), []);
    // The holder's own work, while its tool runs and just after.
    busy.note(session(1), "PreToolUse");
    std::fs::write(&path, "by its holder").unwrap();
    assert_eq!(look(&mut copies), []);
    std::fs::write(&path, "by its holder again").unwrap();
    busy.note(session(1), "PostToolUse");
    assert_eq!(look(&mut copies), []);
    assert_eq!(look(&mut copies), []);
    // A script of another session.
    busy.note(session(2), "PreToolUse");
    std::fs::write(&path, "by somebody else").unwrap();
    let alerts = look(&mut copies);
    let alert = &alerts[0];
    assert_eq!((alerts.len(), alert.is_there, alert.has_copy, alert.at), (1, true, true, at));
    assert_eq!(alert.suspects, [session(2).short()]);
    assert_eq!(look(&mut copies), [], "told once");
    let lock = running.locks.list().remove(0);
    let aside = copies.restore(&lock).unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by its holder again");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "by somebody else");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o754
    );
    assert_eq!(look(&mut copies), [], "to put it back is no breach");
    conflict(running.write(2, &path).await);
    // Replaced as editors do it, and removed.
    std::fs::write(bed.work().join("temp"), "by its holder again").unwrap();
    std::fs::rename(bed.work().join("temp"), &path).unwrap();
    assert_eq!(look(&mut copies).len(), 1);
    std::fs::remove_file(&path).unwrap();
    let alerts = look(&mut copies);
    assert!(!alerts[0].is_there && alerts[0].has_copy);
    assert_eq!(copies.restore(&lock).unwrap(), None);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by its holder again");
    // The copy goes with the lock.
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    running.locks.session_ended(session(1)).await;
    assert_eq!(look(&mut copies), []);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[tokio::test]
async fn a_refused_tool_does_not_excuse_changes_for_ever() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.file("a");
    running.write(1, &path).await.unwrap();
    let busy = Busy::default();
    let mut copies = Copies::new(bed.dir.path().join("copies"));
    // Refused by a gate: it has no end of its own, but the turn has.
    for event in ["PreToolUse", "Stop"] {
        busy.note(session(1), event);
    }
    for alerts in [0, 1] {
        assert_eq!(copies.look(&running.locks.list(), &busy, UnixMs(0)).len(), alerts);
        std::fs::write(&path, "something longer").unwrap();
    }
}
