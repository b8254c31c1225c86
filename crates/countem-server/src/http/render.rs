//! Answers as JSON, NDJSON or CSV, as the client accepts.

use std::fmt::Write as _;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
};
use countem::store::Value as Stored;
use serde_json::Value;
use sha2::{Digest, Sha256};

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, Object, OneOf, Schema, SchemaFormat, Type},
    },
};

use crate::problem::{Code, Problem};

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Lines,
    Csv,
}

const OFFERED: [(&str, Format); 5] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Lines),
    ("application/ndjson", Format::Lines),
    ("text/csv", Format::Csv),
    ("application/csv", Format::Csv),
];

impl Format {
    /// Chooses the form by the header `Accept`: the acceptable one with the highest quality, JSON before the others.
    ///
    /// # Errors
    /// None is acceptable.
    pub(crate) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let accept = request.headers().get(header::ACCEPT).map(HeaderValue::to_str);
        let Some(Ok(accept)) = accept else { return Ok(Self::Json) };
        let mut best: Option<(f32, Self)> = None;
        for part in accept.split(',') {
            let mut parameters = part.split(';').map(str::trim);
            let range = parameters.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parameters.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
            let quality = quality.unwrap_or(1.0);
            let format = match range.as_str() {
                "*/*" | "application/*" => Some(Self::Json),
                "text/*" => Some(Self::Csv),
                media => OFFERED.iter().find(|(name, _)| *name == media).map(|(_, format)| *format),
            };
            if let Some(format) = format.filter(|_| quality > 0.0)
                && best.is_none_or(|(other, _)| quality > other)
            {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            Problem::new(
                Code::NotAcceptable,
                "answers are application/json, application/x-ndjson or text/csv",
            )
        })
    }

    fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// A value in JSON: a whole number of 64 bits, or with `strings` a text.
#[derive(Debug)]
pub(crate) struct Amount;

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let number = Object::builder()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        let text = Object::builder().schema_type(Type::String).description(Some("with `strings`"));
        Schema::OneOf(OneOf::builder().item(number).item(text).build()).into()
    }
}

impl ToSchema for Amount {}

/// Rows under columns, for NDJSON and CSV.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Rows {
    pub(crate) fn new<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }
}

/// Returns a value for JSON: a number, or a text if `is_text`, because JavaScript reads no numbers beyond 2^53 exactly.
pub(crate) fn number(value: i64, is_text: bool) -> Value {
    if is_text { value.to_string().into() } else { value.into() }
}

/// Returns the cells of a value: itself, and the error in its place.
pub(crate) fn cells(value: &Stored, is_text: bool) -> [Value; 2] {
    match value {
        Ok(value) => [number(*value, is_text), Value::Null],
        Err(why) => [Value::Null, why.to_string().into()],
    }
}

/// Answers with `json`, or with `rows` in another form. What cannot change soon may be asked for again by its tag.
pub(crate) fn answer(
    request: &HttpRequest,
    format: Format,
    is_closed: bool,
    json: impl FnOnce() -> Value,
    rows: impl FnOnce() -> Rows,
) -> HttpResponse {
    let body = match format {
        Format::Json => json().to_string() + "\n",
        Format::Lines => lines(&rows()),
        Format::Csv => csv(&rows()),
    };
    let mut response = HttpResponse::Ok();
    response.content_type(format.media()).insert_header((header::VARY, "accept"));
    if !is_closed {
        return response.insert_header((header::CACHE_CONTROL, "no-store")).body(body);
    }
    // Weak, because a proxy may compress it. Late counts may change it, so it is compared each time.
    let tag: String =
        Sha256::digest(body.as_bytes())[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("W/\"{tag}\"");
    let is_known = request.headers().get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = is_known
        .is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*"));
    if is_known {
        response = HttpResponse::NotModified();
    }
    response.insert_header((header::ETAG, tag)).insert_header((header::CACHE_CONTROL, "private, no-cache"));
    if is_known { response.finish() } else { response.body(body) }
}

fn lines(rows: &Rows) -> String {
    let mut text = String::new();
    for row in &rows.rows {
        let object: serde_json::Map<_, _> = rows
            .columns
            .iter()
            .cloned()
            .zip(row.iter().cloned())
            .filter(|(column, value)| column != "error" || !value.is_null())
            .collect();
        writeln!(text, "{}", Value::Object(object)).expect("writing to a string does not fail");
    }
    text
}

fn csv(rows: &Rows) -> String {
    let mut text = rows.columns.iter().map(|name| field(name)).collect::<Vec<_>>().join(",") + "\n";
    for row in &rows.rows {
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            match value {
                Value::Null => {}
                Value::String(value) => text.push_str(&field(value)),
                value => text.push_str(&value.to_string()),
            }
        }
        text.push('\n');
    }
    text
}

fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn form_follows_quality() {
        let format = |accept: &str| {
            Format::of(&TestRequest::default().insert_header((header::ACCEPT, accept)).to_http_request()).ok()
        };
        assert_eq!(format("*/*"), Some(Format::Json));
        assert_eq!(format("text/csv"), Some(Format::Csv));
        assert_eq!(format("text/html, application/x-ndjson;q=0.5, text/csv;q=0.4"), Some(Format::Lines));
        assert_eq!(format("text/html"), None);
        assert_eq!(format("text/csv;q=0"), None);
        assert_eq!(Format::of(&TestRequest::default().to_http_request()).ok(), Some(Format::Json));
    }

    #[test]
    fn csv_quotes_what_separates() {
        let mut rows = Rows::new(["metric", "value"]);
        rows.rows.push(vec!["a,\"b\"".into(), 5.into()]);
        assert_eq!(csv(&rows), "metric,value\n\"a,\"\"b\"\"\",5\n");
    }
}
