//! Becoming known to the cloud, and changing the key.
//!
//! The new key is in the file before it is sent: if the answer is lost, asking again with the same key
//! is the same enrolment.

use super::client::{self, Answered, CloudClient, DateDoubt};
use crate::config::{is_web_address, trimmed_cloud_url};
use crate::identity::{Enrolment, IdentityError, IdentityFile, Key, Pending, Site};
use crate::signing::{Registered, SigningError, SigningFile};
use lumbung_shared::enrol::{EnrolRequest, Enrolled, RotateRequest, SigningKey};
use lumbung_shared::signing::{PublicKey, Signer};
use std::fmt;

/// What an operator hands to a gateway: `lumbung://enrol?cloud=<url>&claim=<code>`.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolLink {
    /// The cloud's base address.
    pub cloud: String,
    pub claim: String,
}

impl fmt::Debug for EnrolLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolLink({}, …)", self.cloud)
    }
}

impl EnrolLink {
    /// From its two parts.
    pub fn new(cloud: &str, claim: &str) -> Result<Self, EnrolError> {
        let (cloud, claim) = (trimmed_cloud_url(cloud), claim.trim().to_owned());
        if !is_web_address(&cloud) {
            return Err(EnrolError::Link("the cloud's address must begin with http:// or https://"));
        }
        if claim.is_empty() {
            return Err(EnrolError::Link("the claim is empty"));
        }
        Ok(Self { cloud, claim })
    }

