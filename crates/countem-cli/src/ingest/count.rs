//! The counting thread: turns lines into deltas.

mod line;
mod preview;
mod recount;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use countem_core::Mark;
use countem_lines::{Format, Reject};
use jiff::Timestamp;
use memchr::{memchr, memchr_iter};
use tokio::sync::mpsc;

use self::line::{LineCounter, Outcome};
pub(crate) use self::{line::Changes, preview::Preview, recount::Recount};

use crate::{
    exit::UsageError,
    ingest::{
        delivery::{Counts, FileMark, Request},
        feed::{Event, Start},
        fingerprint::Position,
        identity::{Claim, LeftOut},
        lines::Block,
        plan::Plan,
        report::Tally,
    },
    progress::Meters,
    stop::Stop,
};

/// Time for which counts gather before they go to the store.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Size of a batch with a mark: a store may have to keep it in one document.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Interval at which a stop is noticed while the reading thread waits for input.
const STOP_POLL: Duration = Duration::from_millis(200);

/// The delivery has ended, so counting ends too.
struct DeliveryEnded;

/// Counts the lines of all inputs.
pub(crate) struct Counting {
    plan: Plan,
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
    /// The mark of the input, `None` without `--once`.
    claim: Option<Box<Claim>>,
    /// The position from which each template counts.
    starts: Vec<u64>,
    /// Each template has counted a line of this input.
    has_counted: Vec<bool>,
    awaits_header: bool,
    /// The next bytes are the rest of a line that was counted before it had ended, or the next piece of a longer one.
    skips_rest: bool,
    /// The file has directives, so that its times are in UTC.
    is_utc: bool,
    /// The header lacks a wanted column, so no line can be counted.
    is_unusable: bool,
}

impl Counting {
    /// Returns a counter of lines for `plan` that sends batches of up to `batch_counters` counters.
    pub(crate) fn new(
        plan: Plan,
        batch_counters: usize,
        requests: mpsc::Sender<Request>,
        meters: Arc<Meters>,
        stop: Arc<Stop>,
    ) -> Self {
        let line = LineCounter::new(&plan);
        let tally = Tally::new(plan.wanted.clone());
        let (inputs, unsaved, flushed) = (HashMap::new(), None, Instant::now());
        Self { plan, batch_counters, inputs, line, unsaved, flushed, requests, meters, stop, tally }
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
        self.tally.changes = self.line.changes;
        self.tally
    }

    fn take(&mut self, event: Event, spare: &Sender<Vec<u8>>) -> Result<(), DeliveryEnded> {
        match event {
            Event::FindMarks { prefixes, reply } => {
                self.flush()?;
                let request = Request::FindMarks { prefixes, reply };
                self.requests.blocking_send(request).map_err(|_| DeliveryEnded)?;
            }
            Event::Begin { input, start, claim } => {
                let is_due = claim.as_ref().is_some_and(|claim| claim.is_due);
                self.begin(input, start, claim);
                self.switch_to(input)?;
                if is_due {
                    self.flush()?;
                }
            }
            Event::Lines { input, block, read_at } => {
                self.switch_to(input)?;
                self.count(input, &block, read_at)?;
                // Fails when the reading thread has ended.
                spare.send(block.memory).ok();
            }
            Event::End { input } => {
                if self.is_once(input) {
                    self.flush()?;
                }
                self.inputs.remove(&input);
            }
            Event::Failed { name, error } => self.tally.fail(&name, error),
            Event::LeftOut { name, why: LeftOut::Copy } => self.tally.copies.push(name),
            Event::LeftOut { name, why: LeftOut::Lagging } => self.tally.lagging.push(name),
            Event::CaughtUp { name } => {
                if let Some(at) = self.tally.lagging.iter().position(|lagging| *lagging == name) {
                    self.tally.lagging.remove(at);
                }
            }
        }
        self.flush_if_due()
    }

    fn begin(&mut self, input: usize, start: Start, claim: Option<Box<Claim>>) {
        let counters = &self.plan.counters;
        let of = |counter: &String| claim.as_ref().map_or(0, |claim| claim.value.of(counter).offset);
        let starts = counters.iter().map(of).collect();
        if claim.is_some() {
            self.line.keep_sums();
        }
        self.tally.inputs += 1;
        self.tally.skipped += start.position.offset;
        let state = InputState::at(&start, &self.plan, &mut self.tally);
        self.inputs.insert(input, InputState { starts, claim, ..state });
    }

