//! `POST /api/sensors/read?name=kulkas-1`: what a sensor says now. Nothing is stored.

use super::Api;
use super::problem::Problem;
use crate::words::{Code, FieldProblem};
use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Which {
    name: String,
}

pub(super) async fn read(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let Ok(which) = Query::<Which>::from_query(request.query_string()) else {
        return Problem::fields(vec![("name", FieldProblem::Missing)]).answer(&request);
    };
    match api.sensors.read(&which.name).await {
        Some(Ok(read)) => HttpResponse::Ok().json(read),
        Some(Err(_)) => Problem::of(Code::SensorsStopped).answer(&request),
        None => Problem::of(Code::NoSensor).answer(&request),
    }
}
