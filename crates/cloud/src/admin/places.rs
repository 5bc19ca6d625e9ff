//! `/api/programmes` and `/api/sites`: where everything is. For admins, keys with the scope `places:write`, and
//! operators of a whole programme, who may rename it and add and change its sites.

use super::Wanted;
use crate::audit::{Action, Object};
use crate::error::{Error, ErrorBody, Result};
use crate::guards;
use crate::identity::access::Caller;
use crate::identity::keys::Scope;
use crate::json::Json;
use crate::places::{self, NewSite, Programme, Site};
use crate::state::State;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, get, post, put, web};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

pub(super) fn routes(routes: &mut web::ServiceConfig) {
    routes
        .service(list_programmes)
        .service(make_programme)
        .service(change_programme)
        .service(list_sites)
        .service(make_site)
        .service(change_site);
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(list_programmes, make_programme, change_programme, list_sites, make_site, change_site))]
pub(crate) struct Docs;

#[derive(Serialize, ToSchema)]
struct ProgrammePage {
    #[schema(example = true)]
    success: bool,
    programmes: Vec<Programme>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// List programmes, oldest first. For readers; who was granted places sees theirs.
#[utoipa::path(tag = "admin", path = "/api/programmes", params(Wanted),
    security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = ProgrammePage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody)))]
#[get("/api/programmes")]
async fn list_programmes(
    caller: Caller,
    state: web::Data<State>,
    wanted: web::Query<Wanted>,
) -> Result<HttpResponse> {
    let (sites, page) = (caller.reads()?, wanted.read()?);
    let mut programmes = places::programmes(&state.people, sites.only(), caller.programmes(), page).await?;
    let next_cursor = page.cut(&mut programmes, |programme| programme.programme_id.into());
    Ok(HttpResponse::Ok().json(ProgrammePage { success: true, programmes, page: page.number, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
struct NewProgramme {
    /// 1 to 64 letters, digits, `-` and `_`; it stays as it is.
    #[schema(example = "MBG")]
    code: String,
    #[schema(example = "Makan Bergizi Gratis", min_length = 1, max_length = 200)]
    name: String,
}

#[derive(Serialize, ToSchema)]
struct OneProgramme {
    #[schema(example = true)]
    success: bool,
    programme: Programme,
}

/// Make a programme. For admins and keys with `places:write`.
#[utoipa::path(tag = "admin", path = "/api/programmes", request_body = NewProgramme,
    security(("access_key" = []), ("session" = [])),
    responses((status = 201, body = OneProgramme), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody),
        (status = 409, description = "`PROGRAMME_TAKEN`", body = ErrorBody)))]
#[post("/api/programmes")]
async fn make_programme(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    body: Json<NewProgramme>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::PlacesWrite, &request)?;
    tended.everything()?;
    let NewProgramme { code, name } = body.into_inner();
    let mut tx = state.people.begin().await?;
    let programme_id = places::make_programme(&mut *tx, &code, &name).await?;
    let detail = json!({ "made": true, "name": name });
    by.did(&mut tx, Action::PlaceChanged, Object::new("programme", &code), None, detail).await?;
    let programme = Programme { programme_id, code, name };
    guards::commit(&request, tx, StatusCode::CREATED, &OneProgramme { success: true, programme }).await
}

#[derive(Deserialize, ToSchema)]
struct ProgrammeName {
    #[schema(example = "Makan Bergizi Gratis", min_length = 1, max_length = 200)]
    name: String,
}

/// Rename a programme. For admins, keys with `places:write` and its operators.
#[utoipa::path(tag = "admin", path = "/api/programmes/{id}", request_body = ProgrammeName,
    security(("access_key" = []), ("session" = [])),
    params(("id" = i32, Path, description = "a programme_id", example = 1)),
    responses((status = 200, body = OneProgramme), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[put("/api/programmes/{id}")]
async fn change_programme(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: Json<ProgrammeName>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::PlacesWrite, &request)?;
    tended.programme(Some(*id))?;
    let name = body.into_inner().name;
    let mut tx = state.people.begin().await?;
    let code = places::hold_programme(&mut *tx, *id).await?.ok_or(Error::NotFound("NOT_FOUND"))?;
    places::add_programme(&mut *tx, &code, &name).await?;
    let detail = json!({ "name": name });
    by.did(&mut tx, Action::PlaceChanged, Object::new("programme", &code), None, detail).await?;
    tx.commit().await?;
    let programme = Programme { programme_id: *id, code, name };
    Ok(HttpResponse::Ok().json(OneProgramme { success: true, programme }))
}

