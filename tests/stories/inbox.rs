//! What people find when they look for their messages, and what they choose to be told.

use anyhow::{Context, Result};
use lumbung_cloud::notify::{self, Kind, Language, Message, Recipient};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;

/// Somebody with an account.
struct Someone {
    user_id: i64,
    token: String,
}

impl Someone {
    async fn new(cloud: &Cloud, name: &str) -> Result<Self> {
        let body = json!({ "email": format!("{name}@example.com"), "username": name, "password": "sepeda merah tua" });
        let answer = ask(cloud, "", Method::POST, "/api/auth/register", Some(body)).await?.expect(201)?;
        let token = answer["token"].as_str().context("token")?.to_owned();
        Ok(Self { user_id: answer["user_id"].as_i64().context("user_id")?, token })
    }

    async fn ask(&self, cloud: &Cloud, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
        ask(cloud, &self.token, method, path, body).await
    }

    async fn list(&self, cloud: &Cloud, query: &str) -> Result<Value> {
        self.ask(cloud, Method::GET, &format!("/api/notifications{query}"), None).await?.expect(200)
    }

    fn to(&self, language: Language) -> Recipient {
        Recipient {
            user_id: Some(self.user_id),
            email: Some(format!("{}@example.com", self.user_id)),
            language,
        }
    }

    fn liked(&self, by: &str, post: i64) -> Message {
        Message {
            to: self.to(Language::Indonesian),
            kind: Kind::PostLiked,
            values: json!({ "name": by, "post": format!("Kebun {post}") }),
            related: Some(("post", post)),
            group: Some(post.to_string()),
        }
    }
}

async fn ask(cloud: &Cloud, token: &str, method: Method, path: &str, body: Option<Value>) -> Result<Reply> {
    let mut request = http::client()?.request(method, cloud.url(path)).bearer_auth(token);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    http::send(request).await
}

async fn tell(database: &PgPool, message: &Message) -> Result<()> {
    let mut tx = database.begin().await?;
    notify::send(&mut tx, message).await?;
    tx.commit().await?;
    Ok(())
}

fn titles(list: &Value) -> Vec<&str> {
    let all = list["notifications"].as_array().into_iter().flatten();
    all.filter_map(|notification| notification["title"].as_str()).collect()
}

#[test]
fn like_events_are_one_message_until_it_is_read() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let budi = Someone::new(&cloud, "budi").await?;
        let crowd: Vec<Message> = (0..12).map(|number| budi.liked(&format!("Orang {number}"), 1)).collect();
        // All at once, as people do.
        futures_util::future::try_join_all(crowd.iter().map(|message| tell(&database, message))).await?;
        tell(&database, &budi.liked("Siti", 2)).await?;
        let list = budi.list(&cloud, "").await?;
        assert_eq!(titles(&list), ["Siti menyukai Kebun 2", "12 orang menyukai Kebun 1"]);
        let crowd = &list["notifications"][1];
        for (field, value) in [
            ("type", json!("post_liked")),
            ("user_id", json!(budi.user_id)),
            ("related_type", json!("post")),
            ("related_id", json!(1)),
            ("count", json!(12)),
            ("is_read", json!(false)),
        ] {
            assert_eq!(crowd[field], value, "{field}");
        }
        assert_eq!((&list["unread_count"], &list["total"]), (&json!(2), &json!(2)));
        // Read is read: the next one is news.
        let path = format!("/api/notifications/{}/read", crowd["id"]);
        for _ in 0..2 {
            let answer = budi.ask(&cloud, Method::POST, &path, None).await?.expect(200)?;
            assert_eq!(answer["unread_count"], 1);
        }
        tell(&database, &budi.liked("Ayu", 1)).await?;
        let unread = budi.list(&cloud, "?unread=true").await?;
        assert_eq!(titles(&unread), ["Ayu menyukai Kebun 1", "Siti menyukai Kebun 2"]);
        let answer =
            budi.ask(&cloud, Method::POST, "/api/notifications/read-all", None).await?.expect(200)?;
        assert_eq!(answer["read"], 2);
        assert_eq!(budi.list(&cloud, "").await?["unread_count"], 0);
        // Likes are not worth a mail.
        let mails: i64 = sqlx::query_scalar("select count(*) from delivery where kind = 'post_liked'")
            .fetch_one(&database)
            .await?;
        assert_eq!(mails, 0);
        Ok(())
    })
}

