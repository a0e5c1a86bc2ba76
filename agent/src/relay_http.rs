//! Calls of a relay's REST interface, and what went wrong with them in words for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use claudenest_shared::code::{ErrorCode, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::relay_url::RelayUrl;
use crate::tls::Trust;

/// A whole call may take this long; the relay answers within milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Name resolution and connection may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Answers of the pairing interface are below 2 KiB; anything above this is not our relay.
const MAX_BODY_BYTES: u64 = 256 * 1024;

/// A call that did not succeed. The texts are complete for a person.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum CallError {
    /// The host name has no address.
    #[error("The name {0} cannot be resolved. Check the address of the relay and this machine's network.")]
    Dns(String),
    /// No TCP connection.
    #[error(
        "No connection to {address}: {reason}. Check that the relay runs and that no firewall is between."
    )]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The certificate or the TLS handshake is wrong.
    #[error("The TLS connection to {address} failed: {reason}. {advice}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// No answer in time.
    #[error("{0} did not answer in time. Try again; check that the relay runs.")]
    Timeout(String),
    /// The connection broke; whether the call was carried out is unknown.
    #[error("The connection to {address} broke: {reason}. Try again.")]
    Broken {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The relay refused, in its own words.
    #[error("{}", .error.message)]
    Refused {
        /// Code and sentence.
        error: WireError,
        /// How long to wait, when it said so.
        retry_after: Option<Duration>,
    },
    /// A proxy or another program answered.
    #[error("{address} answered with HTTP status {status}, but not as a ClaudeNest relay does. {advice}")]
    NotRelay {
        /// Host and port.
        address: String,
        /// HTTP status.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
}

impl CallError {
    /// What happened, without what to do: for those who know better than this error what that is.
    pub fn what(&self) -> String {
        match self {
            Self::Dns(host) => format!("The name {host} cannot be resolved."),
            Self::Connect { address, reason } => format!("No connection to {address}: {reason}."),
            Self::Tls { address, reason, .. } => format!("The TLS connection to {address} failed: {reason}."),
            Self::Timeout(address) => format!("{address} did not answer in time."),
            Self::Broken { address, reason } => format!("The connection to {address} broke: {reason}."),
            Self::Refused { error, .. } => error.message.clone(),
            Self::NotRelay { address, status, .. } => {
                format!("{address} answered with HTTP status {status}, but not as a ClaudeNest relay does.")
            }
        }
    }

    /// True if trying again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dns(_) | Self::Connect { .. } | Self::Timeout(_) | Self::Broken { .. } => true,
            Self::NotRelay { status, .. } => *status >= 500,
            Self::Refused { error, .. } => matches!(
                error.code,
                ErrorCode::RateLimited
                    | ErrorCode::Unavailable
                    | ErrorCode::Internal
                    | ErrorCode::MachineTimeout
            ),
            Self::Tls { .. } => false,
        }
    }

    /// True if the call certainly did not reach the relay.
    pub fn never_arrived(&self) -> bool {
        matches!(self, Self::Dns(_) | Self::Connect { .. } | Self::Tls { .. })
    }

    /// The relay's code, if it answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            _ => None,
        }
    }
}

/// What came with an answer besides its body.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct AnswerFacts {
    /// The relay's clock minus ours in milliseconds, from the `Date` header (which has whole seconds).
    pub clock_difference_ms: Option<i64>,
}

/// Calls one relay. Blocking: use a blocking thread inside the daemon.
#[derive(Clone)]
pub struct RelayHttp {
    agent: ureq::Agent,
    url: RelayUrl,
}

