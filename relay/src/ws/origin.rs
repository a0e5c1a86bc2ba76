//! Whether a browser's WebSocket handshake comes from the relay's own web app.

use axum::http::{HeaderMap, header};

/// True if `Origin` names exactly the host and port that the request was sent to.
///
/// A page of another site has its own origin, whatever host it connects to. Browsers always send the header.
pub(crate) fn is_same_host(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else { return false };
    let (scheme, authority) = match origin.split_once("://") {
        Some((scheme @ ("http" | "https"), authority)) => (scheme, authority),
        _ => return false,
    };
    // `Host` may name the default port that `Origin` leaves out.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    !authority.is_empty()
        && (authority.eq_ignore_ascii_case(host)
            || host.strip_suffix(default_port).is_some_and(|host| authority.eq_ignore_ascii_case(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: Option<&str>, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers.insert(header::HOST, host.parse().unwrap());
        is_same_host(&headers)
    }

    #[test]
    fn only_the_own_host_and_port_match() {
        for (origin, host) in [
            ("http://127.0.0.1:7450", "127.0.0.1:7450"),
            ("https://nest.example.com", "nest.example.com"),
            ("https://nest.example.com", "nest.example.com:443"),
            ("https://Nest.Example.com", "nest.example.com"),
            ("http://[::1]:7450", "[::1]:7450"),
        ] {
            assert!(check(Some(origin), host), "{origin} at {host}");
        }
        for (origin, host) in [
            ("null", "nest.example.com"),
            ("", "nest.example.com"),
            ("https://", ""),
            ("file://nest.example.com", "nest.example.com"),
            ("https://evil.example", "nest.example.com"),
            ("https://nest.example.com.evil.example", "nest.example.com"),
            ("https://nest.example.com:8443", "nest.example.com"),
            ("http://127.0.0.1:7451", "127.0.0.1:7450"),
            ("http://localhost:7450", "127.0.0.1:7450"),
            ("http://nest.example.com", "nest.example.com:443"),
            ("https://nest.example.com/", "nest.example.com"),
        ] {
            assert!(!check(Some(origin), host), "{origin} at {host}");
        }
        assert!(!check(None, "127.0.0.1:7450"), "a browser always says where its page comes from");
    }
}
