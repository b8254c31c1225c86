//! Corrections have the effect of other increments in the past.

use std::sync::atomic::{AtomicU64, Ordering};

use countem_core::jiff::{SignedDuration, tz::TimeZone};
use countem_store::{Applied, Rows, async_trait};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

const SCHEDULES: [&str; 9] = [
    "beginning UTC day",
    "beginning UTC hour,day,week,month,year,all",
    "beginning Europe/Berlin hour,day,week,month,all",
    "beginning Asia/Kolkata minute,hour,day,month",
    "beginning UTC week,month",
    "beginning America/New_York second,all",
    "beginning UTC day\n2026-11-12T00:00:00Z UTC hour,day,month",
    "beginning UTC hour,day,month\n2026-11-12T00:00:00Z UTC day,all",
    "beginning UTC day,month\n2026-11-12T00:00:00Z Europe/Berlin day,month",
];

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn counted() -> impl Strategy<Value = Vec<Counted>> {
    let one = (0..4_usize, 0..600_i64, 0..3600_i64, -3..9_i64).prop_map(|(metric, hour, second, n)| {
        let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let at = start + SignedDuration::from_secs(hour * 3600 + second);
        Counted { metric: ["a", "b", "c{k=\"v\"}", "d.e"][metric].to_owned(), at: at.min(now()), n }
    });
    prop::collection::vec(one, 1..60)
}

fn corrections() -> impl Strategy<Value = Vec<(Correction, &'static str)>> {
    let names = ["a", "b", "c{k=\"v\"}", "d.e", "new"];
    let name = move || (0..names.len()).prop_map(move |at| metric(names[at]));
    let ranges = ["2026-11-05..2026-11-14", "2026-11-20", "2026-11", "2026-11-13..2026-11-24", "2026-W46"];
    let range = prop::option::of((0..ranges.len()).prop_map(move |at| ranges[at]));
    let days = ["2026-11-05", "2026-11-20", "2026-11", "all", "2026-11-25"];
    let bucket = (0..days.len()).prop_map(move |at| days[at].parse::<Bucket>().unwrap());
    let one = (0..5_u8, name(), name(), prop::collection::vec(name(), 1..3), range, bucket, -20..20_i64);
    let one = one.prop_map(|(kind, from, to, several, text, bucket, n)| {
        let (collection, range) = (web(), text.map(super::range));
        let correction = match kind {
            0 => Correction::Rename { collection, from, to, range },
            1 => Correction::Merge { collection, from: several, to, range },
            2 => Correction::Delete { collection, metrics: Some(several), range },
            3 => Correction::Add { collection, metric: from, bucket, n },
            _ => Correction::Set { collection, metric: from, bucket, value: n },
        };
        (correction, text.unwrap_or("all"))
    });
    prop::collection::vec(one, 1..6)
}

impl Model {
    /// Does what a correction is meant to do. An amount is added at a moment of its bucket.
    fn correct(&mut self, correction: &Correction, span: Option<(i64, i64)>, amount: Option<i64>) {
        let within = |counted: &Counted| {
            span.is_none_or(|(from, until)| (from..until).contains(&counted.at.as_second()))
        };
        match correction {
            Correction::Rename { from, to, .. } => self.replace(std::slice::from_ref(from), Some(to), within),
            Correction::Merge { from, to, .. } => self.replace(from, Some(to), within),
            Correction::Delete { metrics: Some(metrics), .. } => self.replace(metrics, None, within),
            Correction::Delete { .. } => self.counted.retain(|counted| !within(counted)),
            Correction::Add { metric, bucket, .. } | Correction::Set { metric, bucket, .. } => {
                let zone: TimeZone = self.schedules.zone(now()).clone();
                let start = bucket.start_instant(&zone);
                let is_over = bucket.next().is_some_and(|next| next.start_instant(&zone) <= now());
                let at = if is_over { start } else { now() };
                self.counted.push(Counted { metric: metric.to_string(), at, n: amount.unwrap() });
            }
        }
    }

    fn replace(&mut self, from: &[MetricName], to: Option<&MetricName>, within: impl Fn(&Counted) -> bool) {
        let is_named = |counted: &Counted| from.iter().any(|name| name.as_str() == counted.metric);
        for counted in &mut self.counted {
            if is_named(counted) && within(counted) {
                match to {
                    Some(to) => counted.metric = to.to_string(),
                    None => counted.n = 0,
                }
            }
        }
    }
}

