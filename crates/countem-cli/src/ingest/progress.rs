//! The progress bar.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{
    BinaryBytes, HumanCount, HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

/// Progress of the threads.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Bytes read from the disk, before decompression. Written by the reading thread.
    pub(crate) bytes: Arc<AtomicU64>,
    /// Bytes of the followed file that are not read yet. Written by the reading thread.
    pub(crate) behind: AtomicU64,
    /// Lines seen. Written by the counting thread.
    pub(crate) lines: AtomicU64,
}

/// Measure of the bar.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The number of bytes to read.
    Bytes(u64),
    /// It is not known, because an input is a pipe.
    Unknown,
    /// There is none: files are followed.
    Endless,
}

/// Shows `meters` on the terminal until the future is dropped.
pub(crate) async fn show(meters: Arc<Meters>, goal: Goal) {
    const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
    let target = ProgressDrawTarget::stderr();
    let total = if let Goal::Bytes(total) = goal { Some(total) } else { None };
    let bar = Cleared(ProgressBar::with_draw_target(total, target).with_style(style(goal)));
    let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
    loop {
        ticks.tick().await;
        let lines = meters.lines.load(Ordering::Relaxed);
        if let Goal::Endless = goal {
            bar.0.set_position(lines);
            bar.0.set_message(match meters.behind.load(Ordering::Relaxed) {
                0 => "up to date".to_owned(),
                behind => format!("{} behind", BinaryBytes(behind)),
            });
            continue;
        }
        let rate = lines as f64 / bar.0.elapsed().as_secs_f64().max(0.001);
        let rate = HumanFloatCount(rate.round());
        bar.0.set_message(format!("{} lines, {rate} lines/s", HumanCount(lines)));
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

fn style(goal: Goal) -> ProgressStyle {
    let template = match goal {
        Goal::Bytes(_) => "{wide_bar} {binary_bytes}/{binary_total_bytes}, {msg}, {eta} left",
        Goal::Unknown => "{spinner} {binary_bytes}, {msg}",
        Goal::Endless => "{spinner} {human_pos} lines, {rate} lines/s, {msg}",
    };
    let style = ProgressStyle::with_template(template).expect("a constant template is well formed");
    // The bar smooths the rate over the last seconds.
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // Text in memory takes all that is written.
        write!(out, "{}", HumanFloatCount(state.per_sec().round())).ok();
    };
    style.progress_chars("=> ").with_key("rate", rate)
}
