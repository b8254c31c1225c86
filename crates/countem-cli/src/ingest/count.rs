//! The counting thread: turns lines into deltas.

mod line;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use memchr::memchr;
use tokio::sync::mpsc;

use self::line::{LineCounter, Outcome};
use countem_lines::Format;

use crate::{
    exit::UsageError,
    ingest::{
        delivery::{Counts, InputMark, Request},
        feed::{Event, Resumed},
        fingerprint::{Fingerprint, MarkKey, Position},
        lines::Block,
        plan::Plan,
        progress::Meters,
        report::Tally,
    },
    stop::Stop,
};

/// Time for which counts gather before they go to the store.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which a stop is noticed while the reading thread waits for input.
const STOP_POLL: Duration = Duration::from_millis(200);

/// The delivery has ended, so counting ends too.
struct DeliveryEnded;

/// Counts the lines of all inputs.
pub(crate) struct Counting {
    plan: Plan,
    /// Marks in the store say how far inputs were counted.
    is_once: bool,
    /// Maximum number of counters in one batch.
    batch_counters: usize,
    inputs: HashMap<usize, InputState>,
    line: LineCounter,
    /// The input whose lines are in the table, and whose mark goes with the next batch.
    unsaved: Option<usize>,
    flushed: Instant,
    requests: mpsc::Sender<Request>,
    meters: Arc<Meters>,
    stop: Arc<Stop>,
    tally: Tally,
}

/// Counting state of one input.
struct InputState {
    name: Arc<str>,
    format: Format,
    position: Position,
    fingerprint: Fingerprint,
    /// Key of the mark that was found.
    found_key: Option<MarkKey>,
    awaits_header: bool,
    /// The next bytes are the rest of a line that was counted before it had ended.
    skips_rest: bool,
    /// The header lacks a wanted column, so no line can be counted.
    is_unusable: bool,
}

impl Counting {
    /// Returns a counter of lines for `plan` that sends batches of up to `batch_counters` counters.
    pub(crate) fn new(
        plan: Plan,
        is_once: bool,
        batch_counters: usize,
        requests: mpsc::Sender<Request>,
        meters: Arc<Meters>,
        stop: Arc<Stop>,
    ) -> Self {
        let line = LineCounter::new(&plan);
        let tally = Tally::new(plan.wanted.clone());
        let (inputs, unsaved, flushed) = (HashMap::new(), None, Instant::now());
        Self { plan, is_once, batch_counters, inputs, line, unsaved, flushed, requests, meters, stop, tally }
    }

    /// Handles events until there are no more, and returns the tally of lines. `spare` takes back the memory of blocks.
    pub(crate) fn run(mut self, events: Receiver<Event>, spare: Sender<Vec<u8>>) -> Tally {
        loop {
            let done = match events.recv_timeout(STOP_POLL) {
                Ok(event) => self.take(event, &spare),
                // The reading thread may wait indefinitely for a terminal or a pipe.
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => Err(DeliveryEnded),
                Err(RecvTimeoutError::Timeout) => self.flush_if_due(),
                Err(RecvTimeoutError::Disconnected) => Err(DeliveryEnded),
            };
            if done.is_err() {
                break;
            }
        }
        // The delivery reports why it has ended.
        self.flush().ok();
        self.tally
    }

    fn take(&mut self, event: Event, spare: &Sender<Vec<u8>>) -> Result<(), DeliveryEnded> {
        match event {
            Event::FindMarks { head, reply } => {
                self.flush()?;
                let request = Request::FindMarks { head, reply };
                self.requests.blocking_send(request).map_err(|_| DeliveryEnded)?;
            }
            Event::Begin { input, name, resumed } => {
                self.begin(input, name, resumed.map(|resumed| *resumed));
            }
            Event::Lines { input, block, read_at } => {
                self.switch_to(input)?;
                self.count(input, &block, read_at)?;
                // Fails when the reading thread has ended.
                spare.send(block.memory).ok();
            }
            Event::End { input } => {
                if self.is_once {
                    self.flush()?;
                }
                self.inputs.remove(&input);
            }
            Event::Failed { name, error } => self.tally.fail(&name, error),
        }
        self.flush_if_due()
    }

    fn begin(&mut self, input: usize, name: Arc<str>, resumed: Option<Resumed>) {
        let mut state = InputState {
            name,
            format: self.plan.format.clone(),
            position: Position::default(),
            fingerprint: Fingerprint::default(),
            found_key: None,
            awaits_header: self.plan.format.has_header(),
            skips_rest: false,
            is_unusable: false,
        };
        self.tally.inputs += 1;
        if let Some(resumed) = resumed {
            if std::mem::take(&mut state.awaits_header) {
                state.read_header(without_byte_order_mark(&resumed.first_line), &self.plan, &mut self.tally);
            }
            self.tally.skipped += resumed.position.offset;
            state.skips_rest = resumed.position.is_open;
            state.position = resumed.position;
            state.fingerprint = resumed.fingerprint;
            state.found_key = Some(resumed.key);
        }
        self.inputs.insert(input, state);
    }

