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
        text(header::ORIGIN.as_str()).is_none_or(|origin| self.is_own_origin(origin))
    }

    /// True if a WebSocket handshake comes from one of the relay's own pages: the header must be there.
    pub fn is_own_page(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::ORIGIN)
            .and_then(|origin| origin.to_str().ok())
            .is_some_and(|origin| self.is_own_origin(origin))
    }
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
}
