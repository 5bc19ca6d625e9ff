//! What people upload is theirs, is what it seems, and leaves nothing behind.

use anyhow::{Context, Result};
use image::{ImageFormat, Rgb, RgbImage};
use lumbung_tests::http::{self, Reply};
use lumbung_tests::programs::Cloud;
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) const PICTURE: &str = "/api/users/me/picture";

pub(super) async fn register(cloud: &Cloud, username: &str) -> Result<String> {
    let body = json!({ "email": format!("{username}@example.com"), "password": "sepeda merah tua",
        "username": username });
    let request = http::client()?.post(cloud.url("/api/auth/register"));
    let request = request.header("content-type", "application/json").body(body.to_string());
    Ok(http::send(request).await?.expect(201)?["token"].as_str().context("token")?.to_owned())
}

/// Field name, file name and content type, bytes.
type Part<'a> = (&'a str, &'a str, &'a [u8]);

fn form(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, rest, bytes) in parts {
        let head = format!("--batas\r\ncontent-disposition: form-data; name=\"{name}\"{rest}\r\n\r\n");
        body.extend(head.as_bytes());
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--batas--\r\n");
    body
}

const AS_FILE: &str = "; filename=\"../../foto.php\"\r\ncontent-type: text/html";

async fn send(cloud: &Cloud, token: &str, body: impl Into<reqwest::Body>) -> Result<Reply> {
    let request = http::client()?
        .post(cloud.url(PICTURE))
        .bearer_auth(token)
        .header("content-type", "multipart/form-data; boundary=batas")
        .body(body);
    http::send(request).await
}

pub(super) async fn show(cloud: &Cloud, token: &str, image: &[u8]) -> Result<Reply> {
    send(cloud, token, form(&[("profile_picture", AS_FILE, image)])).await
}

pub(super) async fn ask(cloud: &Cloud, method: Method, path: &str, token: &str) -> Result<Reply> {
    http::send(http::client()?.request(method, cloud.url(path)).bearer_auth(token)).await
}

pub(super) fn picture(width: u32, height: u32, format: ImageFormat) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let speckled = |x: u32, y: u32| Rgb([(x * 7 % 251) as u8, (y * 11 % 241) as u8, ((x ^ y) % 256) as u8]);
    RgbImage::from_fn(width, height, speckled).write_to(&mut bytes, format)?;
    Ok(bytes.into_inner())
}

/// The address of the picture that an answer shows, as a path.
pub(super) fn path_of(cloud: &Cloud, body: &Value) -> Result<String> {
    let url = body["user_data"]["profile_picture_url"].as_str().context("no picture")?;
    Ok(url.strip_prefix(&cloud.base()).context("another address")?.to_owned())
}

/// Whatever lies in the folders of uploads.
fn on_disk(cloud: &Cloud) -> Vec<PathBuf> {
    let folders = ["files", "arriving"].map(|folder| cloud.settings.dir.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    entries.flatten().map(|entry| entry.path()).collect()
}

fn age(path: &Path, hours: u64) -> Result<()> {
    let then = SystemTime::now() - Duration::from_secs(hours * 3_600);
    Ok(std::fs::File::options().write(true).open(path)?.set_modified(then)?)
}

#[test]
fn a_picture_is_shown_replaced_and_taken_down_and_then_nothing_is_left_of_it() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let token = register(&cloud, "budi").await?;
        assert_eq!(ask(&cloud, Method::DELETE, PICTURE, &token).await?.status, 200, "there is none yet");
        let first = show(&cloud, &token, &picture(900, 600, ImageFormat::Png)?).await?.expect(200)?;
        let first = path_of(&cloud, &first)?;
        let get = async |path: &str, known: &str| {
            http::client()?.get(cloud.url(path)).header("if-none-match", known).send().await.context("get")
        };
        let answer = get(&first, "\"another\"").await?;
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap_or_default().to_owned();
        assert_eq!(header("content-type"), "image/jpeg");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("cache-control"), "public, max-age=300, must-revalidate");
        assert_eq!(header("content-security-policy"), "default-src 'none'; sandbox");
        assert!(header("content-disposition").starts_with("inline; filename=\""));
        let tag = header("etag");
        let whole = image::load_from_memory(&answer.bytes().await?)?;
        assert_eq!((whole.width(), whole.height()), (900, 600));
        assert_eq!(get(&first, &tag).await?.status(), 304);
        let small = first.replace(".jpg", "-320.jpg");
        let small_answer = get(&small, &tag).await?;
        assert_eq!(small_answer.status(), 200, "a thumbnail was taken for its picture");
        assert_eq!(image::load_from_memory(&small_answer.bytes().await?)?.width(), 320);
        let mine = ask(&cloud, Method::GET, "/api/users/me/files", &token).await?.expect(200)?;
        assert_eq!(mine["files"].as_array().map(Vec::len), Some(1), "{mine}");
        assert_eq!(
            (&mine["files"][0]["purpose"], &mine["next_cursor"]),
            (&json!("profile_picture"), &json!(null))
        );

        // Another one, from a phone that names itself, takes its place.
        let me = ask(&cloud, Method::GET, "/api/users/me", &token).await?.expect(200)?;
        let user_id = me["user_data"]["user_id"].to_string();
        let webp = picture(64, 64, ImageFormat::WebP)?;
        let parts: [Part; 2] = [("user_id", "", user_id.as_bytes()), ("profile_picture", AS_FILE, &webp)];
        let second = send(&cloud, &token, form(&parts)).await?.expect(200)?;
        let second = path_of(&cloud, &second)?;
        assert_ne!(first, second);
        assert_eq!((cloud.get(&first).await?.status, cloud.get(&small).await?.status), (404, 404));
        assert_eq!(get(&second, "\"\"").await?.status(), 200);
        cloud.must(&["files", "sweep"]).await?;
        assert_eq!(on_disk(&cloud).len(), 2, "the picture and its thumbnail");
        let down = ask(&cloud, Method::DELETE, PICTURE, &token).await?.expect(200)?;
        assert_eq!(down["user_data"]["profile_picture_url"], json!(null));
        assert_eq!(cloud.get(&second).await?.status, 404);
        cloud.must(&["files", "sweep"]).await?;
        assert_eq!(on_disk(&cloud), Vec::<PathBuf>::new());
        let database = cloud.database().await?;
        let rows: i64 = sqlx::query_scalar("select count(*) from file").fetch_one(&database).await?;
        assert_eq!(rows, 0);
        Ok(())
    })
}

