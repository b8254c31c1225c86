//! The queries.

use std::{collections::BTreeMap, num::NonZeroUsize};

use countem_core::{BatchId, Bucket, BucketRange, CollectionName};
use countem_store::{Counters, RowQuery, Rows, Select};
use rusqlite::{Connection, Row, TransactionBehavior, params, types::Value};

use crate::apply::applied_seq;

/// Counters that a query asks for.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) rows: Rows,
    /// They include the batch in flight.
    pub(crate) is_applied: bool,
}

const BUCKET: &str = "SELECT bucket, metric, value FROM counter WHERE collection = ?1 AND bucket = ?2";
const BUCKET_ONE: &str =
    "SELECT bucket, metric, value FROM counter WHERE collection = ?1 AND bucket = ?2 AND metric = ?3";
const BUCKET_PAGE: &str = "SELECT bucket, metric, value FROM counter
    WHERE collection = ?1 AND bucket = ?2 AND metric >= ?3 AND metric <> ?4 AND metric < ?5
    ORDER BY metric LIMIT ?6";

/// Visits the buckets of a range by looking up the next one, again and again, instead of walking over all counters.
///
/// The ids of one period have one length (?4), and their order is that of time. Between two of them lie ids of finer
/// periods, all of which begin with the first one: the next one of the same length is looked for behind `<id>~`, and `~` sorts
/// behind every character of an id. Ids of coarser periods are shorter; the next id of any length follows.
macro_rules! visited {
    () => {
        "WITH RECURSIVE visited (bucket) AS (
            SELECT min(bucket) FROM counter WHERE collection = ?1 AND bucket BETWEEN ?2 AND ?3
            UNION ALL
            SELECT (
                SELECT min(bucket) FROM counter WHERE collection = ?1 AND bucket <= ?3
                    AND bucket > substr(visited.bucket, 1, ?4) || iif(length(visited.bucket) < ?4, '', '~')
            ) FROM visited WHERE visited.bucket IS NOT NULL
        )"
    };
}
const BUCKETS: &str = concat!(visited!(), "SELECT bucket FROM visited WHERE length(bucket) = ?4");
const RANGE: &str = concat!(
    visited!(),
    "SELECT counter.bucket, metric, value
    FROM visited CROSS JOIN counter ON collection = ?1 AND counter.bucket = visited.bucket
    WHERE length(visited.bucket) = ?4"
);
const RANGE_ONE: &str = concat!(
    visited!(),
    "SELECT counter.bucket, metric, value
    FROM visited CROSS JOIN counter ON collection = ?1 AND counter.bucket = visited.bucket AND metric = ?5
    WHERE length(visited.bucket) = ?4"
);

const COLLECTIONS: &str = "WITH RECURSIVE visited (collection) AS (
        SELECT min(collection) FROM counter
        UNION ALL
        SELECT (SELECT min(collection) FROM counter WHERE collection > visited.collection)
        FROM visited WHERE visited.collection IS NOT NULL
    )
    SELECT collection FROM visited WHERE collection IS NOT NULL";

const BUCKETS_BEFORE: &str = "WITH RECURSIVE visited (bucket) AS (
        SELECT min(bucket) FROM counter WHERE collection = ?1 AND bucket >= ?2 AND bucket < ?3
        UNION ALL
        SELECT (
            SELECT min(bucket) FROM counter WHERE collection = ?1 AND bucket < ?3
                AND bucket > substr(visited.bucket, 1, ?4) || iif(length(visited.bucket) < ?4, '', '~')
        ) FROM visited WHERE visited.bucket IS NOT NULL
    )
    SELECT bucket FROM visited WHERE length(bucket) = ?4 LIMIT ?5";

/// Lists the buckets of the period of `first`, from it to before `end`, at most `limit` of them.
pub(crate) fn buckets_before(
    connection: &Connection,
    collection: &str,
    first: Bucket,
    end: Bucket,
    limit: usize,
) -> rusqlite::Result<Vec<String>> {
    let (first, end) = (first.to_string(), end.to_string());
    let length = i64::try_from(first.len()).expect("an id has at most 19 bytes");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = connection.prepare_cached(BUCKETS_BEFORE)?;
    select.query_map(params![collection, first, end, length, limit], |row| row.get(0))?.collect()
}

/// Reads the counters, and whether they include `in_flight`, from one state of the file.
pub(crate) fn snapshot(
    connection: &mut Connection,
    query: &RowQuery,
    in_flight: Option<&BatchId>,
) -> rusqlite::Result<Snapshot> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
    let is_applied = match in_flight {
        Some(id) => applied_seq(&transaction, id)?.is_some_and(|seq| seq >= id.seq),
        None => false,
    };
    Ok(Snapshot { rows: rows(&transaction, query)?, is_applied })
}

