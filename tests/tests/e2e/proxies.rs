//! The relay behind NGINX, behind Caddy, and with a certificate of its own: a machine pairs and links, a browser types, over TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use claudenest_shared::session::Exit;
use claudenest_tests::agent::{Agent, OWNER};
use claudenest_tests::http::Http;
use claudenest_tests::process::{self, Running};
use claudenest_tests::relay::Relay;
use claudenest_tests::viewer::Viewer;
use claudenest_tests::{PATIENCE, free_port, repository, scratch};

use crate::support::{Certificate, id_of, wait_online};

/// A program that `make setup` unpacked or the system has.
fn tool(name: &str) -> Result<PathBuf> {
    let debs = repository().join(".tools/debs/usr");
    [debs.join("sbin").join(name), debs.join("bin").join(name)]
        .into_iter()
        .chain(
            ["/usr/sbin", "/usr/bin", "/opt/homebrew/bin", "/usr/local/bin"]
                .map(|dir| Path::new(dir).join(name)),
        )
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is missing: run `make setup`"))
}

/// Waits until something listens on the port.
async fn wait_listening(port: u16, running: &mut Running) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        ensure!(tokio::time::Instant::now() < deadline, "nothing listens:\n{}", running.output());
        tick.tick().await;
    }
    Ok(())
}

/// Pairs a machine over TLS, runs a session on it and types into it through the proxy.
async fn check(relay: &Relay, certificate: &Certificate) -> Result<()> {
    let mut agent = Agent::new()?;
    agent.set_env("CLAUDENEST_AGENT_EXTRA_CA", certificate.path("ca.pem").display().to_string());
    agent.pair(relay, OWNER)?;
    agent.run_daemon()?;
    let alice = Http::log_in_trusting(&relay.url(), &relay.login_token(OWNER)?, &certificate.path("ca.pem"))?;
    wait_online(&alice).await?;
    let session = agent.new_session("through", "raw; print HELLO; echo bye; exit 5")?;
    let mut viewer = Viewer::attach(&alice, id_of(&session)?).await?;
    viewer.until_text("HELLO").await?;
    viewer.write(b"typed through the proxy; bye").await?;
    viewer.until_text("through the proxy").await?;
    ensure!(viewer.until_exit().await? == Exit::Code { code: 5 });
    ensure!(viewer.seen().reconnects == 0, "{:?}", viewer.seen());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_nginx() -> Result<()> {
    let port = free_port();
    let certificate = Certificate::new("Proxies")?;
    let relay = Relay::start_with(&[], Some(&format!("https://127.0.0.1:{port}")))?;
    let sample = std::fs::read_to_string(repository().join("installers/nginx.conf"))?
        .replace("listen 443 ssl", &format!("listen 127.0.0.1:{port} ssl"))
        .replace("127.0.0.1:7450", &format!("127.0.0.1:{}", relay.port()))
        .replace(
            "/etc/letsencrypt/live/nest.example.com/fullchain.pem",
            &certificate.path("cert.pem").display().to_string(),
        )
        .replace(
            "/etc/letsencrypt/live/nest.example.com/privkey.pem",
            &certificate.path("key.pem").display().to_string(),
        );
    let dir = scratch("nginx");
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.path().display()))
        .collect();
    let config = format!(
        "{user} daemon off; pid {0}/pid; error_log stderr; events {{}} http {{ access_log off; {temp} {sample} }}",
        dir.path().display()
    );
    std::fs::write(dir.path().join("nginx.conf"), config)?;
    let mut command: Command = process::command(tool("nginx")?, dir.path());
    command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
    let mut nginx = Running::start(command, None)?;
    wait_listening(port, &mut nginx).await?;
    check(&relay, &certificate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_caddy() -> Result<()> {
    let port = free_port();
    let certificate = Certificate::new("Proxies")?;
    let relay = Relay::start_with(&[], Some(&format!("https://127.0.0.1:{port}")))?;
    let files =
        format!("{} {}", certificate.path("cert.pem").display(), certificate.path("key.pem").display());
    let sample = std::fs::read_to_string(repository().join("installers/Caddyfile"))?
        .replace(
            "nest.example.com {",
            &format!("https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {files}"),
        )
        .replace("127.0.0.1:7450", &format!("127.0.0.1:{}", relay.port()));
    let dir = scratch("caddy");
    std::fs::write(
        dir.path().join("Caddyfile"),
        format!("{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{sample}"),
    )?;
    let mut command = process::command(tool("caddy")?, dir.path());
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.path().join("Caddyfile"));
    let mut caddy = Running::start(command, None)?;
    wait_listening(port, &mut caddy).await?;
    check(&relay, &certificate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_of_its_own() -> Result<()> {
    let certificate = Certificate::new("Proxies")?;
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let args = ["--tls-cert", &cert.display().to_string(), "--tls-key", &key.display().to_string()];
    let port = free_port();
    let relay = Relay::start_on(port, &args, Some(&format!("https://127.0.0.1:{port}")))?;
    check(&relay, &certificate).await
}
