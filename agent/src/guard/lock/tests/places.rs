//! Directories, replaced files, folding names, bind mounts.

use super::*;
use crate::guard::lock::fold::fold;

fn person(path: &Path, kind: LockKind) -> Wish {
    Wish {
        who: LockHolder::Person { label: "dev".to_owned() },
        origin: LockOrigin::Person,
        ..wish(0, path, kind)
    }
}

#[tokio::test]
async fn a_locked_directory_covers_what_is_below_and_what_will_be() {
    let bed = Bed::new();
    let running = bed.start().await;
    let file = bed.file("src/deep/a.rs");
    let src = bed.work().join("src");
    running.locks.acquire(wish(1, &src, LockKind::Directory)).await.unwrap();
    for path in ["src/deep/a.rs", "src/new.rs", "src/not/yet/there.rs", "src"] {
        let refused = running.write(2, &bed.work().join(path)).await;
        assert!(conflict(refused).for_claude().contains("/src"), "{path}");
    }
    conflict(running.write_tree(2, &bed.work(), true).await);
    conflict(running.write_tree(2, &src.join("deep"), true).await);
    running.write(2, &bed.file("other/a.rs")).await.unwrap();
    // Its holder needs no second lock.
    assert_eq!(running.write(1, &file).await.unwrap()[0].kind, LockKind::Directory);
    // A link into it, and a second name outside of it.
    std::os::unix::fs::symlink(&file, bed.work().join("in")).unwrap();
    std::fs::hard_link(&file, bed.work().join("second")).unwrap();
    conflict(running.write(2, &bed.work().join("in")).await);
    conflict(running.write(2, &bed.work().join("second")).await);
    // What its holder writes through a second name is locked by itself, for a name elsewhere.
    running.write(1, &file).await.unwrap();
    let is_own_file = |lock: &&Lock| lock.kind == LockKind::File && lock.path == file.to_str().unwrap();
    assert_eq!(running.locks.list().iter().filter(is_own_file).count(), 1);
}

#[tokio::test]
async fn a_directory_is_not_locked_over_the_files_of_others() {
    let bed = Bed::new();
    let running = bed.start().await;
    let file = bed.file("src/a.rs");
    running.write(1, &file).await.unwrap();
    let refused = running.locks.acquire(wish(2, &bed.work().join("src"), LockKind::Directory)).await;
    assert_eq!(conflict(refused).lock.path, file.to_str().unwrap());
    conflict(running.write_tree(2, &bed.work().join("src"), true).await);
    running.locks.acquire(wish(1, &bed.work().join("src"), LockKind::Directory)).await.unwrap();
    // A session cannot shut everybody out.
    let refused = running
        .locks
        .acquire(Wish { cwd: bed.work(), ..wish(1, Path::new("/usr"), LockKind::Directory) })
        .await;
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    running.locks.acquire(person(&bed.work(), LockKind::Directory)).await.unwrap_err();
    running.locks.session_ended(session(1)).await;
    running.locks.acquire(person(&bed.work(), LockKind::Directory)).await.unwrap();
    conflict(running.write(1, &file).await);
}

#[tokio::test]
async fn a_tree_as_large_as_the_project_is_checked_and_not_locked() {
    let bed = Bed::new();
    let running = bed.start().await;
    std::fs::create_dir(bed.work().join(".git")).unwrap();
    bed.file("dist/a");
    assert_eq!(running.write_tree(1, &bed.work(), true).await.unwrap(), []);
    assert_eq!(running.write_tree(1, &bed.work().join("dist"), true).await.unwrap().len(), 1);
    conflict(running.write_tree(2, &bed.work(), true).await);
    conflict(running.write(2, &bed.work().join("dist/a")).await);
    running.write(2, &bed.file("src/a")).await.unwrap();
}

#[tokio::test]
async fn a_replaced_file_or_directory_stays_locked_and_its_old_self_is_free() {
    let bed = Bed::new();
    let running = bed.start().await;
    let file = bed.file("src/a");
    let old = bed.work().join("old");
    running.write(1, &file).await.unwrap();
    // As most editors save: a new file takes the name.
    std::fs::rename(&file, &old).unwrap();
    std::fs::write(bed.work().join("temp"), "new").unwrap();
    std::fs::rename(bed.work().join("temp"), &file).unwrap();
    conflict(running.write(2, &file).await);
    running.write(2, &old).await.unwrap();
    let second = bed.work().join("second");
    std::fs::hard_link(&file, &second).unwrap();
    conflict(running.write(2, &second).await);
    // The whole directory is made anew, as by a checkout.
    std::fs::rename(bed.work().join("src"), bed.work().join("gone")).unwrap();
    bed.file("src/a");
    conflict(running.write(2, &file).await);
    std::fs::remove_dir_all(bed.work().join("src")).unwrap();
    conflict(running.write(2, &file).await);
    // After a restart of the daemon as well.
    running.kill().await;
    let running = bed.start().await;
    conflict(running.write(2, &file).await);
    bed.file("src/a");
    conflict(running.write(2, &file).await);
}

