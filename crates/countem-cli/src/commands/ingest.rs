//! `countem ingest`

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use countem_core::Bucket;
use countem_lines::{Filter, Format as LineFormat, Kind, Template, TimeFormat, Wanted};
use countem_query::Reader;
use countem_store::{MemoryStore, Store, remove_expired};
use jiff::tz::TimeZone;

use crate::{
    commands::{all, correction::user},
    exit::{Exit, NotFound, UsageError},
    global::Global,
    ingest::{
        count::{Counting, Preview},
        delivery::Delivery,
        feed::{Feed, Once},
        plan::{Moment, Plan},
        report::Report,
        undo,
    },
    input::Input,
    output::{Format, say},
    progress::{Bar, Goal, Meters},
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
    /// Format of a line: combined, common, ndjson, journald, logfmt, syslog, w3c, csv, tsv, or auto to recognise it
    #[arg(short, long, value_parser = kinds(), hide_possible_values = true)]
    format: Option<Choice>,
    /// Format string of the server: nginx's `log_format` or Apache's `LogFormat`
    #[arg(long, value_name = "STRING", conflicts_with_all = ["format", "regex"])]
    log_format: Option<String>,
    /// Format of a line as a regular expression whose groups are the fields: `(?<status>\d+)`
    #[arg(long, value_name = "PATTERN", conflicts_with = "format")]
    regex: Option<String>,
    /// With csv and tsv: the first line of every file names the columns
    #[arg(long)]
    header: bool,
    /// Counter to which a line adds, such as `web:{method} {status}`; may be given several times
    #[arg(short, long = "count", value_name = "COLLECTION:TEMPLATE", required = true)]
    counts: Vec<String>,
    /// Count only lines with `field=value`, `field!=value`, `field~regex`, `field<number` or `field>number`; may be given several times
    #[arg(long = "where", value_name = "CONDITION")]
    filters: Vec<String>,
    /// Add the whole number in this field instead of 1
    #[arg(long, value_name = "FIELD")]
    amount: Option<String>,
    /// Field with the time of a line, or two as in `date time`; by default `time` for access logs and a group of that name
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
    /// Notation of that time: auto, rfc3339, unix, unix-millis, unix-micros, unix-nanos, clf or a strptime pattern such as `%Y-%m-%d %H:%M:%S`
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Time zone of times without an offset; by default that of the store, and UTC for w3c
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    input_zone: Option<TimeZone>,
    /// Year of times without one; by default the year that brings a line nearest to now
    #[arg(long, value_name = "YEAR", value_parser = year)]
    year: Option<i16>,
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
    /// Take back what --once has counted of the files by the same flags, and forget it
    #[arg(long, conflicts_with_all = ["once", "follow", "from_end", "now"])]
    undo: bool,
    /// Count only what comes from now on in files that are new to the store
    #[arg(long)]
    from_end: bool,
    /// Show the first ten lines: their fields, and the names and buckets that they count; store nothing
    #[arg(long, conflicts_with_all = ["print", "follow", "once", "from_end", "undo"])]
    dry_run: bool,
    /// Print the counters at the end, as `countem all` does; store nothing
    #[arg(long, conflicts_with_all = ["follow", "once", "undo"])]
    print: bool,
    #[command(flatten)]
    change: ChangeSchedule,
}

const NO_FORMAT: &str = "in which format are the lines? name it with `--format` (`--format auto` recognises it), `--log-format` or `--regex`";

/// Bytes of the first file by which `--format auto` recognises a format.
const SAMPLE: u64 = 64 << 10;

/// Maximum time that the store may be away before a run fails. With `--follow` it is unlimited.
const STORE_OUTAGE_TIMEOUT: Duration = Duration::from_secs(300);

const AFTER: &str = "\
Fields of combined and common: vhost host ident user time request method target path
query protocol status bytes, and of combined also referer agent; one that a line
lacks reads `-`. Fields of ndjson are keys or JSON pointers as in {/user/id}, of
logfmt keys, of csv and tsv numbers from {1} or the names of the header, of w3c those of
#Fields, of --log-format its variables under the names above, of --regex its groups.
`{{` and `}}` are single braces. Functions: {path|path_prefix(2)}, {method|lower},
{status|status_class} (2xx), {host|ip_prefix} (/24, /48).