    /// Flushes the counts of another input: a batch carries the mark of one input only.
    fn switch_to(&mut self, input: usize) -> Result<(), DeliveryEnded> {
        if self.is_once && self.unsaved.is_some_and(|unsaved| unsaved != input) {
            self.flush()?;
        }
        self.unsaved = Some(input);
        Ok(())
    }

    fn count(&mut self, input: usize, block: &Block, read_at: Timestamp) -> Result<(), DeliveryEnded> {
        let bytes = block.bytes();
        let mut rest = bytes;
        while let Some(state) = self.inputs.get_mut(&input) {
            self.unsaved = Some(input);
            let begin = rest;
            let ended = state.count(&mut rest, read_at, &self.plan, &mut self.line, &mut self.tally);
            state.position.offset = block.offset + (bytes.len() - rest.len()) as u64;
            if self.is_once {
                state.fingerprint.advance(&begin[..begin.len() - rest.len()]);
            }
            match ended {
                Outcome::Counted => break,
                Outcome::Full => self.flush()?,
            }
        }
        self.meters.lines.store(self.tally.lines, Ordering::Relaxed);
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), DeliveryEnded> {
        if self.line.counters() >= self.batch_counters {
            return self.flush();
        }
        // While the store is busy, further counts of known counters cost no memory.
        let is_due = self.flushed.elapsed() >= FLUSH_INTERVAL && self.requests.capacity() > 0;
        if is_due { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DeliveryEnded> {
        self.flushed = Instant::now();
        let unsaved = self.unsaved.take().filter(|_| self.is_once);
        let mark = unsaved.and_then(|input| {
            // Without a mark, lines that lack a column are counted once the file has one.
            let state = self.inputs.get(&input).filter(|state| !state.is_unusable)?;
            let mark = state.fingerprint.mark_at(state.position)?;
            Some(InputMark { input, found_key: state.found_key, mark })
        });
        if self.line.counters() == 0 && mark.is_none() {
            return Ok(());
        }
        let counts = Counts { deltas: self.line.drain(), mark };
        self.requests.blocking_send(Request::Store(counts)).map_err(|_| DeliveryEnded)
    }
}

/// Strips a UTF-8 byte order mark.
fn without_byte_order_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

impl InputState {
    /// Counts the lines of `rest` and removes them, until all are counted or the table has to be drained.
    fn count(
        &mut self,
        rest: &mut &[u8],
        read_at: Timestamp,
        plan: &Plan,
        counter: &mut LineCounter,
        tally: &mut Tally,
    ) -> Outcome {
        while !rest.is_empty() {
            let newline = memchr(b'\n', rest);
            let (line, after) = match newline {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (*rest, &[][..]),
            };
            let line = if self.position.line == 0 { without_byte_order_mark(line) } else { line };
            if std::mem::take(&mut self.skips_rest) {
                self.skips_rest = newline.is_none();
                self.position.is_open = newline.is_none();
                *rest = after;
                continue;
            }
            if std::mem::take(&mut self.awaits_header) {
                self.advance(rest, after, newline.is_none());
                self.read_header(line, plan, tally);
                continue;
            }
            if self.is_unusable {
                return Outcome::Counted;
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let is_blank = line.is_empty();
            let counted = if is_blank {
                Ok(Outcome::Counted)
            } else {
                counter.count(line, read_at, &mut self.format, plan)
            };
            if let Ok(Outcome::Full) = counted {
                return Outcome::Full;
            }
            self.advance(rest, after, newline.is_none());
            tally.lines += 1;
            match counted {
                Ok(_) if is_blank => tally.blank += 1,
                Ok(_) => tally.counted += 1,
                Err(reject) => tally.reject(reject, &self.name, self.position.line, line),
            }
        }
        Outcome::Counted
    }

    /// Moves past a line. Bytes that follow a line without a newline still belong to it.
    #[inline]
    fn advance<'a>(&mut self, rest: &mut &'a [u8], after: &'a [u8], is_open: bool) {
        *rest = after;
        self.position.line += 1;
        self.position.is_open = is_open;
        self.skips_rest = is_open;
    }

    fn read_header(&mut self, line: &[u8], plan: &Plan, tally: &mut Tally) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Err(error) = self.format.read_header(line, &plan.wanted) {
            self.is_unusable = true;
            tally.fail(&self.name, UsageError::from(error).into());
        }
    }
}
