//! Hibernation, the memory limit and reboots with a real daemon, real holders and a Claude that reports by real hooks.

use std::collections::BTreeSet;

use claudenest_agent::holder::Recording;
use claudenest_agent::store::Store;
use serde_json::Value;

use crate::holder::program;
use crate::nest::PATIENCE;
use crate::own::Own;

/// A Claude that keeps a conversation in its own way: it says how it was started, reports a turn, and does what is
/// typed.
fn claude() -> String {
    let script = r#"
case "$1" in --version) echo '2.1.329 (Claude Code)'; exit 0;; auth) echo '{"loggedIn": true}'; exit 0;; esac
how=new id=
while [ $# -gt 0 ]; do
    case "$1" in
        --session-id) id=$2; shift;;
        --resume) how=resume id=$2; shift;;
        --settings | --name) shift;;
        --) prompt=$2;;
    esac
    shift
done
hook() { printf '{"hook_event_name":"%s","session_id":"%s","cwd":"%s","source":"%s"}' "$1" "$id" "$PWD" "${2:-}" | AGENT hook; }
turn() { hook UserPromptSubmit; hook Stop; }
trap 'exit 143' TERM
hook SessionStart "$([ $how = new ] && echo startup || echo resume)"
turn
echo "I am $how with <${prompt:-}>"
while read -r line; do
    case "$line" in
        eat) { head -c 150000000 /dev/zero; exec sleep 1000; } | tail & echo eating;;
        *) turn; echo "said $line";;
    esac
done
"#;
    script.replace("AGENT", program().to_str().unwrap())
}

fn own(config: &str) -> Own {
    let mut own = Own::new(&claude());
    std::fs::write(own.path("config.toml"), config).unwrap();
    own.start();
    own
}

fn start(own: &Own, name: &str) -> Value {
    own.json(&["session", "new", "--name", name]);
    wait(own, name, "waiting-input")
}

fn wait(own: &Own, name: &str, state: &str) -> Value {
    let patience = format!("{}s", PATIENCE.as_secs());
    own.json(&["session", "wait", name, "--for", state, "--timeout", &patience])
}

fn show(own: &Own, name: &str) -> Value {
    own.json(&["session", "show", name])
}

fn text<'a>(info: &'a Value, key: &str) -> &'a str {
    info[key].as_str().unwrap_or_default()
}

fn pid(info: &Value) -> i32 {
    i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
}

fn is_alive(pid: i32) -> bool {
    // A zombie is not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn an_idle_session_that_nobody_watches_hibernates_and_a_message_wakes_it() {
    let mut own = own("hibernate_after = \"1s\"\n");
    let watched = start(&own, "watched");
    let mut terminal = own.terminal(&["attach", "watched"], 80, 24);
    terminal.until("I am new");
    let idle = start(&own, "idle");
    let asleep = wait(&own, "idle", "hibernated");
    assert_eq!(asleep["pid"], Value::Null);
    assert!(text(&asleep, "state_reason").contains("wake it"), "{asleep}");
    assert!(asleep["is_resumable"] == true && asleep["claude_session_id"] == idle["claude_session_id"]);
    crate::wait::until_true("the process is gone", || !is_alive(pid(&idle))).await;
    // It was idle for longer, but somebody looks at it.
    assert_eq!(show(&own, "watched")["pid"], watched["pid"]);
    terminal.write(b"\x1dd");
    assert_eq!(terminal.wait().0, 0);
    wait(&own, "watched", "hibernated");

    // It sleeps over a killed daemon, and a message wakes it as the conversation that it was.
    own.kill_daemon();
    own.start();
    assert_eq!(text(&show(&own, "idle"), "state"), "hibernated");
    own.json(&["session", "send", "idle", "good morning"]);
    let awake = wait(&own, "idle", "waiting-input");
    assert_eq!((&awake["id"], awake["epoch"].as_u64()), (&idle["id"], Some(2)));
    assert_eq!(awake["claude_session_id"], idle["claude_session_id"]);
    let mut terminal = own.terminal(&["attach", "idle"], 80, 24);
    terminal.until("I am resume with <good morning>");
}

