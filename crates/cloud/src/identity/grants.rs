//! What people are given to do at places, beside the role of their account: operators look after a programme's
//! or a site's gateways, officers see what goes on there.
//!
//! What must stay true:
//! - A grant to a programme is for the sites that it has now, not for those that it had when it was given.
//! - Nobody sees rows of a site by anything but a grant to that site or to its programme.

use crate::audit::{Action, By, Object};
use crate::error::{Error, Result};
use crate::places;
use chrono::{DateTime, Utc};
use lumbung_shared::FieldError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use utoipa::ToSchema;

/// The role of a grant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Duty {
    /// Reads everything of the place and enrols its gateways; of a whole programme, its sites too.
    Operator,
    /// Reads everything of the place.
    Officer,
}

impl Duty {
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Officer => "officer",
        }
    }
}

/// Which sites' rows somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sites {
    All,
    Only(Arc<[i32]>),
}

impl Sites {
    /// For `$n::int[] is null or site_id = any($n)`.
    pub fn only(&self) -> Option<&[i32]> {
        match self {
            Self::All => None,
            Self::Only(sites) => Some(sites),
        }
    }

    pub fn include(&self, site_id: i32) -> bool {
        self.only().is_none_or(|sites| sites.contains(&site_id))
    }
}

/// What all grants of a person come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    /// Programmes that they operate as a whole.
    pub(super) programmes: Vec<i32>,
    /// Sites that they operate, those of the programmes among them.
    pub(super) operates: Vec<i32>,
    /// Sites whose rows they see.
    pub(super) sees: Arc<[i32]>,
}

/// Where a grant holds, by code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Programme(String),
    Site(String),
}

impl Place {
    pub fn code(&self) -> &str {
        match self {
            Self::Programme(code) | Self::Site(code) => code,
        }
    }

    /// Exactly one of the two.
    ///
    /// # Errors
    /// [`Error::Fields`] for both or neither.
    pub fn parse(programme: Option<String>, site: Option<String>) -> Result<Self> {
        match (programme, site) {
            (Some(programme), None) => Ok(Self::Programme(programme)),
            (None, Some(site)) => Ok(Self::Site(site)),
            _ => Err(Error::field(
                "site",
                "isi program atau lokasi, jangan keduanya",
                "either a programme or a site is needed, not both",
            )),
        }
    }
}

/// A grant as people list it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GrantListed)]
pub struct Listed {
    #[schema(example = 4)]
    pub grant_id: i64,
    pub role: Duty,
    /// Code of the programme, where it is for a whole one.
    #[schema(example = "MBG")]
    pub programme: Option<String>,
    /// Code of the site, where it is for one.
    pub site: Option<String>,
    pub granted_at: DateTime<Utc>,
}

/// Gives a person a duty at a place. Answers the grant's number.
///
/// # Errors
/// `NOT_FOUND` for an unknown person, [`Error::Fields`] for an unknown place, `GRANT_EXISTS`, or the database's.
pub async fn grant(conn: &mut PgConnection, user_id: i64, duty: Duty, place: &Place, by: &By) -> Result<i64> {
    let (programme_id, site_id) = keys(&mut *conn, place).await?;
    let made = sqlx::query_scalar!(
        "insert into role_grant (user_id, role, programme_id, site_id, granted_by)
         select user_id, $2, $3, $4, $5 from app_user where user_id = $1 and erased_at is null
         returning grant_id",
        user_id,
        duty.word(),
        programme_id,
        site_id,
        by.person()
    )
    .fetch_optional(&mut *conn)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("role_grant_key") => Error::Conflict("GRANT_EXISTS"),
        _ => error.into(),
    })?;
    let id = made.ok_or(Error::NotFound("NOT_FOUND"))?;
    let detail = json!({ "granted": duty, "place": place.code(), "grant_id": id });
    by.did(conn, Action::PermissionsChanged, Object::new("user", &user_id), None, detail).await?;
    Ok(id)
}

async fn keys(conn: &mut PgConnection, place: &Place) -> Result<(Option<i32>, Option<i32>)> {
    match place {
        Place::Programme(code) => {
            let known = places::programme_named(conn, code).await?;
            let id = known.ok_or_else(|| FieldError::unknown("programme"))?;
            Ok((Some(id), None))
        }
        Place::Site(code) => {
            let known = places::site_named(conn, code).await?;
            let id = known.ok_or_else(|| FieldError::unknown("site"))?;
            Ok((None, Some(id)))
        }
    }
}

/// Takes a grant of a person away; it is felt everywhere within a second.
///
/// # Errors
/// `NOT_FOUND` when the person has no such grant, or the database's.
pub async fn withdraw(conn: &mut PgConnection, user_id: i64, grant_id: i64, by: &By) -> Result<()> {
    sqlx::query_scalar!(
        "delete from role_grant where grant_id = $1 and user_id = $2 returning grant_id",
        grant_id,
        user_id
    )
    .fetch_optional(&mut *conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))?;
    let detail = json!({ "withdrawn": grant_id });
    by.did(conn, Action::PermissionsChanged, Object::new("user", &user_id), None, detail).await
}

/// The grant of a duty at a place.
///
/// # Errors
/// `NOT_FOUND` when the person has no such grant, or the database's.
pub async fn find(conn: &mut PgConnection, user_id: i64, duty: Duty, place: &Place) -> Result<i64> {
    let (programme_id, site_id) = keys(conn, place).await?;
    sqlx::query_scalar!(
        "select grant_id from role_grant
         where user_id = $1 and role = $2 and programme_id is not distinct from $3
             and site_id is not distinct from $4",
        user_id,
        duty.word(),
        programme_id,
        site_id
    )
    .fetch_optional(conn)
    .await?
    .ok_or(Error::NotFound("NOT_FOUND"))
}

/// Every grant of a person, oldest first.
///
/// # Errors
/// The database's.
pub async fn list(conn: &mut PgConnection, user_id: i64) -> Result<Vec<Listed>> {
    sqlx::query_scalar!("select user_id from app_user where user_id = $1 and erased_at is null", user_id)
        .fetch_optional(&mut *conn)
        .await?
        .ok_or(Error::NotFound("NOT_FOUND"))?;
    Ok(sqlx::query_as!(
        Listed,
        r#"select r.grant_id, r.role as "role: Duty", p.code as "programme?", s.code as "site?", r.granted_at
           from role_grant r left join programme p on p.programme_id = r.programme_id
           left join site s on s.site_id = r.site_id
           where r.user_id = $1 order by r.grant_id"#,
        user_id
    )
    .fetch_all(conn)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_for_one_place() {
        let (some, none) = (|| Some("X".to_owned()), || None);
        assert_eq!(Place::parse(some(), none()).unwrap(), Place::Programme("X".into()));
        assert_eq!(Place::parse(none(), some()).unwrap(), Place::Site("X".into()));
        assert!(Place::parse(some(), some()).is_err() && Place::parse(none(), none()).is_err());
    }

    #[test]
    fn one_site_is_no_other() {
        let one = Sites::Only([7].into());
        assert!(one.include(7) && !one.include(8) && Sites::All.include(8));
        assert_eq!((one.only(), Sites::All.only()), (Some(&[7][..]), None));
        assert_eq!(Sites::Only([].into()).only(), Some(&[][..]), "nothing is not everything");
    }
}
