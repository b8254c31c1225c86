//! A process that ends at any step, and others that go on.

use std::sync::atomic::{AtomicUsize, Ordering};

use countem_store::{Applied, Rows, async_trait};
use futures_util::future::join;

use super::*;
use crate::{Clock, Engine, EngineConfig};

/// A store that answers nothing from the step `last` on, which has its effect or not. Every call yields some times before it begins.
#[derive(Debug)]
struct Dying {
    inner: Arc<MemoryStore>,
    steps: AtomicUsize,
    last: usize,
    has_effect: bool,
    pace: usize,
}

impl Dying {
    fn new(inner: &Arc<MemoryStore>, last: usize, has_effect: bool) -> Self {
        Self { inner: Arc::clone(inner), steps: AtomicUsize::new(0), last, has_effect, pace: 0 }
    }

    /// Returns true for a call that has an effect, and an error if its answer is lost.
    async fn step(&self) -> (bool, Result<(), StoreError>) {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        for _ in 0..(step * 7 + self.pace * 13) % 5 * usize::from(self.pace > 0) {
            tokio::task::yield_now().await;
        }
        let ended = || Err(StoreError::new(ErrorKind::Refused, "the process has ended (injected)"));
        match step.cmp(&self.last) {
            std::cmp::Ordering::Less => (true, Ok(())),
            std::cmp::Ordering::Equal => (self.has_effect, ended()),
            std::cmp::Ordering::Greater => (false, ended()),
        }
    }
}

#[async_trait]
impl Store for Dying {
    async fn apply(&self, batch: &Arc<Batch>) -> Result<Applied, StoreError> {
        let (has_effect, answer) = self.step().await;
        let applied = if has_effect { Some(self.inner.apply(batch).await?) } else { None };
        answer.map(|()| applied.unwrap())
    }
    async fn forget(&self, _: &Writer) -> Result<(), StoreError> {
        Ok(())
    }
    async fn read(&self, query: &RowQuery, in_flight: Option<&Batch>) -> Result<Rows, StoreError> {
        if self.steps.load(Ordering::Relaxed) > self.last {
            self.step().await.1?;
        }
        self.inner.read(query, in_flight).await
    }
    async fn collections(&self) -> Result<Vec<CollectionName>, StoreError> {
        self.inner.collections().await
    }
    async fn marks(&self, prefix: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.step().await.1?;
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
        let (has_effect, answer) = self.step().await;
        let removed = if has_effect { self.inner.remove_zeros(collection, counters).await? } else { 0 };
        answer.map(|()| removed)
    }
    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn location(&self) -> String {
        self.inner.location()
    }
}

fn model() -> Model {
    let mut model = Model::new("beginning Europe/Berlin hour,day,month,all");
    for day in 1..=8 {
        for (hour, name) in [(1, "old"), (13, "old"), (13, "kept"), (23, "second")] {
            model.count(name, &format!("2026-11-{day:02}T{hour:02}:10:00Z"), day + hour);
        }
    }
    model.count("new", "2026-11-24T13:00:00Z", 1000);
    model
}

fn cases() -> [Correction; 4] {
    let several = vec![metric("old"), metric("second")];
    let merge = Correction::Merge { collection: web(), from: several, to: metric("new"), range: None };
    let days = Some(range("2026-11-03..2026-11-06"));
    [rename("old", "other", None), merge, delete(Some(&["old", "kept"]), days), delete(None, None)]
}

/// Returns what is stored after the whole correction.
async fn corrected(model: &Model, correction: &Correction) -> Stored {
    let store = Arc::new(model.stored().await);
    model.corrections(&store).correct(correction, "tester", "why", now()).await.unwrap();
    everything(&*store).await
}

#[tokio::test]
async fn end_at_any_step_is_before_or_after() {
    let model = model();
    for correction in cases() {
        let after = corrected(&model, &correction).await;
        assert!(!after.values().any(|n| *n == 0), "zeros are left: {after:?}");
        let before = model.rows();
        let (mut last, mut resumed) = (0, 0);
        loop {
            let mut is_over = false;
            for has_effect in [false, true] {
                let store = Arc::new(model.stored().await);
                let dying = Arc::new(Dying::new(&store, last, has_effect));
                let result = model.corrections(&dying).correct(&correction, "tester", "why", now()).await;
                is_over = result.is_ok();
                let next = model.corrections(&store);
                resumed += usize::from(next.finish_open().await.unwrap());
                let history = next.history(None).await.unwrap();
                assert!(history.len() <= 1 && history.iter().all(|entry| entry.is_finished));
                let expected = if history.is_empty() { &before } else { &after };
                assert_eq!(&everything(&*store).await, expected, "step {last} of {correction:?}");
                assert!(!is_over || history.len() == 1);
                assert!(!next.finish_open().await.unwrap(), "it is finished once");
            }
            if is_over {
                break;
            }
            last += 1;
        }
        assert!(resumed > 10, "only {resumed} were resumed in {last} steps");
    }
}

