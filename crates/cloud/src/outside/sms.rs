//! Text messages through whatever provider speaks HTTP: its request is written in the configuration.
//!
//! What must stay true:
//! - A value put into an address or a body cannot leave its place: in JSON it is escaped as JSON, else percent-encoded.
//! - The secret goes to the provider's address alone: redirects are not followed, and without TLS only this machine
//!   is asked.
//! - A message whose end is unknown may have arrived, and cost money: it is not sent again.
//! - Nothing that the provider says is kept or logged: it may repeat the number.

use super::{Undelivered, web};
use crate::config::{Sms as Settings, SmsBody};
use crate::finding::Finding;
use anyhow::{Context, ensure};
use minijinja::value::Value;
use minijinja::{Environment, Error as TemplateError, ErrorKind, Output, State, UndefinedBehavior, context};
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Response, Url, redirect};
use std::fmt::Write as _;
use std::time::Duration;
use uuid::Uuid;

/// How long the provider may take to let us in, and to answer.
const CONNECTED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer in which `ok_text` is looked for.
const ANSWER: usize = 64 * 1024;
/// Names of templates; the escaping goes by them.
const JSON: &str = "json";
const PERCENT: &str = "percent";
const HEADER: &str = "header";

/// One text message to one telephone.
#[derive(Debug)]
pub struct Text<'a> {
    /// `+62812…`
    pub to: &'a str,
    pub text: &'a str,
    /// The same at every try, for providers that know a second copy by it.
    pub message_id: Uuid,
}

pub(super) struct Texter {
    client: Client,
    settings: Settings,
    method: Method,
    headers: Vec<(HeaderName, String)>,
    templates: Environment<'static>,
}

impl Texter {
    /// None when no provider is named.
    ///
    /// # Errors
    /// The setting that cannot work.
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Option<Self>> {
        if settings.url.is_empty() {
            return Ok(None);
        }
        let known = [Method::GET, Method::POST, Method::PUT];
        let method = settings.method.parse().ok().filter(|method| known.contains(method));
        let sent = settings.headers.iter().filter(|(_, value)| !value.is_empty());
        let headers = sent.map(|(name, value)| Ok((name.parse()?, value.clone())));
        ensure!(settings.daily > 0, "sms.daily must be at least 1");
        let texter = Self {
            client: Client::builder()
                .redirect(redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECTED)
                .timeout(PATIENCE)
                .tls_certs_only(web::roots()?)
                .build()?,
            settings: settings.clone(),
            method: method.context("sms.method must be GET, POST or PUT")?,
            headers: headers.collect::<anyhow::Result<_>>().context("a name in sms.headers")?,
            templates: templates(),
        };
        // A template with a mistake in it should be told at the start, not at the first message.
        let trial = Text { to: "+620", text: "\"&{{", message_id: Uuid::nil() };
        texter.request(&trial)?;
        Ok(Some(texter))
    }

    /// How many may be sent in a day.
    pub(super) fn daily(&self) -> i32 {
        self.settings.daily
    }

    /// Nothing is sent: that would cost money.
    pub(super) fn check(settings: &Settings) -> Finding {
        match Self::open(settings) {
            Ok(None) => Finding::ok("sms", "no provider is named: nobody gets text messages"),
            Ok(Some(_)) => Finding::ok("sms", "its requests can be written; none was sent"),
            Err(error) => Finding::fail("sms", format!("{error:#}"), "mend [sms] in the configuration"),
        }
    }

    pub(super) async fn send(&self, text: &Text<'_>) -> Result<(), Undelivered> {
        const UNKNOWN: &str = "no answer: it may have arrived, and is not sent again";
        // Why is not told: a template's error may quote what it was given.
        let request =
            self.request(text).map_err(|_| Undelivered::Never("the request cannot be written".into()))?;
        let answer = self.client.execute(request).await.map_err(|error| {
            if error.is_connect() {
                Undelivered::Later("cannot be reached".into())
            } else {
                Undelivered::Never(UNKNOWN.into())
            }
        })?;
        match answer.status().as_u16() {
            200..=299 if self.settings.ok_text.is_empty() => Ok(()),
            200..=299 => {
                let said = read(answer).await.map_err(|_| Undelivered::Never(UNKNOWN.into()))?;
                let ok = said.contains(&self.settings.ok_text);
                ok.then_some(()).ok_or_else(|| Undelivered::Later("its answer lacks sms.ok_text".into()))
            }
            504 => Err(Undelivered::Never(UNKNOWN.into())),
            // This message is what it refuses. Anything else may be a mistake of theirs or ours, and is mended.
            status @ (400 | 404 | 413 | 422) => Err(Undelivered::Never(format!("refused with {status}"))),
            status => Err(Undelivered::Later(format!("answered {status}"))),
        }
    }

