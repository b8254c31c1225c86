//! A subscriber of the log may count through the engine that logs.

use std::{
    fmt,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use countem_core::{Period, ScheduleConfig};
use countem_journal::JournalConfig;
use countem_store::Fault;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tracing::{Event, Metadata, Subscriber, field::Field, span};

use super::{Setup, eventually, quiet, start};
use crate::{Counter, Durability, Engine, EngineConfig};

static COUNTED_BY: OnceLock<(Engine, Counter)> = OnceLock::new();
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Counts every event in every way.
struct CountingSubscriber;

impl Subscriber for CountingSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("countem_engine")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            if field.name() == "message" {
                MESSAGES.lock().push(format!("{value:?}"));
            }
        });
        if let Some((engine, handle)) = COUNTED_BY.get() {
            engine.increment("log", "events", 1).ok();
            engine.increment_at("log", "events", 1, engine.now()).ok();
            engine.counter("log", "new").unwrap().increment(1);
            handle.increment(1);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn logged(message: &str) -> usize {
    MESSAGES.lock().iter().filter(|logged| logged.contains(message)).count()
}

async fn store_away(setup: &Setup) {
    setup.faults.then([Fault::Fail, Fault::LoseReply]);
    setup.engine.increment("c", "m", 1).unwrap();
    assert!(setup.engine.flush().await);
    assert!(logged("batch is not stored yet") >= 2);
}

async fn quarantine(setup: &Setup) {
    for n in [i64::MAX, 1] {
        for metric in ["a", "b", "c"] {
            setup.engine.increment("c", metric, n).unwrap();
        }
        assert!(setup.engine.flush().await);
    }
    eventually("the message", || logged("counters are quarantined") > 0).await;
    assert_eq!(logged("counters are quarantined"), 1, "for three counters of one batch");
}

fn impossible_time(setup: &Setup) {
    let now = setup.engine.now();
    setup.clock.set(Timestamp::MIN);
    setup.clock.set(now);
    assert!(logged("clock shows an impossible time") > 0);
}

async fn late_schedule(setup: &Setup) {
    let wanted = ScheduleConfig { change: true, ..ScheduleConfig::of_periods([Period::Hour]) };
    setup.faults.hide_schedules(true);
    let ahead = SignedDuration::from_hours(1);
    let store = setup.store.inner();
    let agreed = crate::agree_on_schedules(store, &wanted, setup.engine.now(), ahead).await.unwrap();
    setup.clock.set(agreed.changed_at().unwrap());
    setup.engine.increment("c", "late", 1).unwrap();
    setup.faults.hide_schedules(false);
    assert!(setup.engine.flush().await);
    assert_eq!(logged("the schedule of the store is adopted"), 1);
    eventually("the message", || logged("counters are quarantined") > 1).await;
}

async fn log_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let options = JournalConfig::new(dir.path());
    let durability = Durability::Journal { options, tick: Duration::from_millis(1) };
    let setup = start(EngineConfig { durability, metrics_per_bucket: 8, ..quiet() }).await;
    let handle = setup.engine.counter("log", "handle").unwrap();
    COUNTED_BY.set((setup.engine.clone(), handle)).unwrap();
    store_away(&setup).await;
    quarantine(&setup).await;
    impossible_time(&setup);
    late_schedule(&setup).await;
    for metric in 0..20 {
        setup.engine.increment("c", &format!("m{metric}"), 1).unwrap();
    }
    setup.engine.flush().await;
    eventually("the message", || logged("bucket has reached") > 0).await;
    assert!(setup.engine.increment("c", "", 1).is_err());
    let report = setup.engine.shutdown().await;
    assert!(report.is_balanced() && report.is_resolved(), "{report}");
    assert!(setup.engine.increment("c", "m", 1).is_err());
    assert!(logged("increment was refused") > 1);
    assert!(setup.engine.stats().is_balanced());
}

#[test]
fn subscriber_that_counts_never_deadlocks() {
    tracing::subscriber::set_global_default(CountingSubscriber).unwrap();
    let (ended, end) = mpsc::channel();
    let logging = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(log_in_every_way());
        ended.send(()).unwrap();
    });
    match end.recv_timeout(Duration::from_secs(30)) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let stats = COUNTED_BY.get().map(|(engine, _)| engine.stats());
            panic!("no end after {:?}: {stats:?}", MESSAGES.lock().last())
        }
        _ => logging.join().unwrap(),
    }
}
