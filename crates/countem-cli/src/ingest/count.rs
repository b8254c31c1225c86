//! The counting thread: lines in, deltas out.

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
use crate::{
    courier::{Order, Parcel},
    ingest::{
        feed::{Event, Resumed},
        format::Format,
        identity::{Identity, Place, Position},
        lines::Block,
        plan::Plan,
        progress::Meters,
        report::Tally,
    },
    stop::Stop,
};

/// How long counts gather before they go to the store.
const FLUSH: Duration = Duration::from_secs(1);

/// How soon a request to stop is noticed while the reading thread waits for input that does not come.
const IDLE: Duration = Duration::from_millis(200);

/// The store takes nothing any more.
struct Gone;

/// Counts the lines of all inputs.
pub(crate) struct Counting {
    plan: Plan,
    /// Whether the store is told how far inputs were counted.
    is_once: bool,
    /// Most counters in one batch.
    most: usize,
    inputs: HashMap<usize, InputState>,
    line: LineCounter,
    /// The input whose lines are in the table, and whose position the next batch sets.
    unsaved: Option<usize>,
    flushed: Instant,
    orders: mpsc::Sender<Order>,
    meters: Arc<Meters>,
    stop: Arc<Stop>,
    tally: Tally,
}

/// Where counting stands in one input.
struct InputState {
    name: Arc<str>,
    format: Format,
    position: Position,
    identity: Identity,
    resumed: Option<Place>,
    awaits_header: bool,
    /// The rest of a line that was counted without its end.
    skips_rest: bool,
    /// Its header lacks a wanted column.
    is_useless: bool,
}

impl Counting {
    /// Prepares to count as `plan` says, in batches of up to `most` counters.
    pub(crate) fn new(
        plan: Plan,
        is_once: bool,
        most: usize,
        orders: mpsc::Sender<Order>,
        meters: Arc<Meters>,
        stop: Arc<Stop>,
    ) -> Self {
        let line = LineCounter::new(&plan);
        let tally = Tally::new(plan.wanted.clone());
        let (inputs, unsaved, flushed) = (HashMap::new(), None, Instant::now());
        Self { plan, is_once, most, inputs, line, unsaved, flushed, orders, meters, stop, tally }
    }

    /// Counts all that is fed and returns what became of it. `spare` takes back the memory of the blocks.
    pub(crate) fn run(mut self, events: Receiver<Event>, spare: Sender<Vec<u8>>) -> Tally {
        loop {
            let done = match events.recv_timeout(IDLE) {
                Ok(event) => self.take(event, &spare),
                // The reading thread may wait for ever, for a terminal or a pipe.
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => Err(Gone),
                Err(RecvTimeoutError::Timeout) => self.flush_if_due(),
                Err(RecvTimeoutError::Disconnected) => Err(Gone),
            };
            if done.is_err() {
                break;
            }
        }
        // When the store takes nothing any more, its side knows why.
        self.flush().ok();
        self.tally
    }

    fn take(&mut self, event: Event, spare: &Sender<Vec<u8>>) -> Result<(), Gone> {
        match event {
            Event::Find { head, reply } => {
                self.flush()?;
                self.orders.blocking_send(Order::Find { head, reply }).map_err(|_| Gone)?;
            }
            Event::Begin { input, name, resumed } => {
                self.begin(input, name, resumed.map(|resumed| *resumed));
            }
            Event::Lines { input, block, read_at } => {
                self.switch_to(input)?;
                self.count(input, &block, read_at)?;
                // Without a reader there is nobody to fill it again.
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
            identity: Identity::default(),
            resumed: None,
            awaits_header: self.plan.format.has_header(),
            skips_rest: false,
            is_useless: false,
        };
        self.tally.inputs += 1;
        if let Some(resumed) = resumed {
            if std::mem::take(&mut state.awaits_header) {
                state.read_header(without_byte_order_mark(&resumed.first_line), &self.plan, &mut self.tally);
            }
            self.tally.skipped += resumed.position.offset;
            state.skips_rest = resumed.position.is_open;
            state.position = resumed.position;
            state.identity = resumed.identity;
            state.resumed = Some(resumed.place);
        }
        self.inputs.insert(input, state);
    }

    /// A batch tells the position of one input, so the counts of another one go first.
    fn switch_to(&mut self, input: usize) -> Result<(), Gone> {
        if self.is_once && self.unsaved.is_some_and(|unsaved| unsaved != input) {
            self.flush()?;
        }
        self.unsaved = Some(input);
        Ok(())
    }

    fn count(&mut self, input: usize, block: &Block, read_at: Timestamp) -> Result<(), Gone> {
        let bytes = block.bytes();
        let mut rest = bytes;
        while let Some(state) = self.inputs.get_mut(&input) {
            self.unsaved = Some(input);
            let begin = rest;
            let ended = state.count(&mut rest, read_at, &self.plan, &mut self.line, &mut self.tally);
            state.position.offset = block.offset + (bytes.len() - rest.len()) as u64;
            if self.is_once {
                state.identity.advance(&begin[..begin.len() - rest.len()]);
            }
            match ended {
                Outcome::Counted => break,
                Outcome::Full => self.flush()?,
            }
        }
        self.meters.lines.store(self.tally.lines, Ordering::Relaxed);
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), Gone> {
        if self.line.counters() >= self.most {
            return self.flush();
        }
        // While the store is busy, counts of known counters cost no memory: gather on.
        if self.flushed.elapsed() >= FLUSH && self.orders.capacity() > 0 { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.flushed = Instant::now();
        let unsaved = self.unsaved.take().filter(|_| self.is_once);
        let progress = unsaved.and_then(|input| {
            // What could not be counted for want of a column is to be counted when there is one.
            let state = self.inputs.get(&input).filter(|state| !state.is_useless)?;
            Some((input, state.resumed, state.identity.progress(state.position)?))
        });
        if self.line.counters() == 0 && progress.is_none() {
            return Ok(());
        }
        let deltas = self.line.drain();
        self.orders.blocking_send(Order::Store(Parcel { deltas, progress })).map_err(|_| Gone)
    }
}

/// Takes off what editors and spreadsheets put before the first line to say that a text is UTF-8.
fn without_byte_order_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

impl InputState {
    /// Counts the lines of `rest` and takes them off it, until all are counted or the table has to be emptied.
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
            if self.is_useless {
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

    /// Leaves a line behind. What follows a line without a newline still belongs to it.
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
            self.is_useless = true;
            tally.fail(&self.name, error);
        }
    }
}