fn rows(connection: &Connection, query: &RowQuery) -> rusqlite::Result<Rows> {
    let collection = query.collection.as_str();
    let (first, last) = (query.range.first().to_string(), query.range.last().to_string());
    let mut found = Collected::new(query.range);
    if first == last {
        match &query.select {
            Select::All => found.read(connection, BUCKET, params![collection, first])?,
            Select::One(metric) => {
                found.read(connection, BUCKET_ONE, params![collection, first, metric.as_str()])?;
            }
            Select::Page { prefix, after, limit } => {
                let Bounds { from, except, before } = Bounds::of(prefix, after.as_deref());
                let page = params![collection, first, from, except, before, rows_of(*limit)];
                found.read(connection, BUCKET_PAGE, page)?;
            }
        }
    } else {
        let length = i64::try_from(first.len()).expect("an id has at most 19 bytes");
        match &query.select {
            Select::All => found.read(connection, RANGE, params![collection, first, last, length])?,
            Select::One(metric) => {
                found.read(
                    connection,
                    RANGE_ONE,
                    params![collection, first, last, length, metric.as_str()],
                )?;
            }
            Select::Page { prefix, after, limit } => {
                let Bounds { from, except, before } = Bounds::of(prefix, after.as_deref());
                let mut buckets = connection.prepare_cached(BUCKETS)?;
                let mut buckets = buckets.query(params![collection, first, last, length])?;
                while let Some(bucket) = buckets.next()? {
                    let bucket = bucket.get_ref(0)?.as_str()?;
                    let page = params![collection, bucket, from, except, before, rows_of(*limit)];
                    found.read(connection, BUCKET_PAGE, page)?;
                }
            }
        }
    }
    Ok(found.finish())
}

/// Bounds of the metrics of a page.
struct Bounds<'a> {
    /// First text that may be a metric of the page.
    from: &'a str,
    /// The text after which the page starts. No metric is empty.
    except: &'a str,
    /// First value behind the metrics of the page.
    before: Value,
}

impl<'a> Bounds<'a> {
    fn of(prefix: &'a str, after: Option<&'a str>) -> Self {
        let except = after.unwrap_or_default();
        // A blob sorts behind every text.
        let before = behind(prefix).map_or(Value::Blob(Vec::new()), Value::Text);
        Self { from: prefix.max(except), except, before }
    }
}

/// Returns the first text behind all that begin with `prefix`, `None` where there is none.
fn behind(prefix: &str) -> Option<String> {
    let kept = prefix.trim_end_matches(char::MAX);
    let last = kept.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    Some(format!("{}{next}", &kept[..kept.len() - last.len_utf8()]))
}

fn rows_of(limit: NonZeroUsize) -> i64 {
    i64::try_from(limit.get()).unwrap_or(i64::MAX)
}

/// Rows of one query, collected bucket by bucket.
struct Collected {
    range: BucketRange,
    rows: Rows,
    bucket_id: String,
    /// `None` before the first row, and for rows outside the range.
    bucket: Option<Bucket>,
    counters: Vec<(String, i64)>,
}

impl Collected {
    fn new(range: BucketRange) -> Self {
        Self { range, rows: Rows::new(), bucket_id: String::new(), bucket: None, counters: Vec::new() }
    }

    fn read(
        &mut self,
        connection: &Connection,
        sql: &str,
        parameters: impl rusqlite::Params,
    ) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        while let Some(row) = rows.next()? {
            self.add(row)?;
        }
        Ok(())
    }

    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let id = row.get_ref(0)?.as_str()?;
        if id != self.bucket_id {
            self.end_bucket();
            self.bucket_id.clear();
            self.bucket_id.push_str(id);
            // The text decides about the order in SQL, the bucket about what belongs to the range.
            self.bucket = id.parse().ok().filter(|bucket| self.range.contains(*bucket));
        }
        if self.bucket.is_some() {
            self.counters.push((row.get(1)?, row.get(2)?));
        }
        Ok(())
    }

    fn end_bucket(&mut self) {
        if let Some(bucket) = self.bucket.take() {
            self.rows.insert(bucket, Counters::from_iter(self.counters.drain(..)));
        }
    }

    fn finish(mut self) -> Rows {
        self.end_bucket();
        self.rows
    }
}

/// Reads every page of the file, and returns what is damaged.
pub(crate) fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check(10)")?;
    let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// Lists the collections by looking up the next one, again and again.
pub(crate) fn collections(connection: &Connection) -> rusqlite::Result<Vec<CollectionName>> {
    let mut statement = connection.prepare_cached(COLLECTIONS)?;
    let mut rows = statement.query([])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        // A row that a person added under an invalid name cannot be asked for.
        names.extend(CollectionName::new(row.get_ref(0)?.as_str()?));
    }
    Ok(names)
}

