//! Uploads in storage that speaks S3: all replicas see them, and nothing is left there in the end.

use super::uploads::{PICTURE, ask, path_of, picture, register, show};
use anyhow::{Context, Result};
use chrono::TimeDelta;
use image::ImageFormat;
use lumbung_tests::http;
use lumbung_tests::programs::Cloud;
use lumbung_tests::s3::{BUCKET, KEY, Storage};
use lumbung_tests::story::story;
use lumbung_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;

async fn keeps_in(cloud: &mut Cloud, storage: &Storage) -> Result<()> {
    cloud.stop().await?;
    cloud
        .set("files.store", "s3")
        .set("files.endpoint", &storage.base)
        .set("files.bucket", BUCKET)
        .set("files.region", "ap-southeast-3")
        .set("files.access_key_id", KEY)
        .set("files.secret_access_key", "rahasia")
        .start()
        .await
}

#[test]
fn what_people_upload_is_in_the_bucket_for_every_replica_and_nothing_of_it_stays() -> Result<()> {
    story(async |stand| {
        let storage = Storage::start()?;
        let mut cloud = stand.cloud_not_started().await?;
        keeps_in(&mut cloud, &storage).await?;
        let mut replica = stand.replica_of(&cloud).await?;
        keeps_in(&mut replica, &storage).await?;
        let found = cloud.cli(&["doctor"]).await?.stdout;
        assert!(found.contains("files           an object was written, read and deleted"), "{found}");
        let token = register(&cloud, "budi").await?;
        let first = show(&cloud, &token, &picture(900, 600, ImageFormat::Png)?).await?.expect(200)?;
        let first = path_of(&cloud, &first)?;
        assert_eq!(storage.keys().len(), 2, "{:?}", storage.keys());
        assert!(!cloud.settings.dir.join("files").exists(), "something is kept here too");
        for (path, width) in [(first.clone(), 900), (first.replace(".jpg", "-320.jpg"), 320)] {
            let bytes = http::client()?.get(replica.url(&path)).send().await?.bytes().await?;
            assert_eq!(image::load_from_memory(&bytes)?.width(), width);
        }
        // Only the head of a picture is no reason to fetch it.
        let fetched = storage.sent();
        let head = http::client()?.head(cloud.url(&first)).send().await?;
        let length = head.headers().get("content-length").and_then(|length| length.to_str().ok());
        let kept = storage.get(first.trim_start_matches("/files/")).context("not there")?.len();
        assert_eq!((head.status().as_u16(), length), (200, Some(kept.to_string().as_str())));
        assert_eq!(storage.sent(), fetched);

        // A copy of so much that it travels in parts.
        let database = cloud.database().await?;
        let large = "a".repeat(32);
        // Xorshift: nothing that shrinks.
        let noise = std::iter::successors(Some(1_u64), |last| {
            let once = last ^ (last << 13);
            let twice = once ^ (once >> 7);
            Some(twice ^ (twice << 17))
        });
        let noise: Vec<u8> = noise.take(12 << 20).map(|word| (word >> 32) as u8).collect();
        storage.put(&format!("{large}.jpg"), noise);
        sqlx::query(
            "insert into file (name, owner_kind, owner_id, user_id, purpose, bytes, width, height, sha256)
             select $1, 'post', 1, user_id, 'post', 12582912, 1, 1, sha256('x') from app_user",
        )
        .bind(&large)
        .execute(&database)
        .await?;
        let asked = ask(&cloud, Method::POST, "/api/users/me/export", &token).await?.expect(202)?;
        let path = format!("/api/users/me/export/{}", asked["export_id"]);
        let copy = eventually("the copy is made", || async {
            let answer = http::client()?.get(replica.url(&path)).bearer_auth(&token).send().await?;
            Ok(if answer.status() == 200 { Some(answer.bytes().await?) } else { None })
        })
        .await?;
        assert_eq!(storage.in_parts(), 1);
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(copy))?;
        assert_eq!(zip.by_name(&format!("files/{large}.jpg"))?.size(), 12 << 20);

        // A backup says what it has not.
        let dir = stand.path().join("backups");
        let said = cloud.must(&["backup", dir.to_str().context("a path that is no text")?]).await?;
        assert!(said.contains("uploads are in the bucket lumbung and not in this backup"), "{said}");

        // Neither a stray nor what was dropped stays; what somebody else put there does.
        storage.put(&format!("{}.jpg", "b".repeat(32)), vec![1]);
        storage.put("punya-tetangga.txt", vec![1]);
        let second = show(&cloud, &token, &picture(64, 64, ImageFormat::Png)?).await?.expect(200)?;
        assert_eq!(cloud.get(&first).await?.status, 404);
        assert_eq!(cloud.must(&["files", "sweep"]).await?.trim(), "1 dropped files and 0 strays removed");
        storage.age(TimeDelta::hours(25));
        assert_eq!(cloud.must(&["files", "sweep"]).await?.trim(), "0 dropped files and 1 strays removed");
        assert_eq!(cloud.get(&path_of(&cloud, &second)?).await?.status, 200);
        let password = json!({ "password": "sepeda merah tua" });
        let leave = http::client()?.delete(cloud.url("/api/users/me")).bearer_auth(&token);
        let leave = leave.header("content-type", "application/json").body(password.to_string());
        assert_eq!(http::send(leave).await?.expect(200)?["receipt"]["files"], 2);
        assert_eq!(storage.keys(), ["punya-tetangga.txt"]);
        Ok(())
    })
}

