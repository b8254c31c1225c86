//! A forked child is refused with a word, and never hangs.

use countem_query::ReadError;
use futures_util::FutureExt;

use super::{bucket, counters, name, quiet, start};
use crate::{Counter, Engine, Refusal};

/// Exit code of a child that panicked.
const PANICKED: i32 = 101;
/// Seconds after which a child that hangs is killed.
const CHILD_TIMEOUT: u32 = 60;

#[tokio::test]
async fn forked_child_is_refused_and_parent_keeps_counts() {
    let setup = start(quiet()).await;
    let handle = setup.engine.counter("c", "a").unwrap();
    setup.engine.increment("c", "a", 1).unwrap();
    handle.increment(10);
    // SAFETY: the child calls nothing but the engine, whose answers need no thread of the parent, and exits.
    #[expect(unsafe_code, reason = "a fork is what is tested")]
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(CHILD_TIMEOUT);
            let engine = setup.engine.clone();
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| use_in_child(engine, &handle)));
            libc::_exit(if outcome.is_ok() { 0 } else { PANICKED });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        status
    };
    assert_eq!(status, 0, "the child panicked (25856) or hung (14)");
    let report = setup.engine.shutdown().await;
    assert!(report.is_complete() && report.accepted == 2, "{report}");
    assert_eq!(setup.stored("2026-11-20").await, counters(&[("a", 11)]));
}

fn use_in_child(engine: Engine, handle: &Counter) {
    assert_eq!(engine.increment("c", "a", 100), Err(Refusal::Forked));
    assert_eq!(engine.increment("c", "new", 100), Err(Refusal::Forked));
    assert_eq!(handle.try_increment(100), Err(Refusal::Forked));
    assert_eq!(engine.counter("c", "new").unwrap().try_increment(100), Err(Refusal::Forked));
    assert_eq!(engine.flush().now_or_never(), Some(false));
    assert!(engine.durable().now_or_never().unwrap().is_err());
    let read = engine.reader().get_counters(&name("c"), bucket("2026-11-20")).now_or_never().unwrap();
    assert!(
        matches!(&read, Err(ReadError::Store(error)) if error.to_string().contains("forked")),
        "{read:?}"
    );
    let read: Result<(), ReadError> = engine.run(async { Ok(()) }).now_or_never().unwrap();
    assert!(read.is_err());
    assert!(engine.stats().is_forked);
    let report = engine.shutdown().now_or_never().unwrap();
    assert!(!report.is_complete() && report.errors[0].contains("forked"), "{report:?}");
    assert_eq!(engine.shutdown_blocking(), report);
}
