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
    let receipts = Receipts::in_dir(dir.path(), outbox.clone(), Arc::clone(&clock));
    let api = Data::new(Api {
        phones: Arc::new(Phones::in_dir(dir.path())),
        gate: Arc::default(),
        lan: Some(Lan {
            listen: "192.168.1.7:5443".parse().unwrap(),
            fingerprint: "ab".repeat(32),
            spoken: "AB".into(),
            pin: "sha256/x".into(),
        }),
        receipts,
        capture,
        outbox,
        clock,
        sync,
        metrics,
        reader: Arc::default(),
        board: Arc::default(),
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
        app!($stand, Door::Plain)
    };
    ($stand:expr, $door:expr) => {
        init_service(
            App::new()
                .app_data(Data::clone(&$stand.api))
                .app_data(Data::new($door))
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
    let status = answer!(app, request(Method::GET, "/api/status", HERE)).1;
    assert_eq!(status["action"], "wadah_kembali");
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
    let (plain, tls) = (app!(stand), app!(stand, Door::Tls));
    let rebound = |peer| scan(peer).insert_header(("host", "rebound.example"));
    for (status, body) in [answer!(plain, rebound(HERE)), answer!(tls, rebound(LAN))] {
        assert_eq!((status, &body["error"]["code"]), (421, &json!("bad_host")));
    }
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

#[actix_web::test]
async fn a_phones_time_is_taken_where_nothing_better_is_known_and_refused_where_it_cannot_be() {
    let stand = stand(false);
    let app = app!(stand);
    let tell = |body: Value| {
        request(Method::POST, "/api/time", HERE)
            .insert_header(("host", "localhost"))
            .insert_header(("content-type", "application/json"))
            .set_payload(body.to_string())
    };
    let told = stand.api.clock.now().wall_ms + 3_600_000;
    let (status, body) =
        answer!(app, tell(json!({ "timestamp": lumbung_shared::time::rfc3339(told), "uncertainty_ms": 1 })));
    assert_eq!((status, &body["clock"]["source"]), (200, &json!("phone")), "{body}");
    assert_eq!((&body["clock"]["state"], &body["clock"]["uncertainty_ms"]), (&json!("held"), &json!(2_000)));
    assert!(stand.api.clock.now().wall_ms >= told);
    for (timestamp, code) in
        [("2019-01-01T00:00:00Z", "time_too_early"), ("2199-01-01T00:00:00Z", "time_too_late")]
    {
        let (status, body) = answer!(app, tell(json!({ "timestamp": timestamp })));
        assert_eq!((status, &body["error"]["code"]), (409, &json!(code)));
    }
    for wrong in [json!({}), json!({ "timestamp": "2026-11-21T09:30:00" })] {
        let (status, body) = answer!(app, tell(wrong));
        assert_eq!((status, &body["error"]["details"][0]["field"]), (400, &json!("timestamp")));
    }
}

/// Everybody who may come, and with what.
const CALLERS: [(char, Door, &str); 5] = [
    ('L', Door::Plain, HERE),
    // A neighbour while the field manual is open.
    ('F', Door::Plain, LAN),
    ('P', Door::Tls, LAN),
    // A phone that may pair others.
    ('R', Door::Tls, LAN),
    ('S', Door::Tls, LAN),
];

/// Who is let in where. A route that is not here fails the test.
const LET_IN: &[(&str, &str, &str)] = &[
    // The page without any data: the form for pairing.
    ("GET", "/", "LPRS"),
    ("GET", "/livez", "LFPRS"),
    ("GET", "/readyz", "L"),
    ("GET", "/metrics", "L"),
    ("POST", "/api/log_scan", "LFPR"),
    ("POST", "/api/readings", "LPR"),
    ("GET", "/api/scans", "LPR"),
    ("GET", "/api/status", "LPR"),
    ("GET", "/api/health", "LPR"),
    ("GET", "/api/action", "LPR"),
    ("PUT", "/api/action", "LPR"),
    ("GET", "/api/quarantine", "LPR"),
    ("POST", "/api/quarantine/retry", "LPR"),
    ("GET", "/api/openapi.json", "LPR"),
    // Tokens are handed out over TLS only.
    ("POST", "/api/pair", "PRS"),
    ("POST", "/api/phones/pairing", "LR"),
    ("GET", "/api/phones", "LPR"),
    // Of another phone; each may end its own right.
    ("DELETE", "/api/phones/{id}", "LR"),
    ("POST", "/api/resend", "L"),
    ("POST", "/api/receipt", "LPR"),
    ("POST", "/api/sensors/read", "LPR"),
    ("POST", "/api/time", "LPR"),
    ("POST", "/api/sync", "LPR"),
    // Nothing is there, and a stranger does not even hear that.
    ("GET", "/api/nothing", "L"),
];

fn token(stand: &Stand, may_pair: bool) -> crate::phones::Paired {
    let terms = crate::phones::Terms { officer: Some("P-07".into()), name: None, may_pair };
    let opened = stand.api.phones.open_pairing(terms).unwrap();
    stand.api.phones.pair(&opened.secret, Some("HP"), 0).unwrap()
}

#[actix_web::test]
async fn each_caller_is_let_in_where_the_table_says_and_nowhere_else() {
    let listed: std::collections::BTreeSet<_> =
        LET_IN.iter().map(|(method, path, _)| ((*method).to_owned(), *path)).collect();
    for row in access::ROWS {
        assert!(
            listed.contains(&(row.method.to_string(), row.path)),
            "{} {} is in no row",
            row.method,
            row.path
        );
    }
    assert_eq!(LET_IN.len(), access::ROWS.len() + 1);

    let stand = stand(true);
    let (plain, tls) = (app!(stand), app!(stand, Door::Tls));
    let (phone, pairing) = (token(&stand, false).token, token(&stand, true).token);
    for (method, path, who) in LET_IN {
        for (caller, door, peer) in CALLERS {
            let method = method.parse().unwrap();
            let mut request = request(method, &path.replace("{id}", "00000000"), peer)
                .insert_header(("content-type", "application/json"))
                .set_payload("[");
            for (letter, token) in [('P', &phone), ('R', &pairing)] {
                if caller == letter {
                    request = request.insert_header(("authorization", format!("Bearer {token}")));
                }
            }
            let (status, body) = match door {
                Door::Plain => answer!(plain, request),
                Door::Tls => answer!(tls, request),
            };
            let let_in = !matches!(status, 401 | 403);
            assert_eq!(let_in, who.contains(caller), "{caller} {path}: {status} {body}");
        }
    }
}

#[actix_web::test]
async fn a_token_counts_over_tls_only_and_not_after_it_was_revoked() {
    let stand = stand(true);
    let (plain, tls) = (app!(stand), app!(stand, Door::Tls));
    let paired = token(&stand, false);
    let bearer = ("authorization", format!("Bearer {}", paired.token));
    let ask = |peer| request(Method::GET, "/api/status", peer).insert_header(bearer.clone());
    assert_eq!(answer!(tls, ask(LAN)).0, 200);
    let (status, body) = answer!(plain, ask(LAN));
    assert_eq!((status, &body["error"]["code"]), (403, &json!("tls_needed")));
    // A machine is not let in over TLS for being the gateway itself.
    let (status, body) = answer!(tls, request(Method::GET, "/api/status", HERE));
    assert_eq!((status, &body["error"]["code"]), (401, &json!("pairing_needed")));
    let end = request(Method::DELETE, &format!("/api/phones/{}", paired.phone.id), LAN);
    assert_eq!(answer!(tls, end.insert_header(bearer.clone())).0, 200, "a phone gives up its own right");
    let (status, body) = answer!(tls, ask(LAN));
    assert_eq!((status, &body["error"]["code"]), (401, &json!("token_refused")));
}

#[actix_web::test]
async fn a_phones_officer_stands_on_its_scans_and_nobody_elses() {
    let stand = stand(false);
    let tls = app!(stand, Door::Tls);
    let bearer = ("authorization", format!("Bearer {}", token(&stand, false).token));
    let scan = |body: &'static str| scan(LAN).insert_header(bearer.clone()).set_payload(body);
    assert_eq!(answer!(tls, scan(r#"{"nfc_tag_id":"A","status_scan":"b"}"#)).0, 201);
    assert_eq!(answer!(tls, scan(r#"{"nfc_tag_id":"B","status_scan":"b","officer":"P-07"}"#)).0, 201);
    let (status, body) = answer!(tls, scan(r#"{"nfc_tag_id":"C","status_scan":"b","officer":"P-08"}"#));
    assert_eq!((status, &body["error"]["code"]), (403, &json!("officer_differs")));
    let (_, listed) = answer!(tls, request(Method::GET, "/api/scans", LAN).insert_header(bearer.clone()));
    let scans = listed["scans"].as_array().unwrap();
    assert_eq!(scans.len(), 2);
    assert!(scans.iter().all(|scan| scan["officer"] == "P-07" && scan["source"] == "phone"), "{listed}");
}

#[actix_web::test]
async fn a_page_from_elsewhere_changes_nothing_with_a_browsers_cookie_or_on_the_gateway_itself() {
    let stand = stand(false);
    let (plain, tls) = (app!(stand), app!(stand, Door::Tls));
    let cookie = ("cookie", format!("a=b; {}={}", guard::COOKIE_NAME, token(&stand, false).token));
    let send = |peer| request(Method::POST, "/api/sync", peer).insert_header(("host", "127.0.0.1:5000"));
    let foreign = ("origin", "https://evil.example");
    let ours = ("origin", "https://127.0.0.1:5000");
    assert_eq!(answer!(tls, send(LAN).insert_header(cookie.clone()).insert_header(ours)).0, 202);
    for request in [
        send(LAN).insert_header(cookie.clone()).insert_header(foreign),
        send(LAN).insert_header(cookie.clone()).insert_header(("origin", "null")),
        send(LAN).insert_header(cookie.clone()),
    ] {
        let (status, body) = answer!(tls, request);
        assert_eq!((status, &body["error"]["code"]), (403, &json!("foreign_page")));
    }
    assert_eq!(answer!(plain, send(HERE).insert_header(foreign)).0, 403);
    assert_eq!(answer!(plain, send(HERE)).0, 202, "a program has no origin");
}

#[actix_web::test]
async fn a_stored_scan_is_answered_as_the_document_says() {
    let stand = stand(false);
    let app = app!(stand);
    let (_, document) =
        answer!(app, request(Method::GET, "/api/openapi.json", HERE).insert_header(("host", "localhost")));
    let (_, stored) = answer!(app, scan(HERE));
    let named = document["components"]["schemas"]["Stored"]["required"].as_array().unwrap();
    let mut named: Vec<&str> = named.iter().map(|name| name.as_str().unwrap()).collect();
    let mut answered: Vec<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    named.sort_unstable();
    answered.sort_unstable();
    assert_eq!(answered, named);
}

#[actix_web::test]
async fn one_receipt_is_taken_at_a_time_and_the_next_when_that_is_done() {
    let stand = stand(false);
    let app = app!(stand);
    let post = || request(Method::POST, "/api/receipt", HERE).insert_header(("host", "localhost:5000"));
    let turn = stand.api.receipts.turn();
    let (status, body) = answer!(app, post().set_payload("{}"));
    assert_eq!((status, &body["error"]["code"]), (503, &json!("receipt_not_kept")));
    drop(turn);
    for _ in 0..2 {
        let (status, body) = answer!(app, post().set_payload("{}"));
        assert_eq!((status, &body["error"]["code"]), (400, &json!("receipt_unreadable")));
    }
}

#[actix_web::test]
async fn the_right_to_pair_is_given_on_the_gateway_and_not_passed_on() {
    let stand = stand(false);
    let (plain, tls) = (app!(stand), app!(stand, Door::Tls));
    let bearer = ("authorization", format!("Bearer {}", token(&stand, true).token));
    let open = |peer, wish: &'static str| {
        let request = request(Method::POST, "/api/phones/pairing", peer).set_payload(wish);
        request.insert_header(("host", "localhost")).insert_header(("content-type", "application/json"))
    };
    let more = r#"{"may_pair":true}"#;
    let (status, body) = answer!(tls, open(LAN, more).insert_header(bearer.clone()));
    assert_eq!((status, &body["error"]["code"]), (403, &json!("not_this_phone")));
    assert_eq!(answer!(tls, open(LAN, "{}").insert_header(bearer)).0, 201);
    assert_eq!(answer!(plain, open(HERE, more)).0, 201);
}

#[actix_web::test]
async fn a_browser_keeps_its_token_where_no_script_and_no_other_page_can_reach_it() {
    let stand = stand(false);
    let tls = app!(stand, Door::Tls);
    let opened = stand.api.phones.open_pairing(crate::phones::Terms::default()).unwrap();
    let wish = json!({ "code": opened.digits, "name": "HP", "keep": "cookie" });
    let pair = request(Method::POST, "/api/pair", LAN).set_json(wish);
    let response = call_service(&tls, pair.to_request()).await;
    let cookie = response.headers().get("set-cookie").unwrap().to_str().unwrap().to_owned();
    let mut parts = cookie.split("; ");
    assert!(parts.next().unwrap().starts_with("__Host-lumbung=lbp_"));
    let flags: Vec<_> = parts.collect();
    for flag in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(flags.contains(&flag), "{flag} is missing");
    }
    let body: Value = serde_json::from_slice(&read_body(response).await).unwrap();
    assert!(body["success"] == true && body.get("token").is_none(), "a script could read it");
}
