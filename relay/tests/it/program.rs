//! The program as people run it: commands, sentences, exit codes, TLS.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_claudenest-relay");
/// Far above what anything here takes; reached only when something hangs.
const WITHIN: Duration = Duration::from_secs(60);

/// A directory that the database's user can reach, in memory where there is such a place.
pub fn scratch() -> TempDir {
    let base = Path::new("/dev/shm");
    let dir = if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() }.unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

/// Between two looks at something outside this process that gives no event.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// A relay that runs. Stopped when dropped.
pub struct Running {
    child: Child,
    pub data: PathBuf,
    pub note: Value,
    pub started_in: Duration,
}

pub fn command(data: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", data.parent().unwrap())
        .env("CLAUDENEST_RELAY_CONFIG", data.parent().unwrap().join("relay.toml"))
        .env("CLAUDENEST_RELAY_DATA_DIR", data)
        .stdin(Stdio::null());
    let config = data.parent().unwrap().join("relay.toml");
    if !config.exists() {
        std::fs::write(config, "").unwrap();
    }
    command
}

pub fn run(data: &Path, args: &[&str]) -> Output {
    command(data).args(args).output().unwrap()
}

/// Exit code and what was said.
pub fn refusal(data: &Path, args: &[&str]) -> (i32, String) {
    let output = run(data, args);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

impl Running {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &["--listen", "127.0.0.1:0"])
    }

    pub fn start_with(data: &Path, args: &[&str]) -> Self {
        let note_file = data.join("relay.json");
        let _ = std::fs::remove_file(&note_file);
        let since = Instant::now();
        let mut child = command(data)
            .arg("serve")
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Reads the log to its end, so that the relay never waits for a reader.
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut all = String::new();
            for line in log.lines().map_while(Result::ok) {
                let is_up = line.contains("the relay is ready");
                all += &line;
                all.push('\n');
                if is_up {
                    let _ = ready.send(Ok(()));
                }
            }
            let _ = ready.send(Err(all));
        });
        match is_ready.recv_timeout(WITHIN).expect("the relay starts or ends") {
            Ok(()) => {}
            Err(log) => panic!("the relay ended:\n{log}"),
        }
        let started_in = since.elapsed();
        let note = serde_json::from_slice(&std::fs::read(&note_file).unwrap()).unwrap();
        Self { child, data: data.to_owned(), note, started_in }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }

    pub fn listen(&self) -> &str {
        self.note["listen"].as_str().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn wait(&mut self) -> i32 {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(since.elapsed() < WITHIN, "the relay does not end");
            pause();
        }
    }

    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait(), 0);
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = run(&self.data, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        exchange(&mut TcpStream::connect(self.listen()).unwrap(), "GET", path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let stream = &mut TcpStream::connect(self.listen()).unwrap();
        let (status, body) = exchange(stream, "POST", path, Some(&body.to_string()));
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn exchange(
    stream: &mut (impl std::io::Read + std::io::Write),
    method: &str,
    path: &str,
    body: Option<&str>,
) -> (u16, String) {
    let body = body.unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut bytes = Vec::new();
    // TLS peers may close without saying so.
    let _ = stream.read_to_end(&mut bytes);
    let answer = String::from_utf8(bytes).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).unwrap_or("0").parse().unwrap(), body.to_owned())
}

