//! The progress bar.

use std::{
    fmt::Write,
    io::{self, IsTerminal as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{
    BinaryBytes, HumanCount, HumanFloatCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

/// Progress of a command.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    /// Bytes read from the disk, before decompression, or written.
    pub(crate) bytes: Arc<AtomicU64>,
    /// Bytes of the followed file that are not read yet.
    pub(crate) behind: AtomicU64,
    /// Lines or counters that were handled.
    pub(crate) handled: AtomicU64,
}

/// Measure of the bar.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// The number of bytes to read.
    Bytes(u64),
    /// It is not known, because an input is a pipe, or bytes are written.
    Unknown,
    /// The same, where no bytes are measured.
    Uncounted,
    /// There is none: files are followed.
    Endless,
}

/// A bar on the terminal, drawn by a thread of its own until it is dropped.
pub(crate) struct Bar {
    /// Dropped to end the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Meters {
    /// Adds to the lines or counters that were handled.
    pub(crate) fn handle(&self, number: u64) {
        self.handled.fetch_add(number, Ordering::Relaxed);
    }
}

impl Bar {
    /// Shows `meters`, which count `unit`, unless it `is_quiet` or standard error is no terminal.
    pub(crate) fn start(
        is_quiet: bool,
        meters: &Arc<Meters>,
        goal: Goal,
        unit: &'static str,
    ) -> Option<Self> {
        if is_quiet || !io::stderr().is_terminal() {
            return None;
        }
        let (end, ended) = mpsc::channel();
        let meters = Arc::clone(meters);
        let show = move || {
            const REFRESH_INTERVAL: Duration = Duration::from_millis(100);
            let total = if let Goal::Bytes(total) = goal { Some(total) } else { None };
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let bar = bar.with_style(style(goal, unit));
            draw(&bar, &meters, goal, unit);
            while ended.recv_timeout(REFRESH_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                draw(&bar, &meters, goal, unit);
            }
            bar.finish_and_clear();
        };
        let thread = thread::Builder::new().name("countem-progress".to_owned()).spawn(show);
        // A command without a bar does the same work.
        thread.ok().map(|thread| Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end = None;
        // A bar that panicked is of no consequence.
        self.thread.take().map(JoinHandle::join);
    }
}

fn draw(bar: &ProgressBar, meters: &Meters, goal: Goal, unit: &str) {
    let handled = meters.handled.load(Ordering::Relaxed);
    if let Goal::Endless = goal {
        bar.set_position(handled);
        bar.set_message(match meters.behind.load(Ordering::Relaxed) {
            0 => "up to date".to_owned(),
            behind => format!("{} behind", BinaryBytes(behind)),
        });
        return;
    }
    let rate = handled as f64 / bar.elapsed().as_secs_f64().max(0.001);
    let rate = HumanFloatCount(rate.round());
    bar.set_message(format!("{} {unit}, {rate} {unit}/s", HumanCount(handled)));
    bar.set_position(meters.bytes.load(Ordering::Relaxed));
    bar.tick();
}

fn style(goal: Goal, unit: &str) -> ProgressStyle {
    let template = match goal {
        Goal::Bytes(_) => "{wide_bar} {binary_bytes}/{binary_total_bytes}, {msg}, {eta} left".to_owned(),
        Goal::Unknown => "{spinner} {binary_bytes}, {msg}".to_owned(),
        Goal::Uncounted => "{spinner} {msg}".to_owned(),
        Goal::Endless => format!("{{spinner}} {{human_pos}} {unit}, {{rate}} {unit}/s, {{msg}}"),
    };
    let style = ProgressStyle::with_template(&template).expect("the templates are well formed");
    // The bar smooths the rate over the last seconds.
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // Text in memory takes all that is written.
        write!(out, "{}", HumanFloatCount(state.per_sec().round())).ok();
    };
    style.progress_chars("=> ").with_key("rate", rate)
}
