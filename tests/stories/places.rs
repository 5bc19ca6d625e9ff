//! Operators make sites and gateways of their programme through the API, and nothing of anybody else's.

use anyhow::{Context, Result};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wire::{HandMade, batch, scans};
use reqwest::Method;
use serde_json::{Value, json};

async fn ask(cloud: &Cloud, call: &str, token: &str, body: Option<Value>) -> Result<Reply> {
    let (method, path) = call.split_once(' ').context("METHOD /path")?;
    let mut request = http::client()?.request(method.parse::<Method>()?, cloud.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

/// An operator of a programme or a site, made at the command line and signed in.
async fn operator(cloud: &Cloud, email: &str, place: [&str; 2]) -> Result<String> {
    let added = cloud.must(&["user", "add", "--email", email, "--json"]).await?;
    let added: Value = serde_json::from_str(&added)?;
    cloud.must(&["user", "grant", email, "operator", place[0], place[1]]).await?;
    let body = json!({ "email": email, "password": added["password"] });
    let login = http::client()?
        .post(cloud.url("/api/auth/login"))
        .header("content-type", "application/json")
        .body(body.to_string());
    let token = http::send(login).await?.expect(200)?["token"].clone();
    Ok(token.as_str().context("token")?.to_owned())
}

fn refused(reply: &Reply) -> (u16, String) {
    (reply.status, reply.error_code())
}

fn site(code: &str, programme: &str) -> Option<Value> {
    Some(json!({ "code": code, "programme": programme, "name": "Dapur Baru", "kind": "kitchen",
        "time_zone": "Asia/Makassar" }))
}

#[test]
fn an_operator_makes_a_site_and_a_gateway_enrols_it_and_revokes_it() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.furnish().await?;
        cloud.must(&["programme", "add", "LAIN", "Program Lain"]).await?;
        let ours = operator(&cloud, "siti@example.com", ["--programme", "MBG"]).await?;
        let theirs = operator(&cloud, "lain@example.com", ["--programme", "LAIN"]).await?;
        // An operator of a programme that has no site yet sees it nevertheless, and no other.
        let seen = ask(&cloud, "GET /api/programmes", &theirs, None).await?.expect(200)?;
        assert_eq!(seen["programmes"].as_array().map(Vec::len), Some(1), "{seen}");
        assert_eq!(seen["programmes"][0]["code"], "LAIN");

        let not_granted = (403, "NOT_GRANTED".to_owned());
        let elsewhere = ask(&cloud, "POST /api/sites", &theirs, site("DAPUR-2", "MBG")).await?;
        assert_eq!(refused(&elsewhere), not_granted);
        let made = ask(&cloud, "POST /api/sites", &ours, site("DAPUR-2", "MBG")).await?.expect(201)?;
        let site_id = made["site"]["site_id"].as_i64().context("site_id")?;
        assert_eq!(made["site"]["time_zone"], "Asia/Makassar");
        let again = ask(&cloud, "POST /api/sites", &ours, site("DAPUR-2", "MBG")).await?;
        assert_eq!(refused(&again), (409, "SITE_TAKEN".to_owned()));

        // The grant to the programme is for the new site too, from the next reading of the session on.
        let gateway = json!({ "gateway_id": "GW-DAPUR-2", "site": "DAPUR-2" });
        let refusal = ask(&cloud, "POST /api/gateways", &theirs, Some(gateway.clone())).await?;
        assert_eq!(refused(&refusal), not_granted);
        let claim = lumbung_tests::wait::eventually("the site that joined is theirs", || async {
            let reply = ask(&cloud, "POST /api/gateways", &ours, Some(gateway.clone())).await?;
            Ok((reply.status == 201).then_some(reply))
        })
        .await?
        .expect(201)?;
        let uri = claim["uri"].as_str().context("uri")?;
        let code = claim["claim"].as_str().context("claim")?;
        assert!(uri.starts_with("lumbung://enrol?cloud=http") && uri.ends_with(code), "{uri}");
        let twice = ask(&cloud, "POST /api/gateways", &ours, Some(gateway)).await?;
        assert_eq!(refused(&twice), (409, "GATEWAY_TAKEN".to_owned()));

        let first = HandMade::enrol("GW-DAPUR-2", &cloud.base(), code).await?;
        first.send(&batch(1, None, scans(1, 3, "API")?)?).await?;
        let listed = ask(&cloud, "GET /api/gateways", &ours, None).await?.expect(200)?;
        assert_eq!(listed["gateways"][0]["gateway_id"], "GW-DAPUR-2");
        assert_eq!(
            (&listed["gateways"][0]["site"], &listed["gateways"][0]["enrolled"]),
            (&json!("DAPUR-2"), &json!(true))
        );
        let others = ask(&cloud, "GET /api/gateways", &theirs, None).await?.expect(200)?;
        assert_eq!(others["gateways"], json!([]));

        // Nobody of another programme takes it over, moves it or ends it, nor learns whether it is there.
        for (call, body) in [
            ("POST /api/gateways/GW-DAPUR-2/claim", Some(json!({}))),
            ("DELETE /api/gateways/GW-DAPUR-2?reason=x", None),
            ("DELETE /api/gateways/GW-TIDAK-ADA?reason=x", None),
        ] {
            assert_eq!(refused(&ask(&cloud, call, &theirs, body).await?), not_granted, "{call}");
        }
        let fields = |programme: &str| {
            Some(json!({ "programme": programme, "name": "Dapur Dua", "kind": "school",
                "time_zone": "Asia/Jayapura" }))
        };
        let change = format!("PUT /api/sites/{site_id}");
        for (token, programme) in [(&theirs, "LAIN"), (&theirs, "MBG"), (&ours, "LAIN")] {
            let reply = ask(&cloud, &change, token, fields(programme)).await?;
            assert_eq!(refused(&reply), not_granted, "{programme}");
        }
        let changed = ask(&cloud, &change, &ours, fields("MBG")).await?.expect(200)?;
        assert_eq!(
            (&changed["site"]["code"], &changed["site"]["kind"]),
            (&json!("DAPUR-2"), &json!("school"))
        );

        let why = "DELETE /api/gateways/GW-DAPUR-2?reason=Kotak+hilang";
        assert_eq!(ask(&cloud, why, &ours, None).await?.expect(200)?, json!({ "success": true }));
        assert!(
            first.send(&batch(2, None, scans(1, 1, "LAGI")?)?).await.is_err(),
            "a revoked gateway is heard"
        );
        let listed = ask(&cloud, "GET /api/gateways", &ours, None).await?.expect(200)?;
        assert_eq!(listed["gateways"][0]["revoke_reason"], "Kotak hilang");
        // A new box with a new claim is welcome.
        let claim = ask(&cloud, "POST /api/gateways/GW-DAPUR-2/claim", &ours, Some(json!({}))).await?;
        let claim = claim.expect(201)?;
        let second = claim["claim"].as_str().context("claim")?;
        let second = HandMade::enrol("GW-DAPUR-2", &cloud.base(), second).await?;
        second.send(&batch(3, None, scans(1, 1, "BARU")?)?).await?;

        let kept: Vec<(String, String)> = sqlx::query_as(
            "select action, object_id from audit_entry where actor_kind = 'person' and object_kind in
                 ('site', 'gateway') and outcome = 'success' order by happened_at",
        )
        .fetch_all(&cloud.database().await?)
        .await?;
        let entry = |action: &str, object: &str| (action.to_owned(), object.to_owned());
        let expected = [
            entry("place_changed", "DAPUR-2"),
            entry("authn_token_created", "GW-DAPUR-2"),
            entry("place_changed", "DAPUR-2"),
            entry("gateway_revoked", "GW-DAPUR-2"),
            entry("authn_token_created", "GW-DAPUR-2"),
        ];
        assert_eq!(kept, expected);
        Ok(())
    })
}

