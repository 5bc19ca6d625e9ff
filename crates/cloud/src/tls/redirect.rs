//! The address without TLS: it sends people's browsers on to https and answers programs with an error.
//!
//! A program that was set to `http://` by mistake would follow a redirect and work, and every one of its requests
//! would show its key to the whole line first. So nothing under `/api/`, nothing that is not only looked at, and
//! nothing that brings a credential is redirected.

use crate::error::{Error, Result};
use crate::guards;
use crate::state::State;
use actix_web::dev::Server;
use actix_web::http::{Method, header};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, middleware, web};
use std::net::TcpListener;

/// Serves at a bound address, until its handle stops it.
///
/// # Errors
/// The socket's.
pub fn serve(listener: TcpListener, state: State) -> std::io::Result<Server> {
    let state = web::Data::new(state);
    let timeout = state.config.http.head_timeout;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .wrap(middleware::from_fn(guards::host))
            .wrap(middleware::from_fn(guards::answer))
            .default_service(web::to(elsewhere))
    });
    Ok(server
        .workers(1)
        .client_request_timeout(timeout)
        .shutdown_timeout(1)
        .disable_signals()
        .listen(listener)?
        .run())
}

async fn elsewhere(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse> {
    let looks = [Method::GET, Method::HEAD].contains(request.method());
    let bare = !request.headers().contains_key(header::AUTHORIZATION);
    if !looks || !bare || request.path().starts_with("/api/") {
        return Err(Error::Forbidden("HTTPS_ONLY"));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let there = format!("{}{path}", state.config.public_url());
    Ok(HttpResponse::MovedPermanently().insert_header((header::LOCATION, there)).finish())
}
