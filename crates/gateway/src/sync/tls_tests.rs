//! The client against a real TLS server, with a clock that a test sets.

use super::super::client::{CloudClient, DateDoubt, chain, http_client};
use super::*;
use crate::clock::Moment;
use actix_web::{App, HttpResponse, HttpServer, web};
use lumbung_shared::time::rfc3339;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// An authority that issues what a test asks for.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(pem.path(), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server with a certificate that is valid between two times; its address.
    fn server(&self, name: &str, from_ms: i64, until_ms: i64) -> String {
        let at = |ms: i64| date_time_ymd(1970, 1, 1) + Duration::from_millis(ms.unsigned_abs());
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (at(from_ms), at(until_ms));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let server =
            HttpServer::new(|| App::new().default_service(web::to(|| async { HttpResponse::Ok().finish() })))
                .workers(1)
                .disable_signals()
                .bind_rustls_0_23("127.0.0.1:0", config)
                .unwrap();
        let address = format!("https://localhost:{}", server.addrs()[0].port());
        tokio::spawn(server.run());
        address
    }

    fn client(&self, clock: &Arc<Clock>) -> CloudClient {
        http_client(self.pem.path().to_str().unwrap(), Duration::from_secs(5), Arc::clone(clock)).unwrap()
    }
}

async fn asked(client: &CloudClient, url: &str) -> Result<u16, String> {
    let answer = client.http.get(url).send().await;
    answer.map(|answer| answer.status().as_u16()).map_err(|error| chain(&error))
}

/// A gateway that woke up in 1970.
fn in_1970() -> (Arc<Clock>, i64) {
    let clock = Arc::new(Clock::stopped_at(10_000));
    let Moment { wall_ms: floor, .. } = clock.now();
    (clock, floor)
}

#[tokio::test]
async fn a_gateway_in_1970_believes_a_certificate_that_is_younger_than_its_program() {
    let (clock, floor) = in_1970();
    let authority = Authority::new();
    let url = authority.server("localhost", floor + 20 * HOUR, floor + 90 * DAY);
    let client = authority.client(&clock);
    assert_eq!(asked(&client, &url).await, Ok(200));

    client.hear_time(&url, 0, 0, &rfc3339(floor + 100 * DAY));
    assert!(!clock.trusted_time().confirmed, "outside the certificate's validity nothing is learnt");
    client.hear_time(&url, 0, 0, &rfc3339(floor + 2 * DAY));
    let time = clock.trusted_time();
    assert!(time.confirmed && time.earliest_ms == floor + 2 * DAY, "{time:?}");
}

#[tokio::test]
async fn what_ended_before_the_floor_a_wrong_name_and_a_strange_authority_are_refused_always() {
    let (clock, floor) = in_1970();
    let authority = Authority::new();
    let client = authority.client(&clock);
    let ended = authority.server("localhost", floor - 90 * DAY, floor - HOUR);
    let refusal = asked(&client, &ended).await.unwrap_err();
    assert!(refusal.contains("certificate expired"), "{refusal}");
    assert!(matches!(client.doubt(&refusal), Some(DateDoubt::Ended { .. })));

    for (from, until) in [(floor + 20 * HOUR, floor + 90 * DAY), (floor - DAY, floor + DAY)] {
        let wrong_name = authority.server("lain.example", from, until);
        let refusal = asked(&client, &wrong_name).await.unwrap_err();
        assert!(refusal.contains("not valid for name"), "{refusal}");
        let stranger = Authority::new().server("localhost", from, until);
        let refusal = asked(&client, &stranger).await.unwrap_err();
        // It bears the name of ours.
        assert!(refusal.contains("BadSignature"), "{refusal}");
        assert_eq!(client.doubt(&refusal), None);
    }
}

#[tokio::test]
async fn an_unconfirmed_clock_far_ahead_shuts_out_nobody_and_a_confirmed_one_judges_the_dates() {
    let (_, floor) = in_1970();
    let authority = Authority::new();
    let url = authority.server("localhost", floor + 20 * HOUR, floor + 90 * DAY);
    let ahead = Arc::new(Clock::stopped_at(floor + 400 * DAY));
    assert_eq!(asked(&authority.client(&ahead), &url).await, Ok(200));

    ahead.hear_cloud(0, 0, floor + 400 * DAY, false).unwrap();
    let client = authority.client(&ahead);
    let refusal = asked(&client, &url).await.unwrap_err();
    assert!(refusal.contains("certificate expired"), "{refusal}");
    assert!(matches!(client.doubt(&refusal), Some(DateDoubt::Disagree { .. })));
}