impl RelayHttp {
    /// A client for `url`.
    pub fn new(url: RelayUrl, trust: &Trust) -> Self {
        let config = ureq::Agent::config_builder()
            .tls_config(trust.http_config())
            .timeout_global(Some(CALL_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            // A relay never redirects its API; following one could carry a token elsewhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("claudenest-agent/", env!("CARGO_PKG_VERSION")))
            // As the link: directly. One of the two through a proxy would only mislead.
            .proxy(None)
            .build();
        Self { agent: config.new_agent(), url }
    }

    /// The relay.
    pub fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Posts JSON and reads the JSON answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn post<B: Serialize, A: DeserializeOwned>(&self, path: &str, body: &B) -> Result<A, CallError> {
        let result = self.agent.post(self.url.api(path)).send_json(body);
        let (status, text, _) = self.answer(result)?;
        self.parse(status, &text)
    }

    /// Posts JSON, authenticated by a machine token, and expects no content.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn post_empty<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        token: Option<&str>,
    ) -> Result<(), CallError> {
        let mut request = self.agent.post(self.url.api(path));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.answer(request.send_json(body)).map(drop)
    }

    /// Gets JSON.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<(A, AnswerFacts), CallError> {
        let (status, text, facts) = self.answer(self.agent.get(self.url.api(path)).call())?;
        Ok((self.parse(status, &text)?, facts))
    }

    fn parse<A: DeserializeOwned>(&self, status: u16, text: &str) -> Result<A, CallError> {
        serde_json::from_str(text).map_err(|_| self.not_relay(status))
    }

    fn answer(
        &self,
        result: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, String, AnswerFacts), CallError> {
        let mut response = result.map_err(|error| self.translate(&error))?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after =
            header("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let facts = AnswerFacts { clock_difference_ms: header("date").and_then(clock_difference) };
        let text = response.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_string();
        let text = match text {
            Ok(text) => text,
            Err(ureq::Error::BodyExceedsLimit(_)) => return Err(self.not_relay(status)),
            Err(error) => return Err(self.translate(&error)),
        };
        if (200..300).contains(&status) {
            return Ok((status, text, facts));
        }
        #[derive(serde::Deserialize)]
        struct Body {
            error: WireError,
        }
        Err(match serde_json::from_str::<Body>(&text) {
            Ok(Body { mut error }) => {
                // The text goes to a terminal.
                error.message = clean(&error.message);
                CallError::Refused { error, retry_after }
            }
            Err(_) => self.not_relay(status),
        })
    }

    fn not_relay(&self, status: u16) -> CallError {
        let advice = match status {
            300..=399 => "Use the address to which it redirects.",
            502..=504 => {
                "The proxy in front of the relay runs, but not the relay behind it. Start the relay."
            }
            _ => "Check the address; the relay's own page opens in a browser.",
        };
        CallError::NotRelay { address: self.url.to_string(), status, advice }
    }

    fn translate(&self, error: &ureq::Error) -> CallError {
        let address = self.url.authority();
        match error {
            ureq::Error::HostNotFound => CallError::Dns(self.url.host().to_owned()),
            ureq::Error::Timeout(ureq::Timeout::Resolve) => CallError::Dns(self.url.host().to_owned()),
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                CallError::Connect { address, reason: "no answer in time".to_owned() }
            }
            ureq::Error::Timeout(_) => CallError::Timeout(address),
            ureq::Error::Rustls(error) => tls_error(address, error),
            ureq::Error::Tls(reason) => {
                CallError::Tls { address, reason: (*reason).to_owned(), advice: "Check the address." }
            }
            ureq::Error::ConnectionFailed => {
                CallError::Connect { address, reason: "the connection failed".to_owned() }
            }
            ureq::Error::Io(error) => self.translate_io(address, error),
            other => CallError::Broken { address, reason: other.to_string() },
        }
    }

    fn translate_io(&self, address: String, error: &std::io::Error) -> CallError {
        use std::io::ErrorKind as Kind;
        let inner = error.get_ref().and_then(|inner| {
            inner.downcast_ref::<rustls::Error>().or_else(|| inner.source()?.downcast_ref::<rustls::Error>())
        });
        if let Some(error) = inner {
            return tls_error(address, error);
        }
        match error.kind() {
            Kind::ConnectionRefused => {
                CallError::Connect { address, reason: "nothing listens there".to_owned() }
            }
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::AddrNotAvailable | Kind::NetworkDown => {
                CallError::Connect { address, reason: "the network does not reach it".to_owned() }
            }
            Kind::TimedOut => CallError::Timeout(address),
            Kind::InvalidData if self.url.is_tls() => CallError::Tls {
                address,
                reason: error.to_string(),
                advice: "Check that the relay speaks TLS on this port.",
            },
            _ if error.to_string().contains("lookup address") => CallError::Dns(self.url.host().to_owned()),
            _ => CallError::Broken { address, reason: error.to_string() },
        }
    }
}

