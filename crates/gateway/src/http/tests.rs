//! The API as its callers meet it, without a network.

use super::*;
use crate::hardware::LoggedSignal;
use crate::outbox::Ended;
use crate::outbox::tests::{open, settings};
use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use serde_json::{Value, json};

const LAN: &str = "192.168.1.20:40000";
const HERE: &str = "127.0.0.1:40000";

struct Stand {
    api: Data<Api>,
    ended: Option<Ended>,
    _dir: tempfile::TempDir,
}

impl Stand {
    async fn close(&mut self) {
        self.api.outbox.close().await;
        self.ended.take().unwrap().wait().await.unwrap();
    }
}

fn stand(field_manual: bool) -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, ended) = open(&settings(dir.path()));
    let (clock, sync, metrics) = (Arc::default(), Arc::<SyncHandle>::default(), Arc::<Metrics>::default());
    let capture = Capture {
        outbox: outbox.clone(),
        clock: Arc::clone(&clock),
        doorbell: sync.doorbell(),
        signal: Arc::new(LoggedSignal),
        metrics: Arc::clone(&metrics),
    };
    let listen = if field_manual { "0.0.0.0:5000" } else { "127.0.0.1:5000" };
    let api = Data::new(Api {
        capture,
        outbox,
        clock,
        sync,
        metrics,
        reader: Arc::default(),
        mqtt: Arc::new(MqttHealth::new(Arc::default())),
        series_prefix: "lan/".to_owned(),
        action: Some(Arc::new(Action::in_dir(dir.path(), "makanan_keluar").unwrap())),
        sensors: Arc::default(),
        listen: listen.parse().unwrap(),
        field_manual,
    });
    Stand { api, ended: Some(ended), _dir: dir }
}

macro_rules! app {
    ($stand:expr) => {
        init_service(
            App::new()
                .app_data(Data::clone(&$stand.api))
                .wrap(from_fn(guard::guard))
                .configure(routes)
                .default_service(web::to(not_found)),
        )
        .await
    };
}

fn request(method: Method, path: &str, peer: &str) -> TestRequest {
    TestRequest::default()
        .method(method)
        .uri(path)
        .insert_header(("host", "192.168.1.7:5000"))
        .peer_addr(peer.parse().unwrap())
}

fn scan(peer: &str) -> TestRequest {
    request(Method::POST, "/api/log_scan", peer)
        .insert_header(("host", "localhost:5000"))
        .insert_header(("content-type", "application/json"))
        .set_payload(r#"{"nfc_tag_id":"A","status_scan":"masuk"}"#)
}

macro_rules! answer {
    ($app:expr, $request:expr) => {{
        let response = call_service(&$app, $request.to_request()).await;
        let status = response.status().as_u16();
        let body = read_body(response).await;
        (status, serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null))
    }};
}

#[actix_web::test]
async fn another_machine_may_do_nothing_unless_the_field_manual_is_open() {
    let stand = stand(false);
    let app = app!(stand);
    let (status, body) = answer!(app, scan(LAN));
    assert_eq!((status, &body["error"]["code"]), (403, &json!("loopback_only")));
    assert_eq!(answer!(app, scan(HERE)).0, 201);
}

#[actix_web::test]
async fn the_field_manual_opens_one_door_and_marks_what_comes_through() {
    let stand = stand(true);
    let app = app!(stand);
    let (status, _) = answer!(app, scan(LAN).insert_header(("host", "192.168.1.7:5000")));
    assert_eq!(status, 201);
    for path in ["/api/status", "/api/scans", "/metrics", "/api/quarantine"] {
        assert_eq!(answer!(app, request(Method::GET, path, LAN)).0, 403, "{path}");
    }
    assert_eq!(answer!(app, request(Method::GET, "/livez", LAN)).0, 200);
    let (_, listed) = answer!(app, request(Method::GET, "/api/scans", HERE));
    assert_eq!(listed["scans"][0]["source"], "field_manual");
}

