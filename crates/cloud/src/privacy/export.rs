//! `POST /api/users/me/export` and `GET /api/users/me/export/{id}`: a copy of everything about a person, as a zip.

use crate::audit::{self, Action, Actor, Entry, Origin};
use crate::database::anew;
use crate::error::{Error, Result};
use crate::files::{self, EXPORTS, Files};
use crate::identity::{Person, personal};
use crate::notify::{self, Kind, Message};
use crate::state::State;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::fs::File;
use std::io::Write;
use std::time::Duration;
use utoipa::ToSchema;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes.service(ask).service(fetch);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(ask, fetch))]
pub(crate) struct Docs;

/// What is not made by then is begun anew; its lease lasts twice as long.
const LONGEST_MAKING: Duration = Duration::from_secs(900);
/// Nobody makes a copy for so long.
const LONGEST_MADE: Duration = Duration::from_secs(24 * 3_600);

#[derive(Serialize, ToSchema)]
struct Asked {
    #[schema(example = true)]
    success: bool,
    /// For `GET /api/users/me/export/{id}`.
    #[schema(example = 5)]
    export_id: i64,
}

/// Ask for a copy of everything about you. Whoever is signed in may call.
///
/// It is made in the background, usually within seconds; asking again meanwhile is the same request. A copy made
/// earlier is taken away. The person is told when it is ready.
#[utoipa::path(tag = "privacy", path = "/api/users/me/export", security(("session" = [])),
    responses((status = 202, body = Asked), (status = 401, body = crate::error::ErrorBody)))]
#[post("/api/users/me/export")]
async fn ask(
    request: HttpRequest,
    person: Person,
    state: web::Data<State>,
    files: web::Data<Files>,
) -> Result<HttpResponse> {
    let mut tx = state.people.begin().await?;
    // A copy made earlier goes, so that nobody fills the store with copies.
    expire_all(&mut tx, person.user_id).await?;
    let export_id = sqlx::query_scalar!(
        "insert into data_export (user_id, name) values ($1, $2 || '/' || gen_random_uuid() || '.zip')
         on conflict (user_id) where ready_at is null and expires_at is null
         do update set requested_at = data_export.requested_at
         returning data_export_id",
        person.user_id,
        EXPORTS
    )
    .fetch_one(&mut *tx)
    .await?;
    let entry = Entry {
        origin: Some(Origin::of(&request)),
        ..Entry::of(Actor::Person(person.user_id), Action::SensitiveRead)
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await?;
    // Now, for whoever waits; should this replica stop, the next one asked for, or a sweep, makes this too.
    let unfinished = state.unfinished.clone();
    unfinished.spawn(async move {
        if let Err(error) = Box::pin(one_round(&state, &files)).await {
            tracing::warn!("an export waits for the next round: {error}");
        }
    });
    Ok(HttpResponse::Accepted().json(Asked { success: true, export_id }))
}

/// Fetch the copy, for seven days. Only the one who asked may call.
#[utoipa::path(tag = "privacy", path = "/api/users/me/export/{id}", security(("session" = [])),
    params(("id" = i64, Path, description = "the `export_id`")),
    responses((status = 200, content_type = "application/zip", body = Vec<u8>),
        (status = 400, body = crate::error::ErrorBody), (status = 401, body = crate::error::ErrorBody),
        (status = 404, description = "not yours, or expired", body = crate::error::ErrorBody),
        (status = 409, description = "`EXPORT_NOT_READY`", body = crate::error::ErrorBody)))]
#[get("/api/users/me/export/{id}")]
async fn fetch(
    person: Person,
    state: web::Data<State>,
    files: web::Data<Files>,
    id: web::Path<i64>,
) -> Result<HttpResponse> {
    let export = sqlx::query!(
        r#"select name, ready_at is not null as "ready!" from data_export
           where data_export_id = $1 and user_id = $2 and (expires_at is null or expires_at > now())"#,
        *id,
        person.user_id
    )
    .fetch_optional(&state.people)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    if !export.ready {
        return Err(Error::Conflict("EXPORT_NOT_READY"));
    }
    let (size, bytes) = files.read_object(&export.name).await?;
    Ok(HttpResponse::Ok()
        .content_type("application/zip")
        .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"data-saya.zip\""))
        .no_chunking(size)
        .streaming(bytes))
}

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub made: u64,
    pub expired: u64,
}

/// Makes what was asked for, and takes away what has expired. A few copies at once in this replica, however many ask.
///
/// # Errors
/// The database's. An export that cannot be made is logged and waits for the next round.
pub async fn one_round(state: &State, files: &Files) -> Result<Round> {
    let _turn = files.turn_to_copy().await?;
    let waiting = sqlx::query_scalar!(
        "select data_export_id from data_export where ready_at is null and expires_at is null
         order by data_export_id"
    )
    .fetch_all(&state.people)
    .await?;
    let mut made = 0;
    for export_id in waiting {
        if state.leaving.is_cancelled() {
            break;
        }
        match Box::pin(one(state, files, export_id)).await {
            Ok(done) => made += u64::from(done),
            Err(error) => tracing::error!(export_id, "an export was not made: {error}"),
        }
    }
    Ok(Round { made, expired: expired(state, files, None).await? + lost(state, files).await? })
}

