//! What people uploaded.

use super::super::callers::Stage;
use super::super::row::{Body, For, Row, delete, get, upload};
use super::INVALID;
use anyhow::Result;
use image::{ImageFormat, RgbImage};
use std::io::Cursor;

pub(super) fn rows(_: &Stage) -> Result<Vec<Row>> {
    let picture = "/api/users/me/picture";
    let mut image = Cursor::new(Vec::new());
    RgbImage::new(400, 400).write_to(&mut image, ImageFormat::Png)?;
    Ok(vec![
        upload(picture, For::People, form("profile_picture", image.get_ref()))
            .refuses_body(form("profile_picture", b"GIF89a"), 400, INVALID)
            .refuses_body(form("user_id", b"0"), 403, "OTHER_USER")
            .refuses_body(form("profile_picture", &vec![0; 20_000_000]), 413, "TOO_LARGE")
            .refuses_body(
                Body::Bytes(Some("image/png"), image.get_ref().clone()),
                415,
                "UNSUPPORTED_MEDIA_TYPE",
            ),
        delete(picture, For::People),
        get("/api/users/me/files", For::People)
            .example("/api/users/me/files?page=2")
            .refuses("/api/users/me/files?limit=51", 400, INVALID)
            .refuses("/api/users/me/files?page=0", 400, INVALID)
            .refuses("/api/users/me/files?cursor=x", 400, INVALID),
        get("/files/{name}", For::Anyone)
            .example("/files/00000000000000000000000000000000.jpg")
            .answered(404),
    ])
}

/// A form with one part.
fn form(name: &str, bytes: &[u8]) -> Body {
    let head = format!("--batas\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
    let body = [head.as_bytes(), bytes, b"\r\n--batas--\r\n"].concat();
    Body::Bytes(Some("multipart/form-data; boundary=batas"), body)
}
