//! Answering a query from a SQLite file, beside a query of the same rows in SQL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use countem::{
    BucketRange, Period, Query, Timestamp,
    jiff::tz::TimeZone,
    query::{Answer, Metrics, Order},
    store::{Batch, BatchId, Store, Writer},
};
use countem_core::{Schedules, Table};
use countem_query::Reader;
use countem_store_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    sqlite::folder,
    step::Step,
    subject,
    workload::{COLLECTION, names},
};

/// A file of counters, and a question about it.
#[derive(Debug)]
pub struct Question {
    what: &'static str,
    query: Query,
    sql: &'static str,
    // Dropped in this order: the file is closed before its folder goes.
    reader: Reader,
    connection: Connection,
    runtime: Runtime,
    _folder: TempDir,
}

/// The question in SQL, each row taken out as text and number.
#[derive(Debug)]
pub struct InSql<'a>(pub &'a Question);

/// The questions: the range of days, their metrics, the query and the same in SQL.
type Case = (&'static str, u64, usize, fn(Query) -> Query, &'static str);

const CASES: [Case; 4] = [
    (
        "one metric over 365 days, by day",
        365,
        20,
        |query| query.metrics(Metrics::Exact(first_name())).by(Period::Day),
        "SELECT bucket, value FROM counter WHERE metric = (SELECT min(metric) FROM counter) ORDER BY bucket",
    ),
    (
        "a day of 10,000 metrics",
        1,
        10_000,
        |query| query,
        "SELECT metric, value FROM counter ORDER BY metric",
    ),
    (
        "the largest 20 of 100,000 metrics",
        1,
        100_000,
        |query| query.order(Order::Value).limit(20),
        "SELECT metric, value FROM counter ORDER BY value DESC LIMIT 20",
    ),
    (
        "30 days of 10,000 metrics, summed by metric",
        30,
        10_000,
        |query| query,
        "SELECT metric, sum(value) FROM counter GROUP BY metric",
    ),
];

fn first_name() -> countem::MetricName {
    countem::MetricName::new(&names(1)[0]).expect("the names of the workload are valid")
}

impl Question {
    /// Makes the files of all questions.
    ///
    /// # Errors
    /// When that fails.
    pub fn all() -> Result<Vec<Self>> {
        CASES.into_iter().map(Self::new).collect()
    }

    fn new((what, days, metrics, ask, sql): Case) -> Result<Self> {
        let folder = folder()?;
        let path = folder.path().join("countem.db");
        let (runtime, store) = (subject::runtime(), SqliteStore::open(SqliteConfig::new(&path))?);
        let range = BucketRange::every(Period::Day).shifted(0).map(|every| every.split_at(738_000).1);
        let range = range.flatten().map(|later| later.split_at(days).0);
        let range = range.ok_or_else(|| anyhow::anyhow!("the days of the workload are in the calendar"))?;
        for (seq, day) in (1..).zip(range.iter()) {
            let mut table = Table::new();
            for (at, name) in names(metrics).iter().enumerate() {
                let n = i64::try_from(at * 7919 % 100_003)?;
                table.fold(COLLECTION, name, day, n)?;
            }
            let id = BatchId { writer: Writer::new(1, 1), lane: 0, seq };
            runtime.block_on(store.apply(&Arc::new(Batch::new(id, table.drain()))))?;
        }
        let schedules = Schedules::new(&TimeZone::UTC, &[Period::Day], &Default::default())?;
        let reader = Reader::of_store(Arc::new(store), Arc::new(schedules));
        let query = ask(Query::new(COLLECTION).range(range.to_string().parse()?));
        let connection = Connection::open(&path)?;
        let question = Self { what, query, sql, reader, connection, runtime, _folder: folder };
        let (answer, rows) = (question.ask()?, question.ask_in_sql()?);
        let points: usize = answer.rows.iter().map(|row| row.points.len().max(1)).sum();
        ensure!(points == rows.len() && !rows.is_empty(), "{what}: {points} and {} rows", rows.len());
        let total = |answer: &Answer| answer.readable().map(|(_, value)| value).sum::<i64>();
        ensure!(
            total(&answer) == rows.iter().map(|(_, value)| value).sum::<i64>(),
            "{what}: the sums differ"
        );
        Ok(question)
    }

    fn ask(&self) -> Result<Answer> {
        Ok(self.runtime.block_on(self.reader.query(&self.query, Timestamp::now()))?)
    }

    fn ask_in_sql(&self) -> Result<Vec<(String, i64)>> {
        let mut statement = self.connection.prepare_cached(self.sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Answers the question once, and returns the time that it took.
    ///
    /// # Panics
    /// When the file cannot be read.
    pub fn time(&self) -> Duration {
        let began = Instant::now();
        let answer = self.ask().expect("the file can be read");
        let took = began.elapsed();
        assert!(!answer.rows.is_empty(), "there are counters");
        took
    }

    /// Says in words what is asked.
    pub fn label(&self) -> String {
        format!("query of {}, SQLite", self.what)
    }
}

impl Step for InSql<'_> {
    fn label(&self) -> String {
        "the same rows in SQL".to_owned()
    }

    fn time(&mut self) -> Duration {
        let began = Instant::now();
        let rows = self.0.ask_in_sql().expect("the file can be read");
        let took = began.elapsed();
        assert!(!rows.is_empty(), "there are counters");
        took
    }
}
