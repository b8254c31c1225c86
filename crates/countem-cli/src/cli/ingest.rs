//! `countem ingest`

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use countem_lines::{Format as LineFormat, Kind, Template, TimeFormat, Wanted};
use countem_store::Store;

use crate::{
    exit::{Exit, NotFound, UsageError},
    global::Global,
    ingest::{
        count::Counting,
        delivery::Delivery,
        feed::{Feed, Once},
        input::Input,
        plan::{Moment, Plan},
        progress::{self, Meters},
        report::Report,
    },
    output::Format,
    stop::Stop,
    store::{ChangeSchedule, Effective, block_on},
};

/// Count the lines of files, plain or gzip
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct Ingest {
    /// Files to read; `-` or none reads standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Format of a line: combined, common, ndjson or tsv
    #[arg(short, long, value_parser = kinds(), required_unless_present = "regex", hide_possible_values = true)]
    format: Option<Kind>,
    /// Format of a line as a regular expression whose groups are the fields: `(?<status>\d+)`
    #[arg(long, value_name = "PATTERN", conflicts_with = "format")]
    regex: Option<String>,
    /// With tsv: the first line of every file names the columns
    #[arg(long)]
    header: bool,
    /// Counter to which a line adds, such as `web:{method} {status}`; may be given several times
    #[arg(short, long = "count", value_name = "COLLECTION:TEMPLATE", required = true)]
    counts: Vec<String>,
    /// Add the whole number in this field instead of 1
    #[arg(long, value_name = "FIELD")]
    amount: Option<String>,
    /// Field with the time of a line; `time` for access logs and for a group of that name
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
    /// Notation of that time: auto, rfc3339, unix, unix-millis, clf or a strptime pattern such as `%Y-%m-%d %H:%M:%S`
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Count lines at the time they are read
    #[arg(long, conflicts_with_all = ["time_field", "time_format"])]
    now: bool,
    /// Keep reading files that grow, through rotation, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Count every line once, however often the file is given: the store remembers how far each file was counted
    #[arg(long)]
    once: bool,
    /// Count a last line without a newline, too; without --once that is always done
    #[arg(long, requires = "once", conflicts_with = "follow")]
    last_line: bool,
    /// Count only what comes from now on in files that are new to the store
    #[arg(long)]
    from_end: bool,
    #[command(flatten)]
    change: ChangeSchedule,
}

/// Maximum time that the store may be away before a run fails. With `--follow` it is unlimited.
const STORE_OUTAGE_TIMEOUT: Duration = Duration::from_secs(300);

const AFTER: &str = "\
Fields of combined and common: host ident user time request method target path
query protocol status bytes, and of combined also referer agent; one that a line
lacks reads `-`. Fields of ndjson are keys or JSON pointers as in {/user/id}, of
tsv numbers from {1} or the names of the header, of --regex its groups. `{{` and
`}}` are single braces.

A line that cannot be counted is left out, the report gives the reason, and the exit
code is 6. NUL bytes before a line, which a truncation leaves, are skipped and
reported. Ctrl-C and SIGTERM store what was counted: exit code 0 with --follow, else
6, because there was more.

--once: a line counts once for each --count (with its --amount and format). What is
one file: its content, wherever it is moved, copied or compressed. A file whose
beginning was counted continues there, unless the counted file is still there, too:
then they are two files. `log.1` that holds the beginning of `log` is a copy of it.

So a file that was emptied, or replaced by one that begins differently, is counted
anew; one that was replaced by a file with all that was counted of it continues, which
content alone cannot tell from a new file that happens to begin so. A last line
without a newline waits for the next run, unless --last-line is given or the file is
compressed, or was rotated away and is idle for five minutes. A run in which a --count
counts no line moves nothing for it. `countem marks` lists what is remembered, `countem
forget` undoes it. Of two runs on one file at the same time one ends with exit code 1.

--follow waits for a missing file. A file that was moved away is read on while another
process has it open, and for five minutes. With --once, what was rotated while nothing
followed is found under names such as log.1, log-20261120 and log.1.gz.