#[tokio::test]
async fn a_session_that_takes_too_much_memory_is_warned_of_or_ended_with_all_its_processes() {
    for is_ended in [false, true] {
        let policy = if is_ended { "end" } else { "warn" };
        let own = own(&format!("memory_limit = \"64MiB\"\nmemory_policy = \"{policy}\"\n"));
        let hungry = start(&own, "hungry");
        let modest = start(&own, "modest");
        let processes = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .filter(|child| {
                    std::fs::read_link(format!("/proc/{child}/cwd")).is_ok_and(|cwd| cwd == own.path("work"))
                })
                .filter(|child| *child != pid(&hungry) && is_alive(*child))
                .collect::<BTreeSet<i32>>()
        };
        let others = processes();
        own.json(&["session", "send", "hungry", "eat"]);
        if is_ended {
            let ended = own.json(&["session", "wait", "hungry"]);
            assert_eq!(text(&ended, "state"), "terminated");
            assert!(text(&ended, "state_reason").contains("more memory than allowed"), "{ended}");
            assert_eq!(ended["exit"]["code"], 143, "it was asked first");
            crate::wait::until_true("nothing of it is left", || processes().is_subset(&others)).await;
            assert!(!is_alive(pid(&hungry)));
            // Its conversation is not lost with it.
            assert_eq!(ended["is_resumable"], true);
            own.json(&["session", "restart", "hungry"]);
            let again = wait(&own, "hungry", "waiting-input");
            assert_eq!(again["claude_session_id"], hungry["claude_session_id"]);
            own.terminal(&["attach", "hungry"], 80, 24).until("I am resume");
        } else {
            let warned =
                || text(&show(&own, "hungry"), "state_reason").contains("MiB of memory, more than allowed");
            crate::wait::until_true("the warning", warned).await;
            assert_eq!(show(&own, "hungry")["pid"], hungry["pid"], "a warning ends nothing");
        }
        assert_eq!(show(&own, "modest")["pid"], modest["pid"], "others are left alone");
    }
}

/// Everything is gone at once, as after a power cut; then a new daemon, with or without a new boot of the machine.
#[tokio::test]
async fn after_a_reboot_conversations_are_offered_under_the_same_identity() {
    for is_rebooted in [true, false] {
        let mut own = own("");
        let claude = start(&own, "claude");
        own.shell("shell");
        let shell = wait(&own, "shell", "running");
        // What a keeper has not written yet goes with the machine: 50 ms at most.
        let run = own.path("data/sessions").join(text(&claude, "id")).join("1");
        let recorded = || Recording::of(&run).read(0, 4096).unwrap().unwrap_or_default();
        crate::wait::until_true("the recording", || {
            String::from_utf8_lossy(&recorded()).contains("I am new")
        })
        .await;
        own.kill_daemon();
        for child in [pid(&claude), pid(&shell)] {
            let holder = parent(child);
            kill(holder);
            kill(child);
            crate::wait::until_true("both are gone", || !is_alive(holder) && !is_alive(child)).await;
        }
        if is_rebooted {
            let store = Store::open(&own.path("data")).await.unwrap();
            for mut record in store.sessions().await.unwrap() {
                assert!(record.boot_id.is_some());
                record.boot_id = Some("another boot".to_owned());
                store.save_session(&record).await.unwrap();
            }
            store.close().await;
        }
        own.start();
        let found = show(&own, "claude");
        let (state, reason) = if is_rebooted {
            ("hibernated", "the machine restarted; the conversation can be resumed")
        } else {
            ("failed", "its keeper process was killed")
        };
        assert_eq!((text(&found, "state"), text(&found, "state_reason")), (state, reason));
        assert_eq!((&found["id"], &found["pid"]), (&claude["id"], &Value::Null));
        assert!(found["exit"]["kind"] == "lost" && found["is_resumable"] == true, "{found}");
        let other = show(&own, "shell");
        assert_eq!((text(&other, "state"), other["is_resumable"].as_bool()), ("failed", Some(false)));
        // What was on the screen is still there, and the conversation goes on.
        assert!(own.run(&["session", "screen", "claude"]).1.contains("I am new"));
        own.json(&["session", "restart", "claude"]);
        let again = wait(&own, "claude", "waiting-input");
        assert_eq!((&again["id"], again["epoch"].as_u64()), (&claude["id"], Some(2)));
        assert_eq!(again["claude_session_id"], claude["claude_session_id"]);
        own.terminal(&["attach", "claude"], 80, 24).until("I am resume");
    }
}
