//! Names in the path, and parameters after the question mark. Each is decoded once, here.

use actix_web::HttpRequest;
use countem::{CollectionName, MetricName};
use countem_config::similar;
use percent_encoding::percent_decode_str;

use crate::problem::{Code, Problem};

/// The parameters of a request.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the parameters, of which `known` are allowed.
    ///
    /// # Errors
    /// One is malformed or unknown.
    pub(crate) fn of(request: &HttpRequest, known: &[&str]) -> Result<Self, Problem> {
        let mut params = Vec::new();
        for pair in request.query_string().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?);
            if !known.contains(&name.as_str()) {
                let hint = similar(&name, known.iter().copied());
                let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return Err(bad(format_args!("there is no parameter `{}`{hint}", shown(&name))));
            }
            params.push((name, value));
        }
        Ok(Self(params))
    }

    /// Returns the value of a parameter that may be there once.
    ///
    /// # Errors
    /// It is there twice.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(bad(format_args!("the parameter `{name}` is there twice"))),
            (value, None) => Ok(value),
        }
    }

    /// Lists the values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Reads a parameter as what it stands for.
    ///
    /// # Errors
    /// It is there twice, or wrong.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        self.one(name)?
            .map(|value| parse(value).map_err(|error| bad(format_args!("`{name}`: {error}"))))
            .transpose()
    }

    /// Reads a switch: there, or `=1`, `=true`, `=0`, `=false`.
    ///
    /// # Errors
    /// It has another value.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(bad(format_args!("`{name}` is 1 or 0"))),
        }
    }
}

/// Returns an error about a parameter.
pub(crate) fn bad(detail: impl std::fmt::Display) -> Problem {
    Problem::new(Code::BadParameter, detail)
}

/// Returns the start of a text of a request, for a message.
pub(crate) fn shown(text: &str) -> String {
    let text: String = text.chars().take(80).collect();
    text.escape_debug().to_string()
}

/// Returns the collection in a path such as `…/counters/{collection}`, with nothing behind it.
///
/// # Errors
/// It has no valid name.
pub(crate) fn collection_in(request: &HttpRequest, before: &str) -> Result<CollectionName, Problem> {
    let path = rest(request, before);
    CollectionName::new(&decode(path)?).map_err(|error| Problem::new(Code::BadName, error))
}

/// Returns collection and metric in a path such as `…/counters/{collection}/{metric}`. The metric is all of the rest, slashes
/// included.
///
/// # Errors
/// One has no valid name.
pub(crate) fn counter_in(
    request: &HttpRequest,
    before: &str,
) -> Result<(CollectionName, MetricName), Problem> {
    let (collection, metric) = rest(request, before).split_once('/').unwrap_or_default();
    let name = |error| Problem::new(Code::BadName, error);
    Ok((
        CollectionName::new(&decode(collection)?).map_err(name)?,
        MetricName::new(&decode(metric)?).map_err(name)?,
    ))
}

/// Returns the path of a request behind `before`, as it was sent: the router has decoded its own copy.
fn rest<'a>(request: &'a HttpRequest, before: &str) -> &'a str {
    request.uri().path().split_once(before).map(|(_, rest)| rest).unwrap_or_default()
}

fn decode(text: &str) -> Result<String, Problem> {
    let malformed =
        || Problem::new(Code::BadRequest, format_args!("`{}` is not percent-encoded UTF-8", shown(text)));
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if !after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err(malformed());
        }
        rest = after;
    }
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn names_are_decoded_once() {
        let metric = |path: &str| {
            let request = TestRequest::with_uri(&format!("/api/v1/counters/web/{path}")).to_http_request();
            counter_in(&request, "/counters/")
                .map(|(_, metric)| metric.to_string())
                .map_err(|error| error.code())
        };
        for (path, name) in [
            ("a%2Fb", "a/b"),
            ("100%25", "100%"),
            ("a%2Bb", "a+b"),
            ("a+b", "a+b"),
            ("a%252Fb", "a%2Fb"),
            ("a%20b", "a b"),
            ("..%2Fx", "../x"),
            ("a/b", "a/b"),
            ("counters/x", "counters/x"),
        ] {
            assert_eq!(metric(path).as_deref(), Ok(name));
        }
        for wrong in ["a%2", "a%zz", "%ff"] {
            assert_eq!(metric(wrong), Err(Code::BadRequest), "{wrong}");
        }
        assert_eq!(metric(""), Err(Code::BadName));
    }

    #[test]
    fn parameters_are_known_and_single() {
        let params = |query: &str, known: &[&str]| {
            Params::of(&TestRequest::with_uri(&format!("/?{query}")).to_http_request(), known)
        };
        let found = params("n=1+2&where=a%3Db&where=c", &["n", "where"]).unwrap();
        assert_eq!(found.one("n").unwrap(), Some("1 2"));
        assert_eq!(found.all("where").collect::<Vec<_>>(), ["a=b", "c"]);
        assert!(found.one("where").is_err());
        let error = params("rnage=7d", &["range"]).unwrap_err();
        assert_eq!(error.detail(), "there is no parameter `rnage`; did you mean `range`?");
    }
}
