//! The address of a relay as people type it, and the addresses made from it.

use std::fmt;
use std::net::IpAddr;

use claudenest_shared::pairing::PairingCode;

/// A relay's address: `https://host[:port]`, or `http://` where that is allowed. Normalised, without a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RelayUrl {
    is_tls: bool,
    host: String,
    port: u16,
}

/// Why an address is not that of a relay. The texts are complete for a person.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRelayUrl {
    /// Not an address.
    #[error(
        "{0:?} is not the address of a relay. It looks like https://nest.example.com or http://127.0.0.1:7450, without a path."
    )]
    Form(String),
    /// Another scheme.
    #[error("The address of a relay begins with https://, not {0}://.")]
    Scheme(String),
    /// Plain HTTP to another machine.
    #[error(
        "{0} has no TLS: anybody on the way could read and type in your sessions. Use https://, or allow it with --allow-plain-http."
    )]
    Plain(String),
}

impl RelayUrl {
    /// Reads an address; without a scheme it is https, on this machine http. Plain HTTP is for this
    /// machine only, unless it is allowed.
    ///
    /// # Errors
    /// [`BadRelayUrl`] says what is wrong.
    pub fn parse(text: &str, allow_plain: bool) -> Result<Self, BadRelayUrl> {
        let form = || BadRelayUrl::Form(text.to_owned());
        let trimmed = text.trim();
        let (scheme, rest) = match trimmed.split_once("://") {
            Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
            None => (String::new(), trimmed),
        };
        let rest = rest.trim_end_matches('/');
        let authority: http::uri::Authority = rest.parse().map_err(|_| form())?;
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || rest.contains('@') {
            return Err(form());
        }
        let is_local = is_loopback(&host);
        let is_tls = match scheme.as_str() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            "" => !is_local,
            other => return Err(BadRelayUrl::Scheme(other.to_owned())),
        };
        // `port()` is also absent for a number that is no port.
        let port = match authority.port_u16() {
            Some(0) => return Err(form()),
            Some(port) => port,
            None if rest.len() > authority.host().len() => return Err(form()),
            None if is_tls => 443,
            None => 80,
        };
        if !is_tls && !is_local && !allow_plain {
            return Err(BadRelayUrl::Plain(text.to_owned()));
        }
        Ok(Self { is_tls, host, port })
    }

    /// True if the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Host without brackets, for name resolution and certificates.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in an address.
    pub fn authority(&self) -> String {
        let is_default = self.port == if self.is_tls { 443 } else { 80 };
        if is_default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Address of a REST resource; `path` begins with `/`.
    pub fn api(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Address of the agent link.
    pub fn link(&self) -> String {
        format!("{}://{}/ws/agent", if self.is_tls { "wss" } else { "ws" }, self.authority())
    }

    /// Address that the QR code of a pairing opens.
    pub fn pair(&self, code: &PairingCode) -> String {
        format!("{self}/pair?code={code}")
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(RelayUrl::parse(text, false).unwrap().to_string(), expected, "{text}");
    }

    #[test]
    fn addresses_are_normalised() {
        check("https://Nest.Example.com/", "https://nest.example.com");
        check("nest.example.com", "https://nest.example.com");
        check("https://nest.example.com:443", "https://nest.example.com");
        check("wss://nest.example.com:8443", "https://nest.example.com:8443");
        check("127.0.0.1:7450", "http://127.0.0.1:7450");
        check("http://localhost:7450/", "http://localhost:7450");
        check("http://[::1]:7450", "http://[::1]:7450");
        let url = RelayUrl::parse("https://[::1]:7450", false).unwrap();
        assert_eq!((url.host(), url.link().as_str()), ("::1", "wss://[::1]:7450/ws/agent"));
        assert_eq!(RelayUrl::parse("http://relay.test", true).unwrap().link(), "ws://relay.test/ws/agent");
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for bad in [
            "",
            "https://",
            "https://a b",
            "https://host:0",
            "https://host:99999",
            "https://host:x",
            "https://u:p@host",
            "https://host/path",
            "https://host?x=1",
            "://",
            "https:///",
        ] {
            assert!(matches!(RelayUrl::parse(bad, false), Err(BadRelayUrl::Form(_))), "{bad}");
        }
        assert!(matches!(RelayUrl::parse("ftp://host", false), Err(BadRelayUrl::Scheme(_))));
        for plain in ["http://relay.test", "http://10.0.0.1", "http://127.0.0.1.evil.test"] {
            assert!(matches!(RelayUrl::parse(plain, false), Err(BadRelayUrl::Plain(_))), "{plain}");
        }
    }
}
