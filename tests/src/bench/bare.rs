//! The baseline of people's requests: the same statements and answers, and nobody is asked who they are.

use actix_web::error::ErrorInternalServerError;
use actix_web::{App, HttpResponse, HttpServer, Result, web};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
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
    sqlx::query(
        "update app_user set full_name = nullif(coalesce($2, full_name), ''), bio = nullif(coalesce($3, bio), ''),
             phone_number = nullif(coalesce($4, phone_number), ''), address = nullif(coalesce($5, address), ''),
             city = nullif(coalesce($6, city), ''), country = nullif(coalesce($7, country), ''), updated_at = now()
         where user_id = $1",
    )
    .bind(*id)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(None::<String>)
    .bind(&body.city)
    .bind(None::<String>)
    .execute(pool.get_ref())
    .await
    .map_err(ErrorInternalServerError)?;
    me(pool, id).await
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
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await?;
    Ok(())
}
