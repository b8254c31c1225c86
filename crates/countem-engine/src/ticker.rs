//! What happens by the clock: slots turn, lanes are flushed, the router finds its size, dead actors are replaced.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use rand::Rng;
use tokio::time::{Instant, sleep_until};

use crate::{engine::Core, node::Node, settings::EngineConfig};

/// How often health and contention are looked at. Also bounds how late a slot turns after the machine was suspended.
const LOOK: Duration = Duration::from_millis(200);
/// Shortest time between two flushes that were asked for because much is pending.
const BREATH: Duration = Duration::from_millis(50);
/// Contended locks in one look beyond which there are too few collectors.
const CONTENDED: u64 = 500;
/// Looks without any contention after which there are too many collectors.
const IDLE_LOOKS: u32 = 300;

/// Runs until the engine is gone.
pub(crate) async fn run(core: Weak<Core>, settings: EngineConfig) {
    let mut flush_at = Instant::now() + jittered(&settings);
    let mut breathed = Instant::now();
    let mut idle = 0;
    while let Some(engine) = core.upgrade() {
        let wake = flush_at.min(Instant::now() + LOOK);
        let shared = Arc::clone(engine.node());
        // Not kept alive while asleep: the last handle may be dropped meanwhile.
        drop(engine);
        tokio::select! {
            () = sleep_until(wake) => {}
            () = wanted(&shared, breathed + BREATH) => breathed = Instant::now(),
        }
        let Some(engine) = core.upgrade() else { return };
        engine.actors().revive();
        idle = fit_router(&engine, &settings, idle);
        let now = Instant::now();
        if now >= flush_at || (shared.is_crowded() && now >= breathed) {
            engine.actors().tick().await;
            breathed = Instant::now() + BREATH;
            flush_at = Instant::now() + jittered(&settings);
        }
    }
}

/// Turns the slots of the system clock until the engine is gone, on a thread of its own: whatever the runtime is busy with, a
/// count that is made after midnight belongs to the new day.
pub(crate) fn turn_slots(core: Weak<Core>) -> io::Result<()> {
    let turn = move || {
        while let Some(engine) = core.upgrade() {
            let holds = engine.node().turn_slots();
            drop(engine);
            thread::sleep(LOOK.min(Duration::try_from(holds).unwrap_or(LOOK)));
        }
    };
    thread::Builder::new().name("countem-clock".to_owned()).spawn(turn).map(drop)
}

async fn wanted(node: &Node, not_before: Instant) {
    sleep_until(not_before).await;
    node.flush_wanted.notified().await;
}

fn jittered(settings: &EngineConfig) -> Duration {
    let earlier = settings.flush_jitter.clamp(0.0, 1.0) * rand::rng().random_range(0.0..=1.0);
    settings.flush_interval.mul_f64(1.0 - earlier)
}

fn fit_router(core: &Core, settings: &EngineConfig, idle: u32) -> u32 {
    let router = core.node().router();
    let contended = router.take_contention();
    let active = router.active();
    if contended >= CONTENDED && active < router.max() {
        core.resize((active * 2).min(router.max()));
        tracing::debug!(contended, collectors = router.active(), "router grew");
    } else if idle >= IDLE_LOOKS && active > settings.collectors_min {
        core.resize((active / 2).max(settings.collectors_min));
        tracing::debug!(collectors = router.active(), "router shrank");
        return 0;
    }
    if contended == 0 { idle.saturating_add(1) } else { 0 }
}
