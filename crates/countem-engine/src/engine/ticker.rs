//! Periodic work: counting buckets advance, lanes are flushed, the router finds its size, dead actors are replaced.

use std::{
    io,
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Duration,
};

use rand::Rng;
use tokio::time::{Instant, sleep_until};

use super::{EngineConfig, EngineState};
use crate::deliver::{Lane, Lanes};

/// Interval of health and contention checks. Also bounds how late a counting bucket advances after the machine was suspended.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Interval at which a change of the store's schedule is noticed although nothing is pending.
const AGREEMENT_INTERVAL: Duration = Duration::from_secs(30);
/// Interval at which expired buckets are looked for.
const REMOVAL_INTERVAL: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(60) };
/// Interval at which closed buckets are compacted. The first time is drawn at random, so that nodes that start together take turns.
const COMPACTION_INTERVAL: Duration =
    if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(3600) };
/// Interval at which a correction is looked for that another process has begun and not finished.
const CORRECTION_INTERVAL: Duration = Duration::from_secs(60);
/// Minimum gap between two flushes triggered by size.
const MIN_EARLY_FLUSH_GAP: Duration = Duration::from_millis(50);
/// Contended locks in one interval beyond which there are too few collectors.
const MAX_CONTENDED: u64 = 500;
/// Intervals without any contention after which there are too many collectors.
const MAX_IDLE_CHECKS: u32 = 300;

/// Flushes and checks until the engine is gone.
pub(super) async fn run(state: Weak<EngineState>, config: EngineConfig) {
    let mut flush_at = Instant::now() + jittered(&config);
    let mut early_flush_at = Instant::now() + MIN_EARLY_FLUSH_GAP;
    let mut agree_at = Instant::now() + AGREEMENT_INTERVAL;
    let mut remove_at = Instant::now() + REMOVAL_INTERVAL;
    let mut compact_at = Instant::now() + COMPACTION_INTERVAL.mul_f64(rand::rng().random_range(0.0..=1.0));
    let mut correct_at = Instant::now();
    let mut idle = 0;
    while let Some(engine) = state.upgrade() {
        let wake = flush_at.min(Instant::now() + CHECK_INTERVAL);
        let lanes = Arc::clone(&engine.lanes);
        // Not kept alive while asleep: the last handle may be dropped meanwhile.
        drop(engine);
        tokio::select! {
            () = sleep_until(wake) => {}
            () = flush_wanted(&lanes, early_flush_at) => {}
        }
        let Some(engine) = state.upgrade() else { return };
        engine.supervisor.revive();
        lanes.iter().for_each(Lane::log);
        idle = fit_router(&engine, &config, idle);
        let now = Instant::now();
        if now >= agree_at {
            agree_at = now + AGREEMENT_INTERVAL;
            engine.agree();
        }
        if now >= remove_at {
            remove_at = now + REMOVAL_INTERVAL;
            engine.remove_expired();
        }
        if now >= compact_at {
            compact_at = now + COMPACTION_INTERVAL;
            engine.compact();
        }
        if now >= correct_at {
            correct_at = now + CORRECTION_INTERVAL;
            engine.finish_correction();
        }
        let is_urgent = lanes.are_crowded() || lanes.journal_is_full.load(Ordering::Relaxed);
        if now >= flush_at || (is_urgent && now >= early_flush_at) {
            engine.supervisor.tick().await;
            early_flush_at = Instant::now() + MIN_EARLY_FLUSH_GAP;
            flush_at = Instant::now() + jittered(&config);
        }
    }
}

/// Advances the counting buckets of the system clock until the engine is gone, on a thread of its own: whatever the runtime is
/// busy with, a count that is made after midnight belongs to the new day.
pub(super) fn advance_clock(state: Weak<EngineState>) -> io::Result<()> {
    let advance = move || {
        while let Some(engine) = state.upgrade() {
            let valid = engine.intake.advance_clock();
            drop(engine);
            thread::sleep(CHECK_INTERVAL.min(Duration::try_from(valid).unwrap_or(CHECK_INTERVAL)));
        }
    };
    thread::Builder::new().name("countem-clock".to_owned()).spawn(advance).map(drop)
}

/// Records in the journal every `tick`, and at once when a caller waits, until the engine is gone.
pub(super) async fn record(state: Weak<EngineState>, tick: Duration) {
    loop {
        let Some(engine) = state.upgrade() else { return };
        let (intake, recorder) = (Arc::clone(&engine.intake), engine.recorder.clone());
        drop(engine);
        let Some(recorder) = recorder else { return };
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = recorder.wanted() => {}
        }
        recorder.round(&*intake).await;
    }
}

async fn flush_wanted(lanes: &Lanes, not_before: Instant) {
    sleep_until(not_before).await;
    lanes.flush_wanted.notified().await;
}

fn jittered(config: &EngineConfig) -> Duration {
    let earlier = config.flush_jitter.clamp(0.0, 1.0) * rand::rng().random_range(0.0..=1.0);
    config.flush_interval.mul_f64(1.0 - earlier)
}

fn fit_router(engine: &EngineState, config: &EngineConfig, idle: u32) -> u32 {
    let router = engine.intake.router();
    let contended = router.take_contention();
    let active = router.active();
    if contended >= MAX_CONTENDED && active < router.max() {
        engine.supervisor.resize((active * 2).min(router.max()));
        tracing::debug!(contended, collectors = router.active(), "router grew");
    } else if idle >= MAX_IDLE_CHECKS && active > config.collectors_min {
        engine.supervisor.resize((active / 2).max(config.collectors_min));
        tracing::debug!(collectors = router.active(), "router shrank");
        return 0;
    }
    if contended == 0 { idle.saturating_add(1) } else { 0 }
}