#[test]
fn a_restore_says_which_uploads_the_bucket_has_not_and_they_can_be_brought_back() -> Result<()> {
    story(async |stand| {
        let storage = Storage::start()?;
        let mut cloud = stand.cloud_not_started().await?;
        keeps_in(&mut cloud, &storage).await?;
        let token = register(&cloud, "budi").await?;
        let first = show(&cloud, &token, &picture(900, 600, ImageFormat::Png)?).await?.expect(200)?;
        let first = path_of(&cloud, &first)?;
        // What the bucket's versions are for.
        let versions: Vec<(String, Vec<u8>)> =
            storage.keys().into_iter().filter_map(|key| Some((key.clone(), storage.get(&key)?))).collect();
        let dir = stand.path().join("backups");
        let said = cloud.must(&["backup", dir.to_str().context("path")?, "--verify"]).await?;
        assert!(said.contains("uploads are in the bucket lumbung and not in this backup"), "{said}");
        let folder = std::fs::read_dir(&dir)?.next().context("no backup")??.path();
        assert!(!folder.join("files").exists(), "something of the bucket is in it");
        let folder = folder.to_str().context("path")?;
        // Since then another picture has taken its place, and it is gone.
        let second = show(&cloud, &token, &picture(64, 64, ImageFormat::Png)?).await?.expect(200)?;
        let second = path_of(&cloud, &second)?;
        cloud.must(&["files", "sweep"]).await?;
        assert_eq!((storage.keys().len(), versions.len()), (2, 2));

        // As on a new machine, which has no folder yet.
        cloud.stop().await?;
        std::fs::remove_dir_all(&cloud.settings.dir)?;
        storage.is_broken(true);
        let said = cloud.must(&["restore", folder, "--replace"]).await?;
        assert!(said.contains("the bucket lumbung cannot be looked at for uploads"), "{said}");
        storage.is_broken(false);
        let said = cloud.must(&["restore", folder, "--replace"]).await?;
        assert!(said.contains("1 of 1 uploads are not in the bucket lumbung"), "{said}");
        for (key, bytes) in &versions {
            storage.put(key, bytes.clone());
        }
        let said = cloud.must(&["restore", folder, "--replace"]).await?;
        assert!(!said.contains("uploads"), "{said}");
        cloud.start().await?;
        let kept = &versions.iter().find(|(key, _)| first.ends_with(key.as_str())).context("versions")?.1;
        assert_eq!(&http::client()?.get(cloud.url(&first)).send().await?.bytes().await?, kept);
        assert_eq!(cloud.get(&second).await?.status, 404);
        // What came after the backup is nobody's now, and goes.
        storage.age(TimeDelta::hours(25));
        assert_eq!(cloud.must(&["files", "sweep"]).await?.trim(), "0 dropped files and 2 strays removed");
        assert_eq!(storage.keys(), versions.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        Ok(())
    })
}

#[test]
fn while_the_storage_fails_uploads_are_put_off_and_nothing_is_half_done() -> Result<()> {
    story(async |stand| {
        let storage = Storage::start()?;
        let mut cloud = stand.cloud_not_started().await?;
        keeps_in(&mut cloud, &storage).await?;
        let token = register(&cloud, "budi").await?;
        let image = picture(64, 64, ImageFormat::Png)?;
        let shown = show(&cloud, &token, &image).await?.expect(200)?;
        let shown = path_of(&cloud, &shown)?;
        storage.is_broken(true);
        let put_off = show(&cloud, &token, &image).await?;
        assert_eq!((put_off.status, put_off.header("retry-after")), (503, Some("30")), "{}", put_off.text);
        assert_eq!(cloud.get(&shown).await?.status, 503);
        ask(&cloud, Method::DELETE, PICTURE, &token).await?.expect(200)?;
        assert_eq!(cloud.cli(&["files", "sweep"]).await?.code(), 1, "it says that it is done");
        storage.is_broken(false);
        assert_eq!(storage.keys().len(), 2, "the sweep left its row and not its objects");
        cloud.must(&["files", "sweep"]).await?;
        assert_eq!(storage.keys(), Vec::<String>::new());
        show(&cloud, &token, &image).await?.expect(200)?;

        // A key that the storage does not know.
        cloud.set("files.access_key_id", "lain");
        let found = cloud.cli(&["doctor"]).await?.stdout;
        assert!(found.contains("FAIL  files") && found.contains("InvalidAccessKeyId"), "{found}");
        Ok(())
    })
}