#[test]
fn mistakes_in_the_configuration_are_named_with_their_line() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\n\nlogin_idle = 3\n").unwrap();
    let (code, text) = refusal(&data, &["serve"]);
    assert_eq!(code, 2);
    assert!(text.contains("line 3") && text.contains("login_idle") && text.contains("relay.toml"), "{text}");
    let (code, text) = refusal(&data, &["--config", "/nonexistent/x.toml", "serve"]);
    assert!(code == 2 && text.contains("/nonexistent/x.toml"), "{text}");
    std::fs::write(&config, "log = \"loud!!,=\"\n").unwrap();
    let (code, text) = refusal(&data, &["serve"]);
    assert!(code == 2 && text.contains("`log`"), "{text}");
    std::fs::write(&config, "").unwrap();
    for (args, part) in [
        (&["serve", "--listen", "0.0.0.0:0"][..], "--allow-plain-http"),
        (&["serve", "--listen", "nonsense"], "--listen"),
        (&["serve", "--tls-cert", "/x"], "tls_key"),
        (&["serve", "--public-url", "nest"], "public_url"),
        (&["serve", "--database-url", "mysql://x"], "postgres://"),
        (&["login-link", "--email", "nonsense"], "3"),
        (&["bogus"], "bogus"),
    ] {
        let (code, text) = refusal(&data, args);
        let is_expected = code == 2 || (args[0] == "login-link" && code == 3);
        assert!(is_expected && (text.contains(part) || code == 3), "{args:?}: {code} {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let dir = scratch();
    let data = dir.path().join("data");
    let (code, text) = refusal(&data, &["login-link"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("claudenest-relay serve"), "{text}");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let config = format!("postgres_bin_dir = {:?}\nlisten = \"127.0.0.1:0\"", dir.path().join("empty"));
    std::fs::write(dir.path().join("relay.toml"), config).unwrap();
    let (code, text) = refusal(&data, &["serve"]);
    assert!(code == 1 && text.contains("postgres_bin_dir") && text.contains("initdb"), "{text}");
    std::fs::write(dir.path().join("relay.toml"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, text) = refusal(&data, &["serve", "--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(code == 1 && text.contains("--listen"), "{text}");
    let (code, text) = refusal(
        &data,
        &["serve", "--listen", "127.0.0.1:0", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"],
    );
    assert!(code == 1 && text.contains("/nonexistent"), "{text}");
    let url = "postgres://nobody@localhost/x?host=/nonexistent";
    // An external database that never comes up is waited for; a wrong address of a socket is not worth a minute here.
    let mut child = command(&data)
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", url])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "it can be stopped while it waits");
    assert!(first.contains("does not answer yet"), "{first}");
}

#[test]
fn commands_print_what_they_promise() {
    let dir = scratch();
    let data = dir.path().join("data");
    let out = |args: &[&str]| {
        let output = run(&data, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&["completions", shell]).contains("login-link"), "{shell}");
    }
    assert!(out(&["man"]).contains(".TH claudenest-relay"));
    assert!(out(&["openapi"]).starts_with('{'));
    assert!(out(&["--version"]).starts_with("claudenest-relay "));
    let config = out(&["config"]);
    assert!(
        config.contains("listen = \"127.0.0.1:7450\"  # default") && config.contains("# environment"),
        "{config}"
    );
    let config: Value = serde_json::from_str(&out(&["config", "--json"])).unwrap();
    assert_eq!(config["settings"][0]["key"], "listen");
    // A reader that has seen enough is no error.
    let mut child = command(&data).arg("openapi").stdout(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_machine_is_paired_from_the_relays_host() {
    use claudenest_shared::id::PairingId;
    use claudenest_shared::pairing::{PairingCode, SasInput, commitment, decision_message, poll_message};
    use ed25519_dalek::{Signer as _, SigningKey};
    let hex = claudenest_relay::auth::login::hex;
    let dir = scratch();
    let relay = Running::start(&dir.path().join("data"));
    let link: Value = serde_json::from_str(&relay.ok(&[
        "login-link",
        "--email",
        "Alice@example.com",
        "--name",
        "Alice",
        "--json",
    ]))
    .unwrap();
    assert_eq!(
        (&link["user"]["role"], &link["user"]["email"]),
        (&json!("admin"), &json!("alice@example.com"))
    );
    assert!(
        link["url"].as_str().unwrap().starts_with(&format!("http://{}/login#token=cnl_", relay.listen()))
    );
    let (status, _) = relay.post("/api/auth/login-link", &json!({ "token": link["token"] }));
    assert_eq!(status, 200);
    assert_eq!(refusal(&relay.data, &["pair", "000-000"]).0, 4);
    assert_eq!(refusal(&relay.data, &["pair", "!"]).0, 2);

    let key = SigningKey::from_bytes(&[7; 32]);
    let (public, nonce) = (key.verifying_key().to_bytes(), [8; 32]);
    let (_, started) = relay.post(
        "/api/pairing/initiate",
        &json!({ "public_key": hex(&public), "commitment": hex(&commitment(&public, &nonce)), "facts": { "hostname": "castor" } }),
    );
    let code: PairingCode = started["code"].as_str().unwrap().parse().unwrap();
    let id: PairingId = started["pairing_id"].as_str().unwrap().parse().unwrap();
    let mut pair = command(&relay.data)
        .args(["pair", &code.to_string(), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(pair.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let claimed = next();
    assert_eq!((&claimed["event"], &claimed["facts"]["hostname"]), (&json!("claimed"), &json!("castor")));
    let poll = |sequence, reveal: Option<&[u8; 32]>| {
        let signature = hex(&key.sign(&poll_message(id, &code, sequence, reveal)).to_bytes());
        let body = json!({ "pairing_id": id, "sequence": sequence, "reveal": reveal.map(|nonce| hex(nonce)), "signature": signature });
        relay.post(&format!("/api/pairing/{code}/poll"), &body).1
    };
    let browser_nonce = poll(1, None)["browser_nonce"].as_str().unwrap().to_owned();
    let browser_nonce = claudenest_relay::auth::login::unhex(&browser_nonce).unwrap();
    assert_eq!(poll(2, Some(&nonce))["state"], "claimed");
    let sas = SasInput {
        pairing_id: id,
        public_key: &public,
        agent_nonce: &nonce,
        browser_nonce: &browser_nonce,
        account: "alice@example.com",
    };
    assert_eq!(next()["digits"], sas.digits());
    let signature = hex(&key.sign(&decision_message(true, &sas)).to_bytes());
    let (status, paired) = relay
        .post(&format!("/api/pairing/{code}/confirm"), &json!({ "pairing_id": id, "signature": signature }));
    assert_eq!(status, 200);
    let last = next();
    assert_eq!((&last["event"], &last["machine_id"]), (&json!("paired"), &paired["machine_id"]));
    assert!(pair.wait().unwrap().success());
    assert_eq!(relay.ok(&["user", "list"]).lines().count(), 1);
    relay.stop();
}

#[tokio::test]
async fn an_external_database_is_used_as_it_is() {
    let database = crate::pg::TestDb::new().await;
    let url = database.url();
    let dir = scratch();
    let data = dir.path().join("data");
    let args = ["--listen", "127.0.0.1:0", "--database-url", &url];
    let relay = Running::start_with(&data, &args);
    assert!(!data.join("postgres").exists());
    assert_eq!(relay.get("/readyz").0, 200);
    relay.ok(&["--database-url", &url, "user", "add", "alice@example.com"]);
    relay.stop();
    // With a database of its own, a link can be made while no relay runs; it says so.
    let output = run(&data, &["--database-url", &url, "login-link", "--email", "alice@example.com"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("#token=cnl_") && text.contains("No relay seems to run"), "{text}");
}

#[test]
fn tls_is_served_and_a_renewed_certificate_taken_into_use() {
    let dir = scratch();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.der().to_vec()
    };
    let first = renew();
    let args =
        ["--listen", "127.0.0.1:0", "--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let relay = Running::start_with(&dir.path().join("data"), &args);
    assert_eq!(relay.note["public_url"], format!("https://{}", relay.listen()));
    let presented = || {
        let seen: Arc<std::sync::Mutex<Vec<u8>>> = Arc::default();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Remember(seen.clone())))
        .with_no_client_auth();
        let mut client =
            rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut socket = TcpStream::connect(relay.listen()).unwrap();
        let (status, body) =
            exchange(&mut rustls::Stream::new(&mut client, &mut socket), "GET", "/healthz", None);
        assert_eq!((status, body.as_str()), (200, "ok\n"));
        std::mem::take(&mut *seen.lock().unwrap())
    };
    assert_eq!(presented(), first);
    // A pair that does not fit changes nothing.
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "rubbish").unwrap();
    relay.signal(Signal::HUP);
    assert_eq!(presented(), first);
    std::fs::write(&key, good).unwrap();
    let second = renew();
    relay.signal(Signal::HUP);
    let since = Instant::now();
    while presented() != second {
        assert!(since.elapsed() < WITHIN, "the new certificate is not taken into use");
        pause();
    }
    relay.stop();
}

/// Takes every certificate and remembers it.
#[derive(Debug)]
struct Remember(Arc<std::sync::Mutex<Vec<u8>>>);

impl rustls::client::danger::ServerCertVerifier for Remember {
    fn verify_server_cert(
        &self,
        end_entity: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = end_entity.to_vec();
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
