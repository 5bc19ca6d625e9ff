//! Settings that are allowed and yet hardly meant.

use crate::config::{Config, MailTransport};
use crate::finding::Finding;
use reqwest::Url;
use std::net::IpAddr;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    vec![
        public_url(config),
        open_loopback(config),
        token_secret(config),
        second_factor(config),
        outbox(config),
    ]
}

/// A name or address of this machine alone.
pub(super) fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

fn public_url(config: &Config) -> Finding {
    let text = config.public_url();
    let Ok(url) = Url::parse(&text) else {
        return Finding::fail(
            "public_url",
            format!("{text} is no URL"),
            "write http.public_url as https://mbg.example.id",
        );
    };
    let beyond = !config.http.listen.ip().is_loopback();
    match url.scheme() {
        "https" => Finding::ok("public_url", text),
        "http" if is_local(&url) && !beyond => Finding::warn(
            "public_url",
            format!("{text}, which only this machine reaches"),
            "set http.public_url to the https address of the proxy in front",
        ),
        "http" => Finding::fail(
            "public_url",
            format!("{text}: keys and passwords travel in clear"),
            "set http.tls, or listen on loopback behind a proxy that ends TLS; set http.public_url to https://…",
        ),
        other => Finding::fail("public_url", format!("{other} is not served"), "use https://"),
    }
}

fn open_loopback(config: &Config) -> Finding {
    if !config.development.open_loopback {
        return Finding::ok("open_loopback", "off: readers need a key");
    }
    let advice = "set development.open_loopback = false; `lumbung-cloud key add` makes keys for readers";
    if config.http.public_url.is_empty() {
        Finding::warn("open_loopback", "on: programs on this machine read without a key", advice)
    } else {
        Finding::fail("open_loopback", "on behind a proxy: everybody reads without a key", advice)
    }
}

/// What would have been mailed, the links that open accounts among it, is read by admins instead of by whom it is for.
fn outbox(config: &Config) -> Finding {
    let public = Url::parse(&config.public_url()).is_ok_and(|url| !is_local(&url));
    if config.mail.transport != MailTransport::Outbox || !public {
        return Finding::ok("outbox", "holds nobody's mails");
    }
    Finding::warn(
        "outbox",
        "people reach this cloud, and every admin reads the links that open their accounts at /dev/outbox",
        "set mail.transport = \"smtp\" before the first real account",
    )
}

fn token_secret(config: &Config) -> Finding {
    if config.people.token_secret.is_empty() {
        // Every replica finds the same there.
        Finding::ok("token_secret", "drawn by the cloud and kept in the database, and so in its backups")
    } else {
        Finding::ok("token_secret", "given; see that every replica has the same")
    }
}

fn second_factor(config: &Config) -> Finding {
    if let Some(role) = config.people.totp_required_for.first()
        && config.people.totp_key.is_empty()
    {
        return Finding::fail(
            "second_factor",
            format!("asked of {role} without people.totp_key, and the cloud does not start so"),
            "put the key into the file people.totp_key of the folder `credentials` beside the configuration file",
        );
    }
    if config.people.totp_required_for.iter().any(|role| role == "admin") {
        return Finding::ok("second_factor", "admins must have one");
    }
    Finding::warn(
        "second_factor",
        "a password alone makes an admin",
        "set people.totp_key, then people.totp_required_for = [\"admin\"]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    fn judged(change: impl FnOnce(&mut Config)) -> Vec<State> {
        let mut config = Config::load(None).unwrap();
        change(&mut config);
        check(&config).into_iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn a_cloud_behind_tls_is_well_set_up_and_a_bare_one_is_told_so() {
        use State::{Fail, Ok, Warn};
        let well = judged(|c| {
            c.http.public_url = "https://mbg.example.id/".into();
            c.people.totp_required_for = vec!["admin".into()];
            c.people.totp_key = "k".repeat(32);
            c.mail.transport = MailTransport::Smtp;
        });
        assert_eq!(well, [Ok, Ok, Ok, Ok, Ok]);
        assert_eq!(judged(|_| ()), [Warn, Ok, Ok, Warn, Ok], "a laptop");
        let keyless = judged(|c| c.people.totp_required_for = vec!["operator".into()]);
        assert_eq!(keyless, [Warn, Ok, Ok, Fail, Ok]);
        let listen = judged(|c| c.http.listen = "0.0.0.0:8000".parse().unwrap());
        assert_eq!(listen, [Fail, Ok, Ok, Warn, Warn]);
        let bare = judged(|c| c.http.public_url = "http://mbg.example.id".into());
        assert_eq!(bare, [Fail, Ok, Ok, Warn, Warn]);
        assert_eq!(judged(|c| c.http.public_url = "mbg.example.id".into()), [Fail, Ok, Ok, Warn, Ok]);
        assert_eq!(judged(|c| c.development.open_loopback = true), [Warn, Warn, Ok, Warn, Ok]);
        let exposed = judged(|c| {
            c.development.open_loopback = true;
            c.http.public_url = "https://mbg.example.id".into();
            c.mail.transport = MailTransport::Smtp;
        });
        assert_eq!(exposed, [Ok, Fail, Ok, Warn, Ok]);
    }
}
