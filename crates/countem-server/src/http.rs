//! The HTTP API: its routes, and what every request passes.

mod answer;
mod body;
pub(crate) mod counting;
mod guard;
mod health;
mod items;
mod params;
mod query;
mod reading;
mod render;
mod series;

use actix_web::{
    App, HttpRequest, HttpResponse, ResponseError as _,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
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
                .service(health::get_stats)
                .service(health::post_flush),
        )
        .service(health::healthz)
        .service(health::readyz)
        .service(health::get_version)
        .service(health::get_metrics)
        .service(health::get_openapi)
        .split_for_parts();
    let app = app.default_service(web::to(not_found)).wrap(Compress::default()).wrap(from_fn(guard::guard));
    (app, api)
}

/// Returns the description of the API.
pub(crate) fn description(state: web::Data<State>) -> utoipa::openapi::OpenApi {
    app(state).1
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let path = params::shown(request.path());
    Problem::new(Code::NotFound, format_args!("there is no `{path}`; the API is at {API}")).error_response()
}