#[test]
fn what_is_refused_is_told_and_leaves_nothing_behind() -> Result<()> {
    story(async |stand| {
        let cloud = stand.cloud().await?;
        let token = register(&cloud, "budi").await?;
        let jpeg = picture(64, 64, ImageFormat::Jpeg)?;
        let field = "profile_picture";
        let large = vec![0xFF; 5 * 1024 * 1024 + 1];
        let far_too_large = vec![0xFF; 30_000_000];
        let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
        let cut = &jpeg[..jpeg.len() / 2];
        let cases: [(&str, Vec<u8>, u16, &str); 12] = [
            ("a script", form(&[(field, AS_FILE, svg)]), 400, "VALIDATION_ERROR"),
            ("cut off", form(&[(field, AS_FILE, cut)]), 400, "VALIDATION_ERROR"),
            ("empty", form(&[(field, AS_FILE, b"")]), 400, "VALIDATION_ERROR"),
            ("no image", form(&[]), 400, "VALIDATION_ERROR"),
            ("another field", form(&[("foto", AS_FILE, &jpeg)]), 400, "VALIDATION_ERROR"),
            ("twice", form(&[(field, AS_FILE, &jpeg), (field, AS_FILE, &jpeg)]), 400, "VALIDATION_ERROR"),
            (
                "something more",
                form(&[(field, AS_FILE, &jpeg), ("role", "", b"admin")]),
                400,
                "VALIDATION_ERROR",
            ),
            ("somebody else's", form(&[(field, AS_FILE, &jpeg), ("user_id", "", b"999")]), 403, "OTHER_USER"),
            (
                "a long text",
                form(&[(field, AS_FILE, &jpeg), ("user_id", "", &[b'1'; 900])]),
                400,
                "VALIDATION_ERROR",
            ),
            ("too large", form(&[(field, AS_FILE, &large)]), 413, "TOO_LARGE"),
            ("far too large", form(&[(field, AS_FILE, &far_too_large)]), 413, "TOO_LARGE"),
            (
                "without its end",
                form(&[(field, AS_FILE, &jpeg)])[..jpeg.len()].to_vec(),
                400,
                "UNREADABLE_REQUEST",
            ),
        ];
        for (what, body, status, code) in cases {
            let reply = send(&cloud, &token, body.clone()).await.with_context(|| what.to_owned())?;
            assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{what}");
            // The same without saying first how much will come.
            let chunks: Vec<std::io::Result<Vec<u8>>> =
                body.chunks(60_000).map(|chunk| Ok(chunk.to_vec())).collect();
            let stream = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
            let reply = send(&cloud, &token, stream).await.with_context(|| what.to_owned())?;
            assert_eq!((reply.status, reply.error_code().as_str()), (status, code), "{what} in chunks");
        }
        let as_json = http::client()?.post(cloud.url(PICTURE)).bearer_auth(&token);
        let as_json = as_json.header("content-type", "application/json").body("{}");
        assert_eq!(http::send(as_json).await?.error_code(), "UNSUPPORTED_MEDIA_TYPE");
        let nobody = http::client()?.post(cloud.url(PICTURE)).body("x");
        assert_eq!(http::send(nobody).await?.status, 401);
        assert_eq!(on_disk(&cloud), Vec::<PathBuf>::new());
        let database = cloud.database().await?;
        let rows: i64 = sqlx::query_scalar("select count(*) from file").fetch_one(&database).await?;
        assert_eq!(rows, 0);
        let entries =
            "select count(*) from audit_entry where action = 'upload_validation' and outcome = 'refused'";
        let entries: i64 = sqlx::query_scalar(entries).fetch_one(&database).await?;
        assert!(entries >= 5, "{entries} entries");
        Ok(())
    })
}