    fn is_once(&self, input: usize) -> bool {
        self.inputs.get(&input).is_some_and(|state| state.claim.is_some())
    }

    /// Flushes the counts of another input: a batch carries the mark of one input only.
    fn switch_to(&mut self, input: usize) -> Result<(), DeliveryEnded> {
        if self.unsaved.is_some_and(|unsaved| unsaved != input && self.is_once(unsaved)) {
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
            let offset = block.offset + (bytes.len() - rest.len()) as u64;
            // Up to the next position from which a further template counts.
            let until = self.line.count_from(offset, &state.starts);
            let len = usize::try_from(until - offset).unwrap_or(usize::MAX).min(rest.len());
            let (mut part, after) = rest.split_at(len);
            let (begin, counted) = (part, self.line.counted().to_vec());
            let ended = state.count(&mut part, read_at, &self.plan, &mut self.line, &mut self.tally);
            let taken = &begin[..begin.len() - part.len()];
            if let Some(claim) = &mut state.claim {
                // NUL bytes that no line follows yet may be overwritten with lines.
                let end = taken.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
                if end > 0 {
                    state.position.offset = offset + end as u64;
                    claim.fingerprint.advance(offset, &taken[..end]);
                }
                let counts = self.line.counted().iter().zip(&counted).map(|(now, before)| now > before);
                state.has_counted.iter_mut().zip(counts).for_each(|(has, now)| *has |= now);
            }
            rest = &rest[taken.len()..];
            match ended {
                Part::Whole if after.is_empty() => break,
                Part::Whole => {}
                Part::Full => self.flush()?,
            }
        }
        self.meters.handled.store(self.tally.lines, Ordering::Relaxed);
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), DeliveryEnded> {
        let is_large = || self.line.batch_bytes() >= MAX_BATCH_BYTES;
        let has_mark = self.unsaved.is_some_and(|input| self.is_once(input));
        if self.line.counters() >= self.batch_counters || has_mark && is_large() {
            return self.flush();
        }
        // While the store is busy, further counts of known counters cost no memory.
        let is_due = self.flushed.elapsed() >= FLUSH_INTERVAL && self.requests.capacity() > 0;
        if is_due { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DeliveryEnded> {
        self.flushed = Instant::now();
        let (counters, sums) = (&self.plan.counters, self.line.take_sums());
        let unsaved = self.unsaved.take().and_then(|input| self.inputs.get_mut(&input));
        let mark = unsaved.and_then(|state| state.mark(counters, &sums));
        if self.line.counters() == 0 && mark.is_none() {
            return Ok(());
        }
        let deltas = self.line.drain();
        self.tally.cover(&deltas, &self.plan.schedules);
        let counts = Counts { deltas, mark };
        self.requests.blocking_send(Request::Store(counts)).map_err(|_| DeliveryEnded)
    }
}

/// End of counting a part of a block.
enum Part {
    /// Every line is counted.
    Whole,
    /// The table has to be drained before the next line.
    Full,
}

/// Strips a UTF-8 byte order mark.
fn without_byte_order_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

impl InputState {
    /// Returns the state at the beginning of an input.
    fn new(name: Arc<str>, plan: &Plan) -> Self {
        Self {
            name,
            format: plan.format.clone(),
            position: Position::default(),
            claim: None,
            starts: vec![0; plan.counters.len()],
            has_counted: vec![false; plan.counters.len()],
            awaits_header: plan.format.has_header(),
            skips_rest: false,
            is_utc: false,
            is_unusable: false,
        }
    }

    /// Returns the state at `start`.
    fn at(start: &Start, plan: &Plan, tally: &mut Tally) -> Self {
        let mut state = Self {
            position: start.position,
            skips_rest: start.skips_rest,
            is_utc: start.directive.is_some(),
            ..Self::new(Arc::clone(&start.name), plan)
        };
        if start.position.offset > 0 && std::mem::take(&mut state.awaits_header) {
            state.read_header(without_byte_order_mark(&start.first_line), plan, tally);
        }
        if let Some(directive) = &start.directive {
            state.format.read_directive(directive);
        }
        state
    }

    /// Returns the mark for the position, `None` where it has not moved. A template that has counted no line of the input stays
    /// where it was, so that a mistake in it loses nothing. `sums` are those of the templates since the last mark.
    fn mark(&mut self, counters: &[String], sums: &[u64]) -> Option<FileMark> {
        let claim = self.claim.as_mut()?;
        let mut is_due = std::mem::take(&mut claim.is_due);
        let counted = counters.iter().zip(sums).zip(&self.has_counted);
        for ((counter, sum), _) in counted.filter(|(_, has_counted)| **has_counted) {
            if claim.value.of(counter) < self.position {
                claim.value.add(counter, *sum);
                claim.value.counted.insert(counter.clone(), self.position);
                is_due = true;
                if claim.value.position < self.position {
                    claim.value.position = self.position;
                    claim.value.sums = claim.fingerprint.sums();
                }
            }
        }
        is_due.then(|| {
            let text = claim.value.to_text();
            let expected = claim.stored.replace(text.clone());
            let mark = Mark { key: claim.key.clone(), expected, value: Some(text) };
            FileMark { mark, name: Arc::clone(&self.name), lock: Arc::clone(&claim.lock) }
        })
    }

    /// Counts the lines of `rest` and removes them, until all are counted or the table has to be drained.
    fn count(
        &mut self,
        rest: &mut &[u8],
        read_at: Timestamp,
        plan: &Plan,
        counter: &mut LineCounter,
        tally: &mut Tally,
    ) -> Part {
        while !rest.is_empty() {
            if rest[0] == 0 && !self.skips_rest {
                // A writer that went on where it was in a file that was truncated leaves a hole.
                let hole = rest.iter().position(|&byte| byte != 0).unwrap_or(rest.len());
                tally.nuls += hole as u64;
                *rest = &rest[hole..];
                continue;
            }
            let newline = match self.format.joins_lines() && !self.skips_rest {
                true => Format::record_len(rest).map(|len| len - 1),
                false => memchr(b'\n', rest),
            };
            let (line, after) = match newline {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (*rest, &[][..]),
            };
            let whole = line.len();
            let line = if self.position.line == 0 { without_byte_order_mark(line) } else { line };
            let mark_len = whole - line.len();
            if std::mem::take(&mut self.skips_rest) {
                self.skips_rest = newline.is_none();
                *rest = after;
                continue;
            }
            if std::mem::take(&mut self.awaits_header) {
                self.advance(rest, after, newline.is_none());
                self.read_header(line, plan, tally);
                continue;
            }
            if self.is_unusable {
                *rest = &[];
                return Part::Whole;
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let is_directive = Format::is_directive(line);
            self.is_utc |= is_directive;
            counter.set_utc(self.is_utc);
            let mut counted = match line {
                [] => Err(Reject::Directive),
                line if is_directive => {
                    self.format.read_directive(line);
                    Err(Reject::Directive)
                }
                line => counter.count(line, read_at, &mut self.format, plan),
            };
            let mut joined = None;
            if let Err(Reject::Joined(end)) = counted {
                joined = Some(end);
                counted = counter.count(&line[..end], read_at, &mut self.format, plan);
            }
            if let Ok(Outcome::Full) = counted {
                return Part::Full;
            }
            match joined {
                // The next record begins on the same line.
                Some(end) => *rest = &rest[mark_len + end..],
                None => self.advance(rest, after, newline.is_none()),
            }
            tally.lines += 1;
            match counted {
                Ok(Outcome::Counted(templates)) => {
                    tally.counted += 1;
                    tally.accepted += templates;
                }
                Ok(_) => tally.filtered += 1,
                Err(Reject::Directive) => tally.blank += 1,
                Err(reject) => tally.reject(reject, &self.name, self.position.line, line),
            }
        }
        Part::Whole
    }

    /// Moves past a line. Bytes that follow a line without a newline still belong to it.
    #[inline]
    fn advance<'a>(&mut self, rest: &mut &'a [u8], after: &'a [u8], is_open: bool) {
        let taken = &rest[..rest.len() - after.len()];
        let further =
            if self.format.joins_lines() { memchr_iter(b'\n', taken).skip(1).count() as u64 } else { 0 };
        *rest = after;
        self.position.line += 1 + further;
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
