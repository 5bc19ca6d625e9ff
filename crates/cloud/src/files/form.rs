//! Reading a multipart form from the network: one image and a few short texts, capped in size and in time.

use super::{Files, Picture, Purpose};
use crate::audit::{self, Action, Actor, Entry, Object, Origin, Outcome};
use crate::error::{Error, Result};
use actix_multipart::{Field, Multipart};
use actix_web::http::header;
use actix_web::{HttpRequest, web};
use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::{LocalBoxStream, poll_fn};
use serde_json::json;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;

/// What a form may hold. Anything else in it is refused.
pub struct Form<'a> {
    pub purpose: Purpose,
    /// The field of the image.
    pub image: &'static str,
    /// Fields of text, each with how many bytes it may have.
    pub texts: &'a [(&'static str, usize)],
}

/// What a form held.
pub struct Taken {
    pub image: Option<Picture>,
    pub texts: BTreeMap<&'static str, String>,
}

/// What a form is larger than its image by: texts, boundaries, heads of parts.
const AROUND: usize = 64 * 1024;

impl Files {
    /// Reads a form and makes of its image what is kept. A body that is refused is still read
    /// to a point and thrown away, so that the client hears the answer instead of a broken connection.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::TooLarge`], [`Error::Timeout`], [`Error::Fields`] for a field that is not
    /// meant or an image that cannot be used, `QUOTA_EXCEEDED`.
    pub async fn take(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        user_id: i64,
        form: &Form<'_>,
    ) -> Result<Taken> {
        let taken = self.taken(request, payload, user_id, form).await;
        if let Err(refused @ (Error::Unsupported(_) | Error::TooLarge(_) | Error::Fields(_))) = &taken {
            let entry = Entry {
                object: Some(Object::new("user", &user_id)),
                outcome: Outcome::Refused,
                reason: Some(refused.code()),
                detail: json!({ "purpose": form.purpose }),
                origin: Some(Origin::of(request)),
                ..Entry::of(Actor::Person(user_id), Action::UploadRefused)
            };
            audit::record_capped(&mut *self.state.people.acquire().await?, &entry).await?;
        }
        taken
    }

    async fn taken(
        &self,
        request: &HttpRequest,
        payload: web::Payload,
        user_id: i64,
        form: &Form<'_>,
    ) -> Result<Taken> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data")) {
            return Err(Error::wanted_type("multipart/form-data"));
        }
        self.must_have_room(user_id).await?;
        let payload = Rc::new(RefCell::new(payload));
        let shared = Rc::clone(&payload);
        let body = poll_fn(move |cx| shared.borrow_mut().poll_next_unpin(cx));
        let parts = Multipart::new(request.headers(), body).boxed_local();
        let read = async {
            match self.read(parts, form).await {
                Ok(read) => Ok(read),
                Err(refused) => {
                    drain(&payload, 8 * form.purpose.most()).await;
                    Err(refused)
                }
            }
        };
        let (sent, texts) = tokio::time::timeout(self.state.config.http.body_timeout, read)
            .await
            .map_err(|_| Error::Timeout)??;
        let image = match sent {
            Some(sent) => Some(self.remake(form.image, sent).await?),
            None => None,
        };
        Ok(Taken { image, texts })
    }

    async fn read(
        &self,
        mut parts: LocalBoxStream<'static, std::result::Result<Field, actix_multipart::MultipartError>>,
        form: &Form<'_>,
    ) -> Result<(Option<std::fs::File>, BTreeMap<&'static str, String>)> {
        let (mut image, mut texts) = (None, BTreeMap::new());
        let mut left = form.purpose.most() + AROUND;
        while let Some(part) = parts.next().await {
            let part = part.map_err(unreadable)?;
            let name = part.name().unwrap_or_default().to_owned();
            if name == form.image && image.is_none() {
                image = Some(self.to_disk(part, form.purpose.most(), &mut left).await?);
            } else if let Some((text, most)) = form.texts.iter().copied().find(|(text, _)| *text == name)
                && !texts.contains_key(text)
            {
                texts.insert(text, short(part, text, most).await?);
            } else {
                let known = std::iter::once(form.image).chain(form.texts.iter().map(|(text, _)| *text));
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(Error::field(
                    "body",
                    format!("hanya boleh berisi ini, masing-masing sekali: {known}"),
                    format!("takes each of these once: {known}"),
                ));
            }
        }
        Ok((image, texts))
    }

    /// To a file that has no name and is gone when it is closed.
    async fn to_disk(&self, mut part: Field, most: usize, left: &mut usize) -> Result<std::fs::File> {
        let (mut file, mut size) = (tokio::fs::File::from_std(self.scratch()?), 0usize);
        while let Some(chunk) = part.next().await {
            let chunk = chunk.map_err(unreadable)?;
            size += chunk.len();
            *left = left.saturating_sub(chunk.len());
            if size > most || *left == 0 {
                return Err(Error::too_large(most));
            }
            file.write_all(&chunk).await.context("an upload cannot be put down")?;
        }
        file.flush().await.context("an upload cannot be put down")?;
        Ok(file.into_std().await)
    }
}

