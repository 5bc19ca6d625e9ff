//! Programmes and their sites.

use crate::database::anew;
use crate::error::{Error, OnConstraint, Result};
use crate::page::Page;
use chrono_tz::Tz;
use lumbung_shared::FieldError;
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;

/// What a site is.
pub const SITE_KINDS: &[&str] = &["kitchen", "school", "warehouse", "farm", "office"];

/// A site to be added, checked.
#[derive(Debug, Clone)]
pub struct NewSite {
    programme: String,
    code: String,
    name: String,
    kind: String,
    time_zone: Tz,
}

impl NewSite {
    /// # Errors
    /// Every field that cannot be taken, with what to write instead.
    pub fn parse(programme: &str, code: &str, name: &str, kind: &str, time_zone: &str) -> Result<Self> {
        let mut wrong = Vec::new();
        wrong.extend(check_code("code", code).err());
        wrong.extend(check_code("programme", programme).err());
        wrong.extend(lumbung_shared::check_text("name", name, 200).err());
        if !SITE_KINDS.contains(&kind) {
            wrong.push(FieldError::not_one_of("kind", SITE_KINDS));
        }
        match time_zone.parse::<Tz>() {
            Ok(time_zone) if wrong.is_empty() => Ok(Self {
                programme: programme.to_owned(),
                code: code.to_owned(),
                name: name.to_owned(),
                kind: kind.to_owned(),
                time_zone,
            }),
            parsed => {
                if parsed.is_err() {
                    wrong.push(FieldError::new(
                        "time_zone",
                        "harus nama IANA seperti Asia/Jakarta",
                        "must be an IANA name such as Asia/Jakarta",
                    ));
                }
                Err(Error::Fields(wrong))
            }
        }
    }
}

/// A code: 1 to 64 letters, digits, `_` and `-`, a letter or digit first.
pub fn check_code(field: &'static str, code: &str) -> std::result::Result<(), FieldError> {
    let fits = (1..=64).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && code.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    fits.then_some(()).ok_or_else(|| {
        FieldError::new(
            field,
            "harus 1 sampai 64 huruf, angka, - atau _, diawali huruf atau angka",
            "must be 1 to 64 letters, digits, - or _, starting with a letter or digit",
        )
    })
}

/// Adds a programme. Answers false when it was there already (its name is brought up to date).
///
/// # Errors
/// [`Error::Fields`], or the database's.
pub async fn add_programme(database: impl PgExecutor<'_>, code: &str, name: &str) -> Result<bool> {
    check_programme(code, name)?;
    let added = sqlx::query_scalar!(
        r#"insert into programme (code, name) values ($1, $2)
           on conflict on constraint programme_code_key do update set name = excluded.name
           returning (xmax = 0) as "added!""#,
        code,
        name
    )
    .fetch_one(database)
    .await?;
    Ok(added)
}

fn check_programme(code: &str, name: &str) -> Result<()> {
    let wrong: Vec<FieldError> =
        [check_code("code", code).err(), lumbung_shared::check_text("name", name, 200).err()]
            .into_iter()
            .flatten()
            .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::Fields(wrong)) }
}

/// Makes a programme whose code nobody has. Answers its key.
///
/// # Errors
/// [`Error::Fields`], `PROGRAMME_TAKEN`, or the database's.
pub async fn make_programme(database: impl PgExecutor<'_>, code: &str, name: &str) -> Result<i32> {
    check_programme(code, name)?;
    sqlx::query_scalar!(
        "insert into programme (code, name) values ($1, $2) returning programme_id",
        code,
        name
    )
    .fetch_one(database)
    .await
    .on_constraint("programme_code_key", Error::Conflict("PROGRAMME_TAKEN"))
}

/// Adds a site. Answers false when its code was there already (everything else is brought up to date).
///
/// # Errors
/// [`Error::Fields`] for an unknown programme, or the database's.
pub async fn add_site(database: impl PgExecutor<'_>, site: &NewSite) -> Result<bool> {
    let added = sqlx::query_scalar!(
        r#"insert into site (programme_id, code, name, kind, time_zone)
           select programme_id, $2, $3, $4, $5 from programme where code = $1
           on conflict on constraint site_code_key do update
               set programme_id = excluded.programme_id, name = excluded.name, kind = excluded.kind,
                   time_zone = excluded.time_zone
           returning (xmax = 0) as "added!""#,
        site.programme,
        site.code,
        site.name,
        site.kind,
        site.time_zone.name()
    )
    .fetch_optional(database)
    .await
    .on_constraint(
        "site_code_form",
        Error::field("code", "bentuknya tidak dapat dipakai", "has an unusable form"),
    )?;
    added.ok_or_else(|| FieldError::unknown("programme").into())
}

