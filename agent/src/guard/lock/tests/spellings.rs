//! One file, many spellings.

use super::*;

#[tokio::test]
async fn every_spelling_of_a_path_is_the_same_file() {
    let bed = Bed::new();
    let running = bed.start().await;
    let work = bed.work();
    let file = bed.file("src/deep/a.rs");
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, work.join(name)).unwrap();
        work.join(name)
    };
    link(&file, "link");
    link(Path::new("src/deep/a.rs"), "relative");
    link(Path::new("link"), "chain");
    link(&work.join("src"), "dir");
    link(&work.join("src/deep"), "deepdir");
    std::fs::hard_link(&file, work.join("hard")).unwrap();
    std::fs::create_dir(work.join("other")).unwrap();
    let here = std::fs::File::open(&file).unwrap();
    use std::os::fd::AsRawFd;
    let text = |path: &str| format!("{}/{path}", work.display());
    let spellings = [
        text("src/deep/a.rs"),
        text("./src/./deep/./a.rs"),
        text("/src//deep///a.rs"),
        text("src/deep/../deep/a.rs"),
        text("other/../src/deep/a.rs"),
        text("missing/../src/deep/a.rs"),
        text("link"),
        text("relative"),
        text("chain"),
        text("dir/deep/a.rs"),
        text("deepdir/a.rs"),
        text("dir/../src/deep/a.rs"),
        text("deepdir/../deep/a.rs"),
        text("hard"),
        format!("/proc/self/cwd/{}", "src/deep/a.rs"),
        "/proc/thread-self/cwd/src/deep/a.rs".to_owned(),
        "/proc/self/task/1/cwd/src/deep/a.rs".to_owned(),
        format!("/proc/self/root{}", text("src/deep/a.rs")),
        format!("/proc/{}/root{}", std::process::id(), text("src/deep/a.rs")),
        format!("/proc/{}/fd/{}", std::process::id(), here.as_raw_fd()),
        format!("/../..{}", text("src/deep/a.rs")),
    ];
    for (index, spelling) in spellings.iter().enumerate() {
        let lock = running.write(1, &file).await.unwrap().remove(0);
        let write = WrittenPath { path: PathBuf::from(spelling), is_tree: false };
        let refused = running.locks.write(session(2), "two", &work, std::slice::from_ref(&write)).await;
        let lock_hit = conflict(refused).lock;
        assert_eq!(lock_hit.id, lock.id, "{index}: {spelling}");
        // And the other way round.
        running.locks.session_ended(session(1)).await;
        running.locks.write(session(2), "two", &work, &[write]).await.unwrap();
        conflict(running.write(1, &file).await);
        running.locks.session_ended(session(2)).await;
        assert_eq!(running.locks.list(), [], "{spelling}");
    }
}