/// Returns the marks whose keys begin with `prefix`.
pub(crate) fn marks(connection: &Connection, prefix: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement =
        connection.prepare_cached("SELECT key, value FROM mark WHERE key >= ?1 ORDER BY key")?;
    let mut rows = statement.query([prefix])?;
    let mut marks = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        marks.insert(key, row.get(1)?);
    }
    Ok(marks)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use countem_core::{MetricName, Period};
    use rusqlite::StatementStatus;

    use super::*;
    use crate::schema::{MIGRATIONS, migrate};

    fn with_counters(buckets: &[&str]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("in memory"), MIGRATIONS).unwrap();
        for bucket in buckets {
            for metric in ["m", "n"] {
                let values = params!["web", bucket, metric];
                connection.execute("INSERT INTO counter VALUES (?1, ?2, ?3, 1)", values).unwrap();
            }
        }
        connection
    }

    fn found(connection: &mut Connection, range: BucketRange, select: Select) -> Vec<String> {
        let query = RowQuery { collection: CollectionName::new("web").unwrap(), range, select };
        let rows = snapshot(connection, &query, None).unwrap().rows;
        let metrics = if matches!(query.select, Select::All) { 2 } else { 1 };
        assert!(rows.values().all(|counters| counters.len() == metrics), "{rows:?}");
        rows.into_keys().map(|bucket| bucket.to_string()).collect()
    }

    #[test]
    fn period_finds_its_own_buckets_among_all_others() {
        let mut buckets = vec!["all".to_owned()];
        for year in ["0001", "2025", "2026", "9999"] {
            buckets.push(year.to_owned());
            buckets.extend(["W01", "W05", "W47", "W52"].map(|week| format!("{year}-{week}")));
            for month in ["01", "02", "11", "12"] {
                buckets.push(format!("{year}-{month}"));
                for day in ["01", "09", "28"] {
                    buckets.push(format!("{year}-{month}-{day}"));
                    for hour in ["00", "23"] {
                        buckets.push(format!("{year}-{month}-{day}T{hour}"));
                        buckets.push(format!("{year}-{month}-{day}T{hour}:00"));
                        buckets.push(format!("{year}-{month}-{day}T{hour}:59:59"));
                    }
                }
            }
        }
        let strangers = ["2026-11-20 12", "2026-11-xx", "zzz", "", "2026-W4"];
        let ids: Vec<&str> = buckets.iter().map(String::as_str).chain(strangers).collect();
        let mut connection = with_counters(&ids);
        let mut expected: Vec<Bucket> = buckets.iter().map(|id| id.parse().unwrap()).collect();
        expected.sort_unstable();
        for period in Period::ALL {
            let own: Vec<Bucket> =
                expected.iter().copied().filter(|bucket| bucket.period() == period).collect();
            let mut ranges = vec![BucketRange::every(period)];
            ranges.extend((1..own.len()).filter_map(|i| BucketRange::new(own[i / 3], own[i])));
            for range in ranges {
                let expected: Vec<String> =
                    own.iter().filter(|bucket| range.contains(**bucket)).map(Bucket::to_string).collect();
                assert_eq!(found(&mut connection, range, Select::All), expected, "{range:?}");
                let one = Select::One(MetricName::new("n").unwrap());
                assert_eq!(found(&mut connection, range, one), expected, "{range:?}");
            }
        }
    }

    /// Counts the steps of SQLite's machine.
    fn steps(connection: &Connection, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> i32 {
        let mut statement = connection.prepare(sql).unwrap();
        let mut rows = statement.query(parameters).unwrap();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        statement.get_status(StatementStatus::VmStep)
    }

    #[test]
    fn cost_is_independent_of_counters_read_over() {
        let cost = |metrics: i64| {
            let connection = with_counters(&["2026-11-20", "2026-11-21"]);
            let finer = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO counter SELECT collection, bucket, i, 1 FROM n, (SELECT 'web' collection, '2026-11-20T14' bucket
                UNION ALL SELECT 'web', '2026-11-20T14:05' UNION ALL SELECT 'mail', '2026-11-20')";
            connection.execute(finer, [metrics]).unwrap();
            let days = params!["web", "2026-11-01", "2026-11-30", 10];
            let one = params!["web", "2026-11-01", "2026-11-30", 10, "m"];
            [
                steps(&connection, RANGE, days),
                steps(&connection, RANGE_ONE, one),
                steps(&connection, BUCKETS, days),
                steps(&connection, BUCKET_PAGE, params!["web", "2026-11-20", "", "", "n", 2]),
                steps(&connection, COLLECTIONS, &[]),
            ]
        };
        let few = cost(3);
        assert_eq!(few, cost(3_000));
        assert!(few.iter().all(|steps| (10..1_000).contains(steps)), "{few:?}");
    }

    #[test]
    fn selected_metrics_are_found_without_reading_others() {
        let cost = |metrics: i64| {
            let connection = with_counters(&["2026-11-20", "2026-11-21"]);
            let others = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                INSERT INTO counter SELECT 'web', '2026-11-20', i, 1 FROM n";
            connection.execute(others, [metrics]).unwrap();
            [
                steps(&connection, RANGE_ONE, params!["web", "2026-11-01", "2026-11-30", 10, "m"]),
                steps(&connection, BUCKETS, params!["web", "2026-11-01", "2026-11-30", 10]),
                steps(&connection, BUCKET_PAGE, params!["web", "2026-11-20", "", "", "n", 2]),
                steps(
                    &connection,
                    BUCKET_PAGE,
                    params!["web", "2026-11-20", "1", "1", Value::Blob(Vec::new()), 2],
                ),
            ]
        };
        assert_eq!(cost(3), cost(3_000));
    }
}