#[tokio::test]
async fn interrupted_correction_is_in_the_history() {
    let model = model();
    let store = Arc::new(model.stored().await);
    let mut open = 0;
    for last in 0.. {
        let dying = Arc::new(Dying::new(&store, last, true));
        let result = model.corrections(&dying).correct(&cases()[0], "tester", "why", now()).await;
        let history = model.corrections(&store).history(Some(&web())).await.unwrap();
        if let Some(entry) = history.first() {
            assert!(!entry.is_finished && result.is_err());
            assert_eq!(entry.to_string(), "rename `old` of `web` to `other`");
            open += 1;
            break;
        }
    }
    assert_eq!(open, 1);
    let preview = model.corrections(&store).preview(&cases()[3], now()).await;
    assert!(matches!(preview, Err(CorrectionError::Unfinished { .. })));
    // The next correction finishes the one before.
    model.corrections(&store).correct(&rename("other", "third", None), "b", "again", now()).await.unwrap();
    let left = everything(&*store).await;
    assert!(left.keys().all(|(_, name)| name != "old" && name != "other"), "{left:?}");
    assert_eq!(left, corrected(&model, &rename("old", "third", None)).await);
    assert_eq!(model.corrections(&store).history(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn several_processes_finish_it_once() {
    let model = model();
    for correction in cases() {
        let after = corrected(&model, &correction).await;
        for last in (0..30).step_by(2) {
            let store = Arc::new(model.stored().await);
            let dying = Arc::new(Dying::new(&store, last, true));
            let result = model.corrections(&dying).correct(&correction, "tester", "why", now()).await;
            let paced = |pace| {
                let store = Dying { pace, ..Dying::new(&store, usize::MAX, true) };
                model.corrections(&Arc::new(store))
            };
            let (first, second) = (paced(1 + last), paced(2 + last));
            let (first, second) = join(first.finish_open(), second.finish_open()).await;
            let (first, second) = (first.unwrap(), second.unwrap());
            let history = model.corrections(&store).history(None).await.unwrap();
            let is_done = !history.is_empty();
            assert!(is_done || !(first || second || result.is_ok()));
            let expected = if is_done { after.clone() } else { model.rows() };
            assert_eq!(everything(&*store).await, expected, "step {last} of {correction:?}");
        }
    }
}

#[tokio::test]
async fn corrections_at_once_follow_each_other() {
    let model = model();
    for seed in 1..20 {
        let store = Arc::new(model.stored().await);
        let paced =
            |pace| model.corrections(&Arc::new(Dying { pace, ..Dying::new(&store, usize::MAX, true) }));
        let (first, second) = (paced(seed), paced(seed + 1));
        let (to_a, to_b) = (rename("old", "a", None), rename("old", "b", None));
        let results =
            join(first.correct(&to_a, "one", "why", now()), second.correct(&to_b, "two", "why", now()));
        let (a, b) = results.await;
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        let correction = if a.is_ok() { to_a } else { to_b };
        assert_eq!(everything(&*store).await, corrected(&model, &correction).await);
        assert_eq!(model.corrections(&store).history(None).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn running_engine_finishes_it() {
    let model = model();
    let store = Arc::new(model.stored().await);
    let history = async || model.corrections(&store).history(None).await.unwrap();
    for last in 0.. {
        let dying = Arc::new(Dying::new(&store, last, true));
        model.corrections(&dying).correct(&cases()[0], "tester", "why", now()).await.unwrap_err();
        if !history().await.is_empty() {
            break;
        }
    }
    assert!(!history().await[0].is_finished);
    let opened: Arc<dyn Store> = store.clone();
    let engine =
        Engine::start(EngineConfig::default(), Clock::System, async move { Ok(opened) }).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !history().await[0].is_finished {
        assert!(Instant::now() < deadline, "it is not finished");
        tokio::task::yield_now().await;
    }
    assert_eq!(everything(&*store).await, corrected(&model, &cases()[0]).await);
    engine.shutdown().await;
}
