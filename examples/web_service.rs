//! Counting in an actix-web service: every request, from many threads, without a query to the database.
//!
//! ```sh
//! cargo run -p countem-examples --example web_service -- 8080 /tmp/web.db
//! curl localhost:8080/hello/anna
//! curl localhost:8080/counters
//! curl localhost:8080/metrics
//! ```
//!
//! Ctrl-C ends it: requests under way are answered, then what is counted is stored.

use std::{collections::BTreeMap, env, error::Error, process::ExitCode};

use actix_web::{
    App, HttpResponse, HttpServer,
    body::{BodySize, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error, get,
    http::Method,
    middleware::{Next, from_fn},
    web,
};
use countem::{Collector, Counters, METRICS_CONTENT_TYPE};

/// Threads that answer requests. Each folds its counts in place; none waits for another one or for the store.
const WORKERS: usize = 8;

#[actix_web::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(8080), |port| port.parse())?;
    let path = arguments.next().unwrap_or_else(|| "web.db".to_owned());

    // One collector for the whole service. The counters of days before this start are in the same file.
    let collector = Collector::builder().store(format!("sqlite://{path}")).start().await?;

    let shared = collector.clone();
    HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .wrap(from_fn(count_request))
            .service(hello)
            .service(counters)
            .service(metrics)
    })
    .workers(WORKERS)
    .bind(("127.0.0.1", port))?
    .run()
    .await?;

    // The server has answered its last request, so counting has ended. Everything counted until now is stored before the
    // process ends, or the report names the rest.
    let report = collector.shutdown().await;
    println!("{report}");
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts a request and the bytes of its answer, also of a failed one.
async fn count_request(
    collector: web::Data<Collector>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, error::Error> {
    // The route, not the path: `/hello/{name}` is one counter for all names. Paths without a route share one counter, too:
    // a client must not fill the file with counters.
    let route = request.match_pattern().unwrap_or_else(|| "(no route)".to_owned());
    let method = name_of_method(request.method());
    let result = next.call(request).await;
    let (status, bytes) = match &result {
        Ok(response) => (response.status(), size_of_body(response.response().body())),
        Err(error) => (error.as_response_error().status_code(), 0),
    };
    let metric = format!("{method} {route} {}", status.as_u16());
    collector.increment("web", &metric, 1);
    collector.increment("web-bytes", &metric, bytes);
    result
}

/// Returns the name of a method that the service knows. A client may send any other word, too.
fn name_of_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "(other)",
    }
}

/// Returns the length of a body; 0 for one that is streamed, whose length is unknown.
fn size_of_body(body: &impl MessageBody) -> i64 {
    match body.size() {
        BodySize::Sized(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        BodySize::None | BodySize::Stream => 0,
    }
}

#[get("/hello/{name}")]
async fn hello(name: web::Path<String>) -> String {
    format!("hello {name}\n")
}

/// Answers with all counters of today: `{"web":{"GET /hello/{name} 200":12},"web-bytes":{…}}`.
///
/// The numbers include the requests of the last moment that are not in the file yet.
#[get("/counters")]
async fn counters(
    collector: web::Data<Collector>,
) -> Result<web::Json<BTreeMap<String, Counters>>, error::Error> {
    let today = collector.get_all_counters(None).await.map_err(error::ErrorServiceUnavailable)?;
    Ok(web::Json(today.into_iter().map(|(name, counters)| (name.to_string(), counters)).collect()))
}

/// Answers with the statistics of counting itself, for Prometheus: every accepted increment is applied, pending,
/// quarantined or dropped.
#[get("/metrics")]
async fn metrics(collector: web::Data<Collector>) -> HttpResponse {
    HttpResponse::Ok().content_type(METRICS_CONTENT_TYPE).body(collector.metrics())
}