#[derive(Serialize, ToSchema)]
struct SitePage {
    #[schema(example = true)]
    success: bool,
    sites: Vec<Site>,
    #[schema(example = 1)]
    page: i64,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// List sites, oldest first. For readers; who was granted places sees theirs.
#[utoipa::path(tag = "admin", path = "/api/sites", params(Wanted),
    security(("access_key" = []), ("session" = [])),
    responses((status = 200, body = SitePage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody)))]
#[get("/api/sites")]
async fn list_sites(
    caller: Caller,
    state: web::Data<State>,
    wanted: web::Query<Wanted>,
) -> Result<HttpResponse> {
    let (seen, page) = (caller.reads()?, wanted.read()?);
    let mut sites = places::sites(&state.people, seen.only(), page).await?;
    let next_cursor = page.cut(&mut sites, |site| site.site_id.into());
    Ok(HttpResponse::Ok().json(SitePage { success: true, sites, page: page.number, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
struct SiteBody {
    /// 1 to 64 letters, digits, `-` and `_`; it stays as it is.
    #[schema(example = "DAPUR-MENTENG")]
    code: String,
    #[serde(flatten)]
    rest: SiteFields,
}

#[derive(Deserialize, ToSchema)]
struct SiteFields {
    /// Code of a programme.
    #[schema(example = "MBG")]
    programme: String,
    #[schema(example = "Dapur Menteng", min_length = 1, max_length = 200)]
    name: String,
    /// `kitchen`, `school`, `warehouse`, `farm` or `office`
    #[schema(example = "kitchen", pattern = "^(kitchen|school|warehouse|farm|office)$")]
    kind: String,
    /// IANA name; what "today" is there.
    #[schema(example = "Asia/Jakarta")]
    time_zone: String,
}

impl SiteFields {
    fn check(&self, code: &str) -> Result<NewSite> {
        NewSite::parse(&self.programme, code, &self.name, &self.kind, &self.time_zone)
    }

    fn at(self, site_id: i32, code: String) -> OneSite {
        let Self { programme, name, kind, time_zone } = self;
        OneSite { success: true, site: Site { site_id, code, name, kind, time_zone, programme } }
    }
}

#[derive(Serialize, ToSchema)]
struct OneSite {
    #[schema(example = true)]
    success: bool,
    site: Site,
}

/// Make a site. For admins, keys with `places:write` and operators of its programme.
#[utoipa::path(tag = "admin", path = "/api/sites", request_body = SiteBody,
    security(("access_key" = []), ("session" = [])),
    responses((status = 201, body = OneSite), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody),
        (status = 409, description = "`SITE_TAKEN`", body = ErrorBody)))]
#[post("/api/sites")]
async fn make_site(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    body: Json<SiteBody>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::PlacesWrite, &request)?;
    let SiteBody { code, rest } = body.into_inner();
    let site = rest.check(&code)?;
    let mut tx = state.people.begin().await?;
    tended.programme(places::programme_named(&mut *tx, &rest.programme).await?)?;
    let site_id = places::make_site(&mut *tx, &site).await?;
    let detail = json!({ "made": true, "programme": rest.programme });
    by.did(&mut tx, Action::PlaceChanged, Object::new("site", &code), None, detail).await?;
    guards::commit(&request, tx, StatusCode::CREATED, &rest.at(site_id, code)).await
}

/// Change a site, or give it to another programme. For admins, keys with `places:write` and operators of the
/// programme, of both where there are two.
#[utoipa::path(tag = "admin", path = "/api/sites/{id}", request_body = SiteFields,
    security(("access_key" = []), ("session" = [])),
    params(("id" = i32, Path, description = "a site_id", example = 12)),
    responses((status = 200, body = OneSite), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, description = "`NOT_GRANTED`", body = ErrorBody), (status = 404, body = ErrorBody)))]
#[put("/api/sites/{id}")]
async fn change_site(
    request: HttpRequest,
    caller: Caller,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: Json<SiteFields>,
) -> Result<HttpResponse> {
    let (tended, by) = caller.tends(Scope::PlacesWrite, &request)?;
    let mut tx = state.people.begin().await?;
    let held = places::hold_site(&mut *tx, *id).await?;
    tended.programme(held.as_ref().map(|(_, programme_id)| *programme_id))?;
    let (code, _) = held.ok_or(Error::NotFound("NOT_FOUND"))?;
    let site = body.check(&code)?;
    tended.programme(places::programme_named(&mut *tx, &body.programme).await?)?;
    places::add_site(&mut *tx, &site).await?;
    let detail = json!({ "programme": body.programme, "kind": body.kind, "time_zone": body.time_zone });
    by.did(&mut tx, Action::PlaceChanged, Object::new("site", &code), None, detail).await?;
    tx.commit().await?;
    Ok(HttpResponse::Ok().json(body.into_inner().at(*id, code)))
}
