//! A logged-in HTTP client of a relay: cookie, CSRF token, JSON in and out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An answer with its status.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON body; `Null` when there was none, a string when it was not JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a 2xx answer.
    ///
    /// # Errors
    /// With status and body otherwise.
    pub fn ok(self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("HTTP {}: {}", self.status, self.body);
        }
        Ok(self.body)
    }

    /// The stable error code, or an empty text.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}

/// A client of one user, or of nobody.
#[derive(Clone)]
pub struct Http {
    agent: ureq::Agent,
    base: String,
    cookie: Option<String>,
    csrf: Option<String>,
    bearer: Option<String>,
    authority: Option<PathBuf>,
}

impl Http {
    /// A client without a login.
    pub fn anonymous(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(crate::PATIENCE))
            .build();
        Self {
            agent: config.into(),
            base: base.to_owned(),
            cookie: None,
            csrf: None,
            bearer: None,
            authority: None,
        }
    }

    /// A client without a login that trusts one certificate authority (a PEM file) and no other.
    ///
    /// # Errors
    /// If the file is no certificate.
    pub fn trusting(base: &str, authority: &Path) -> Result<Self> {
        use ureq::tls::{Certificate, RootCerts, TlsConfig};
        let certificate = Certificate::from_pem(&std::fs::read(authority)?)?;
        let roots = RootCerts::new_with_certs(&[certificate]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(crate::PATIENCE))
            .tls_config(tls)
            .build();
        let authority = Some(authority.to_owned());
        Ok(Self { agent: config.into(), authority, ..Self::anonymous(base) })
    }

    /// Logs in over TLS, trusting one certificate authority.
    ///
    /// # Errors
    /// If the relay refuses it.
    pub fn log_in_trusting(base: &str, token: &str, authority: &Path) -> Result<Self> {
        Self::trusting(base, authority)?.use_token(token)
    }

    /// The certificate authority that it trusts, if it was given one.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Sends a bearer token from now on.
    pub fn with_bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// Logs in with the token of a one-time link.
    ///
    /// # Errors
    /// If the relay refuses it.
    pub fn log_in(base: &str, token: &str) -> Result<Self> {
        Self::anonymous(base).use_token(token)
    }

    fn use_token(self, token: &str) -> Result<Self> {
        let mut client = self;
        let base = client.base.clone();
        let mut response = client
            .agent
            .post(format!("{base}/api/auth/login-link"))
            .header("Origin", &base)
            .send_json(serde_json::json!({"token": token}))?;
        let status = response.status().as_u16();
        let cookie = response
            .headers()
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find(|value| value.contains("cn_session="))
            .and_then(|value| value.split(';').next())
            .map(str::to_owned);
        let body = response.body_mut().read_to_string()?;
        client.cookie =
            Some(cookie.with_context(|| format!("no cookie after login: HTTP {status}: {body}"))?);
        let me = client.get("/api/me")?.ok()?;
        client.csrf = Some(me["csrf_token"].as_str().context("a CSRF token in /api/me")?.to_owned());
        Ok(client)
    }

    /// The session cookie as a header value.
    pub fn cookie(&self) -> &str {
        self.cookie.as_deref().unwrap_or_default()
    }

    /// The CSRF token.
    pub fn csrf(&self) -> &str {
        self.csrf.as_deref().unwrap_or_default()
    }

    /// Address of the relay.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// GET.
    ///
    /// # Errors
    /// If no answer came.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, None)
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// If no answer came.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send("POST", path, Some(body))
    }

    /// Any request.
    ///
    /// # Errors
    /// If no answer came.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("Origin", &self.base);
        for (name, value) in [("Cookie", &self.cookie), ("X-CSRF-Token", &self.csrf)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(token) = &self.bearer {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = match body {
            Some(body) => {
                self.agent.run(request.header("Content-Type", "application/json").body(body.to_string())?)?
            }
            None => self.agent.run(request.body(())?)?,
        };
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string()?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Ok(Answer { status, body })
    }
}