    /// From the text of the QR code.
    pub fn parse(text: &str) -> Result<Self, EnrolError> {
        const FORM: &str = "expected lumbung://enrol?cloud=ADDRESS&claim=CODE";
        let link = reqwest::Url::parse(text.trim()).map_err(|_| EnrolError::Link(FORM))?;
        if link.scheme() != "lumbung" || link.host_str() != Some("enrol") {
            return Err(EnrolError::Link(FORM));
        }
        let part = |name: &str| link.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
        match (part("cloud"), part("claim")) {
            (Some(cloud), Some(claim)) => Self::new(&cloud, &claim),
            _ => Err(EnrolError::Link(FORM)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("{0}")]
    Link(&'static str),
    #[error("this gateway is already {0} and nothing is pending")]
    AlreadyEnrolled(String),
    #[error("nothing to do: there is no claim; give the link that the operator showed")]
    NoClaim,
    #[error("this gateway is not enrolled yet")]
    NotEnrolled,
    #[error("the cloud cannot be reached: {0}. The same command again goes on where this one stopped")]
    Unreachable(String),
    #[error("the cloud's certificate is refused for its dates: {error} ({doubt})")]
    Dates { error: String, doubt: DateDoubt },
    #[error("the cloud refused: {0}")]
    Refused(String),
    #[error("the cloud's answer cannot be read: {0}")]
    Answer(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// Redeems a claim: the given one, or the one a lost answer left pending.
pub async fn enrol(
    client: &CloudClient,
    file: &IdentityFile,
    link: Option<EnrolLink>,
) -> Result<Enrolment, EnrolError> {
    let mut identity = file.read()?;
    let pending = match (identity.pending.take(), link) {
        (Some(Pending::Enrol { cloud_url, claim, key }), None) => (cloud_url, claim, key),
        (Some(Pending::Enrol { cloud_url, claim, key }), Some(link))
            if claim.reveal() == link.claim && cloud_url == link.cloud =>
        {
            (cloud_url, claim, key)
        }
        (_, Some(link)) => (link.cloud, Key::secret(link.claim), Key::draw()?),
        (_, None) => {
            return Err(match identity.enrolled {
                Some(enrolment) => EnrolError::AlreadyEnrolled(enrolment.gateway_id),
                None => EnrolError::NoClaim,
            });
        }
    };
    let (cloud_url, claim, key) = pending;
    identity.pending =
        Some(Pending::Enrol { cloud_url: cloud_url.clone(), claim: claim.clone(), key: key.clone() });
    file.write(&identity)?;

    let signing = SigningFile::in_dir(file.dir());
    let (signer, _) = signing.read_or_make()?;
    let request = EnrolRequest {
        claim: claim.reveal().to_owned(),
        key: key.reveal().to_owned(),
        hardware: board_serial(),
        signing: Some(SigningKey::new(&signer, key.reveal())),
    };
    let body = serde_json::to_vec(&request).map_err(|error| EnrolError::Answer(error.to_string()))?;
    let url = format!("{cloud_url}/api/gateways/enrol");
    let answer = client::post(&client.http, &url, None, None, body).await;
    if answer.as_ref().is_ok_and(Answered::is_conflict) {
        // The claim belongs to another key: this one will never be good, and waiting for it is over.
        identity.pending = None;
        file.write(&identity)?;
        if let Some(enrolment) = identity.enrolled.filter(|enrolment| enrolment.cloud_url == cloud_url) {
            return Err(EnrolError::AlreadyEnrolled(enrolment.gateway_id));
        }
    }
    let answer = taken(client, answer)?;
    let enrolled: Enrolled =
        serde_json::from_slice(&answer.body).map_err(|error| EnrolError::Answer(error.to_string()))?;
    keep(&signing, &signer, &enrolled.gateway_id, enrolled.receipt_key)?;
    let enrolment = Enrolment {
        gateway_id: enrolled.gateway_id,
        site: Site { code: enrolled.site.code, name: enrolled.site.name, time_zone: enrolled.site.time_zone },
        cloud_url,
        key,
        enrolled_at: enrolled.server_time,
    };
    identity.pending = None;
    identity.enrolled = Some(enrolment.clone());
    file.write(&identity)?;
    Ok(enrolment)
}

/// Exchanges the key. The old one stays good until the new one was first used.
pub async fn rotate(
    client: &CloudClient,
    file: &IdentityFile,
    cloud_url: &str,
) -> Result<Enrolment, EnrolError> {
    let mut identity = file.read()?;
    let Some(mut enrolment) = identity.enrolled.take() else {
        return Err(EnrolError::NotEnrolled);
    };
    let base = if cloud_url.is_empty() { enrolment.cloud_url.clone() } else { cloud_url.to_owned() };
    if let Err(error) = register(client, &base, file, &enrolment).await {
        tracing::warn!(%error, "the signing key is not registered yet; the sync will do it");
    }
    let new_key = match identity.pending.take() {
        Some(Pending::Rotate { key }) => key,
        _ => Key::draw()?,
    };
    identity.enrolled = Some(enrolment.clone());
    identity.pending = Some(Pending::Rotate { key: new_key.clone() });
    file.write(&identity)?;

    let request = RotateRequest { new_key: new_key.reveal().to_owned() };
    let body = serde_json::to_vec(&request).map_err(|error| EnrolError::Answer(error.to_string()))?;
    let url = format!("{base}/api/gateways/rotate");
    taken(client, client::post(&client.http, &url, Some(&enrolment.key), None, body).await)?;
    enrolment.key = new_key;
    identity.pending = None;
    identity.enrolled = Some(enrolment.clone());
    file.write(&identity)?;
    Ok(enrolment)
}

/// Tells the cloud with what this gateway signs, unless that cloud knows. True: it knows now. An older cloud
/// has no ear for it.
pub(super) async fn register(
    client: &CloudClient,
    base: &str,
    file: &IdentityFile,
    enrolment: &Enrolment,
) -> Result<bool, EnrolError> {
    let signing = SigningFile::in_dir(file.dir());
    let (signer, registered) = signing.read_or_make()?;
    if registered.is_some_and(|known| known.gateway_id == enrolment.gateway_id) {
        return Ok(true);
    }
    let request = SigningKey::new(&signer, enrolment.key.reveal());
    let body = serde_json::to_vec(&request).map_err(|error| EnrolError::Answer(error.to_string()))?;
    let url = format!("{base}/api/gateways/signing_key");
    let answer = taken(client, client::post(&client.http, &url, Some(&enrolment.key), None, body).await)?;
    let enrolled: Enrolled =
        serde_json::from_slice(&answer.body).map_err(|error| EnrolError::Answer(error.to_string()))?;
    keep(&signing, &signer, &enrolment.gateway_id, enrolled.receipt_key)?;
    Ok(enrolled.receipt_key.is_some())
}

/// An older cloud tells no key and has not registered ours.
fn keep(
    signing: &SigningFile,
    signer: &Signer,
    gateway_id: &str,
    receipt_key: Option<PublicKey>,
) -> Result<(), SigningError> {
    let Some(receipt_key) = receipt_key else { return Ok(()) };
    let (gateway_id, public_key) = (gateway_id.to_owned(), signer.public_key());
    signing.keep(Registered { gateway_id, public_key, receipt_key })
}

fn taken(client: &CloudClient, answer: Result<Answered, client::NoAnswer>) -> Result<Answered, EnrolError> {
    let answer = answer.map_err(|error| match client.doubt(&error.text) {
        Some(doubt) => EnrolError::Dates { error: error.text, doubt },
        None => EnrolError::Unreachable(error.text),
    })?;
    if answer.status.is_success() {
        Ok(answer)
    } else if answer.status.is_server_error() {
        Err(EnrolError::Unreachable(answer.message()))
    } else {
        Err(EnrolError::Refused(answer.message()))
    }
}

/// The board's serial number, where the device tree tells it.
fn board_serial() -> Option<String> {
    ["/proc/device-tree/serial-number", "/sys/firmware/devicetree/base/serial-number"]
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned())
        .filter(|serial| !serial.is_empty() && serial.len() <= 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_link_is_read_as_the_qr_code_has_it() {
        let link =
            EnrolLink::parse("lumbung://enrol?cloud=http%3A%2F%2F127.0.0.1%3A8000&claim=ABCD-EFGH").unwrap();
        assert_eq!((link.cloud.as_str(), link.claim.as_str()), ("http://127.0.0.1:8000", "ABCD-EFGH"));
        let plain = EnrolLink::parse("lumbung://enrol?cloud=https://c.example/&claim=X").unwrap();
        assert_eq!(plain.cloud, "https://c.example");
        assert!(!format!("{link:?}").contains("ABCD"));
        for wrong in [
            "",
            "http://enrol?cloud=http://c&claim=X",
            "lumbung://enrol?claim=X",
            "lumbung://enrol?cloud=ftp://c&claim=X",
            "lumbung://enrol?cloud=http://c&claim=",
        ] {
            assert!(EnrolLink::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// A cloud that gives every enrolment this answer.
    fn answering(status: u16, body: &'static str) -> String {
        use actix_web::{App, HttpResponse, HttpServer, http::StatusCode, web};
        let server = HttpServer::new(move || {
            let answer =
                move || async move { HttpResponse::build(StatusCode::from_u16(status).unwrap()).body(body) };
            App::new().default_service(web::to(answer))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", server.addrs()[0]);
        tokio::spawn(server.run());
        address
    }

    async fn enrolled_again(cloud: &str, enrolled: bool) -> (EnrolError, bool) {
        let dir = tempfile::tempdir().unwrap();
        let file = IdentityFile::in_dir(dir.path());
        let enrolment = Enrolment {
            gateway_id: "GW-1".into(),
            site: Site { code: "D".into(), name: "D".into(), time_zone: "Asia/Jakarta".into() },
            cloud_url: cloud.into(),
            key: Key::draw().unwrap(),
            enrolled_at: "2026-11-21T00:00:00Z".into(),
        };
        let before = Identity { enrolled: enrolled.then_some(enrolment), pending: None };
        file.write(&before).unwrap();
        let client = client::http_client("", std::time::Duration::from_secs(5), Default::default()).unwrap();
        let link = EnrolLink::new(cloud, "ABCD-EFGH").unwrap();
        let error = enrol(&client, &file, Some(link)).await.unwrap_err();
        let after = file.read().unwrap();
        assert_eq!(after.enrolled, before.enrolled);
        (error, after.pending.is_some())
    }

    #[tokio::test]
    async fn a_claim_that_was_redeemed_before_changes_nothing_and_leaves_nothing_pending() {
        let cloud = answering(409, r#"{"error":{"code":"CLAIM_USED","message":""}}"#);
        let (error, pending) = enrolled_again(&cloud, true).await;
        assert!(matches!(&error, EnrolError::AlreadyEnrolled(name) if name == "GW-1") && !pending, "{error}");
        let (error, pending) = enrolled_again(&cloud, false).await;
        assert!(matches!(&error, EnrolError::Refused(_)) && !pending, "{error}");
    }

    #[tokio::test]
    async fn a_key_whose_answer_may_be_lost_stays_pending() {
        let portal = answering(409, "<html>log in first</html>");
        assert!(enrolled_again(&portal, false).await.1);
        let down = answering(503, "");
        assert!(enrolled_again(&down, true).await.1);
    }
}
