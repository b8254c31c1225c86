//! An acknowledged increment is in the file, whatever else flushes meanwhile.
//!
//! Shows G8.

use std::{thread, time::Duration};

use crate::support::CounterFile;

#[test]
fn flush_and_increment_durable_return_once_stored() {
    let file = CounterFile::new();
    let collector = file.builder().flush_interval(Duration::from_millis(2)).start_blocking().unwrap();
    thread::scope(|scope| {
        for worker in 0..6 {
            let (collector, file) = (&collector, &file);
            scope.spawn(move || {
                let metric = format!("worker-{worker}");
                let handle = collector.counter("c", &metric).unwrap();
                for round in 1..=40 {
                    match worker % 3 {
                        0 => collector.blocking().increment_durable("c", &metric, 1).unwrap(),
                        1 => {
                            collector.increment("c", &metric, 1);
                            collector.blocking().flush().unwrap();
                        }
                        _ => {
                            handle.increment(1);
                            collector.blocking().flush().unwrap();
                        }
                    }
                    assert_eq!(file.counters("c")[&metric], round, "{metric}");
                }
            });
        }
    });
    assert!(collector.blocking().shutdown().is_complete());
}
