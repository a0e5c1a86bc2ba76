//! What belongs to one user does not exist for another: every route with an id, found in the document.

use axum::http::{Method, StatusCode};
use claudenest_relay::db::{approval, lock, session};
use claudenest_shared::approval::Approval;
use claudenest_shared::id::{MachineId, SessionId};
use claudenest_shared::lock::Lock;
use claudenest_shared::session::{Exit, SessionInfo, SessionMode, SessionState, TermSize};
use claudenest_shared::time::UnixMs;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::harness::{Browser, Relay};
use crate::pairing::Agent;

/// One of everything that has an id.
struct Things {
    machine: String,
    session: String,
    login: String,
    enrolment: String,
    pairing: String,
    approval: String,
    lock: String,
}

impl Things {
    async fn of(owner: &Browser<'_>) -> Self {
        let relay = owner.relay;
        let machine =
            Agent::new(relay).pair_with(owner).await.body["machine_id"].as_str().unwrap().to_owned();
        let session = SessionId(Uuid::now_v7());
        let machine_id: MachineId = machine.parse().unwrap();
        session::upsert(&relay.db, machine_id, &session_info(session), relay.now()).await.unwrap();
        let asked: Approval = serde_json::from_value(crate::guard::ask(1)).unwrap();
        approval::upsert(&relay.db, machine_id, 1, &asked, relay.now()).await.unwrap();
        let held: Lock = serde_json::from_value(crate::guard::held(1)).unwrap();
        lock::upsert(&relay.db, machine_id, 1, &held).await.unwrap();
        let logins = owner.get("/api/auth/sessions").await.body;
        let enrolment = owner.post("/api/enrolment-tokens", json!({ "label": "x" })).await.body;
        let agent = Agent::new(relay);
        let started = agent.initiate().await;
        agent.claimed_by(owner, &started).await;
        Self {
            machine,
            session: session.to_string(),
            login: logins[0]["id"].as_str().unwrap().to_owned(),
            enrolment: enrolment["id"].as_str().unwrap().to_owned(),
            pairing: started.id.to_string(),
            approval: asked.id.to_string(),
            lock: held.id.to_string(),
        }
    }

    /// The path with the id that belongs there. A route of a new kind must be added here.
    fn fill(&self, path: &str) -> String {
        let path = path.replace("{machine_id}", &self.machine);
        let parts: Vec<&str> = path.split('/').collect();
        let id = match parts[2] {
            "machines" if parts.get(4) == Some(&"approvals") => &self.approval,
            "machines" if parts.get(4) == Some(&"locks") && parts.len() > 5 => &self.lock,
            "machines" => &self.machine,
            "sessions" => &self.session,
            "auth" => &self.login,
            "enrolment-tokens" => &self.enrolment,
            "pairing" => &self.pairing,
            other => panic!("which id belongs into {path}? ({other})"),
        };
        path.replace("{id}", id).replace("{pairing_id}", id)
    }
}

pub fn session_info(id: SessionId) -> SessionInfo {
    SessionInfo {
        id,
        name: "fix-login".to_owned(),
        machine_id: None,
        mode: SessionMode::Shell,
        cwd: "/srv".to_owned(),
        state: SessionState::Completed,
        state_since: UnixMs(1),
        state_reason: None,
        state_notes: Vec::new(),
        state_source: claudenest_shared::session::StateSource::Process,
        created_at: UnixMs(1),
        started_at: None,
        ended_at: Some(UnixMs(2)),
        pid: None,
        exit: Some(Exit::Code { code: 0 }),
        size: TermSize::default(),
        size_owner: None,
        model: None,
        permission_mode: None,
        title: None,
        claude_session_id: None,
        worktree: None,
        viewers: 0,
        epoch: 0,
        output_bytes: 3,
        attempts: 1,
        is_resumable: false,
        resources: None,
        recording_problem: None,
    }
}