A value becomes part of a name as it is; an empty one is `-`, control and other bytes
that are no UTF-8 are \\xNN, and a name beyond 512 bytes is cut and ends in a hash. A
--count that needs a field which a line lacks skips that line and is reported. Numbers
as times are seconds from 1e8, ms from 1e11, µs from 1e14 and ns from 1e17, up to 2286.
A record of csv may have several lines, up to 1 MiB.

A line that cannot be counted is left out, the report gives the reason, and the exit
code is 6. NUL bytes before a line, which a truncation leaves, are skipped and
reported. Ctrl-C and SIGTERM store what was counted: exit code 0 with --follow, else
6, because there was more.

--once: a line counts once for each --count (with its --amount and format). What is
one file: its content, wherever it is moved, copied or compressed. A file whose
beginning was counted continues there. Unless the counted file is still there, too, in
its folder or its run: these are two. `log.1` with the beginning of `log` is a copy.

A file that is the beginning of what was counted of a longer one may be a copy that lags
behind: it is left out, with exit code 6, until it is longer or shows a difference.
Unless it is the counted file itself, emptied, or that one is there, moved, in its
folder or its run. If it is another file, `countem forget FILE` lets it be counted.

So a file that was emptied, or replaced by one that begins differently, is counted
anew; one that was replaced by a file with all that was counted of it continues, which
content alone cannot tell from a new file that happens to begin so. A last line
without a newline waits for the next run, unless --last-line is given or the file is
compressed, or was rotated away and is idle for five minutes. A run in which a --count
counts no line moves nothing for it. `countem marks` lists what is remembered, `countem
forget` undoes it. Of two runs on one file at the same time one ends with exit code 1.

--undo FILE takes back what was counted of a file: it is read once more, to where it was
counted, by the same flags, also those for times. A file without the counted lines, or
flags that count them otherwise, are refused. After a kill, the same command goes on, and
until then the file is not counted. Counts that were dropped from the quarantine, or
renamed or deleted since, are taken off from where they were counted all the same.

--follow waits for a missing file. A file that was moved away is read on while another
process has it open, and for five minutes. With --once, what was rotated while nothing
followed, and the copy of a file that is emptied, are found under names such as log.1,
log-20261120 and log.1.gz: the newest that was counted in part, and those after it.

Examples:
  countem ingest access.log -f auto -c 'web:{method} {status}' --dry-run
  zcat access.log.gz | countem ingest - --format combined --count 'web:{method} {status}'
  countem ingest -f combined --follow --once access.log -c 'pages:{path}'
  countem ingest app.log -f ndjson --time-field ts -c 'app:{level}' -c 'users:{/user/id}'
  countem ingest sales.tsv -f tsv --header --time-field day -c 'sales:{shop}' --amount euros
  countem ingest app.log --regex '^(?<time>\\S+) \\[(?<level>\\w+)\\]' -c 'app:{level}'";

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The format that the first lines of the first file have.
    Auto,
    Named(Kind),
}

