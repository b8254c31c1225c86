//! The HTTP API: its routes, and what every request passes.

mod allowed;
mod answer;
mod batches;
mod body;
mod corrections;
mod counting;
mod exposition;
mod guard;
mod health;
mod items;
mod keys;
mod params;
mod query;
mod reading;
mod render;
mod series;
mod store;
mod stream;

use actix_web::{
    App, HttpRequest, HttpResponse, ResponseError as _,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderValue},
    middleware::{Compress, from_fn},
    web,
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_actix_web::{AppExt as _, scope};

use crate::{
    problem::{Code, Problem},
    state::State,
};

/// Path of the API.
pub(crate) const API: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(
    info(title = "countem", description = "Counts events, and stores every count exactly once."),
    modifiers(&Bearer),
    security(("token" = [])),
)]
struct Description;

/// Tokens in the header `Authorization`.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("token", bearer);
    }
}

/// Returns the app, and the description of its API.
pub(crate) fn app(
    state: web::Data<State>,
) -> (
    App<
        impl ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<impl MessageBody>,
            Error = actix_web::Error,
            InitError = (),
        >,
    >,
    utoipa::openapi::OpenApi,
) {
    let (app, api) = App::new()
        .into_utoipa_app()
        .openapi(Description::openapi())
        .app_data(state)
        .service(
            scope::scope(API)
                .service(counting::increment)
                .service(counting::increments)
                .service(reading::get_counter)
                .service(reading::get_counters)
                .service(reading::get_all_counters)
                .service(series::get_series)
                .service(series::get_top)
                .service(reading::get_collections)
                .service(stream::get_stream)
                .service(corrections::correct)
                .service(corrections::history)
                .service(batches::post_batch)
                .service(store::call_store)
                .service(health::get_stats)
                .service(health::post_flush),
        )
        .service(health::healthz)
        .service(health::readyz)
        .service(health::get_version)
        .service(exposition::get_metrics)
        .service(health::get_openapi)
        .split_for_parts();
    let app = app.default_service(web::to(not_found)).wrap(Compress::default()).wrap(from_fn(guard::guard));
    (app, api)
}

/// Returns the description of the API.
pub(crate) fn description(state: web::Data<State>) -> utoipa::openapi::OpenApi {
    app(state).1
}

/// Answers what no route takes: there is no such path, or it is for other methods.
async fn not_found(state: web::Data<State>, request: HttpRequest) -> HttpResponse {
    let path = params::shown(request.path());
    let methods = methods_of(&state, request.path());
    if methods.is_empty() {
        let detail =
            format_args!("there is no `{path}`; the API is at {API}, and described at /openapi.json");
        return Problem::new(Code::NotFound, detail).error_response();
    }
    let allowed = methods.join(", ");
    let detail = format_args!("`{path}` is for {allowed}");
    let mut response = Problem::new(Code::MethodNotAllowed, detail).error_response();
    let allowed = HeaderValue::from_str(&allowed).expect("names of methods are a header");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// Lists the methods of a path, by the description of the API.
fn methods_of(state: &web::Data<State>, path: &str) -> Vec<&'static str> {
    let api = description(state.clone());
    let fits = |template: &str| {
        let (mut given, mut wanted) = (path.split('/'), template.split('/').peekable());
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return true,
                // The last name in a path may have slashes.
                (Some(name), Some(_)) if name.starts_with('{') => {
                    if wanted.peek().is_none() {
                        return name == "{metric}" || given.next().is_none();
                    }
                }
                (Some(text), Some(part)) if text == part => {}
                _ => return false,
            }
        }
    };
    let mut methods = Vec::new();
    for (_, item) in api.paths.paths.iter().filter(|(template, _)| fits(template)) {
        for (operation, name) in [
            (item.get.is_some(), "GET"),
            (item.get.is_some(), "HEAD"),
            (item.post.is_some(), "POST"),
            (item.put.is_some(), "PUT"),
            (item.delete.is_some(), "DELETE"),
        ] {
            if operation && !methods.contains(&name) {
                methods.push(name);
            }
        }
    }
    methods
}
