//! Texts with their values put in: plain, and as the HTML of a mail.
//!
//! One template makes both. In HTML every value is escaped, an empty line parts paragraphs, and `{{ x|link }}`
//! becomes something to press.

use super::kind::Kind;
use crate::error::Language;
use minijinja::value::{Serde, Value as Given};
use minijinja::{AutoEscape, Environment, HtmlEscape, State, UndefinedBehavior, context};
use serde_json::Value;

/// A title's characters at most.
const TITLE: usize = 255;
/// What a template is rendered as: values are escaped in the one alone.
const HTML: &str = "html";
const PLAIN: &str = "plain";

#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) title: String,
    pub(super) content: String,
    pub(super) html: String,
}

/// The texts of a kind. `times` says how many like it are told at once.
///
/// # Errors
/// A value that they name and that is not there.
pub(super) fn render(
    kind: Kind,
    language: Language,
    values: &Value,
    times: i32,
) -> Result<Rendered, minijinja::Error> {
    let mut environment = Environment::empty();
    // A value may be missing where a text asks whether it is there, and nowhere else.
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|name| match name {
        HTML => AutoEscape::Html,
        _ => AutoEscape::None,
    });
    environment.add_filter("link", link);
    let values = context! { times, ..Given::from(Serde(values)) };
    let (title, content) = kind.text(language);
    let title = environment.render_named_str(PLAIN, title, &values)?;
    let words = title.split(|c: char| c.is_whitespace() || c.is_control());
    let title = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let plain = environment.render_named_str(PLAIN, content, &values)?;
    let escaped = environment.render_named_str(HTML, content, &values)?;
    let title: String = title.chars().take(TITLE).collect();
    let html = page(language, &title, &escaped);
    Ok(Rendered { title, content: plain, html })
}

/// An address to press in HTML, itself in plain text.
fn link(state: &State, address: String) -> Given {
    if matches!(state.auto_escape(), AutoEscape::Html) {
        let address = HtmlEscape(&address);
        Given::from_safe_string(format!("<a href=\"{address}\">{address}</a>"))
    } else {
        address.into()
    }
}

fn page(language: Language, title: &str, escaped: &str) -> String {
    let code = language.code();
    let foot = language.pick(
        "Email ini dikirim oleh Lumbung. Tidak perlu dibalas.",
        "This e-mail was sent by Lumbung. There is no need to answer.",
    );
    let title = HtmlEscape(title);
    let paragraphs: String = escaped
        .split("\n\n")
        .map(|paragraph| format!("<p>{}</p>\n", paragraph.trim().replace('\n', "<br>\n")))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"{code}\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body style=\"font-family:sans-serif;max-width:36em;margin:2em auto;padding:0 1em\">\n\
         <h1 style=\"font-size:1.2em\">{title}</h1>\n{paragraphs}\
         <p style=\"color:#666;font-size:.85em\">{foot}</p>\n</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(kind: Kind) -> Value {
        match kind {
            Kind::VerifyEmail | Kind::ResetPassword | Kind::ChangeEmail => {
                json!({ "link": "https://lumbung.example/x?a=1&b=2", "code": "123456" })
            }
            Kind::VerifyPhone => json!({ "code": "123456" }),
            Kind::NewSignIn => {
                json!({ "device": "RuangHijau/1.0", "network": "203.0.113.0/24", "at": "21 Nov 2026 09.00 WIB" })
            }
            Kind::SecondFactorChanged => {
                json!({ "change": "recovery", "left": 9, "at": "21 Nov 2026 09.00 WIB" })
            }
            Kind::PasswordChanged | Kind::EmailChanged => json!({ "at": "21 Nov 2026 09.00 WIB" }),
            Kind::AccountBanned => json!({ "reason": "<spam>", "until": null }),
            Kind::PrivacyAsked => json!({ "due": "24 Nov 2026 09.00 UTC" }),
            Kind::ExportReady | Kind::PrivacyAnswered => json!({}),
            Kind::PostLiked => json!({ "name": "Siti & Budi", "post": "Kebun atap" }),
            Kind::PostCommented => {
                json!({ "name": "Siti", "post": "Kebun atap", "comment": "<script>alert(1)</script>" })
            }
        }
    }

    #[test]
    fn every_kind_has_texts_in_both_languages_that_need_no_more_than_they_say() {
        for kind in Kind::ALL {
            let texts = [Language::Indonesian, Language::English].map(|language| {
                let text = render(kind, language, &values(kind), 1).unwrap();
                assert!(!text.title.is_empty() && !text.content.is_empty(), "{kind:?}");
                for rest in ["{{", "{%", "undefined", "none"] {
                    assert!(!text.content.contains(rest), "{kind:?}: {}", text.content);
                }
                text
            });
            assert_ne!(texts[0].title, texts[1].title, "{kind:?} is not translated");
            assert_ne!(texts[0].content, texts[1].content, "{kind:?} is not translated");
        }
    }

    #[test]
    fn what_people_wrote_is_never_markup_and_a_link_can_be_pressed() {
        let comment =
            render(Kind::PostCommented, Language::English, &values(Kind::PostCommented), 1).unwrap();
        assert!(comment.content.contains("<script>"), "{}", comment.content);
        assert!(!comment.html.contains("<script>"), "{}", comment.html);
        let reset =
            render(Kind::ResetPassword, Language::Indonesian, &values(Kind::ResetPassword), 1).unwrap();
        assert!(reset.content.contains("https://lumbung.example/x?a=1&b=2"), "{}", reset.content);
        assert!(reset.html.contains("<a href=\"https:"), "{}", reset.html);
        assert!(reset.html.contains("a=1&amp;b=2"), "{}", reset.html);
    }

    #[test]
    fn a_title_is_one_line_of_bounded_length_whatever_is_in_it() {
        let name = format!("Budi\r\nBcc: everyone@example.com {}", "x".repeat(400));
        let values = json!({ "name": name, "post": "Kebun" });
        let title = render(Kind::PostLiked, Language::English, &values, 1).unwrap().title;
        assert!(!title.contains(['\r', '\n']) && title.chars().count() == TITLE, "{title}");
    }

    #[test]
    fn every_change_of_a_second_factor_has_words_of_its_own() {
        for language in [Language::Indonesian, Language::English] {
            let mut titles: Vec<String> = ["on", "off", "reset", "recovery"]
                .map(|change| {
                    let values = json!({ "change": change, "left": 9, "at": "21 Nov 2026 09.00 WIB" });
                    render(Kind::SecondFactorChanged, language, &values, 1).unwrap().title
                })
                .into();
            titles.sort();
            titles.dedup();
            assert_eq!(titles.len(), 4, "{titles:?}");
        }
    }

    #[test]
    fn a_text_whose_value_is_missing_is_not_sent_half() {
        assert!(render(Kind::ResetPassword, Language::English, &json!({}), 1).is_err());
    }

    #[test]
    fn many_like_events_are_told_as_their_number() {
        let text = |times| {
            render(Kind::PostLiked, Language::Indonesian, &values(Kind::PostLiked), times).unwrap().title
        };
        assert_eq!(text(1), "Siti & Budi menyukai Kebun atap");
        assert_eq!(text(12), "12 orang menyukai Kebun atap");
    }
}