fn without_zeros(mut stored: Stored) -> Stored {
    stored.retain(|_, n| *n != 0);
    stored
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn corrections_equal_other_increments(
        schedule in 0..SCHEDULES.len(), counted in counted(), corrections in corrections(),
    ) {
        run(async {
            let mut model = Model::new(SCHEDULES[schedule]);
            model.counted = counted;
            let store = Arc::new(model.stored().await);
            let corrector = model.corrections(&store);
            let mut done = 0;
            for (correction, _) in &corrections {
                let before = everything(&*store).await;
                let preview = corrector.preview(correction, now()).await;
                prop_assert_eq!(&everything(&*store).await, &before);
                match corrector.correct(correction, "tester", "why", now()).await {
                    Ok(corrected) => {
                        done += 1;
                        model.correct(correction, corrected.entry.span, corrected.entry.amount);
                        if let Some(after) = corrected.entry.after {
                            prop_assert_eq!(corrected.entry.before.unwrap_or_default() + corrected.entry.amount.unwrap(), after);
                        }
                        let after = everything(&*store).await;
                        let preview = preview.unwrap();
                        prop_assert!(!preview.has_more);
                        for row in &preview.rows {
                            let key = (row.bucket, row.metric.clone());
                            prop_assert_eq!(row.before.unwrap_or_default(), before.get(&key).copied().unwrap_or_default());
                            prop_assert_eq!(row.after.unwrap_or_default(), after.get(&key).copied().unwrap_or_default(), "{:?}", row);
                        }
                        let listed = |key: &(Bucket, String)| preview.rows.iter().any(|row| (row.bucket, &row.metric) == (key.0, &key.1));
                        for key in before.keys().chain(after.keys()).filter(|key| before.get(key).unwrap_or(&0) != after.get(key).unwrap_or(&0)) {
                            prop_assert!(listed(key), "{:?} is not in the preview", key);
                        }
                    }
                    Err(CorrectionError::Refused(_) | CorrectionError::NotFound(_) | CorrectionError::Read(_)) => {
                        prop_assert!(preview.is_err());
                        prop_assert_eq!(&everything(&*store).await, &before);
                    }
                    Err(error) => panic!("{error}"),
                }
                prop_assert_eq!(without_zeros(everything(&*store).await), model.rows(), "after {:?}", correction);
            }
            let history = corrector.history(None).await.unwrap();
            prop_assert_eq!(history.len(), done);
            prop_assert!(history.iter().all(|entry| entry.is_finished && entry.author == "tester"));
            prop_assert!(store.marks(CORRECTING).await.unwrap().is_empty());
            Ok(())
        })?;
    }

    #[test]
    fn counts_beside_a_correction_stay_consistent(
        schedule in 0..3_usize, counted in counted(), beside in counted(), kind in 0..3_u8,
    ) {
        run(async {
            let mut model = Model::new(SCHEDULES[schedule]);
            model.counted = counted;
            let inner = model.stored().await;
            let beside = Beside { inner, model: model.clone(), left: Mutex::new(beside), done: Mutex::default(), writers: AtomicU64::new(100) };
            let store = Arc::new(beside);
            let correction = match kind {
                0 => Correction::Merge { collection: web(), from: vec![metric("a"), metric("b")], to: metric("d.e"), range: None },
                1 => rename("a", "new", None),
                _ => delete(Some(&["a"]), Some(range("2026-11-05..2026-11-20"))),
            };
            let before = everything(&store.inner).await;
            let corrected = model.corrections(&store).correct(&correction, "tester", "why", now()).await;
            let after = everything(&store.inner).await;
            let added = Model { counted: std::mem::take(&mut *store.done.lock()), ..model.clone() }.rows();
            if kind < 2 && corrected.is_ok() {
                prop_assert_eq!(totals(&after), totals(&sum(&before, &added)), "a total of a bucket has changed");
            }
            // Every coarser counter is the sum of the finest ones.
            let zone = model.schedules.zone(now());
            let finest = model.schedules.of("web").periods(now())[0];
            let mut sums = Stored::new();
            for ((bucket, metric), n) in &after {
                for period in model.schedules.of("web").periods(now()) {
                    if bucket.period() == finest && let Some(whole) = bucket.rollup(*period, zone) {
                        *sums.entry((whole, metric.clone())).or_default() += n;
                    }
                }
            }
            prop_assert_eq!(without_zeros(after), without_zeros(sums));
            Ok(())
        })?;
    }
}

fn totals(rows: &Stored) -> BTreeMap<Bucket, i64> {
    let mut totals = BTreeMap::new();
    for ((bucket, _), n) in rows {
        *totals.entry(*bucket).or_default() += n;
    }
    totals.retain(|_, n| *n != 0);
    totals
}

fn sum(a: &Stored, b: &Stored) -> Stored {
    let mut sum = a.clone();
    for (key, n) in b {
        *sum.entry(key.clone()).or_default() += n;
    }
    sum
}

/// A store in which another writer counts before every batch and behind every read of a correction.
#[derive(Debug)]
struct Beside {
    inner: MemoryStore,
    model: Model,
    left: Mutex<Vec<Counted>>,
    done: Mutex<Vec<Counted>>,
    writers: AtomicU64,
}

impl Beside {
    async fn count(&self) {
        let Some(counted) = self.left.lock().pop() else { return };
        let writer = self.writers.fetch_add(1, Ordering::Relaxed);
        add(&self.inner, writer, Model { counted: vec![counted.clone()], ..self.model.clone() }.table())
            .await;
        self.done.lock().push(counted);
    }
}

#[async_trait]
impl Store for Beside {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        self.count().await;
        self.inner.apply(batch).await
    }
    async fn forget(&self, writer: &Writer) -> Result<(), StoreError> {
        self.inner.forget(writer).await
    }
    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        let rows = self.inner.read(query, in_flight).await;
        self.count().await;
        rows
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner.collections().await
    }
    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.marks(prefix).await
    }
    async fn schedules(&self) -> Result<Option<Schedules>, StoreError> {
        self.inner.schedules().await
    }
    async fn remove_zeros(
        &self,
        collection: &CollectionName,
        counters: &[(Bucket, MetricName)],
    ) -> Result<usize, StoreError> {
        self.count().await;
        self.inner.remove_zeros(collection, counters).await
    }
    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}
