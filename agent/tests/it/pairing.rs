//! `pair` against a relay that says no in every way: the sentence says what happened and what to do, the exit code too.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::own::Own;

/// A relay that gives out a code and then answers the polls with these, one after the other; the last one again and again.
fn relay(initiate: Option<(u16, Value)>, polls: Vec<(u16, Value)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let site = address.clone();
    std::thread::spawn(move || {
        let mut polls = polls.into_iter().peekable();
        while let Ok((stream, _)) = listener.accept() {
            let began = json!({
                "pairing_id": "01900000-0000-7000-8000-000000000001", "code": "A7K-M2X",
                "expires_at": 0, "interval_ms": 200, "relay_url": site,
            });
            let mut next = || {
                let poll = polls.peek().cloned().unwrap();
                if polls.len() > 1 {
                    polls.next();
                }
                poll
            };
            answer(stream, |path| match path {
                "/api/pairing/initiate" => initiate.clone().unwrap_or((200, began)),
                "/api/pairing/A7K-M2X/poll" => next(),
                "/api/pairing/A7K-M2X/deny" => (204, Value::Null),
                other => panic!("{other} was asked for"),
            });
        }
    });
    address
}

fn answer(mut stream: TcpStream, answer: impl FnOnce(&str) -> (u16, Value)) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    let text = loop {
        let size = stream.read(&mut buffer).unwrap();
        assert!(size > 0, "a request that was cut");
        request.extend_from_slice(&buffer[..size]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break String::from_utf8_lossy(&request).into_owned();
        }
    };
    let (status, body) = answer(text.split(' ').nth(1).unwrap());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = format!(
        "HTTP/1.1 {status} X\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(answer.as_bytes());
}

fn refusal(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

fn state(state: &str) -> (u16, Value) {
    (200, json!({"state": state}))
}

#[test]
fn every_way_not_to_be_paired_has_its_sentence_and_exit_code() {
    let own = Own::new("exit");
    let busy = || (429, refusal("rate_limited", "Too many requests. Try again in 1 s."));
    let gone = || (404, refusal("pairing_not_found", "There is no such pairing."));
    let down = || (502, Value::Null);
    let again = "claudenest-agent pair";
    let cases = [
        ("expired", None, vec![state("pending"), state("expired")], 124, vec!["code has expired", again]),
        ("denied", None, vec![state("pending"), state("denied")], 5, vec!["cancelled in the browser", again]),
        ("forgotten", None, vec![state("pending"), gone()], 124, vec!["code has expired", again]),
        (
            "busy at first",
            Some(busy()),
            vec![state("pending")],
            5,
            vec!["Too many requests", "Try again in 1 s"],
        ),
        (
            "busy in between",
            None,
            vec![busy(), state("pending"), state("denied")],
            5,
            vec!["Still trying; the code stays valid", "The relay answers again", "cancelled in the browser"],
        ),
        (
            "a proxy without its relay",
            None,
            vec![down(), state("expired")],
            124,
            vec!["not the relay behind it", "Still trying", "code has expired"],
        ),
        ("not a relay", Some((200, json!("hello"))), vec![state("pending")], 1, vec!["Check the address"]),
    ];
    for (what, initiate, polls, wanted, texts) in cases {
        let relay = relay(initiate, polls);
        let args = ["pair", "--relay", &relay, "--expect-account", "alice@example.com"];
        let (code, stdout, stderr) = own.run(&args);
        assert_eq!(code, wanted, "{what}: {stdout}{stderr}");
        for text in texts {
            assert!(stderr.contains(text), "{what}: {text:?} is not in {stderr}");
        }
        assert!(!stderr.contains("panicked") && !own.path("data/relays.json").exists(), "{what}: {stderr}");
    }
    // For programs: every line is JSON, the last one is the error.
    let relay = relay(None, vec![state("expired")]);
    let args = ["pair", "--relay", &relay, "--expect-account", "alice@example.com", "--json"];
    let (code, stdout, _) = own.run(&args);
    let mut documents = serde_json::Deserializer::from_str(&stdout).into_iter::<Value>().map(Result::unwrap);
    let (first, last) = (documents.next().unwrap(), documents.last().unwrap());
    assert_eq!((code, first["code"].as_str()), (124, Some("A7K-M2X")));
    assert_eq!(last["error"]["code"], "timed_out");
}
