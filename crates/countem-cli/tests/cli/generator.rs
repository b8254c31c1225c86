//! Access log lines, together with their counters.

use std::{collections::BTreeMap, fmt::Write};

use crate::harness::Counters;

/// A log and its counters, which are added up while it is written.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) text: String,
    pub(crate) lines: i64,
    /// Day to `METHOD STATUS` to number.
    pub(crate) by_status: BTreeMap<String, Counters>,
    /// Day to path to number.
    pub(crate) by_path: BTreeMap<String, Counters>,
    /// Day to the sum of all bytes.
    pub(crate) bytes: BTreeMap<String, i64>,
}

/// A small random number generator: the same log for the same seed, on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

impl Log {
    /// Makes a log of `lines` lines over four days, with `paths` different paths.
    pub(crate) fn new(seed: u64, lines: usize, paths: usize) -> Self {
        let mut dice = Dice::new(seed);
        let mut log = Self::default();
        for at in 0..lines {
            log.add(&mut dice, at * 4 / lines.max(1), paths);
        }
        log
    }

    /// Returns the sum over all days.
    pub(crate) fn total(&self) -> i64 {
        self.by_status.values().flat_map(Counters::values).sum()
    }

    fn add(&mut self, dice: &mut Dice, day: usize, paths: usize) {
        let host = dice.pick(&["10.0.0.1", "2001:db8::7", "crawler.example.org", "-"]);
        let user = dice.pick(&["-", "-", "jo", "jo doe", "[x] y", "-"]);
        let method = dice.pick(&["GET", "GET", "GET", "POST", "HEAD", "OPTIONS"]);
        let status = dice.pick(&["200", "200", "200", "301", "304", "404", "500"]);
        let path =
            format!("/page/{}{}", dice.roll(paths), dice.pick(&["", "/é", "/a b", "%20", "/\\\"q\\\""]));
        let query = dice.pick(&["", "", "?", "?q=1&r=a?b"]);
        let protocol = dice.pick(&[" HTTP/1.1", " HTTP/1.0", ""]);
        let size = dice.roll(5000);
        let bytes = if size < 500 { "-".to_owned() } else { size.to_string() };
        let referer = dice.pick(&["-", "http://example.org/?a=\\\"b\\\"", "", "x \\\\"]);
        let agent = dice.pick(&["-", "Mozilla/5.0 (X11; \\\"quoted\\\")", "", "curl\t8"]);
        // The same moment, written at different offsets.
        let (hour, minute, second) = (dice.roll(20) + 2, dice.roll(60), dice.roll(60));
        let (ahead, offset) = [(0, "+0000"), (2, "+0200"), (-1, "-0100")][dice.roll(3)];
        let hour = i64::try_from(hour).unwrap() + ahead;
        let (carry, hour) = (hour.div_euclid(24), hour.rem_euclid(24));
        let written_day = 17 + i64::try_from(day).unwrap() + carry;
        // A target with a space needs a protocol to show where it ends.
        let protocol = if path.contains(' ') && protocol.is_empty() { " HTTP/1.1" } else { protocol };
        let time = format!("{written_day:02}/May/2015:{hour:02}:{minute:02}:{second:02} {offset}");
        writeln!(
            self.text,
            "{host} - {user} [{time}] \"{method} {path}{query}{protocol}\" {status} {bytes} \"{referer}\" \"{agent}\""
        )
        .unwrap();

        let day = format!("2015-05-{:02}", 17 + day);
        *self.by_status.entry(day.clone()).or_default().entry(format!("{method} {status}")).or_default() += 1;
        *self.by_path.entry(day.clone()).or_default().entry(path).or_default() += 1;
        *self.bytes.entry(day).or_default() += bytes.parse().unwrap_or(0);
        self.lines += 1;
    }
}