#[actix_web::test]
async fn the_action_of_taps_is_shown_and_changed_on_the_gateway_itself_only() {
    let stand = stand(true);
    let app = app!(stand);
    let put = |peer, body: &str| {
        request(Method::PUT, "/api/action", peer)
            .insert_header(("content-type", "application/json"))
            .set_payload(body.to_owned())
    };
    let show = || request(Method::GET, "/api/action", HERE);
    assert_eq!(answer!(app, show()), (200, json!({ "status_scan": "makanan_keluar" })));
    assert_eq!(answer!(app, put(LAN, r#"{"status_scan":"x"}"#)).0, 403);
    assert_eq!(answer!(app, put(HERE, r#"{"status_scan":"wadah_kembali"}"#)).0, 200);
    for wrong in [r#"{"status_scan":""}"#, r#"{"status_scan":7}"#, "{}", "["] {
        assert_eq!(answer!(app, put(HERE, wrong)).0, 400, "{wrong}");
    }
    assert_eq!(answer!(app, show()).1["status_scan"], "wadah_kembali");
}

fn readings(kind: &str, body: &str) -> TestRequest {
    request(Method::POST, "/api/readings", HERE)
        .insert_header(("host", "localhost"))
        .insert_header(("content-type", kind.to_owned()))
        .set_payload(body.to_owned())
}

const OURS: &str = r#"{"readings":[{"series":"k-1/t","unit":"Cel","value":4.5}]}"#;

#[actix_web::test]
async fn readings_in_either_form_are_kept_before_the_answer() {
    let stand = stand(false);
    let app = app!(stand);
    let (status, body) = answer!(app, readings("application/json", OURS));
    assert_eq!((status, &body["first"], &body["count"]), (201, &json!(1), &json!(1)), "{body}");
    let pack = r#"[{"bn":"k-1/","bu":"Cel","n":"a","v":1},{"n":"b","v":2}]"#;
    let (status, body) = answer!(app, readings("application/senml+json", pack));
    assert_eq!((status, &body["first"], &body["count"]), (201, &json!(2), &json!(2)), "{body}");
    assert_eq!(stand.api.outbox.gauges().unsent(crate::outbox::Stream::Reading), 3);
}

#[actix_web::test]
async fn the_same_key_with_the_same_body_is_the_same_post() {
    let stand = stand(false);
    let app = app!(stand);
    let keyed = |body: &str| readings("application/json", body).insert_header(("idempotency-key", "a-1"));
    let (status, first) = answer!(app, keyed(OURS));
    assert_eq!(status, 201);
    assert_eq!(answer!(app, keyed(OURS)), (200, first));
    let (status, body) = answer!(app, keyed(&OURS.replace("4.5", "4.6")));
    assert_eq!((status, &body["error"]["code"]), (409, &json!("idempotency_key_reused")));
    let long = keyed(OURS).insert_header(("idempotency-key", "x".repeat(101)));
    assert_eq!(answer!(app, long).0, 400);
    assert_eq!(stand.api.outbox.gauges().unsent(crate::outbox::Stream::Reading), 1);
}

#[actix_web::test]
async fn a_post_of_readings_is_kept_whole_or_not_at_all_and_every_fault_is_placed() {
    let stand = stand(false);
    let app = app!(stand);
    let pack = r#"[{"n":"a","u":"Cel","v":1},{"n":"b","vs":"buka"},{"n":"c","u":"Cel"}]"#;
    let (status, body) = answer!(app, readings("application/senml+json", pack));
    let fields: Vec<_> = body["error"]["details"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|detail| detail["field"].as_str())
        .collect();
    assert_eq!((status, fields), (400, vec!["[1].vs", "[2].v"]));
    let many = |count| format!("[{}]", vec![r#"{"n":"a","u":"Cel","v":1}"#; count].join(","));
    for (kind, body, expected) in [
        ("application/senml+json", many(1_001), 400),
        ("application/senml+json", "[]".to_owned(), 400),
        ("application/senml+json", "[7]".to_owned(), 400),
        ("application/senml+json", OURS.to_owned(), 400),
        ("application/json", many(1), 400),
        ("application/json", "{}".to_owned(), 400),
        ("application/json", OURS.replace("4.5", "1e999"), 400),
        ("application/json", " ".repeat(300_000), 413),
        ("text/plain", OURS.to_owned(), 415),
    ] {
        assert_eq!(answer!(app, readings(kind, &body)).0, expected, "{kind} {body:.40}");
    }
    assert_eq!(stand.api.outbox.gauges().unsent(crate::outbox::Stream::Reading), 0);
    assert_eq!(answer!(app, readings("application/senml+json", &many(1_000))).0, 201);
    let lan = request(Method::POST, "/api/readings", LAN).insert_header(("host", "localhost"));
    assert_eq!(answer!(app, lan).0, 403);
}

#[actix_web::test]
async fn readings_are_not_acknowledged_once_the_store_is_closed() {
    let mut stand = stand(false);
    let app = app!(stand);
    stand.close().await;
    let (status, body) = answer!(app, readings("application/json", OURS));
    assert_eq!((status, &body["error"]["code"]), (503, &json!("storage_failed")));
}

#[actix_web::test]
async fn a_made_up_name_is_refused() {
    let stand = stand(false);
    let app = app!(stand);
    let (status, body) = answer!(app, scan(HERE).insert_header(("host", "rebound.example:5000")));
    assert_eq!((status, &body["error"]["code"]), (421, &json!("bad_host")));
}

#[actix_web::test]
async fn a_body_over_the_limit_or_of_another_type_is_refused_by_name() {
    let stand = stand(false);
    let app = app!(stand);
    let large = format!(r#"{{"nfc_tag_id":"A","status_scan":"b","note":"{}"}}"#, "x".repeat(20_000));
    let (status, body) = answer!(app, scan(HERE).set_payload(large));
    assert_eq!((status, &body["error"]["code"]), (413, &json!("too_large")));
    let (status, _) = answer!(app, scan(HERE).insert_header(("content-type", "text/plain")));
    assert_eq!(status, 415);
    let typed = scan(HERE).insert_header(("content-type", "application/json; charset=utf-8"));
    assert_eq!(answer!(app, typed).0, 201);
}

#[actix_web::test]
async fn a_limit_that_is_no_number_is_named() {
    let stand = stand(false);
    let app = app!(stand);
    let scans = request(Method::GET, "/api/scans?limit=all", HERE).insert_header(("host", "localhost"));
    let (status, body) = answer!(app, scans);
    assert_eq!((status, &body["error"]["details"][0]["field"]), (400, &json!("limit")));
}

#[actix_web::test]
async fn a_request_is_named_in_its_answer() {
    let stand = stand(false);
    let app = app!(stand);
    let named = scan(HERE).insert_header(("x-request-id", "phone-7")).set_payload("{");
    let response = call_service(&app, named.to_request()).await;
    assert_eq!(response.headers().get("x-request-id").unwrap(), "phone-7");
    let body: Value = serde_json::from_slice(&read_body(response).await).unwrap();
    assert_eq!(body["request_id"], "phone-7");
    assert_eq!(body["success"], false);
}

#[actix_web::test]
async fn nothing_is_acknowledged_once_the_store_is_closed() {
    let mut stand = stand(false);
    let app = app!(stand);
    stand.close().await;
    let (status, body) = answer!(app, scan(HERE).insert_header(("accept-language", "en")));
    assert_eq!((status, &body["error"]["code"]), (503, &json!("storage_failed")));
    assert!(body["error"]["message"].as_str().unwrap().contains("NOT stored"));
}

#[actix_web::test]
async fn a_retry_names_what_it_cannot_find() {
    let stand = stand(false);
    let app = app!(stand);
    let retry = |body: &'static str| {
        request(Method::POST, "/api/quarantine/retry", HERE)
            .insert_header(("host", "localhost"))
            .insert_header(("content-type", "application/json"))
            .set_payload(body)
    };
    let (status, body) = answer!(app, retry("{}"));
    assert_eq!((status, &body["released"]), (200, &json!(0)));
    let (status, body) = answer!(app, retry(r#"{"stream":"rumour","seq":1}"#));
    assert_eq!((status, &body["error"]["details"][0]["field"]), (400, &json!("stream")));
    assert_eq!(answer!(app, retry("[]")).0, 400);
}
