//! `GET /dev/outbox`: what would have been sent, for whoever develops.
//!
//! It shows links that open accounts, so an access key does not open it.

use crate::audit::{Action, Object};
use crate::error::{Error, Result};
use crate::identity::{Admin, access};
use crate::outside::{self, Kept};
use crate::state::State;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, HttpResponse, get, web};
use serde_json::json;
use std::fmt::Write as _;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(outbox);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(outbox))]
pub(crate) struct Docs;

/// Messages that were kept instead of sent, the latest 200, as a page.
///
/// For admins, whose reading is kept in the audit; in development for whoever sits at the machine. To everyone else it is not there.
#[utoipa::path(tag = "messages", path = "/dev/outbox", security(("session" = [])),
    responses((status = 200, body = String, content_type = "text/html"),
        (status = 404, body = crate::error::ErrorBody)))]
#[get("/dev/outbox")]
async fn outbox(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse> {
    let admin = if access::develops_here(&request, &state) {
        None
    } else {
        Some(Admin::extract(&request).await.map_err(|error| match error {
            Error::Busy { .. } => error,
            _ => Error::NotFound("NOT_FOUND"),
        })?)
    };
    let kept = outside::kept(&state.people).await?;
    if let Some(Admin(person)) = admin {
        let by = person.by(&request);
        let (object, detail) = (Object::new("outbox", &"*"), json!({ "messages": kept.len() }));
        by.did(&mut *state.people.acquire().await?, Action::SensitiveRead, object, None, detail).await?;
    }
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .body(page(&kept)))
}

fn page(kept: &[Kept]) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"id\"><head><meta charset=\"utf-8\"><title>Kotak keluar · Outbox</title></head>\n\
         <body style=\"font-family:sans-serif;max-width:48em;margin:2em auto;padding:0 1em\">\n\
         <h1>Kotak keluar · Outbox</h1>\n<p>Tidak ada yang dikirim · Nothing here was sent: \
         <code>mail.transport = \"outbox\"</code></p>\n",
    );
    if kept.is_empty() {
        page.push_str("<p>Belum ada pesan · No messages yet</p>\n");
    }
    for message in kept {
        let at = message.created_at.format("%F %T UTC");
        let (title, address) = (escaped(&message.title), escaped(&message.address));
        let _ = writeln!(
            page,
            "<article>\n<h2>{title}</h2>\n<p>{at} · {} → {address}</p>\n<pre style=\"white-space:pre-wrap\">{}</pre>\n</article>",
            message.channel,
            pressable(&escaped(&message.content))
        );
    }
    page.push_str("</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Words that are web addresses can be pressed. The text is escaped already.
fn pressable(escaped: &str) -> String {
    escaped
        .split_inclusive(char::is_whitespace)
        .map(|word| {
            let address = word.trim_end();
            if ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
                word.replace(address, &format!("<a href=\"{address}\">{address}</a>"))
            } else {
                word.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_can_be_pressed_and_nothing_else_is_markup() {
        let message = Kept {
            channel: "email".into(),
            address: "<budi@example.com>".into(),
            title: "<b>".into(),
            content: "Buka:\nhttps://x.example/?a=1&b=\"><script>\njavascript:alert(1)".into(),
            created_at: chrono::Utc::now(),
        };
        let page = page(&[message]);
        let link = "https://x.example/?a=1&amp;b=&quot;&gt;&lt;script&gt;";
        assert!(page.contains(&format!("<a href=\"{link}\">{link}</a>\n")), "{page}");
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(!page.contains("<a href=\"javascript"), "{page}");
    }
}
