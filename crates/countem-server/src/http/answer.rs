//! Parts of answers that several reads share.

use countem::query::{Answer, Row};
use serde_json::{Map, Value};

use super::render::number;

/// Returns the range of an answer: `bucket` where it is one, else `range`.
pub(crate) fn when(answer: &Answer) -> (&'static str, Value) {
    let range = answer.range;
    if range.first() == range.last() {
        ("bucket", range.first().to_string().into())
    } else {
        ("range", range.to_string().into())
    }
}

pub(crate) fn about(answer: &Answer) -> Map<String, Value> {
    let mut map = Map::new();
    let (key, range) = when(answer);
    map.insert(key.to_owned(), range);
    if answer.is_partial {
        map.insert("partial".to_owned(), true.into());
    }
    map
}

pub(crate) fn add_rest(map: &mut Map<String, Value>, answer: &Answer) {
    let mut errors = Map::new();
    for row in answer.all_rows() {
        let points = row.points.iter().filter_map(|(_, value)| value.as_ref());
        if let Some(why) = std::iter::once(&row.value)
            .chain(&row.earlier)
            .chain(points)
            .find_map(|value| value.as_ref().err())
        {
            errors.insert(row.name.clone(), why.to_string().into());
        }
    }
    if !errors.is_empty() {
        map.insert("errors".to_owned(), errors.into());
    }
    if let Some(next) = &answer.next {
        map.insert("next".to_owned(), next.to_string().into());
    }
}

pub(crate) fn name_of(row: &Row) -> Map<String, Value> {
    let mut map = Map::new();
    if row.labels.is_empty() {
        map.insert("metric".to_owned(), row.name.as_str().into());
    } else {
        let labels: Map<_, _> =
            row.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        map.insert("labels".to_owned(), labels.into());
    }
    map
}

pub(crate) fn name_columns(answer: &Answer) -> Vec<String> {
    let labels = answer.all_rows().next().map(|row| row.labels.iter().map(|(key, _)| key.clone()).collect());
    labels.filter(|labels: &Vec<_>| !labels.is_empty()).unwrap_or_else(|| vec!["metric".to_owned()])
}

pub(crate) fn name_cells(row: &Row, columns: &[String]) -> Vec<Value> {
    if row.labels.is_empty() {
        return std::iter::once(row.name.as_str().into())
            .chain(std::iter::repeat_n(Value::Null, columns.len() - 1))
            .collect();
    }
    row.labels.iter().map(|(_, value)| value.as_str().into()).collect()
}

pub(crate) fn change(row: &Row, is_text: bool) -> Option<Value> {
    let change = row.change()?;
    Some(i64::try_from(change).map_or_else(|_| change.to_string().into(), |change| number(change, is_text)))
}