/// Makes one copy, unless another replica is at it. Neither the row nor a connection is held meanwhile: a person who
/// leaves need not wait for their copy, and the copy that is done after that goes at once.
async fn one(state: &State, files: &Files, export_id: i64) -> Result<bool> {
    let wanted = sqlx::query!(
        r#"update data_export set leased_until = now() + make_interval(secs => $2)
           where data_export_id = $1 and ready_at is null and expires_at is null
               and (leased_until is null or leased_until <= now())
           returning user_id, name, leased_until as "leased_until!""#,
        export_id,
        2.0 * LONGEST_MAKING.as_secs_f64()
    )
    .fetch_optional(&state.people)
    .await?;
    let Some(wanted) = wanted else { return Ok(false) };
    let making = Box::pin(make(state, files, wanted.user_id, &wanted.name));
    let made = tokio::select! {
        made = tokio::time::timeout(LONGEST_MAKING, making) => {
            made.unwrap_or_else(|_| Err(anyhow!("it took longer than {LONGEST_MAKING:?}").into()))
        }
        // Another replica, or this one when it is back, need not wait until the lease has run out.
        () = state.leaving.cancelled() => {
            Err(Error::Busy { retry_after: 5, reason: "the cloud is stopping".into() })
        }
    };
    let bytes = match made {
        Ok(bytes) => bytes,
        Err(error) => {
            sqlx::query!(
                "update data_export set leased_until = null where data_export_id = $1 and leased_until = $2",
                export_id,
                wanted.leased_until
            )
            .execute(&state.people)
            .await?;
            return Err(error);
        }
    };
    let mut tx = state.people.begin().await?;
    let ready = sqlx::query!(
        "update data_export set ready_at = now(), expires_at = now() + interval '7 days', bytes = $2,
             leased_until = null
         where data_export_id = $1 and leased_until = $3 and expires_at is null",
        export_id,
        bytes,
        wanted.leased_until
    )
    .execute(&mut *tx)
    .await?;
    if ready.rows_affected() == 0 {
        drop(tx);
        files.remove_object(&wanted.name).await?;
        return Ok(false);
    }
    if let Some(to) = personal::recipient(&mut tx, wanted.user_id).await? {
        let related = Some(("data_export", export_id));
        let message = Message { to, kind: Kind::ExportReady, values: json!({}), related, group: None };
        notify::send(&mut tx, &message).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Builds the zip and puts it into the store; its size.
async fn make(state: &State, files: &Files, user_id: i64, name: &str) -> Result<i64> {
    let (modules, names) = {
        let conn = &mut *state.people.acquire().await?;
        let modules: [(&str, Value); 5] = [
            ("account.json", personal::export(conn, user_id).await?),
            ("messages.json", notify::personal::export(conn, user_id).await?),
            ("activity.json", audit::personal::export(conn, user_id).await?),
            ("requests.json", super::requests::export(conn, user_id).await?),
            ("files.json", files::export(conn, user_id).await?),
        ];
        (modules, files::names_of(conn, user_id).await?)
    };
    let mut zip = Some(ZipWriter::new(files.scratch()?));
    for (name, data) in modules {
        let text = serde_json::to_vec_pretty(&data).context("an export")?;
        zip = add(zip, name.to_owned(), text).await?;
    }
    for name in names {
        match files.read_whole(&name).await? {
            Some(bytes) => zip = add(zip, format!("files/{name}.jpg"), bytes).await?,
            None => tracing::error!("the store has lost an upload, which is missing in a copy"),
        }
    }
    let file = zip.context("an export")?.finish().context("an export")?;
    let bytes = file.metadata().context("an export")?.len();
    files.put_object(name, file).await?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// Compresses and writes off the async threads.
async fn add(zip: Option<ZipWriter<File>>, name: String, bytes: Vec<u8>) -> Result<Option<ZipWriter<File>>> {
    let mut zip = zip.context("an export")?;
    let written = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(&bytes)?;
        Ok(zip)
    });
    Ok(Some(written.await.map_err(|error| anyhow!("an export: {error}"))??))
}

/// Ends every copy of a person's data that is made, in the caller's transaction.
async fn expire_all(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    sqlx::query!(
        "update data_export set expires_at = now() where user_id = $1 and ready_at is not null",
        user_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Ends those that are still to be made, too.
pub(super) async fn erase(conn: &mut PgConnection, user_id: i64) -> Result<()> {
    sqlx::query!("update data_export set expires_at = now() where user_id = $1", user_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Copies that no row names: a program died while it made one, or took its row away.
async fn lost(state: &State, files: &Files) -> Result<u64> {
    let old = files.exports_older_than(LONGEST_MADE).await?;
    let known = sqlx::query_scalar!("select name from data_export where name = any($1)", &old)
        .fetch_all(&state.people)
        .await?;
    let mut count = 0;
    for name in old.iter().filter(|name| !known.contains(name)) {
        files.remove_object(name).await?;
        count += 1;
    }
    Ok(count)
}

/// Takes expired copies, of one person or of everybody, out of the store and then their rows; how many.
pub(super) async fn expired(state: &State, files: &Files, whose: Option<i64>) -> Result<u64> {
    let names = sqlx::query_scalar!(
        "select name from data_export
         where expires_at <= now() and ($1::bigint is null or user_id = $1) limit 500",
        whose
    )
    .fetch_all(anew(&state.people))
    .await?;
    for name in &names {
        files.remove_object(name).await?;
        sqlx::query!("delete from data_export where name = $1", name).execute(&state.people).await?;
    }
    Ok(names.len() as u64)
}
