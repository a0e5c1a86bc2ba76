//! The built-in database under faults: the relay killed, the server killed, both killed, leftovers of all kinds.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::program::{Running, pause, refusal, scratch};

/// Far above what anything here takes.
const WITHIN: Duration = Duration::from_secs(60);

fn server_pid(data: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(data.join("postgres/data/postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_ok() && !stat.is_ok_and(|stat| stat.contains(") Z"))
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < WITHIN, "{what}");
        pause();
    }
}

fn users(relay: &Running) -> usize {
    relay.ok(&["user", "list"]).lines().count()
}

#[test]
fn twenty_kills_of_the_relay_lose_nothing() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut relay = Running::start(&data);
    let server = server_pid(&data).unwrap();
    let mut starts = Vec::new();
    for round in 1..=20 {
        relay.ok(&["user", "add", &format!("user{round}@example.com")]);
        relay.kill();
        assert!(is_running(server), "the server outlives the relay");
        relay = Running::start(&data);
        starts.push(relay.started_in);
        assert_eq!(server_pid(&data), Some(server), "the new relay takes it over");
        assert_eq!(users(&relay), round);
    }
    starts.sort();
    println!("start after a kill: median {:?}, slowest {:?}", starts[10], starts[19]);
    assert!(starts[0] < Duration::from_secs(2), "{starts:?}");
    // An adopted server is stopped in order as well.
    relay.stop();
    assert!(!is_running(server) && server_pid(&data).is_none());
}

#[test]
fn five_kills_of_relay_and_server_lose_nothing() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut relay = Running::start(&data);
    for round in 1..=5 {
        relay.ok(&["user", "add", &format!("user{round}@example.com")]);
        let server = server_pid(&data).unwrap();
        kill_process(server, Signal::KILL).unwrap();
        relay.kill();
        relay = Running::start(&data);
        assert_eq!(users(&relay), round);
    }
    relay.stop();
}

#[test]
fn a_server_that_dies_comes_back_under_the_running_relay() {
    let dir = scratch();
    let data = dir.path().join("data");
    let relay = Running::start(&data);
    relay.ok(&["user", "add", "alice@example.com"]);
    for _ in 0..3 {
        let server = server_pid(&data).unwrap();
        kill_process(server, Signal::KILL).unwrap();
        until("the server comes back", || {
            server_pid(&data).is_some_and(|pid| pid != server) && relay.get("/readyz").0 == 200
        });
    }
    assert_eq!(relay.get("/healthz").0, 200);
    assert_eq!(users(&relay), 1);
    relay.stop();
    assert!(server_pid(&data).is_none());
}

#[test]
fn the_second_start_is_fast_and_the_first_leaves_nothing_behind() {
    let dir = scratch();
    let data = dir.path().join("data");
    let first = Running::start(&data);
    let server = server_pid(&data).unwrap();
    let (code, text) = refusal(&data, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(
        code == 1
            && text.contains("Another relay")
            && text.contains(&first.pid().as_raw_nonzero().to_string()),
        "{text}"
    );
    println!("first start: {:?}", first.started_in);
    first.stop();
    assert!(!is_running(server) && !data.join("relay.json").exists());
    let second = Running::start(&data);
    println!("second start: {:?}", second.started_in);
    assert!(second.started_in < Duration::from_secs(5));
    second.stop();
}

#[test]
fn a_lock_whose_number_went_to_another_process_is_seen_through() {
    let dir = scratch();
    let data = dir.path().join("data");
    let relay = Running::start(&data);
    let pid_file = data.join("postgres/data/postmaster.pid");
    let text = std::fs::read_to_string(&pid_file).unwrap();
    kill_process(server_pid(&data).unwrap(), Signal::KILL).unwrap();
    relay.kill();
    // As after a reboot: the number now belongs to a process that is no server.
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&pid_file, format!("{}\n{rest}", other.id())).unwrap();
    let relay = Running::start(&data);
    relay.stop();
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_is_no_cluster_or_of_another_version_is_left_alone() {
    let dir = scratch();
    let data = dir.path().join("data");
    Running::start(&data).stop();
    let version = data.join("postgres/data/PG_VERSION");
    let right = std::fs::read_to_string(&version).unwrap();
    std::fs::write(&version, "9\n").unwrap();
    let (code, text) = refusal(&data, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && text.contains("PostgreSQL 9") && text.contains("Nothing was changed"), "{text}");
    std::fs::remove_file(&version).unwrap();
    let (code, text) = refusal(&data, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && text.contains("is no PostgreSQL database"), "{text}");
    std::fs::write(&version, right).unwrap();
    // A cluster that was being made when the relay was killed is made anew.
    std::fs::create_dir(data.join("postgres/data.new")).unwrap();
    Running::start(&data).stop();
}

#[test]
fn a_very_long_data_directory_works() {
    let dir = scratch();
    let data = dir.path().join("a-directory-with-a-long-name".repeat(4)).join("data");
    std::fs::create_dir_all(data.parent().unwrap()).unwrap();
    let relay = Running::start(&data);
    assert_eq!(relay.get("/readyz").0, 200);
    relay.ok(&["login-link"]);
    relay.stop();
}

#[test]
fn a_directory_that_the_servers_user_cannot_enter_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    if !rustix::process::geteuid().is_root() {
        return; // Then the server's user is the relay's own.
    }
    let dir = scratch();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let data = closed.join("data");
    let (code, text) = refusal(&data, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(code == 1 && text.contains(&format!("chmod o+x {}", closed.display())), "{text}");
}
