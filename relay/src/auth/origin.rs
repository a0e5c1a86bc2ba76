//! The addresses under which this relay is opened, and whether a request comes from its own pages.

use std::net::SocketAddr;

use axum::http::{HeaderMap, header};

/// Where the web app is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// As people open it, without a slash at the end.
    pub public_url: String,
    /// Origins whose pages are this relay's own.
    origins: Vec<String>,
}

impl Site {
    /// Derives the site from the public URL and, on loopback, from the address that is listened on.
    pub fn new(public_url: Option<&str>, listen: SocketAddr, has_tls: bool) -> Self {
        let scheme = if has_tls { "https" } else { "http" };
        let local = match listen.ip() {
            ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", listen.port()),
            _ => format!("{scheme}://{listen}"),
        };
        let public_url = public_url.map_or(local, |url| url.trim_end_matches('/').to_owned());
        let mut origins = vec![origin_of(&public_url)];
        if listen.ip().is_loopback() || listen.ip().is_unspecified() {
            for host in ["127.0.0.1", "localhost", "[::1]"] {
                origins.push(format!("{scheme}://{host}:{}", listen.port()));
            }
        }
        origins.dedup();
        Self { public_url, origins }
    }

    /// True if browsers reach the web app over TLS: cookies are then bound to it.
    pub fn is_secure(&self) -> bool {
        self.public_url.starts_with("https://")
    }

    /// True if this `Origin` header names the relay itself. Exact comparison.
    pub fn is_own_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|own| own == origin)
    }

    /// True unless a browser says that the request comes from another site's page.
    ///
    /// For plain requests that change something. Programs that are no browsers send neither header.
    pub fn is_same_site(&self, headers: &HeaderMap) -> bool {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return false;
        }
        text(header::ORIGIN.as_str()).is_none_or(|origin| self.is_own_origin(origin) || is_same_host(headers))
    }

    /// True if a WebSocket handshake comes from one of the relay's own pages: the header must be there.
    pub fn is_own_page(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::ORIGIN)
            .and_then(|origin| origin.to_str().ok())
            .is_some_and(|origin| self.is_own_origin(origin) || is_same_host(headers))
    }
}

/// True if `Origin` names exactly the host and port that the request was sent to.
///
/// A page of another site has its own origin, whatever host it connects to. Browsers always send the header.
pub fn is_same_host(headers: &HeaderMap) -> bool {
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

/// Scheme, host and port of a URL, as a browser writes them in `Origin`.
fn origin_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    let host = match scheme {
        "https" => host.strip_suffix(":443").unwrap_or(&host),
        _ => host.strip_suffix(":80").unwrap_or(&host),
    };
    format!("{scheme}://{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_origins_are_own() {
        let site = Site::new(Some("https://Nest.example.com:443/"), "127.0.0.1:7450".parse().unwrap(), false);
        assert!(site.is_secure());
        assert!(site.is_own_origin("https://nest.example.com"));
        assert!(site.is_own_origin("http://127.0.0.1:7450"));
        for foreign in [
            "null",
            "",
            "http://nest.example.com",
            "https://nest.example.com.evil.org",
            "https://evil-nest.example.com",
            "https://nest.example.com:444",
            "https://nest.example.com/",
            "http://127.0.0.1:7451",
        ] {
            assert!(!site.is_own_origin(foreign), "{foreign}");
        }
    }

    #[test]
    fn requests_of_other_sites_are_told_apart() {
        let site = Site::new(None, "127.0.0.1:7450".parse().unwrap(), false);
        assert_eq!(site.public_url, "http://127.0.0.1:7450");
        let check = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            (site.is_same_site(&headers), site.is_own_page(&headers))
        };
        assert_eq!(check(&[]), (true, false));
        assert_eq!(
            check(&[("origin", "http://127.0.0.1:7450"), ("sec-fetch-site", "same-origin")]),
            (true, true)
        );
        assert_eq!(check(&[("origin", "http://evil.org")]), (false, false));
        assert_eq!(check(&[("sec-fetch-site", "cross-site")]), (false, false));
        assert_eq!(check(&[("sec-fetch-site", "same-site")]), (false, false));
        assert_eq!(check(&[("origin", "null")]), (false, false));
    }

    fn names_host(origin: Option<&str>, host: &str) -> bool {
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
            assert!(names_host(Some(origin), host), "{origin} at {host}");
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
            assert!(!names_host(Some(origin), host), "{origin} at {host}");
        }
        assert!(!names_host(None, "127.0.0.1:7450"), "a browser always says where its page comes from");
    }
}