/// Routes of the document with an id in the path and a login: method, path, a body that is accepted.
fn routes_with_ids() -> Vec<(Method, String, Option<Value>)> {
    let document: Value = serde_json::from_str(&claudenest_relay::http::openapi::document_json()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation.get("security").unwrap_or(&document["security"]);
            let needs_login = security.as_array().unwrap().iter().any(|way| way.get("login").is_some());
            if path.contains('{') && needs_login {
                let body = operation.pointer("/requestBody/content/application~1json/schema/$ref");
                let body = body.map(|name| example(&document, name.as_str().unwrap()));
                routes.push((method.to_uppercase().parse().unwrap(), path.clone(), body));
            }
        }
    }
    routes
}

/// The least that a schema accepts.
fn example(document: &Value, reference: &str) -> Value {
    let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = required.iter().map(|name| {
        let name = name.as_str().unwrap();
        let field = &schema["properties"][name];
        let value = match (field["type"].as_str(), field["$ref"].as_str()) {
            (_, Some(reference)) => example(document, reference),
            (Some("string"), _) => json!("a"),
            (Some("boolean"), _) => json!(false),
            (Some("integer"), _) => json!(0),
            other => panic!("no example for {name} of type {other:?}"),
        };
        (name.to_owned(), value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

#[tokio::test]
async fn another_users_ids_do_not_exist() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let things = Things::of(&alice).await;
    let before = crate::pairing::dump(&relay).await;
    let routes = routes_with_ids();
    assert!(routes.len() >= 18, "{routes:?}");
    for (method, path, body) in &routes {
        let foreign = bob.call(method.clone(), &things.fill(path), body.clone()).await;
        assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{method} {path}: {:?}", foreign.body);
        // And it looks exactly like one that nobody has.
        let nobody = path
            .replace("{id}", &Uuid::now_v7().to_string())
            .replace("{pairing_id}", &Uuid::now_v7().to_string())
            .replace("{machine_id}", &Uuid::now_v7().to_string());
        let unknown = bob.call(method.clone(), &nobody, body.clone()).await;
        assert_eq!(foreign.shape(), unknown.shape(), "{method} {path}");
    }
    let listed = bob.get(&format!("/api/sessions?machine_id={}", things.machine)).await;
    assert_eq!(listed.status, StatusCode::NOT_FOUND);
    let create = json!({ "machine_id": things.machine, "spec": { "cwd": "/" } });
    assert_eq!(bob.post("/api/sessions", create).await.status, StatusCode::NOT_FOUND);
    for path in ["/api/machines", "/api/sessions", "/api/enrolment-tokens", "/api/locks"] {
        assert_eq!(bob.get(path).await.body, json!([]), "{path}");
        assert_eq!(alice.get(path).await.body.as_array().unwrap().len(), 1, "{path}");
    }
    assert_eq!(bob.get("/api/approvals").await.body["approvals"], json!([]));
    assert_eq!(before, crate::pairing::dump(&relay).await, "nothing was changed");
    // The same requests of the owner find something (offline machines refuse, which is another answer).
    for (method, path, body) in routes.iter().filter(|route| route.0 != Method::DELETE) {
        let own = alice.call(method.clone(), &things.fill(path), body.clone()).await;
        assert_ne!(own.status, StatusCode::NOT_FOUND, "{method} {path}: {:?}", own.body);
    }
}

#[tokio::test]
async fn two_machines_with_the_same_session_id_do_not_meet() {
    let relay = Relay::new().await;
    let alice = relay.log_in("alice@example.com").await;
    let bob = relay.log_in("bob@example.com").await;
    let id = SessionId(Uuid::now_v7());
    for (owner, name) in [(&alice, "hers"), (&bob, "his")] {
        let machine =
            Agent::new(&relay).pair_with(owner).await.body["machine_id"].as_str().unwrap().to_owned();
        let info = SessionInfo { name: name.to_owned(), ..session_info(id) };
        session::upsert(&relay.db, machine.parse().unwrap(), &info, relay.now()).await.unwrap();
    }
    let path = format!("/api/sessions/{id}");
    assert_eq!(alice.get(&path).await.body["name"], "hers");
    assert_eq!(bob.get(&path).await.body["name"], "his");
}
