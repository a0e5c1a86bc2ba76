//! The harness itself: the fake Claude, the mock of the API with the real Claude Code, the proxy.

use anyhow::Result;
use claudenest_tests::claude::{Mock, real_claude};
use claudenest_tests::proxy::{Proxy, Weather};
use claudenest_tests::pty::Terminal;
use claudenest_tests::{PATIENCE, http::Http, process, program, scratch, sha256};

fn fake(home: &std::path::Path, script: &str) -> Result<Terminal> {
    let mut command = process::command(program("fake_claude"), home);
    command.env("FAKE_CLAUDE", script);
    Terminal::start(&command, 80, 24)
}

#[test]
fn the_fake_claude_says_what_it_printed() -> Result<()> {
    let home = scratch("fake");
    let file = home.path().join("sum");
    let script = format!("raw; wait go; print BEGIN; lines 2000 {}; print END; exit 7", file.display());
    let mut terminal = fake(home.path(), &script)?;
    terminal.write(b"go")?;
    assert_eq!(terminal.wait()?, 7);
    let bytes = terminal.bytes().to_vec();
    // Before raw mode the terminal may have echoed "go".
    let text = String::from_utf8(bytes)?;
    let body = &text[text.find("BEGIN").unwrap() + 5..text.rfind("END").unwrap()];
    let sum = std::fs::read_to_string(file)?;
    assert_eq!(sum.trim(), format!("{} {}", body.len(), sha256(body.as_bytes())));
    Ok(())
}

#[test]
fn the_fake_claude_reads_every_byte_of_a_paste() -> Result<()> {
    let home = scratch("fake");
    let file = home.path().join("sum");
    let paste: Vec<u8> = (0..300_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let script = format!("raw; print READY; read {} {}; exit 0", paste.len(), file.display());
    let mut terminal = fake(home.path(), &script)?;
    terminal.until_bytes("READY")?;
    terminal.write(&paste)?;
    assert_eq!(terminal.wait()?, 0);
    assert_eq!(std::fs::read_to_string(file)?.trim(), format!("{} {}", paste.len(), sha256(&paste)));
    Ok(())
}

#[test]
fn the_real_claude_answers_from_the_mock() -> Result<()> {
    let mock = Mock::start("tools.json")?;
    mock.script(&serde_json::json!({"turns": [{"content": ["The answer is forty-two."]}]}))?;
    let home = scratch("claude");
    let mut command = process::command(real_claude()?, home.path());
    command.args(["-p", "What is the answer?"]).envs(claudenest_tests::claude::environment(&mock));
    let answer = process::run(&mut command, PATIENCE)?.ok()?;
    assert!(answer.contains("forty-two"), "{answer}");
    assert!(!mock.requests()?.as_array().expect("a list").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_passes_on_storms_and_goes_away() -> Result<()> {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let target = server.local_addr()?.port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = server.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                .await;
        }
    });
    let proxy = Proxy::start(0, target).await?;
    let base = format!("http://127.0.0.1:{}", proxy.port());
    let get = move || {
        let client = Http::anonymous(&base);
        tokio::task::spawn_blocking(move || client.get("/"))
    };
    assert_eq!(get().await??.status, 200);
    proxy.set(Weather::Status(502));
    assert_eq!(get().await??.status, 502);
    proxy.set(Weather::Away);
    assert!(get().await?.is_err());
    proxy.wait_refused(2).await?;
    proxy.set(Weather::Clear);
    assert_eq!(get().await??.status, 200);
    Ok(())
}