#[test]
fn nobody_reads_anothers_messages_and_pages_leave_nothing_out() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let budi = Someone::new(&cloud, "budi").await?;
        let siti = Someone::new(&cloud, "siti").await?;
        for post in 0..7 {
            tell(&database, &budi.liked("Ayu", post)).await?;
        }
        let mut seen = Vec::new();
        let mut query = "?limit=3".to_owned();
        loop {
            let list = budi.list(&cloud, &query).await?;
            seen.extend(titles(&list).into_iter().map(str::to_owned));
            // What comes meanwhile shifts pages by number, and no page by cursor.
            tell(&database, &budi.liked("Ayu", 100 + i64::try_from(seen.len())?)).await?;
            let Some(next) = list["next_cursor"].as_str() else { break };
            query = format!("?limit=3&cursor={next}");
        }
        let all: Vec<String> = (0..7).rev().map(|post| format!("Ayu menyukai Kebun {post}")).collect();
        assert_eq!(seen, all);
        let second = budi.list(&cloud, "?limit=3&page=2").await?;
        assert_eq!((titles(&second).len(), &second["page"]), (3, &json!(2)));
        let his = budi.list(&cloud, "?limit=1").await?["notifications"][0]["id"].clone();
        let reply = siti.ask(&cloud, Method::POST, &format!("/api/notifications/{his}/read"), None).await?;
        assert_eq!((reply.status, reply.error_code().as_str()), (404, "NOT_FOUND"));
        assert_eq!(siti.list(&cloud, "").await?["total"], 0);
        siti.ask(&cloud, Method::POST, "/api/notifications/read-all", None).await?.expect(200)?;
        assert_ne!(budi.list(&cloud, "").await?["unread_count"], 0);
        Ok(())
    })
}

#[test]
fn people_choose_what_reaches_them_but_not_to_be_left_in_the_dark() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let database = cloud.database().await?;
        let budi = Someone::new(&cloud, "budi").await?;
        let path = "/api/notifications/preferences";
        let change = async |body: Value| budi.ask(&cloud, Method::PUT, path, Some(body)).await;
        let wish = |kind: &str, channel: &str, enabled: bool| json!({ "type": kind, "channel": channel, "enabled": enabled });
        let before = budi.ask(&cloud, Method::GET, path, None).await?.expect(200)?;
        assert_eq!(before["language"], "id");
        for (wish, what) in [
            (wish("password_changed", "email", false), "safety"),
            (wish("reset_password", "in_app", true), "a link that opens the account in the app"),
            (wish("tidak_ada", "email", true), "an unknown type"),
            (wish("post_liked", "merpati", true), "an unknown channel"),
        ] {
            let body = json!({ "language": "en", "preferences": [{ "type": "post_liked", "channel": "in_app", "enabled": false }, wish] });
            assert_eq!(change(body).await?.error_code(), "VALIDATION_ERROR", "{what}");
        }
        assert_eq!(
            budi.ask(&cloud, Method::GET, path, None).await?.expect(200)?,
            before,
            "half of it was taken"
        );
        let wishes = [wish("post_liked", "email", true), wish("post_commented", "in_app", false)];
        let after = change(json!({ "language": "en", "preferences": wishes })).await?.expect(200)?;
        assert_eq!(after["language"], "en");
        tell(&database, &budi.liked("Siti", 1)).await?;
        let commented = Message {
            kind: Kind::PostCommented,
            values: json!({ "name": "Siti", "post": "Kebun", "comment": "Bagus" }),
            ..budi.liked("Siti", 1)
        };
        tell(&database, &commented).await?;
        let changed = Message {
            kind: Kind::PasswordChanged,
            to: budi.to(Language::English),
            values: json!({ "at": "09:00" }),
            ..budi.liked("Siti", 1)
        };
        tell(&database, &changed).await?;
        assert_eq!(
            titles(&budi.list(&cloud, "").await?),
            ["Your password was changed", "Siti menyukai Kebun 1"]
        );
        let mails: Vec<String> =
            sqlx::query_scalar("select kind from delivery order by delivery_id").fetch_all(&database).await?;
        // The first one came with the account.
        assert_eq!(mails, ["verify_email", "post_liked", "password_changed"]);
        Ok(())
    })
}