async fn short(mut part: Field, name: &'static str, most: usize) -> Result<String> {
    let bytes = part
        .bytes(most)
        .await
        .map_err(|_| {
            Error::field(name, format!("paling banyak {most} byte"), format!("must be at most {most} bytes"))
        })?
        .map_err(unreadable)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Error::field(name, "harus UTF-8", "must be UTF-8"))
}

fn unreadable(error: impl std::fmt::Display) -> Error {
    tracing::debug!("an unreadable form: {error}");
    Error::unreadable("formulir itu tidak dapat dibaca", "the form cannot be read")
}

async fn drain(payload: &RefCell<web::Payload>, most: usize) {
    let mut read = 0usize;
    let mut next = poll_fn(|cx| payload.borrow_mut().poll_next_unpin(cx));
    while let Some(Ok(chunk)) = next.next().await {
        read += chunk.len();
        if read > most {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::state::State;
    use actix_web::http::header::{HeaderMap, HeaderValue};
    use futures_util::stream;
    use sqlx::PgPool;

    /// Reads a form whose image has so many bytes.
    async fn read(files: &Files, purpose: Purpose, bytes: usize) -> Result<Option<u64>> {
        let head = "--batas\r\ncontent-disposition: form-data; name=\"photo\"\r\n\r\n";
        let body = [head.as_bytes(), &vec![7; bytes], b"\r\n--batas--\r\n"].concat();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=batas"));
        // As a network brings it.
        let chunks: Vec<_> = body.chunks(16_384).map(web::Bytes::copy_from_slice).collect();
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, actix_web::error::PayloadError>));
        let parts = Multipart::new(&headers, chunks).boxed_local();
        let form = Form { purpose, image: "photo", texts: &[] };
        let (image, _) = files.read(parts, &form).await?;
        Ok(image.map(|image| image.metadata().map_or(0, |metadata| metadata.len())))
    }

    #[actix_web::test]
    async fn an_image_may_be_as_large_as_the_contract_says_and_no_byte_larger() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::load(None).unwrap();
        config.data_dir = dir.path().to_owned();
        let pool = PgPool::connect_lazy("postgresql://127.0.0.1:1/none").unwrap();
        let files = Files::open(&State::alone(&config, &pool)).unwrap();
        for (purpose, mib) in [(Purpose::ProfilePicture, 5), (Purpose::WastePhoto, 5), (Purpose::Post, 16)] {
            let most = mib * 1024 * 1024;
            assert_eq!(read(&files, purpose, most).await.unwrap(), Some(most as u64), "{purpose:?}");
            let beyond = read(&files, purpose, most + 1).await;
            assert!(matches!(beyond, Err(Error::TooLarge(_))), "{purpose:?}");
        }
    }
}