#[tokio::test]
async fn what_does_not_exist_yet_is_locked_by_its_name() {
    let bed = Bed::new();
    let running = bed.start().await;
    let path = bed.work().join("not/yet/there");
    running.write(1, &path).await.unwrap();
    conflict(running.write(2, &bed.work().join("not/./yet/x/../there")).await);
    running.write(2, &bed.work().join("not/yet/other")).await.unwrap();
    // Its directories come one by one.
    for dir in ["not", "not/yet"] {
        std::fs::create_dir(bed.work().join(dir)).unwrap();
        conflict(running.write(2, &path).await);
    }
    bed.file("not/yet/there");
    conflict(running.write(2, &path).await);
    // A link to nothing is a name for what will be there.
    std::os::unix::fs::symlink("nowhere/target", bed.work().join("dangling")).unwrap();
    running.write(1, &bed.work().join("dangling")).await.unwrap();
    conflict(running.write(2, &bed.work().join("nowhere/target")).await);
    conflict(running.write(2, &bed.work().join("dangling")).await);
}

#[tokio::test]
async fn circles_and_devices_are_told_apart_from_files() {
    let bed = Bed::new();
    let running = bed.start().await;
    std::os::unix::fs::symlink("two", bed.work().join("one")).unwrap();
    std::os::unix::fs::symlink("one", bed.work().join("two")).unwrap();
    let refused = running.write(1, &bed.work().join("one")).await;
    assert!(matches!(&refused, Err(Refusal::BadPath(why)) if why.contains("circle")), "{refused:?}");
    for path in ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/2"] {
        assert_eq!(running.write(1, Path::new(path)).await.unwrap(), [], "{path}");
    }
    let refused = running.locks.acquire(wish(1, Path::new("/dev/null"), LockKind::File)).await;
    assert!(matches!(&refused, Err(Refusal::BadPath(why)) if why.contains("not a file")), "{refused:?}");
    let refused = running.write(1, Path::new("relative")).await;
    assert!(matches!(&refused, Err(Refusal::BadPath(why)) if why.contains("absolute")), "{refused:?}");
    // A program that puts `..` in order by itself and the kernel mean two files: neither is free.
    let file = bed.file("elsewhere/deep/x");
    std::os::unix::fs::symlink("elsewhere/deep", bed.work().join("link")).unwrap();
    let both = bed.work().join("link/../y");
    running.write(1, &both).await.unwrap();
    conflict(running.write(2, &bed.work().join("elsewhere/y")).await);
    conflict(running.write(2, &bed.work().join("y")).await);
    running.write(2, &file).await.unwrap();
}