/// A TLS failure in words.
pub fn tls_error(address: String, error: &rustls::Error) -> CallError {
    use rustls::CertificateError as Bad;
    let (reason, advice) = match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => (
            "its certificate is not signed by an authority that this machine trusts".to_owned(),
            "For a private authority name its certificate: --extra-ca FILE, or extra_ca in the configuration.",
        ),
        // The names fit and the keys do not: an authority that was made anew, or somebody in between.
        rustls::Error::InvalidCertificate(Bad::BadSignature) => (
            "its certificate was not signed by the authority of that name that this machine trusts"
                .to_owned(),
            "If the authority was made anew, get its present certificate for --extra-ca or extra_ca; if it was not, do not connect.",
        ),
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => (
            "its certificate has expired".to_owned(),
            "Renew the relay's certificate; if it is valid, set this machine's clock.",
        ),
        rustls::Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            ("its certificate is not valid yet".to_owned(), "Set this machine's clock.")
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => (
            "its certificate is for another name".to_owned(),
            "Use the name that the certificate was issued for.",
        ),
        rustls::Error::InvalidMessage(_) => (
            "the answer is not TLS".to_owned(),
            "Check the port; a relay without TLS has an address that begins with http://.",
        ),
        other => (other.to_string(), "Check the relay's certificate."),
    };
    CallError::Tls { address, reason, advice }
}

/// Text of another machine for this terminal: without control characters and not endless.
pub fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// Relay's clock minus ours, from an HTTP date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn clock_difference(date: &str) -> Option<i64> {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let theirs = time::PrimitiveDateTime::parse(date.trim(), format).ok()?.assume_utc().unix_timestamp();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis();
    // The header is cut to whole seconds: its middle is the best guess.
    Some(theirs * 1000 + 500 - i64::try_from(ours).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn client(port: u16, scheme: &str) -> RelayHttp {
        let url = RelayUrl::parse(&format!("{scheme}://127.0.0.1:{port}"), false).unwrap();
        RelayHttp::new(url, &Trust::load(&[]).unwrap())
    }

    /// Serves one connection with a fixed answer.
    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer.as_bytes());
        });
        port
    }

    fn call(answer: &'static str) -> Result<serde_json::Value, CallError> {
        client(serve(answer), "http").post("/x", &serde_json::json!({}))
    }

    #[test]
    fn refusals_of_the_relay_keep_code_text_and_wait() {
        let body = r#"{"error":{"code":"rate_limited","message":"Too many.\u001b[31m"}}"#;
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let error = call(answer.leak()).unwrap_err();
        let CallError::Refused { error: wire, retry_after } = &error else { panic!("{error:?}") };
        assert_eq!((wire.code, wire.message.as_str()), (ErrorCode::RateLimited, "Too many.[31m"));
        assert_eq!(*retry_after, Some(Duration::from_secs(7)));
        assert!(error.is_transient());
    }

    #[test]
    fn answers_of_something_else_are_told_apart() {
        let error = call("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad").unwrap_err();
        assert!(error.to_string().contains("not the relay behind it") && error.is_transient(), "{error}");
        let error = call("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>").unwrap_err();
        assert!(matches!(error, CallError::NotRelay { status: 200, .. }) && !error.is_transient());
        let error =
            call("HTTP/1.1 301 Moved\r\nlocation: https://x\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        assert!(matches!(error, CallError::NotRelay { status: 301, .. }), "{error:?}");
    }

    #[test]
    fn connection_failures_have_different_sentences() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = client(free, "http").get::<serde_json::Value>("/x").unwrap_err();
        assert!(matches!(refused, CallError::Connect { .. }) && refused.never_arrived(), "{refused:?}");
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let not_tls = client(serve("HTTP/1.1 400 Bad Request\r\n\r\n"), "https");
        let not_tls = not_tls.get::<serde_json::Value>("/x").unwrap_err();
        assert!(matches!(not_tls, CallError::Tls { .. }), "{not_tls:?}");
    }

    #[test]
    fn http_dates_give_the_difference_of_the_clocks() {
        let difference = clock_difference("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert!(difference < -900_000_000_000);
        assert_eq!(clock_difference("yesterday"), None);
    }
}