#[test]
fn who_operates_one_site_has_its_gateways_and_not_the_site() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        cloud.furnish().await?;
        cloud.add_site("DAPUR-2").await?;
        let here = operator(&cloud, "budi@example.com", ["--site", "DAPUR-1"]).await?;
        cloud.claim_with(&["GW-LAIN", "--site", "DAPUR-2"]).await?;
        let gateway = Some(json!({ "gateway_id": "GW-1", "site": "DAPUR-1" }));
        ask(&cloud, "POST /api/gateways", &here, gateway).await?.expect(201)?;
        let not_granted = (403, "NOT_GRANTED".to_owned());
        for (call, body) in [
            // Away from here, or here from elsewhere: both need both.
            ("POST /api/gateways/GW-1/claim", Some(json!({ "site": "DAPUR-2" }))),
            ("POST /api/gateways/GW-LAIN/claim", Some(json!({ "site": "DAPUR-1" }))),
            ("POST /api/gateways", Some(json!({ "gateway_id": "GW-2", "site": "DAPUR-2" }))),
            ("POST /api/sites", site("DAPUR-3", "MBG")),
            ("PUT /api/programmes/1", Some(json!({ "name": "Milik saya" }))),
            ("POST /api/programmes", Some(json!({ "code": "BARU", "name": "Milik saya" }))),
        ] {
            assert_eq!(refused(&ask(&cloud, call, &here, body).await?), not_granted, "{call}");
        }
        let sites = ask(&cloud, "GET /api/sites", &here, None).await?.expect(200)?;
        assert_eq!(sites["sites"].as_array().map(Vec::len), Some(1), "{sites}");
        // Page by page, for whoever sees all of them.
        let key = cloud.must(&["key", "add", "kunci", "--json"]).await?;
        let key: Value = serde_json::from_str(&key)?;
        let key = key["key"].as_str().context("key")?;
        for (list, of) in [("sites", "code"), ("gateways", "gateway_id")] {
            let first = ask(&cloud, &format!("GET /api/{list}?limit=1"), key, None).await?.expect(200)?;
            let cursor = first["next_cursor"].as_str().context("next_cursor")?;
            let next = format!("GET /api/{list}?limit=1&cursor={cursor}");
            let second = ask(&cloud, &next, key, None).await?.expect(200)?;
            assert_ne!(first[list][0][of], second[list][0][of]);
            assert_eq!(
                (second[list].as_array().map(Vec::len), &second["next_cursor"]),
                (Some(1), &Value::Null)
            );
        }
        Ok(())
    })
}
