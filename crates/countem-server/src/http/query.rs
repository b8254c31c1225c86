//! Questions about counters, from parameters.

use countem::{
    Bucket, CollectionName, Period, When,
    query::{Compare, Cursor, Fill, Group, LabelFilter, Metrics, Order, Query, TimeRange},
};

use super::params::{Params, bad};
use crate::{problem::Problem, state::State};

/// Parameters that select metrics.
pub(crate) const SELECT: [&str; 6] = ["metric", "matching", "under", "where", "separator", "strings"];
/// Parameters of the range of time.
pub(crate) const RANGE: [&str; 3] = ["date", "bucket", "range"];
/// Parameters that add up metrics.
pub(crate) const GROUP: [&str; 3] = ["by", "level", "sum"];
/// Parameters that order and cut the rows.
pub(crate) const ROWS: [&str; 5] = ["order", "reverse", "limit", "cursor", "compare"];
/// Largest number of rows or levels, that of `int32` in the description of the API.
const MAX_COUNT: u32 = i32::MAX.unsigned_abs();

/// Parameters of points.
pub(crate) const POINTS: [&str; 2] = ["step", "fill"];

/// Returns the query for `collections`.
///
/// # Errors
/// A parameter is wrong.
pub(crate) fn of(state: &State, params: &Params, collections: Vec<CollectionName>) -> Result<Query, Problem> {
    let separator = match params.one("separator")? {
        Some("") => return Err(bad("`separator` must not be empty")),
        Some(separator) => separator,
        None => collections.first().and_then(|name| state.config.hierarchy(name)).unwrap_or("."),
    };
    let mut query = Query::of(collections).metrics(metrics(params, separator)?);
    for filter in params.all("where") {
        query = query
            .label(filter.parse::<LabelFilter>().map_err(|error| bad(format_args!("`where`: {error}")))?);
    }
    if let Some(group) = group(params, separator)? {
        query = query.group(group);
    }
    if let Some(range) = range(state, params)? {
        query = query.range(range);
    }
    rows(params, query)
}

fn metrics(params: &Params, separator: &str) -> Result<Metrics, Problem> {
    let given = (params.one("metric")?, params.one("matching")?, params.one("under")?);
    Ok(match given {
        (None, None, None) => Metrics::All,
        (Some(glob), None, None) => Metrics::glob(glob),
        (None, Some(regex), None) => {
            Metrics::regex(regex).map_err(|error| bad(format_args!("`matching`: {error}")))?
        }
        (None, None, Some(parent)) => Metrics::under(parent, separator),
        _ => return Err(bad("only one of `metric`, `matching` and `under` can be given")),
    })
}

fn group(params: &Params, separator: &str) -> Result<Option<Group>, Problem> {
    let labels: Vec<String> = params.all("by").flat_map(|keys| keys.split(',')).map(str::to_owned).collect();
    let level = params.parsed("level", parse_count)?;
    let sum = params.switch("sum")?;
    match (labels.is_empty(), level, sum) {
        (true, None, false) => Ok(None),
        (false, None, false) => Ok(Some(Group::Labels(labels))),
        (true, Some(depth), false) => Ok(Some(Group::Level { separator: separator.to_owned(), depth })),
        (true, None, true) => Ok(Some(Group::All)),
        _ => Err(bad("only one of `by`, `level` and `sum` can be given")),
    }
}

/// Returns the range of `date`, `bucket` or `range`; `None` for today.
///
/// # Errors
/// One is wrong, or there are two.
pub(crate) fn range(state: &State, params: &Params) -> Result<Option<TimeRange>, Problem> {
    let day = params.parsed("date", str::parse::<countem::query::Day>)?;
    let bucket = params.parsed("bucket", str::parse::<Bucket>)?;
    let range = params.parsed("range", str::parse::<TimeRange>)?;
    match (day, bucket, range) {
        (None, None, range) => Ok(range),
        (None, Some(bucket), None) => Ok(Some(bucket.into())),
        (Some(day), None, None) => {
            let bucket = state
                .collector
                .bucket(When::Day(day))
                .map_err(|error| bad(format_args!("`date`: {error}")))?;
            Ok(Some(bucket.into()))
        }
        _ => Err(bad("only one of `date`, `bucket` and `range` can be given")),
    }
}

fn rows(params: &Params, mut query: Query) -> Result<Query, Problem> {
    if let Some(order) = params.one("order")? {
        query = query.order(match order {
            "name" => Order::Name,
            "value" => Order::Value,
            "change" => Order::Change,
            _ => return Err(bad("`order` is name, value or change")),
        });
    }
    if params.switch("reverse")? {
        query = query.reversed();
    }
    if let Some(limit) = params.parsed("limit", parse_count)? {
        query = query.limit(limit);
    }
    if let Some(cursor) = params.parsed("cursor", str::parse::<Cursor>)? {
        query = query.after(cursor);
    }
    if let Some(compare) = params.one("compare")? {
        query = query.compare(match compare {
            "" | "previous" => Compare::Previous,
            "weekdays" => Compare::Weekdays,
            _ => return Err(bad("`compare` is previous or weekdays")),
        });
    }
    Ok(query)
}

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse::<u32>().ok().filter(|count| (1..=MAX_COUNT).contains(count));
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| format!("expected a whole number from 1 to {MAX_COUNT}"))
}

/// Adds the points of a series.
///
/// # Errors
/// A parameter is wrong.
pub(crate) fn with_points(params: &Params, query: Query, range: TimeRange) -> Result<Query, Problem> {
    let step = params.parsed("step", str::parse::<Period>)?;
    let fill = match params.one("fill")? {
        None | Some("zero") => Fill::Zero,
        Some("none") => Fill::None,
        Some("gap") => Fill::Gap,
        Some(_) => return Err(bad("`fill` is zero, none or gap")),
    };
    Ok(query.range(range).by(step.unwrap_or_else(|| range.period().min(Period::Day))).fill(fill))
}
