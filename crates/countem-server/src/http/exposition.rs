//! The metrics of a node, in the form that a scraper accepts.

use actix_web::{HttpRequest, HttpResponse, get, http::header, web};
use countem::METRICS_CONTENT_TYPE;

use super::allowed::{Allowed, Read};
use crate::{
    problem::{Problem, ProblemBody},
    state::State,
};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const END: &str = "# EOF\n";

/// Read the metrics of this node, for Prometheus
#[utoipa::path(
    tag = "operation",
    responses(
        (status = 200, description = "The metrics, as text 0.0.4 or OpenMetrics", content(
            (String = "text/plain"), (String = "application/openmetrics-text"),
        )),
        (status = "4XX", description = "No answer", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
#[get("/metrics")]
pub(crate) async fn get_metrics(
    _: Allowed<Read>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let engine = state.collector.metrics();
    let text = format!("{}{}{END}", engine.strip_suffix(END).unwrap_or(&engine), state.metrics.text());
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let mut response = HttpResponse::Ok();
    Ok(if prefers_open_metrics(accept.unwrap_or_default()) {
        response.content_type(METRICS_CONTENT_TYPE).body(text)
    } else {
        response.content_type(TEXT).body(as_text(&text))
    })
}

/// Tells whether `Accept` gives OpenMetrics a higher quality than plain text.
fn prefers_open_metrics(accept: &str) -> bool {
    let quality = |media: &str| {
        let parts = accept.split(',').map(|part| part.split(';').map(str::trim));
        let qualities = parts.filter_map(|mut part| {
            let is_it = part.next()?.eq_ignore_ascii_case(media);
            let quality = part.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
            is_it.then(|| quality.unwrap_or(1.0))
        });
        qualities.fold(0.0, f32::max)
    };
    quality("application/openmetrics-text") > quality("text/plain")
}

/// Writes OpenMetrics text as text 0.0.4, where the families of counters have the names of their samples.
fn as_text(open_metrics: &str) -> String {
    let is_counter = |name: &str| open_metrics.contains(&format!("# TYPE {name} counter\n"));
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let suffix = if is_counter(name) { "_total" } else { "" };
                text.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_the_names_of_their_samples() {
        let open = "# HELP a Counted.\n# TYPE a counter\na_total{b=\"# x\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n# EOF\n";
        let text = "# HELP a_total Counted.\n# TYPE a_total counter\na_total{b=\"# x\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(as_text(open), text);
    }

    #[test]
    fn form_follows_quality() {
        assert!(prefers_open_metrics("application/openmetrics-text"));
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9";
        assert!(!prefers_open_metrics(prometheus));
        for plain in ["", "*/*", "text/html"] {
            assert!(!prefers_open_metrics(plain));
        }
    }
}
