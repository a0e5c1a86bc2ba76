//! What belongs to one user does not exist for another, and nothing is there without a login.

use anyhow::{Result, ensure};
use claudenest_shared::code::ErrorCode;
use claudenest_shared::wire::browser::{BrowserMessage, ServerMessage};
use claudenest_tests::browser::Socket;
use claudenest_tests::http::Http;
use serde_json::{Value, json};

use crate::support::{World, id_of};

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_another_user_answer_404() -> Result<()> {
    let world = World::new().await?;
    let session = world.agent.new_session("secret", "raw; print SECRET; echo bye; exit 0")?;
    let id = id_of(&session)?;
    let machines = world.alice.get("/api/machines")?.ok()?;
    let machine = machines[0]["id"].as_str().unwrap_or_default().to_owned();
    let bob = world.relay.log_in("bob@example.com")?;
    ensure!(bob.get("/api/machines")?.ok()? == json!([]));
    ensure!(bob.get("/api/sessions")?.ok()? == json!([]));

    let requests: Vec<(&str, String, Option<Value>)> = vec![
        ("GET", format!("/api/machines/{machine}"), None),
        ("PATCH", format!("/api/machines/{machine}"), Some(json!({"name": "mine"}))),
        ("DELETE", format!("/api/machines/{machine}"), None),
        ("GET", format!("/api/machines/{machine}/directories?path="), None),
        ("POST", "/api/sessions".into(), Some(json!({"machine_id": machine, "spec": {"cwd": "~"}}))),
        ("GET", format!("/api/sessions/{id}"), None),
        ("PATCH", format!("/api/sessions/{id}"), Some(json!({"name": "mine"}))),
        ("DELETE", format!("/api/sessions/{id}"), None),
        ("POST", format!("/api/sessions/{id}/stop"), Some(json!({}))),
        ("POST", format!("/api/sessions/{id}/pause"), Some(json!({}))),
        ("POST", format!("/api/sessions/{id}/resume"), Some(json!({}))),
        ("POST", format!("/api/sessions/{id}/restart"), Some(json!({}))),
        ("POST", format!("/api/sessions/{id}/hibernate"), Some(json!({}))),
        ("POST", format!("/api/sessions/{id}/send"), Some(json!({"text": "x", "enter": true}))),
        ("GET", format!("/api/sessions/{id}/screen"), None),
    ];
    for (method, path, body) in &requests {
        let answer = bob.send(method, path, body.as_ref())?;
        ensure!(answer.status == 404 && answer.code() == "not_found", "{method} {path}: {answer:?}");
        // The same for an id that nobody has: the two cannot be told apart.
        let unknown = path
            .replace(&machine, &uuid::Uuid::now_v7().to_string())
            .replace(&id.to_string(), &uuid::Uuid::now_v7().to_string());
        let body = body.as_ref().map(|body| match body.get("machine_id") {
            Some(_) => json!({"machine_id": uuid::Uuid::now_v7(), "spec": {"cwd": "~"}}),
            None => body.clone(),
        });
        ensure!(
            bob.send(method, &unknown, body.as_ref())?.body == answer.body,
            "{method} {path} tells them apart"
        );
        let nobody = Http::anonymous(bob.base()).send(method, path, body.as_ref())?;
        ensure!(nobody.status == 401, "{method} {path} without a login: {nobody:?}");
    }

    let mut socket = Socket::open(&bob).await?;
    ensure!(socket.machines.is_empty() && socket.sessions.is_empty());
    socket
        .send(&BrowserMessage::Attach {
            channel: 1,
            session: id,
            from: None,
            writer: None,
            may_size: false,
            lag_limit_bytes: None,
            credit: 65_536,
        })
        .await?;
    let error = socket
        .wait_for(|message| match message {
            ServerMessage::Detached { channel: 1, error } => Some(error.clone()),
            ServerMessage::Attached { .. } => Some(None),
            _ => None,
        })
        .await?;
    ensure!(error.as_ref().is_some_and(|error| error.code == ErrorCode::NotFound), "{error:?}");
    ensure!(world.agent.show("secret")?["pid"] == session["pid"], "the session was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_csrf_token_or_from_a_foreign_origin_are_refused() -> Result<()> {
    let world = World::new().await?;
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let client: ureq::Agent = config.into();
    let url = format!("{}/api/ws-tickets", world.alice.base());
    let answer = client.post(&url).header("Cookie", world.alice.cookie()).send_json(json!({}))?;
    ensure!(answer.status() == 403, "without the token: {}", answer.status());
    let foreign = Socket::connect(&world.alice, "https://evil.example").await;
    ensure!(foreign.is_err(), "a socket from a foreign page was let in");
    Ok(())
}