#[test]
fn who_sends_too_slowly_or_goes_away_leaves_nothing_behind() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("http.body_timeout", "1s");
        cloud.start().await?;
        let token = register(&cloud, "budi").await?;
        let head = format!(
            "POST {PICTURE} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: multipart/form-data; boundary=batas\r\ncontent-length: 100000\r\n\r\n",
            cloud.address()
        );
        let begun = form(&[("profile_picture", AS_FILE, &[0xFF; 5_000])]);
        let mut slow = tokio::net::TcpStream::connect(cloud.address()).await?;
        slow.write_all(head.as_bytes()).await?;
        slow.write_all(&begun[..4_000]).await?;
        let mut gone = tokio::net::TcpStream::connect(cloud.address()).await?;
        gone.write_all(head.as_bytes()).await?;
        gone.write_all(&begun[..4_000]).await?;
        drop(gone);
        let mut answer = vec![0; 15];
        slow.read_exact(&mut answer).await?;
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408 Re");
        assert_eq!(on_disk(&cloud), Vec::<PathBuf>::new());
        Ok(())
    })
}

#[test]
fn pictures_sent_at_once_leave_one_within_the_quota() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud_not_started().await?;
        cloud.set("files.quota_bytes", 40_000);
        cloud.start().await?;
        let token = register(&cloud, "budi").await?;
        let refused = show(&cloud, &token, &picture(1_500, 1_500, ImageFormat::Png)?).await?;
        assert_eq!((refused.status, refused.error_code().as_str()), (413, "QUOTA_EXCEEDED"));
        assert!(refused.text.contains("0 dari 40000 byte"), "{}", refused.text);
        assert_eq!(on_disk(&cloud), Vec::<PathBuf>::new());
        let image = picture(150, 100, ImageFormat::Png)?;
        let sent = (0..6).map(|_| show(&cloud, &token, &image));
        for reply in futures_util::future::join_all(sent).await {
            reply?.expect(200)?;
        }
        let database = cloud.database().await?;
        let (rows, bytes): (i64, i64) =
            sqlx::query_as("select count(*), sum(bytes)::bigint from file where deleted_at is null")
                .fetch_one(&database)
                .await?;
        assert!(rows == 1 && bytes <= 40_000, "{rows} files of {bytes} bytes");
        // Whoever has used up the place is told before anything is read.
        sqlx::query("update file set bytes = 40000 where deleted_at is null").execute(&database).await?;
        let refused = show(&cloud, &token, &image).await?;
        assert!(refused.status == 413 && refused.text.contains("40000 dari 40000"), "{}", refused.text);
        Ok(())
    })
}

#[test]
fn an_upload_whose_row_never_came_is_swept_after_a_day() -> Result<()> {
    story(async |stand| {
        let mut cloud = stand.cloud().await?;
        let token = register(&cloud, "budi").await?;
        show(&cloud, &token, &picture(64, 64, ImageFormat::Jpeg)?).await?.expect(200)?;
        let named = on_disk(&cloud);
        let database = cloud.database().await?;
        let mut holding = database.begin().await?;
        sqlx::query("select 1 from app_user for update").execute(&mut *holding).await?;
        let sending = tokio::spawn({
            let (url, token) = (cloud.url(PICTURE), token.clone());
            let body = form(&[("profile_picture", AS_FILE, &picture(80, 80, ImageFormat::Jpeg)?)]);
            async move {
                let request = http::client()?.post(url).bearer_auth(token).body(body);
                http::send(request.header("content-type", "multipart/form-data; boundary=batas")).await
            }
        });
        eventually("the objects are written, the row waits", || async {
            let whole = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "jpg");
            Ok((on_disk(&cloud).iter().filter(|path| whole(path)).count() == 4).then_some(()))
        })
        .await?;
        cloud.kill();
        assert!(sending.await?.is_err(), "it was answered by a dead cloud");
        holding.rollback().await?;
        cloud.start().await?;
        let foreign = cloud.settings.dir.join("files/catatan.txt");
        std::fs::write(&foreign, "not ours")?;
        age(&foreign, 48)?;
        // As a crash while it was written leaves it.
        let torn = named[0].with_extension("jpg#1");
        std::fs::write(&torn, "half of it")?;
        for path in &named {
            age(path, 48)?;
        }
        cloud.must(&["files", "sweep"]).await?;
        assert_eq!(on_disk(&cloud).len(), 6, "an upload of this hour may still get its row");
        for path in on_disk(&cloud) {
            age(&path, 25)?;
        }
        cloud.must(&["files", "sweep"]).await?;
        let mut left = on_disk(&cloud);
        left.sort();
        let mut expected: Vec<PathBuf> = named.into_iter().chain([foreign]).collect();
        expected.sort();
        assert_eq!(left, expected);
        Ok(())
    })
}
