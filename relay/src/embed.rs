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
    let path = request.uri().path();
    let is_program = path.starts_with("/api/") || path.starts_with("/ws/");
    if is_program || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::not_found("address on this relay; see /docs for those of the API").into_response();
    }
    let name = path.trim_start_matches('/');
    if !name.is_empty()
        && let Some(response) = file(name, request.headers())
    {
        return response;
    }
    // A file that is missing must not be answered by a page: an old tab would run HTML as a script.
    let looks_like_file =
        name.starts_with(HASHED) || name.rsplit('/').next().is_some_and(|last| last.contains('.'));
    if looks_like_file {
        return ApiError::not_found("file in the web app; reload the page").into_response();
    }
    file("index.html", request.headers()).unwrap_or_else(|| {
        let headers =
            [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
        (StatusCode::OK, headers, NOT_BUILT).into_response()
    })
}

fn file(name: &str, request: &HeaderMap) -> Option<Response> {
    // A build may hold compressed twins; they are never asked for by name.
    if name.ends_with(".gz") || name.ends_with(".br") {
        return None;
    }
    let plain = Dist::get(name)?;
    let accepts = |coding: &str| {
        let value =
            request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some(coding) && words.next() != Some("q=0")
        })
    };
    let twin = [("br", ".br"), ("gzip", ".gz")].into_iter().find_map(|(coding, suffix)| {
        let twin = Dist::get(&format!("{name}{suffix}"))?;
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
