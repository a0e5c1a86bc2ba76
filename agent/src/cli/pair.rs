//! `pair` and `unpair`.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use claudenest_shared::code::ErrorCode;
use claudenest_shared::secret::Secret;
use claudenest_shared::time::UnixMs;
use claudenest_shared::token::{self, TokenKind};
use serde_json::json;

use super::Context;
use super::args::{PairArgs, UnpairArgs};
use super::exit::{Exit, fail};
use super::output::{now, print_json, say};
use crate::claude::{Claude, Surroundings};
use crate::control::{Client, Identity};
use crate::credential::{PairedRelay, Relays, Vault, hex};
use crate::directory::Roots;
use crate::pairing::{self, Claim, PairError, Paired, Person, Shown};
use crate::relay_http::{CallError, RelayHttp};
use crate::relay_url::RelayUrl;
use crate::tls::Trust;

/// How this machine says yes.
enum Consent {
    /// A person at the terminal.
    Ask,
    /// This account and no other.
    Expect(String),
    /// An enrolment token.
    Token(Secret<String>),
}

pub(super) async fn pair(context: &Context, args: PairArgs) -> anyhow::Result<ExitCode> {
    let config = &context.effective.config;
    let allow_plain = config.allow_plain_http || args.allow_plain_http;
    let address = args.relay.as_deref().unwrap_or(&config.relay);
    let url = RelayUrl::parse(address, allow_plain).map_err(|error| fail(Exit::Usage, error.to_string()))?;
    let consent = consent(&args)?;
    context.paths.ensure()?;
    let mut extra_ca = Vec::new();
    for path in &args.extra_ca {
        extra_ca.push(std::path::absolute(path).with_context(|| format!("Cannot use {}", path.display()))?);
    }
    let trust: Vec<_> = config.extra_ca.iter().chain(&extra_ca).cloned().collect();
    let trust = Trust::load(&trust)?;
    let relay = RelayHttp::new(url.clone(), &trust);
    let vault = Vault::open(&context.paths, config.credential_store);
    let known = Relays::load(&context.paths)?;
    let identity = vault.identity(!known.relays.is_empty())?;
    let facts = facts(context);
    let paired = match &consent {
        Consent::Token(token) => pairing::enrol(relay, &identity, &facts, token).await,
        Consent::Ask | Consent::Expect(_) => {
            let mut person = Terminal { consent: &consent, json: context.json, qr: !args.no_qr, wrong: None };
            let cancel = async {
                // Without a handler for Ctrl-C there is nothing to wait for.
                if tokio::signal::ctrl_c().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let result = pairing::pair(relay, &identity, &facts, &mut person, cancel).await;
            match (result, person.wrong, &consent) {
                (Err(PairError::Declined), Some(account), Consent::Expect(expected)) => {
                    Err(PairError::WrongAccount { account, expected: expected.clone() })
                }
                (result, ..) => result,
            }
        }
    };
    let paired = paired.map_err(failure)?;
    keep(context, &vault, &url, &paired, allow_plain, extra_ca)?;
    let is_told = tell_daemon(context).await;
    let store = vault.choice();
    if context.json {
        print_json(&json!({
            "event": "paired", "relay": url.to_string(), "account": paired.account,
            "machine_id": paired.machine_id, "machine_name": paired.machine_name,
            "daemon_running": is_told, "credential_store": store,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    say!("Paired: this machine is \"{}\" of {} at {url}.", paired.machine_name, paired.account);
    if let Some(crate::credential::StoreChoice {
        kind: crate::credential::StoreKind::File,
        reason: Some(reason),
    }) = store
    {
        say!("The token is in a file with mode 0600, because no keyring can be used: {reason}.");
    }
    if is_told {
        say!("The daemon connects now. See: claudenest-agent status");
    } else {
        say!("Start the daemon, and the machine is online: claudenest-agent service install");
        say!("(or in this terminal: claudenest-agent run)");
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: PairError) -> anyhow::Error {
    let exit = match &error {
        PairError::Declined
        | PairError::Interrupted
        | PairError::Cancelled
        | PairError::WrongAccount { .. }
        | PairError::Changed => Exit::Refused,
        PairError::Expired => Exit::TimedOut,
        PairError::Call(CallError::Refused { error, .. }) => Exit::of(error.code),
        _ => Exit::Failed,
    };
    fail(exit, error.to_string())
}

/// Finds out how this machine will say yes, before anything is asked of the relay.
fn consent(args: &PairArgs) -> anyhow::Result<Consent> {
    let text = match (&args.token, &args.token_file) {
        (Some(text), _) if text == "-" => Some(read_token(std::io::stdin().lock(), "standard input")?),
        (Some(text), _) => Some(text.clone()),
        (None, Some(path)) if path.as_os_str() == "-" => {
            Some(read_token(std::io::stdin().lock(), "standard input")?)
        }
        (None, Some(path)) => {
            let file = std::fs::File::open(path)
                .with_context(|| format!("The token file {} cannot be read", path.display()))?;
            Some(read_token(file, &path.display().to_string())?)
        }
        (None, None) => None,
    };
    if let Some(text) = text {
        let text = text.trim().to_owned();
        if !token::is_well_formed(TokenKind::Enrolment, &text) {
            let message = "This is not an enrolment token: it begins with cne_ and has 40 characters. \
                           Copy it again from the web app, under \"Pair a machine\".";
            return Err(fail(Exit::Usage, message));
        }
        return Ok(Consent::Token(Secret::new(text)));
    }
    if let Some(account) = &args.expect_account {
        return Ok(Consent::Expect(account.trim().to_lowercase()));
    }
    if std::io::stdin().is_terminal() {
        return Ok(Consent::Ask);
    }
    Err(fail(
        Exit::Usage,
        "Pairing needs a person who confirms, and there is no terminal. Run it in a terminal, or give an \
         enrolment token from the web app (--token-file FILE, or --token - to read it from standard input), \
         or name the only account that may claim this machine (--expect-account EMAIL).",
    ))
}

fn read_token(mut from: impl Read, name: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    // A token has 40 characters; a wrong file must not fill the memory.
    from.by_ref().take(4096).read_to_string(&mut text).with_context(|| format!("No token in {name}"))?;
    Ok(text)
}

/// What the relay shows to the person who claims this machine.
fn facts(context: &Context) -> claudenest_shared::machine::MachineFacts {
    let config = &context.effective.config;
    let program = std::env::current_exe().unwrap_or_default();
    let settings = crate::supervisor::Settings::new(config, &context.paths, program);
    let surroundings: &Surroundings = &settings.surroundings;
    let search_path =
        surroundings.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let claude = Claude::new(settings.claude_path.clone(), surroundings.home.clone(), search_path);
    let roots = Roots::new(surroundings.home.clone(), &settings.roots);
    let env = crate::claude::command::clean_environment(surroundings, &Default::default());
    crate::facts::gather(&claude, &env, &roots, config.max_sessions)
}

fn keep(
    context: &Context,
    vault: &Vault,
    url: &RelayUrl,
    paired: &Paired,
    allow_plain_http: bool,
    extra_ca: Vec<std::path::PathBuf>,
) -> anyhow::Result<()> {
    let url = url.to_string();
    vault.set_token(&url, &paired.token).with_context(|| {
        format!(
            "The relay has paired this machine as \"{}\", but its token cannot be kept. Remove the machine in the web app and pair again",
            paired.machine_name
        )
    })?;
    let mut relays = Relays::load(&context.paths)?;
    relays.put(PairedRelay {
        url,
        account: paired.account.clone(),
        machine_id: paired.machine_id,
        machine_name: paired.machine_name.clone(),
        paired_at: now(),
        allow_plain_http,
        extra_ca,
    });
    Ok(relays.save(&context.paths)?)
}

/// Tells a running daemon; false if none runs.
async fn tell_daemon(context: &Context) -> bool {
    match Client::connect(&context.paths.control_socket(), &Identity::Operator).await {
        Ok(mut client) => client.reload_relays().await.is_ok(),
        Err(_) => false,
    }
}

/// The person at the terminal, or the account that stands for one.
struct Terminal<'a> {
    consent: &'a Consent,
    json: bool,
    qr: bool,
    wrong: Option<String>,
}

impl Person for Terminal<'_> {
    fn show_code(&mut self, shown: &Shown) {
        if self.json {
            return print_json(&json!({
                "event": "code", "code": shown.code.to_string(), "url": shown.url,
                "relay": shown.relay, "expires_at": shown.expires_at,
            }));
        }
        say!("");
        say!("    Pairing code:   {}", shown.code);
        say!("");
        if self.qr && std::io::stdout().is_terminal() {
            match qr(&shown.url) {
                Some(qr) => say!("{qr}"),
                None => tracing::debug!("the address does not fit into a QR code"),
            }
        }
        say!("  Enter the code at {}/pair, or open", shown.relay);
        say!("  {}", shown.url);
        say!("");
        say!("  It is valid for {}. Ctrl-C cancels.", left(shown.expires_at));
        let _ = std::io::stdout().flush();
    }

    async fn ask(&mut self, claim: &Claim) -> bool {
        let from = claim.address.as_deref().map(|address| format!(" from {address}")).unwrap_or_default();
        if self.json {
            print_json(&json!({
                "event": "claimed", "account": claim.account, "address": claim.address, "digits": claim.digits,
            }));
        } else {
            say!("");
            say!("  {}{from} wants this machine.", claim.account);
            say!("  Whoever has it can run programs here in your name.");
            say!("");
            say!("    {} {}     must be the same in the browser", &claim.digits[..3], &claim.digits[3..]);
            say!("");
        }
        if let Consent::Expect(expected) = self.consent {
            let is_expected = claim.account.to_lowercase() == *expected;
            if !is_expected {
                self.wrong = Some(claim.account.clone());
            }
            return is_expected;
        }
        eprint!("  Is this your account, and are the digits the same? [y/N] ");
        let _ = std::io::stderr().flush();
        let (sender, answer) = tokio::sync::oneshot::channel();
        // A thread of its own: a read of the terminal cannot be cancelled, and the process may end while it waits.
        let reader = std::thread::Builder::new().name("answer".to_owned()).spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            let is_yes =
                read.is_ok() && matches!(line.trim().to_lowercase().as_str(), "y" | "yes" | "o" | "oui");
            let _ = sender.send(is_yes);
        });
        reader.is_ok() && answer.await.unwrap_or(false)
    }

    fn note(&mut self, text: &str) {
        if self.json {
            print_json(&json!({"event": "note", "message": text}));
        } else {
            eprintln!("  {text}");
        }
    }
}

fn left(expires_at: UnixMs) -> String {
    // By the relay's clock; ours may differ by minutes, and then the rule says it better.
    let minutes = expires_at.since(now()).div_ceil(60_000);
    if (1..=15).contains(&minutes) { format!("{minutes} minutes") } else { "10 minutes".to_owned() }
}

/// A QR code in half blocks with its quiet zone; `None` if the text is too long for one.
pub(super) fn qr(text: &str) -> Option<String> {
    let code = qrcode::QrCode::with_error_correction_level(text, qrcode::EcLevel::L).ok()?;
    let width = code.width();
    let colors = code.to_colors();
    // Two modules of quiet zone are enough for phones, and keep the code inside 80 × 24.
    const QUIET: usize = 2;
    let is_dark = |x: usize, y: usize| {
        let (Some(x), Some(y)) = (x.checked_sub(QUIET), y.checked_sub(QUIET)) else { return false };
        x < width && y < width && colors[y * width + x] == qrcode::Color::Dark
    };
    let side = width + 2 * QUIET;
    let mut out = String::new();
    for y in (0..side).step_by(2) {
        // Dark modules black on white, whatever the colours of the terminal.
        out.push_str("    \x1b[30;107m");
        for x in 0..side {
            out.push(match (is_dark(x, y), is_dark(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push_str("\x1b[0m\n");
    }
    Some(out)
}

pub(super) async fn unpair(context: &Context, args: UnpairArgs) -> anyhow::Result<ExitCode> {
    let config = &context.effective.config;
    let mut relays = Relays::load(&context.paths)?;
    let relay = match (&args.relay, relays.relays.as_slice()) {
        (_, []) => return Err(fail(Exit::NotFound, "This machine is not paired with any relay.")),
        (Some(wanted), _) => {
            let url = RelayUrl::parse(wanted, true).map_err(|error| fail(Exit::Usage, error.to_string()))?;
            let known: Vec<_> = relays.relays.iter().map(|relay| relay.url.as_str()).collect();
            let message =
                format!("This machine is not paired with {url}. It is paired with: {}.", known.join(", "));
            relays.find(&url.to_string()).cloned().ok_or_else(|| fail(Exit::NotFound, message))?
        }
        (None, [only]) => only.clone(),
        (None, several) => {
            let urls: Vec<_> = several.iter().map(|relay| format!("  {}", relay.url)).collect();
            let message = format!(
                "This machine is paired with several relays. Name one with --relay:\n{}",
                urls.join("\n")
            );
            return Err(fail(Exit::Usage, message));
        }
    };
    let vault = Arc::new(Vault::open(&context.paths, config.credential_store));
    let told = tell_relay(context, &vault, &relay).await;
    if let Err(reason) = &told
        && !args.force
    {
        let message = format!(
            "The relay was not told, so this machine is still paired: {reason}\n\
             To forget the pairing all the same: claudenest-agent unpair --force (then remove the machine in the web app)."
        );
        return Err(fail(Exit::Failed, message));
    }
    relays.remove(&relay.url);
    relays.save(&context.paths)?;
    if let Err(error) = vault.delete_token(&relay.url) {
        eprintln!("The token of {} could not be removed: {error}", relay.url);
    }
    tell_daemon(context).await;
    if context.json {
        print_json(&json!({"relay": relay.url, "unpaired": true, "relay_told": told.is_ok()}));
    } else if told.is_ok() {
        say!("Unpaired from {}. Sessions on this machine go on.", relay.url);
    } else {
        say!(
            "Forgot the pairing with {}. Remove the machine \"{}\" in its web app.",
            relay.url,
            relay.machine_name
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Gives the token up at the relay. A token that is not valid any more is as good as given up.
async fn tell_relay(context: &Context, vault: &Vault, relay: &PairedRelay) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let config = &context.effective.config;
    let token = vault.token(&relay.url).map_err(|error| text(&error))?;
    let identity = vault.identity(true).map_err(|error| text(&error))?;
    let extra: Vec<_> = config.extra_ca.iter().chain(&relay.extra_ca).cloned().collect();
    let trust = Trust::load(&extra).map_err(|error| text(&error))?;
    let allow_plain = config.allow_plain_http || relay.allow_plain_http;
    let url = RelayUrl::parse(&relay.url, allow_plain).map_err(|error| text(&error))?;
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| text(&error))?;
    let body = json!({"nonce": hex(&nonce), "signature": identity.sign_link(&nonce, &token)});
    let client = RelayHttp::new(url, &trust);
    let call = tokio::task::spawn_blocking(move || {
        client.post_empty("/api/agent/unpair", &body, Some(token.expose()))
    });
    match call.await.map_err(|error| text(&error))? {
        Err(error) if !matches!(error.code(), Some(ErrorCode::Revoked | ErrorCode::Unauthenticated)) => {
            Err(text(&error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pairing_address_fits_on_a_screen_as_qr_code() {
        let qr = qr("https://nest.example.com/pair?code=A7K-M2X").unwrap();
        assert!(qr.lines().count() <= 18, "{}", qr.lines().count());
        assert!(qr.lines().all(|line| line.ends_with("\x1b[0m")));
    }
}