    fn request(&self, text: &Text<'_>) -> anyhow::Result<Request> {
        let Settings { url, body, body_type, secret, .. } = &self.settings;
        let &Text { to, text, message_id } = text;
        let values = context! { to, text, id => message_id.to_string(), secret };
        let written = |name, template: &str| self.templates.render_named_str(name, template, &values);
        let url = written(PERCENT, url).context("sms.url")?.parse().ok().filter(is_safe);
        let url = url.context("sms.url must be an https address, or http on this machine")?;
        let mut request = Request::new(self.method.clone(), url);
        for (name, template) in &self.headers {
            let value = written(HEADER, template).with_context(|| format!("sms.headers.{name}"))?;
            let value = HeaderValue::from_str(&value).ok();
            let mut value = value.with_context(|| format!("sms.headers.{name} makes no header"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        if self.method != Method::GET {
            let (name, content_type) = match body_type {
                SmsBody::Json => (JSON, "application/json"),
                SmsBody::Form => (PERCENT, "application/x-www-form-urlencoded"),
            };
            let body = written(name, body).context("sms.body")?;
            if name == JSON {
                serde_json::from_str::<serde_json::Value>(&body).context("sms.body makes no JSON")?;
            }
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            *request.body_mut() = Some(body.into());
        }
        Ok(request)
    }
}

fn is_safe(url: &Url) -> bool {
    let here = ["localhost", "127.0.0.1", "[::1]"].contains(&url.host_str().unwrap_or_default());
    url.scheme() == "https" || url.scheme() == "http" && here
}

async fn read(mut answer: Response) -> reqwest::Result<String> {
    let mut said = Vec::new();
    while let Some(chunk) = answer.chunk().await?
        && said.len() < ANSWER
    {
        said.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn templates() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_formatter(escaped);
    environment
}

/// A value in its place: in JSON with its quotation marks, in an address or a form percent-encoded.
fn escaped(out: &mut Output, state: &mut State, value: &Value) -> Result<(), TemplateError> {
    // Where no such value is known, this is what tells.
    if value.is_undefined() {
        return Err(TemplateError::from(ErrorKind::UndefinedError));
    }
    let plain = value.to_string();
    let written = match state.name() {
        JSON => serde_json::Value::String(plain).to_string(),
        PERCENT => percent(&plain),
        _ => plain,
    };
    out.write_str(&written).map_err(|_| TemplateError::from(ErrorKind::WriteFailure))
}

fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut settings = Config::load(None).unwrap().sms;
        settings.url = "https://sms.example.com/send".into();
        settings.secret = "rahasia".into();
        change(&mut settings);
        settings
    }

    fn written(settings: &Settings, text: &str) -> (Request, String) {
        let text = Text { to: "+62812", text, message_id: Uuid::nil() };
        let request = Texter::open(settings).unwrap().unwrap().request(&text).unwrap();
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default().to_vec();
        (request, String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_text_stays_in_its_place_whatever_is_in_it() {
        let nasty = "1\", \"to\": \"+1900\n&to=+1900 {{ secret }} é";
        let (_, body) = written(&settings(|_| ()), nasty);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json, serde_json::json!({ "to": "+62812", "text": nasty }));
        let form = settings(|s| {
            s.body_type = SmsBody::Form;
            s.body = "to={{ to }}&text={{ text }}&ref={{ id }}".into();
        });
        let (_, body) = written(&form, "a&to=+1 é");
        assert_eq!(body, "to=%2B62812&text=a%26to%3D%2B1%20%C3%A9&ref=00000000-0000-0000-0000-000000000000");
        let (request, body) = written(
            &settings(|s| {
                s.method = "GET".into();
                s.url = "https://sms.example.com/{{ to }}?key={{ secret }}&m={{ text }}".into();
            }),
            "a&b#c/../d",
        );
        let url = "https://sms.example.com/%2B62812?key=rahasia&m=a%26b%23c%2F..%2Fd";
        assert_eq!((request.url().as_str(), body.as_str()), (url, ""));
    }

    #[test]
    fn the_secret_stands_where_the_configuration_puts_it_and_is_not_printed() {
        let settings = settings(|s| drop(s.headers.insert("x-key".into(), "{{ secret }}2".into())));
        let (request, body) = written(&settings, "halo");
        assert_eq!(request.headers()["authorization"], "Bearer rahasia");
        assert_eq!(request.headers()["x-key"], "rahasia2");
        assert!(!body.contains("rahasia"));
        assert!(!format!("{request:?} {settings:?}").contains("rahasia"), "it would be logged");
    }

    #[test]
    fn a_setting_that_cannot_work_is_told_at_the_start() {
        for (change, word) in [
            ((|s: &mut Settings| s.url = "http://sms.example.com/".into()) as fn(&mut Settings), "sms.url"),
            (|s| s.method = "DELETE".into(), "sms.method"),
            (|s| s.body = "{\"to\": {{ nobody }}}".into(), "sms.body"),
            (|s| s.body = "{\"to\": \"{{ to }}\"}".into(), "sms.body"),
            (|s| s.daily = 0, "sms.daily"),
            (|s| drop(s.headers.insert("a b".into(), "x".into())), "sms.headers"),
            (|s| drop(s.headers.insert("a".into(), "a\nb".into())), "sms.headers"),
        ] {
            let error = Texter::open(&settings(change)).err().map(|error| format!("{error:#}"));
            assert!(error.as_ref().is_some_and(|error| error.contains(word)), "{word}: {error:?}");
        }
        assert!(Texter::open(&settings(|s| s.url.clear())).unwrap().is_none());
        assert!(Texter::open(&settings(|s| s.url = "http://127.0.0.1:9/".into())).unwrap().is_some());
    }
}
