//! The web app inside the binary, and how it is delivered.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::http::error::ApiError;

/// Files of the last web build. Without a build there are none, and the relay says how to make them.
#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Dist;

/// Files below this have a hash in their name: they never change.
const HASHED: &str = "assets/";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>ClaudeNest</title>\
<style>body{font:16px/1.5 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem}</style>\
<h1>The relay runs</h1><p>This build has no web app inside. Build it with <code>make web</code> and start the relay again.</p>\
<p>The interface for programs is there: <a href=\"/docs/\">API documentation</a>.</p></html>";

/// Answers everything that no route answers: a file of the web app, or its page for addresses inside the app.
pub(crate) async fn serve(request: Request) -> Response {
    answer::<Dist>(&request)
}

fn answer<Files: RustEmbed>(request: &Request) -> Response {
    let path = request.uri().path();
    let is_program = path.starts_with("/api/") || path.starts_with("/ws/");
    if is_program || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::not_found("address on this relay; see /docs for those of the API").into_response();
    }
    let name = path.trim_start_matches('/');
    if !name.is_empty()
        && let Some(response) = file::<Files>(name, request.headers())
    {
        return response;
    }
    // A file that is missing must not be answered by a page: an old tab would run HTML as a script.
    let looks_like_file =
        name.starts_with(HASHED) || name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if looks_like_file {
        return ApiError::not_found("file in the web app; reload the page").into_response();
    }
    file::<Files>("index.html", request.headers()).unwrap_or_else(|| {
        let headers =
            [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        (StatusCode::OK, headers, NOT_BUILT).into_response()
    })
}

fn file<Files: RustEmbed>(name: &str, request: &HeaderMap) -> Option<Response> {
    // A build may hold compressed twins; they are never asked for by name.
    if name.ends_with(".gz") || name.ends_with(".br") {
        return None;
    }
    let plain = Files::get(name)?;
    let accepts = |coding: &str| {
        let value =
            request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some(coding) && words.next() != Some("q=0")
        })
    };
    let twin = [("br", ".br"), ("gzip", ".gz")].into_iter().find_map(|(coding, suffix)| {
        let twin = Files::get(&format!("{name}{suffix}"))?;
        accepts(coding).then_some((coding, twin))
    });
    let etag = format!("\"{}\"", short_hash(&plain));
    let mut headers = HeaderMap::new();
    let cache = if name.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        // Asked about every time, and sent only when changed.
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(value) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, value);
    }
    if request.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes()) {
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let mime = plain.metadata.mimetype();
    let mime = if mime.starts_with("text/") { format!("{mime}; charset=utf-8") } else { mime.to_owned() };
    if let Ok(value) = HeaderValue::from_str(&mime) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let data = match twin {
        Some((coding, twin)) => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            twin.data
        }
        None => plain.data,
    };
    Some((StatusCode::OK, headers, Body::from(data.into_owned())).into_response())
}

fn short_hash(file: &EmbeddedFile) -> String {
    crate::auth::login::hex(&file.metadata.sha256_hash()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(RustEmbed)]
    #[folder = "tests/fixtures/web"]
    struct Fixture;

    #[derive(RustEmbed)]
    #[folder = "tests/fixtures/no-such-folder"]
    #[allow_missing = true]
    struct Nothing;

    fn get<Files: RustEmbed>(path: &str, headers: &[(&'static str, &str)]) -> (u16, HeaderMap) {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = answer::<Files>(&request.body(Body::empty()).unwrap());
        (response.status().as_u16(), response.headers().clone())
    }

    fn value(headers: &HeaderMap, name: header::HeaderName) -> String {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn hashed_files_are_kept_for_ever_and_the_page_is_asked_about() {
        let (status, headers) = get::<Fixture>("/assets/app-1a2b3c.js", &[]);
        assert_eq!(status, 200);
        assert!(value(&headers, header::CACHE_CONTROL).contains("immutable"));
        assert!(value(&headers, header::CONTENT_TYPE).starts_with("text/javascript"));
        for path in ["/", "/sessions/fix-login", "/machines/0192-x"] {
            let (status, headers) = get::<Fixture>(path, &[]);
            assert_eq!(
                (status, value(&headers, header::CACHE_CONTROL)),
                (200, "no-cache".to_owned()),
                "{path}"
            );
            let etag = value(&headers, header::ETAG);
            assert_eq!(get::<Fixture>(path, &[("if-none-match", &etag)]).0, 304, "{path}");
        }
        let (_, headers) = get::<Fixture>("/manifest.webmanifest", &[]);
        assert_eq!(value(&headers, header::CACHE_CONTROL), "no-cache");
    }

    #[test]
    fn missing_files_and_addresses_of_programs_are_no_pages() {
        for path in
            ["/assets/old-9z.js", "/favicon.ico", "/api/nothing", "/ws/nothing", "/../Cargo.toml", "/assets/"]
        {
            assert_eq!(get::<Fixture>(path, &[]).0, 404, "{path}");
        }
    }

    #[test]
    fn without_a_web_build_the_page_says_how_to_make_one() {
        let (status, headers) = get::<Nothing>("/", &[]);
        assert_eq!((status, value(&headers, header::CACHE_CONTROL)), (200, "no-store".to_owned()));
    }
}