Examples:
  zcat access.log.gz | countem ingest - --format combined --count 'web:{method} {status}'
  countem ingest -f combined --follow --once access.log -c 'pages:{path}'
  countem ingest app.log -f ndjson --time-field ts -c 'app:{level}' -c 'users:{/user/id}'
  countem ingest sales.tsv -f tsv --header --time-field day -c 'sales:{shop}' --amount euros
  countem ingest app.log --regex '^(?<time>\\S+) \\[(?<level>\\w+)\\]' -c 'app:{level}'";

/// Reads the name of a format.
fn kinds() -> impl TypedValueParser<Value = Kind> {
    let values = Kind::ALL.map(|(_, name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(values).try_map(|text| {
        let known = Kind::ALL.into_iter().find(|(_, name, _)| *name == text);
        known.map(|(kind, ..)| kind).ok_or("no such format")
    })
}

impl Ingest {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        let mut plan = self.plan(&effective)?;
        let inputs = self.inputs()?;
        let total = total_size(&inputs, self.follow)?;
        let output = global.output;
        let report = block_on(async {
            let (store, schedules) = effective.open_writer(&self.change).await?;
            plan.schedules = schedules;
            store.check().await?;
            if self.once {
                // A store that cannot keep marks is refused before anything is counted.
                store.marks("file/-").await?;
            }
            let shows = !global.quiet && io::stderr().is_terminal();
            self.count(plan, inputs, &effective, store, shows.then_some(total)).await
        })?;
        let mut written = Ok(());
        if output != Format::Table {
            written = report.write(output, &mut io::stdout().lock());
        } else if !global.quiet {
            // The numbers are in the store even if standard error is closed.
            report.write(output, &mut io::stderr().lock()).ok();
        }
        match written {
            // A message without the stored numbers would suggest counting again.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let unread = format!("{}, but the report cannot be written: {error}", report.stored());
                match report.exit() {
                    Ok(_) => Err(anyhow!(unread)),
                    Err(failure) => Err(failure.context(unread)),
                }
            }
            _ => report.exit(),
        }
    }

    fn plan(&self, effective: &Effective) -> Result<Plan> {
        let mut wanted = Wanted::default();
        let templates = self.counts.iter().map(|text| Template::parse(text, &mut wanted));
        let templates = templates.collect::<Result<Vec<_>, _>>().map_err(UsageError::from)?;
        let amount = self.amount.as_ref().map(|field| wanted.index_of(field));
        let moment = self.moment(&mut wanted)?;
        let format = match (&self.regex, self.format) {
            (Some(pattern), _) => LineFormat::regex(pattern, &wanted),
            (None, Some(kind)) => LineFormat::new(kind, self.header, &wanted),
            (None, None) => unreachable!("the flags require one of them"),
        };
        let format = format.map_err(UsageError::from)?;
        let counters = self.counts.iter().map(|text| self.counter(text)).collect();
        Ok(Plan {
            format,
            templates,
            counters,
            wanted,
            moment,
            amount,
            schedules: Arc::clone(&effective.schedules),
        })
    }

    /// Returns a counter as marks name it: `--count` with all flags that decide about what it counts. Times are not among
    /// them: a correction of a time format is no new counter.
    fn counter(&self, count: &str) -> String {
        let mut text = match (&self.regex, self.format) {
            (Some(pattern), _) => format!("--regex {pattern}"),
            (None, format) => {
                let named = Kind::ALL.into_iter().find(|(kind, ..)| Some(*kind) == format);
                format!("-f {}", named.map_or("", |(_, name, _)| name))
            }
        };
        text += if self.header { " --header" } else { "" };
        if let Some(amount) = &self.amount {
            text += &format!(" --amount {amount}");
        }
        text + " -c " + count
    }

    fn moment(&self, wanted: &mut Wanted) -> Result<Moment> {
        if self.now {
            return Ok(Moment::Now);
        }
        let is_log = matches!(self.format, Some(Kind::Combined | Kind::Common));
        let has_time = self.regex.as_ref().is_some_and(|regex| LineFormat::regex_has_group(regex, "time"));
        let field = match &self.time_field {
            Some(field) => field,
            None if is_log || has_time => "time",
            None => {
                let advice = "name its field with `--time-field`, or count it now with `--now`";
                return Err(UsageError::new(format!("when was a line written? {advice}")).into());
            }
        };
        let format = match &self.time_format {
            Some(format) => TimeFormat::parse(format).map_err(UsageError::from)?,
            None if is_log && field == "time" => TimeFormat::Clf,
            None => TimeFormat::Auto,
        };
        Ok(Moment::Field(wanted.index_of(field), format))
    }

    fn inputs(&self) -> Result<Vec<Input>> {
        let files = if self.files.is_empty() { &[PathBuf::from("-")][..] } else { &self.files };
        let inputs: Vec<_> = files.iter().map(|file| Input::new(file)).collect();
        let reads_stdin = inputs.contains(&Input::Stdin);
        for (is_given, flag, why) in [
            (self.follow, "--follow", "does not grow"),
            (self.once, "--once", "cannot be recognised"),
            (self.from_end, "--from-end", "has no end that is known"),
        ] {
            if is_given && reads_stdin {
                return Err(UsageError::new(format!("`{flag}` needs a file: standard input {why}")).into());
            }
        }
        if self.files.is_empty() && io::stdin().is_terminal() {
            return Err(UsageError::new("name a file, or `-` to read from this terminal").into());
        }
        Ok(inputs)
    }

    /// Counts `inputs` on a reading and a counting thread, and delivers the counts from this one.
    async fn count(
        &self,
        plan: Plan,
        inputs: Vec<Input>,
        effective: &Effective,
        store: Arc<dyn Store>,
        shows: Option<Option<u64>>,
    ) -> Result<Report> {
        const BLOCKS: usize = 4;
        let began = Instant::now();
        let (stop, meters) = (Arc::new(Stop::default()), Arc::new(Meters::default()));
        let signalled = Arc::clone(&stop);
        tokio::spawn(async move { signalled.at_signals().await });

        let once =
            self.once.then(|| Once { counters: plan.counters.clone(), counts_last_line: self.last_line });
        let (location, config) = (store.location(), &effective.engine);
        let schedules = Arc::clone(&plan.schedules);
        let (events, fed) = mpsc::sync_channel(BLOCKS);
        let (used, spare) = mpsc::channel();
        let (requests, received) = tokio::sync::mpsc::channel(1);
        let meter = Arc::clone(&meters.bytes);
        let feed =
            Feed { events, spare, stop: Arc::clone(&stop), meter, once, from_end: self.from_end, inputs: 0 };
        let (meters_seen, stop_seen) = (Arc::clone(&meters), Arc::clone(&stop));
        let counting = Counting::new(plan, config.batch_counters, requests, meters_seen, stop_seen);
        let follows = self.follow;
        // The reading thread is not joined: it may wait for input that never comes.
        spawn("countem-read", move || if follows { feed.follow(inputs) } else { feed.all(&inputs) })?;
        let counting = spawn("countem-count", move || counting.run(fed, used))?;
        let bar = shows.map(|total| tokio::spawn(progress::show(meters, total)));

        let timeout = (!self.follow).then_some(STORE_OUTAGE_TIMEOUT);
        let delivery = Delivery::new(store, schedules, config, timeout);
        let delivered = delivery.run(received, &stop).await;
        let interrupted = stop.is_set() && !self.follow;
        // The counting thread ends once its requests are refused.
        let tally = counting.join().map_err(|_| anyhow!("the counting thread panicked"))?;
        if let Some(bar) = bar {
            bar.abort();
            // Ends as cancelled, after its line was cleared.
            bar.await.ok();
        }
        let took = began.elapsed();
        Ok(Report { tally, delivered, store: location, took, interrupted })
    }
}

/// Checks that all inputs can be read before anything is counted, and returns their size where that is known.
///
/// A missing file is an error, unless it `may_be_missing`.
fn total_size(inputs: &[Input], may_be_missing: bool) -> Result<Option<u64>> {
    let size = |input: &Input| match input.check() {
        Err(error) if may_be_missing && error.is::<NotFound>() => {
            tracing::warn!(input = &*input.name(), "waiting for a file that is missing");
            Ok(None)
        }
        size => size,
    };
    let sizes = inputs.iter().map(size).collect::<Result<Vec<_>>>()?;
    Ok(sizes.into_iter().sum())
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")
}