/// What the assessment of a command says would be written, as the gate asks for it.
#[tokio::test]
async fn commands_hit_the_lock_by_every_way_of_writing_and_behind_links() {
    use crate::guard::risk::{Scope, assess};
    let bed = Bed::new();
    let running = bed.start().await;
    let (work, file) = (bed.work(), bed.file("elsewhere/x"));
    bed.file("elsewhere/deep/y");
    std::os::unix::fs::symlink("elsewhere/deep", work.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere/x", work.join("soft")).unwrap();
    std::fs::hard_link(&file, work.join("hard")).unwrap();
    running.write(1, &file).await.unwrap();
    let commands = [
        "echo x > elsewhere/x",
        "echo x >> ./elsewhere//x",
        "echo x > soft",
        "echo x > hard",
        "echo x > link/../x",
        "cd link && echo x > ../x",
        "cd elsewhere; cd deep; echo x > ../x",
        "tee link/../x",
        "cat y | tee -a soft",
        "cp y link/../x",
        "mv y elsewhere/x",
        "rm elsewhere/x",
        "rm -r elsewhere",
        "sed -i s/a/b/ hard",
        "touch soft",
        "truncate -s 0 elsewhere/x",
        "dd if=/dev/zero of=elsewhere/x",
        "ln -sf y elsewhere/x",
        "git checkout elsewhere/x",
        "git checkout .",
        "git reset --hard",
        ": > elsewhere/x",
    ];
    let mut missed = Vec::new();
    for command in commands {
        let scope = Scope { cwd: &work, project: &work, home: None };
        let assessment = assess("Bash", &serde_json::json!({"command": command}), &scope);
        let result = running.locks.write(session(2), "two", &work, &assessment.writes).await;
        // What cannot be known asks instead, because somebody has a lock in this project.
        let is_asked =
            assessment.has_unknown_writes && running.locks.may_conflict(session(2), &work).is_some();
        if !matches!(result, Err(Refusal::Held(_))) && !is_asked {
            missed.push(command);
        }
        running.locks.session_ended(session(2)).await;
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test]
async fn names_that_a_directory_takes_for_one_are_one_lock() {
    let mut bed = Bed::new();
    bed.folds = Folds::of(|dir, _| if dir.ends_with("work") { Fold::Trimmed } else { Fold::None });
    let running = bed.start().await;
    let pairs = [
        ("README.md", "readme.MD"),
        ("Straße", "STRASSE"),
        ("\u{e9}t\u{e9}", "e\u{301}te\u{301}"),
        ("\u{c5}", "\u{212b}"),
        ("ΣΑΣ", "σας"),
        ("ﬁle", "FILE"),
        ("soft\u{ad}hyphen", "softhyphen"),
        ("dots", "Dots. ."),
        ("New/Deep/File", "new/deep/file"),
    ];
    for (one, other) in pairs {
        running.write(1, &bed.work().join(one)).await.unwrap();
        conflict(running.write(2, &bed.work().join(other)).await);
        running.locks.session_ended(session(1)).await;
    }
    std::fs::create_dir(bed.work().join("plain")).unwrap();
    running.write(1, &bed.work().join("plain/README")).await.unwrap();
    running.write(2, &bed.work().join("plain/readme")).await.unwrap();
    for how in [Fold::None, Fold::Normalised, Fold::Caseless, Fold::Trimmed] {
        assert!(!fold(std::ffi::OsStr::new("\u{ad}"), how).is_empty(), "no name becomes empty");
    }
}

/// Set for the test that runs in a namespace of its own.
const NAMESPACE: &str = "CLAUDENEST_TEST_NAMESPACE";

/// This test again as root of a mount namespace of its own: bind mounts, and a file system that folds names where the
/// kernel has one.
#[tokio::test]
async fn bind_mounts_and_folding_file_systems_are_the_same_files() {
    if std::env::var_os(NAMESPACE).is_some() {
        return inside_a_mount_namespace().await;
    }
    let exe = std::env::current_exe().unwrap();
    let own = "guard::lock::tests::places::bind_mounts_and_folding_file_systems_are_the_same_files";
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .arg(exe)
        .args(["--exact", own, "--nocapture", "--test-threads=1"])
        .env(NAMESPACE, "1")
        .output();
    let text = match &output {
        Ok(output) => {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        }
        Err(error) => error.to_string(),
    };
    println!("{text}");
    if text.contains("unshare: ") || output.is_err() {
        assert!(
            !cfg!(target_os = "linux") || std::env::var_os("CI").is_none(),
            "CI needs user namespaces: {text}"
        );
        eprintln!("SKIPPED: this machine allows no mount namespaces: {text}");
        return;
    }
    assert!(output.is_ok_and(|output| output.status.success()) && text.contains("1 passed"), "{text}");
}

async fn inside_a_mount_namespace() {
    let bed = Bed::new();
    let running = bed.start().await;
    let file = bed.file("src/deep/a");
    let (src, bound) = (bed.work().join("src"), bed.work().join("bound"));
    std::fs::create_dir(&bound).unwrap();
    let mount = |args: &[&std::ffi::OsStr]| {
        std::process::Command::new("mount").args(args).output().unwrap().status.success()
    };
    assert!(mount(&["--bind".as_ref(), src.as_os_str(), bound.as_os_str()]), "a bind mount");
    assert_eq!(std::fs::read(bound.join("deep/a")).unwrap(), b"src/deep/a");
    // The file, a new file beside it, and directories from above, each from the other side.
    for (one, other) in [(&src, &bound), (&bound, &src)] {
        running.write(1, &one.join("deep/a")).await.unwrap();
        conflict(running.write(2, &other.join("deep/a")).await);
        running.locks.session_ended(session(1)).await;
        running.write(1, &one.join("deep/new")).await.unwrap();
        conflict(running.write(2, &other.join("deep/new")).await);
        running.locks.session_ended(session(1)).await;
        running.locks.acquire(person(one, LockKind::Directory)).await.unwrap();
        let lock = conflict(running.write(2, &other.join("deep/a")).await).lock;
        running.locks.release(lock.id, Releaser::Person).await.unwrap();
    }
    let outer = bed.work().join("outer");
    std::fs::create_dir_all(outer.join("mounted")).unwrap();
    assert!(mount(&["--bind".as_ref(), src.as_os_str(), outer.join("mounted").as_os_str()]));
    running.locks.acquire(person(&outer, LockKind::Directory)).await.unwrap();
    conflict(running.write(2, &file).await);
    conflict(running.write_tree(2, &src, true).await);
    // A file mounted over another.
    let (target, over) = (bed.file("target"), bed.file("over"));
    assert!(mount(&["--bind".as_ref(), target.as_os_str(), over.as_os_str()]));
    running.write(1, &target).await.unwrap();
    conflict(running.write(2, &over).await);

    let folding = bed.work().join("folding");
    std::fs::create_dir(&folding).unwrap();
    if !mount(&[
        "-t".as_ref(),
        "tmpfs".as_ref(),
        "-o".as_ref(),
        "casefold".as_ref(),
        "none".as_ref(),
        folding.as_os_str(),
    ]) {
        println!("SKIPPED: this kernel has no file system that folds names; the injected ones were tested.");
        return;
    }
    let dir = folding.join("dir");
    std::fs::create_dir(&dir).unwrap();
    let chattr = std::process::Command::new("chattr").arg("+F").arg(&dir).status().unwrap();
    assert!(chattr.success(), "a folding directory");
    running.write(1, &dir.join("README")).await.unwrap();
    conflict(running.write(2, &dir.join("readme")).await);
    std::fs::write(dir.join("README"), "x").unwrap();
    conflict(running.write(2, &dir.join("Readme")).await);
}
