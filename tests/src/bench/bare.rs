//! The baseline of people's requests: the same statements and answers, and nobody is asked who they are.

use actix_web::error::ErrorInternalServerError;
use actix_web::{App, HttpResponse, HttpServer, Result, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};

#[derive(Serialize, sqlx::FromRow)]
struct Profile {
    user_id: i64,
    email: String,
    username: String,
    full_name: Option<String>,
    profile_picture_url: Option<String>,
    bio: Option<String>,
    phone_number: Option<String>,
    address: Option<String>,
    city: Option<String>,
    country: Option<String>,
    role: String,
    is_verified: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize, sqlx::FromRow)]
struct Session {
    session_id: i64,
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    current: bool,
}

#[derive(Deserialize)]
struct Change {
    city: String,
}

#[derive(Deserialize)]
struct NewProgramme {
    code: String,
    name: String,
}

async fn me(pool: web::Data<PgPool>, id: web::Path<i64>) -> Result<HttpResponse> {
    let profile: Profile = sqlx::query_as(
        "select user_id, email, username, full_name, profile_picture as profile_picture_url, bio, phone_number,
             address, city, country, role::text as role, is_verified, created_at, updated_at
         from app_user where user_id = $1",
    )
    .bind(*id)
    .fetch_one(pool.get_ref())
    .await
    .map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().json(json!({"success": true, "user_data": profile})))
}

async fn list(pool: web::Data<PgPool>, id: web::Path<i64>) -> Result<HttpResponse> {
    let sessions: Vec<Session> = sqlx::query_as(
        "select session_id, user_agent, created_at, last_seen_at, expires_at, session_id = $2 as current
         from user_session where user_id = $1 and revoked_at is null and expires_at > now()
         order by session_id desc limit 100",
    )
    .bind(*id)
    .bind(1i64)
    .fetch_all(pool.get_ref())
    .await
    .map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().json(json!({"success": true, "sessions": sessions})))
}

async fn change(
    pool: web::Data<PgPool>,
    id: web::Path<i64>,
    body: web::Json<Change>,
) -> Result<HttpResponse> {
    let mut tx = pool.begin().await.map_err(ErrorInternalServerError)?;
    let profile: Profile = sqlx::query_as(
        "update app_user set full_name = nullif(coalesce($2, full_name), ''), bio = nullif(coalesce($3, bio), ''),
             phone_number = nullif(coalesce($4, phone_number), ''), address = nullif(coalesce($5, address), ''),
             city = nullif(coalesce($6, city), ''), country = nullif(coalesce($7, country), ''),
             username = coalesce($8, username), updated_at = now()
         where user_id = $1 and is_active
         returning user_id, email, username, full_name, profile_picture as profile_picture_url, bio, phone_number,
             address, city, country, role::text as role, is_verified, created_at, updated_at",
    )
    .bind(*id)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(&body.city)
    .bind(None::<String>)
    .bind(None::<String>)
    .fetch_one(&mut *tx)
    .await
    .map_err(ErrorInternalServerError)?;
    record(&mut tx, *id, "user_updated", "user", &id.to_string(), r#"{"fields":["city"]}"#).await?;
    tx.commit().await.map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().json(json!({"success": true, "user_data": profile})))
}

async fn create(
    pool: web::Data<PgPool>,
    id: web::Path<i64>,
    body: web::Json<NewProgramme>,
) -> Result<HttpResponse> {
    let NewProgramme { code, name } = body.into_inner();
    let mut tx = pool.begin().await.map_err(ErrorInternalServerError)?;
    let programme_id: i32 =
        sqlx::query_scalar("insert into programme (code, name) values ($1, $2) returning programme_id")
            .bind(&code)
            .bind(&name)
            .fetch_one(&mut *tx)
            .await
            .map_err(ErrorInternalServerError)?;
    let detail = json!({"made": true, "name": name}).to_string();
    record(&mut tx, *id, "place_changed", "programme", &code, &detail).await?;
    tx.commit().await.map_err(ErrorInternalServerError)?;
    let programme = json!({"programme_id": programme_id, "code": code, "name": name});
    Ok(HttpResponse::Created().json(json!({"success": true, "programme": programme})))
}

/// What the audit log takes of each change.
async fn record(
    conn: &mut PgConnection,
    user_id: i64,
    action: &str,
    kind: &str,
    object: &str,
    detail: &str,
) -> Result<()> {
    sqlx::query(
        "insert into audit_entry (happened_at, request_id, actor_kind, actor_id, address, user_agent, action,
             object_kind, object_id, outcome, reason, detail, version)
         values (clock_timestamp(), $1, 'person', left($2, 128), '127.0.0.1', null, $3, $4, left($5, 128), 'success', null,
             ($6::text)::jsonb, 'bare')",
    )
    .bind("00000000000000000000000000000000")
    .bind(user_id.to_string())
    .bind(action)
    .bind(kind)
    .bind(object)
    .bind(detail)
    .execute(conn)
    .await
    .map_err(ErrorInternalServerError)?;
    Ok(())
}

/// Serves until it is ended, with as many connections as the cloud has for people.
pub async fn bare_server(port: u16, database_url: &str) -> anyhow::Result<()> {
    let pool = web::Data::new(PgPoolOptions::new().max_connections(16).connect_lazy(database_url)?);
    HttpServer::new(move || {
        App::new()
            .app_data(pool.clone())
            .route("/me/{id}", web::get().to(me))
            .route("/list/{id}", web::get().to(list))
            .route("/change/{id}", web::put().to(change))
            .route("/create/{id}", web::post().to(create))
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await?;
    Ok(())
}
