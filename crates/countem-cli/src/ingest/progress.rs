//! The progress bar.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of the threads.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Bytes read from the disk, before decompression. Written by the reading thread.
    pub(crate) bytes: Arc<AtomicU64>,
    /// Lines seen. Written by the counting thread.
    pub(crate) lines: AtomicU64,
}

/// Shows `meters` on the terminal until the future is dropped; `total` bytes are to be read, where that is known.
pub(crate) async fn show(meters: Arc<Meters>, total: Option<u64>) {
    const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
    let target = ProgressDrawTarget::stderr();
    let bar = Cleared(ProgressBar::with_draw_target(total, target).with_style(style(total.is_some())));
    let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
    loop {
        ticks.tick().await;
        let lines = meters.lines.load(Ordering::Relaxed);
        let rate = lines as f64 / bar.0.elapsed().as_secs_f64().max(0.001);
        let rate = indicatif::HumanFloatCount(rate.round());
        bar.0.set_message(format!("{} lines, {rate} lines/s", indicatif::HumanCount(lines)));
        bar.0.set_position(meters.bytes.load(Ordering::Relaxed));
    }
}

/// Clears the bar from the terminal when dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(has_end: bool) -> ProgressStyle {
    let template = if has_end {
        "{wide_bar} {binary_bytes}/{binary_total_bytes}, {msg}, {eta} left"
    } else {
        "{spinner} {binary_bytes}, {msg}"
    };
    let style = ProgressStyle::with_template(template).expect("a constant template is well formed");
    style.progress_chars("=> ")
}