/// Makes a site whose code nobody has. Answers its key.
///
/// # Errors
/// [`Error::Fields`] for an unknown programme, `SITE_TAKEN`, or the database's.
pub async fn make_site(database: impl PgExecutor<'_>, site: &NewSite) -> Result<i32> {
    sqlx::query_scalar!(
        "insert into site (programme_id, code, name, kind, time_zone)
         select programme_id, $2, $3, $4, $5 from programme where code = $1 returning site_id",
        site.programme,
        site.code,
        site.name,
        site.kind,
        site.time_zone.name()
    )
    .fetch_optional(database)
    .await
    .on_constraint("site_code_key", Error::Conflict("SITE_TAKEN"))?
    .ok_or_else(|| FieldError::unknown("programme").into())
}

/// The code of a programme, which nobody changes until the transaction is over.
///
/// # Errors
/// The database's.
pub async fn hold_programme(database: impl PgExecutor<'_>, programme_id: i32) -> Result<Option<String>> {
    let found =
        sqlx::query_scalar!("select code from programme where programme_id = $1 for update", programme_id);
    Ok(found.fetch_optional(database).await?)
}

/// The code of a site and the key of its programme, which nobody changes until the transaction is over.
///
/// # Errors
/// The database's.
pub async fn hold_site(database: impl PgExecutor<'_>, site_id: i32) -> Result<Option<(String, i32)>> {
    let found = sqlx::query!("select code, programme_id from site where site_id = $1 for update", site_id)
        .fetch_optional(database)
        .await?;
    Ok(found.map(|site| (site.code, site.programme_id)))
}

/// The key of a programme's code.
///
/// # Errors
/// The database's.
pub async fn programme_named(database: impl PgExecutor<'_>, code: &str) -> Result<Option<i32>> {
    Ok(sqlx::query_scalar!("select programme_id from programme where code = $1", code)
        .fetch_optional(database)
        .await?)
}

/// The key of a site's code.
///
/// # Errors
/// The database's.
pub async fn site_named(database: impl PgExecutor<'_>, code: &str) -> Result<Option<i32>> {
    Ok(sqlx::query_scalar!("select site_id from site where code = $1", code).fetch_optional(database).await?)
}

/// A site as people list it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Site {
    #[schema(example = 12)]
    pub site_id: i32,
    #[schema(example = "DAPUR-MENTENG")]
    pub code: String,
    #[schema(example = "Dapur Menteng")]
    pub name: String,
    /// `kitchen`, `school`, `warehouse`, `farm` or `office`
    #[schema(example = "kitchen")]
    pub kind: String,
    #[schema(example = "Asia/Jakarta")]
    pub time_zone: String,
    /// Code of its programme.
    #[schema(example = "MBG")]
    pub programme: String,
}

/// A page of the sites, in the order they were made; of `only` these where it says.
///
/// # Errors
/// The database's.
pub async fn sites(database: impl PgExecutor<'_>, only: Option<&[i32]>, page: Page) -> Result<Vec<Site>> {
    Ok(sqlx::query_as!(
        Site,
        "select s.site_id, s.code, s.name, s.kind, s.time_zone, p.code as programme
         from site s join programme p using (programme_id)
         where s.site_id > $2 and ($1::int[] is null or s.site_id = any($1)) order by s.site_id
         limit $3 offset $4",
        only,
        page.after_small(),
        page.most,
        page.skip
    )
    .fetch_all(anew(database))
    .await?)
}

/// A programme as people list it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Programme {
    #[schema(example = 1)]
    pub programme_id: i32,
    #[schema(example = "MBG")]
    pub code: String,
    #[schema(example = "Makan Bergizi Gratis")]
    pub name: String,
}

/// A page of the programmes, in the order they were made; where `sites` says which, those that have one of these, and
/// `whole`.
///
/// # Errors
/// The database's.
pub async fn programmes(
    database: impl PgExecutor<'_>,
    sites: Option<&[i32]>,
    whole: &[i32],
    page: Page,
) -> Result<Vec<Programme>> {
    Ok(sqlx::query_as!(
        Programme,
        "select programme_id, code, name from programme p
         where programme_id > $3 and ($1::int[] is null or programme_id = any($2)
             or exists (select from site s where s.programme_id = p.programme_id and s.site_id = any($1)))
         order by programme_id limit $4 offset $5",
        sites,
        whole,
        page.after_small(),
        page.most,
        page.skip
    )
    .fetch_all(anew(database))
    .await?)
}

/// The zone of a stored name; a name this program does not know reads as Jakarta's.
pub fn zone(name: &str) -> Tz {
    name.parse().unwrap_or(Tz::Asia__Jakarta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_says_everything_that_is_wrong_with_it_at_once() {
        let Err(Error::Fields(wrong)) = NewSite::parse("MBG", "-x", "", "castle", "Jakarta") else {
            panic!()
        };
        assert_eq!(wrong.iter().map(|w| w.field).collect::<Vec<_>>(), ["code", "name", "kind", "time_zone"]);
        assert!(NewSite::parse("MBG", "SD-01", "SD Satu", "school", "Asia/Jayapura").is_ok());
    }
}