/// Reads the value of `--format`.
fn kinds() -> impl TypedValueParser<Value = Choice> {
    let auto = PossibleValue::new("auto").help("The format that the first lines of the first file have");
    let values = Kind::ALL.map(|(_, name, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(values.into_iter().chain([auto])).map(|text| {
        let known = Kind::ALL.into_iter().find(|(_, name, _)| *name == text);
        known.map_or(Choice::Auto, |(kind, ..)| Choice::Named(kind))
    })
}

fn year(text: &str) -> Result<i16, &'static str> {
    let year = text.parse().ok().filter(|year| (1970..=9999).contains(year));
    year.ok_or("expected a year from 1970 to 9999")
}

fn zone(text: &str) -> Result<TimeZone, String> {
    let known = TimeZone::get(text).ok().filter(|zone| !zone.is_unknown());
    known.ok_or_else(|| "expected an IANA time zone such as `UTC` or `Europe/Berlin`".to_owned())
}

impl Ingest {
    pub(super) fn run(self, global: &Global) -> Result<Exit> {
        let effective = Effective::load(global)?;
        let inputs = self.inputs()?;
        let kind = self.kind(&inputs, global)?;
        let mut plan = self.plan(kind, &effective)?;
        if self.undo {
            effective.require_store()?;
            return block_on(async {
                let (store, schedules) = effective.open_writer(&self.change).await?;
                plan.schedules = schedules;
                let author = user().unwrap_or_else(|| "unknown".to_owned());
                undo::run(&plan, &inputs, &effective, store, &author, global).await
            });
        }
        let total = total_size(&inputs, self.follow)?;
        let output = global.output;
        if self.dry_run {
            return Preview::read(&plan, &inputs[0])?.print(output);
        }
        let (report, all) = block_on(async {
            let (store, schedules) = match self.print {
                true => (Arc::new(MemoryStore::new()) as Arc<dyn Store>, Arc::clone(&effective.schedules)),
                false => effective.open_writer(&self.change).await?,
            };
            let reader = self.print.then(|| Reader::of_store(Arc::clone(&store), Arc::clone(&schedules)));
            plan.schedules = schedules;
            store.check().await?;
            if self.once {
                // A store that cannot keep marks is refused before anything is counted.
                store.marks("file/-").await?;
            }
            let goal = match total {
                _ if self.follow => Goal::Endless,
                Some(total) => Goal::Bytes(total),
                None => Goal::Unknown,
            };
            let expiring = Arc::clone(&store);
            let report = self.count(plan, inputs, &effective, store, (global.quiet, goal)).await?;
            if let Err(error) = remove_expired(&*expiring, countem_core::jiff::Timestamp::now()).await {
                tracing::debug!(%error, "expired buckets stay for now");
            }
            let all = match reader {
                Some(reader) => Some(reader.get_all_counters(Bucket::ALL).await?),
                None => None,
            };
            Ok((report, all))
        })?;
        if let Some(all) = all {
            if !global.quiet {
                report.write(Format::Table, &mut io::stderr().lock()).ok();
            }
            let printed = all::print(Bucket::ALL, &all, output)?;
            return Ok(if let Exit::Ok = report.exit()? { printed } else { Exit::Partly });
        }
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

    /// Returns the format by name, `None` where it is given in another way.
    fn kind(&self, inputs: &[Input], global: &Global) -> Result<Option<Kind>> {
        match self.format {
            Some(Choice::Auto) => {}
            Some(Choice::Named(kind)) => return Ok(Some(kind)),
            None if self.regex.is_some() || self.log_format.is_some() => return Ok(None),
            None => return Err(UsageError::new(NO_FORMAT).into()),
        }
        let name = inputs[0].name();
        if inputs[0] == Input::Stdin {
            let why = "`--format auto` needs a file: standard input is read once; name its format";
            return Err(UsageError::new(why).into());
        }
        let mut sample = Vec::new();
        inputs[0].check()?;
        inputs[0].open(&Arc::default())?.take(SAMPLE).read_to_end(&mut sample)?;
        let kind = Kind::detect(&sample).ok_or_else(|| {
            let known = Kind::ALL.map(|(_, name, _)| name).join(", ");
            UsageError::new(format!("the first lines of `{name}` are in no format that is recognised: name it with `--format` ({known}), `--log-format` or `--regex`"))
        })?;
        if !global.quiet {
            say(format_args!("countem: format {} by the first lines of `{name}`", kind.name()));
        }
        Ok(Some(kind))
    }

    fn plan(&self, kind: Option<Kind>, effective: &Effective) -> Result<Plan> {
        let mut wanted = Wanted::default();
        let templates = self.counts.iter().map(|text| Template::parse(text, &mut wanted));
        let templates = templates.collect::<Result<Vec<_>, _>>().map_err(UsageError::from)?;
        let amount = self.amount.as_ref().map(|field| wanted.index_of(field));
        let filters = self.filters.iter().map(|text| Filter::parse(text, &mut wanted));
        let filters = filters.collect::<Result<Vec<_>, _>>().map_err(UsageError::from)?;
        let moment = match self.moment(kind, &mut wanted) {
            Ok(moment) => moment,
            // An error of the format comes first: the time is a field of it.
            Err(error) => return Err(self.line_format(kind, &wanted).err().unwrap_or(error)),
        };
        let format = self.line_format(kind, &wanted)?;
        let counters = self.counts.iter().map(|text| self.counter(kind, text)).collect();
        let is_in_utc = kind.is_some_and(Kind::is_in_utc);
        Ok(Plan {
            format,
            templates,
            counters,
            filters,
            wanted,
            moment,
            input_zone: self.input_zone.clone().or_else(|| is_in_utc.then_some(TimeZone::UTC)),
            year: self.year,
            amount,
            schedules: Arc::clone(&effective.schedules),
        })
    }

    fn line_format(&self, kind: Option<Kind>, wanted: &Wanted) -> Result<LineFormat> {
        let format = match (&self.regex, &self.log_format, kind) {
            (Some(pattern), ..) => LineFormat::regex(pattern, wanted),
            (None, Some(text), _) => LineFormat::server(text, wanted),
            (None, None, Some(kind)) => LineFormat::new(kind, self.header, wanted),
            (None, None, None) => return Err(UsageError::new(NO_FORMAT).into()),
        };
        Ok(format.map_err(UsageError::from)?)
    }

    /// Returns a counter as marks name it: `--count` with all flags that decide about what it counts. Times are not among
    /// them: a correction of a time format is no new counter.
    fn counter(&self, kind: Option<Kind>, count: &str) -> String {
        let mut text = match (&self.regex, &self.log_format) {
            (Some(pattern), _) => format!("--regex {pattern}"),
            (None, Some(format)) => format!("--log-format {format}"),
            (None, None) => format!("-f {}", kind.map_or("", Kind::name)),
        };
        for filter in &self.filters {
            text += &format!(" --where {filter}");
        }
        text += if self.header { " --header" } else { "" };
        if let Some(amount) = &self.amount {
            text += &format!(" --amount {amount}");
        }
        text + " -c " + count
    }

    fn moment(&self, kind: Option<Kind>, wanted: &mut Wanted) -> Result<Moment> {
        if self.now {
            return Ok(Moment::Now);
        }
        let written = self.log_format.as_ref().and_then(|text| LineFormat::server_time(text));
        let usual = kind.and_then(Kind::time).or(written.map(|format| ("time", format)));
        let has_time = self.regex.as_ref().is_some_and(|regex| LineFormat::regex_has_group(regex, "time"));
        let field = match (&self.time_field, &usual) {
            (Some(field), _) => field.as_str(),
            (None, Some((field, _))) => *field,
            (None, None) if has_time => "time",
            (None, None) => {
                let advice = "name its field with `--time-field`, or count it now with `--now`";
                return Err(UsageError::new(format!("when was a line written? {advice}")).into());
            }
        };
        let format = match &self.time_format {
            Some(format) => TimeFormat::parse(format).map_err(UsageError::from)?,
            None => usual.filter(|(usual, _)| *usual == field).map_or(TimeFormat::Auto, |(_, format)| format),
        };
        let fields: Vec<_> = field.split_whitespace().map(|name| wanted.index_of(name)).collect();
        if fields.is_empty() {
            return Err(UsageError::new("`--time-field` names no field").into());
        }
        Ok(Moment::Fields(fields, format))
    }

    fn inputs(&self) -> Result<Vec<Input>> {
        let files = if self.files.is_empty() { &[PathBuf::from("-")][..] } else { &self.files };
        let inputs: Vec<_> = files.iter().map(|file| Input::new(file)).collect();
        let reads_stdin = inputs.contains(&Input::Stdin);
        for (is_given, flag, why) in [
            (self.follow, "--follow", "does not grow"),
            (self.once, "--once", "cannot be recognised"),
            (self.undo, "--undo", "cannot be recognised"),
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
        (is_quiet, goal): (bool, Goal),
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
        let feed = Feed {
            events,
            spare,
            stop: Arc::clone(&stop),
            meters: Arc::clone(&meters),
            once,
            from_end: self.from_end,
            follows: self.follow,
            joins_lines: plan.format.joins_lines(),
            inputs: 0,
            named: Vec::new(),
        };
        let (meters_seen, stop_seen) = (Arc::clone(&meters), Arc::clone(&stop));
        let counting = Counting::new(plan, config.batch_counters, requests, meters_seen, stop_seen);
        // The reading thread is not joined: it may wait for input that never comes.
        spawn("countem-read", move || if feed.follows { feed.follow(inputs) } else { feed.all(&inputs) })?;
        let counting = spawn("countem-count", move || counting.run(fed, used))?;
        let bar = Bar::start(is_quiet, &meters, goal, "lines");

        let timeout = (!self.follow).then_some(STORE_OUTAGE_TIMEOUT);
        let delivery = Delivery::new(store, schedules, config, timeout);
        let delivered = delivery.run(received, &stop).await;
        let interrupted = stop.is_set() && !self.follow;
        // Nothing is stored any more. The counting thread may wait for input that never comes.
        stop.set();
        let tally = counting.join().map_err(|_| anyhow!("the counting thread panicked"))?;
        drop(bar);
        let took = began.elapsed();
        Ok(Report { tally, delivered, counts: self.counts.clone(), store: location, took, interrupted })
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
