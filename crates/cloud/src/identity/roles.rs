//! What a person is to this installation: user, volunteer, ambassador or admin.

use super::sessions::Person;
use crate::error::{Error, Result};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::pin::Pin;
use utoipa::ToSchema;

/// One per account. What people may do at places they are given besides, as grants.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    User,
    Volunteer,
    Ambassador,
    Admin,
}

impl Role {
    /// As it is stored, sent and typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Volunteer => "volunteer",
            Self::Ambassador => "ambassador",
            Self::Admin => "admin",
        }
    }
}

/// A signed-in admin. As a handler's argument it refuses strangers with 401 and everyone else with
/// 403 `ADMIN_ONLY`.
#[derive(Debug, Clone)]
pub struct Admin(pub Person);

impl FromRequest for Admin {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let person = Person::from_request(request, payload);
        Box::pin(async move {
            let person = person.await?;
            if person.is_admin() { Ok(Self(person)) } else { Err(Error::Forbidden("ADMIN_ONLY")) }
        })
    }
}
