//! The schedule belongs to the store: writers with another one are refused, readers take it from there.
//!
//! Shows G19.

use crate::harness::{Sandbox, finish};

const BERLIN: [&str; 2] = ["--set", "time.zone=Europe/Berlin"];
const HOURS: [&str; 2] = ["--set", "time.periods=hour"];

fn get(sandbox: &Sandbox, args: &[&str]) -> String {
    sandbox.run(&[&["get", "c", "m"], args].concat()).expect(0).out.trim_end().to_owned()
}

#[test]
fn reader_takes_the_schedule_from_the_store() {
    let sandbox = Sandbox::new();
    let inc =
        |time| sandbox.run(&[&BERLIN[..], &HOURS, &["inc", "c", "m", "--time", time]].concat()).expect(0);
    // In Berlin this is the 18th, whatever the reader is configured to.
    inc("2015-05-17T22:30:00Z");
    inc("2015-05-18T10:00:00Z");
    for settings in [&[][..], &BERLIN, &["--set", "time.zone=Asia/Tokyo", "--set", "time.periods=year"]] {
        let ask = |args: &[&str]| get(&sandbox, &[settings, args].concat());
        assert_eq!(ask(&["--date", "2015-05-18"]), "2", "{settings:?}");
        assert_eq!(ask(&["--bucket", "2015-05-17T22"]), "1");
        assert_eq!(ask(&["--bucket", "2015-05"]), "2");
        assert_eq!(ask(&["--bucket", "all"]), "2");
        let refused = sandbox.run(&[settings, &["get", "c", "m", "--bucket", "2015-05-17T22:30"]].concat());
        assert!(refused.expect(1).err.contains("stores no minute buckets"));
    }
}

#[test]
fn time_that_clocks_showed_twice_needs_its_offset() {
    for (periods, code) in [("hour", 2), ("day", 0)] {
        let sandbox = Sandbox::new();
        let periods = format!("time.periods={periods}");
        let inc = |time| {
            sandbox.run(&[&BERLIN[..], &["--set", &periods, "inc", "c", "m", "--time", time]].concat())
        };
        let ran = inc("2025-10-26T02:30:00").expect(code);
        let advice = "add its offset, as in 2025-10-26T00:30:00Z or 2025-10-26T01:30:00Z";
        assert_eq!(ran.err.contains(advice), code == 2, "{}", ran.err);
        inc("2025-10-26T02:30:00+01:00").expect(0);
        inc("2025-10-26T03:30:00").expect(0);
        inc("2025-10-26T02:30:00+24:00").expect(2);
    }
}

#[test]
fn reader_with_another_schedule_is_told() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m", "--date", "2015-05-17"]).expect(0);
    let zone = "countem: `time.zone` is Europe/Berlin (flag `--set`), but the store is counted by UTC, and read by it\n";
    let periods =
        "countem: `time.periods` is hour (flag `--set`), but the store is counted by day, and read by it\n";
    for command in [&["get", "c"][..], &["all"], &["top", "c"]] {
        let command = [command, &["--date", "2015-05-17"]].concat();
        for (settings, said) in [
            (&BERLIN[..], zone.to_owned()),
            (&HOURS, periods.to_owned()),
            (&[BERLIN, HOURS].concat(), format!("{zone}{periods}")),
            (&["--set", "time.zone=UTC", "--set", "time.periods=day"], String::new()),
            (&[&BERLIN[..], &["-q"]].concat(), String::new()),
        ] {
            let ran = sandbox.run(&[&command, settings].concat()).expect(0);
            assert_eq!(ran.err, said, "{command:?} {settings:?}");
            assert!(ran.out.contains('1'), "{}", ran.out);
        }
    }
    assert_eq!(sandbox.run(&[&["collections"][..], &BERLIN].concat()).expect(0).err, zone);
}

#[test]
fn writer_with_another_schedule_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m", "--date", "2015-05-17"]).expect(0);
    for (settings, has, wants) in [
        (BERLIN, "`UTC`", "`Europe/Berlin`"),
        (HOURS, "`day`", "`hour`"),
        (["--set", "collections.c.periods=hour,day"], "`day` for `c`", "`hour,day`"),
    ] {
        let ran = sandbox.run(&[&["inc", "c", "m"], &settings[..]].concat()).expect(2);
        assert!(ran.err.contains(has) && ran.err.contains(wants), "{}", ran.err);
        assert!(ran.err.contains("--change-schedule"), "{}", ran.err);
        let ran = sandbox.run_on(
            &[&["ingest", "--regex", "(?<m>.*)", "--now", "-c", "c:{m}"], &settings[..]].concat(),
            b"m\n",
        );
        assert!(ran.expect(2).err.contains(wants));
    }
    assert_eq!(get(&sandbox, &["--bucket", "all"]), "1", "nothing was counted");
    // What the store has may be said, or left out.
    sandbox.run(&["inc", "c", "m", "--set", "time.zone=UTC", "--set", "time.periods=day"]).expect(0);
    sandbox.run(&["inc", "c", "m", "--set", "time.zone=store"]).expect(0);
}

#[test]
fn change_of_the_schedule_is_recorded_and_shown() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m", "--date", "2015-05-17"]).expect(0);
    let changing = [&BERLIN[..], &["--set", "time.periods=hour,day", "--change-schedule"]].concat();
    sandbox.run(&[&["inc", "c", "m", "2"], &changing[..]].concat()).expect(0);
    // Again: the newest schedule is the configured one.
    sandbox.run(&[&["inc", "c", "m", "4"], &changing[..]].concat()).expect(0);
    assert_eq!(get(&sandbox, &[]), "6", "today is counted as before");
    let doctor = sandbox.run(&["doctor"]).expect(0).out;
    let eras: Vec<_> = doctor.lines().filter(|line| line.contains("schedule")).collect();
    assert_eq!(eras.len(), 2, "{doctor}");
    assert!(eras[0].ends_with("since beginning UTC day"), "{doctor}");
    assert!(eras[1].contains("T00:00:00Z Europe/Berlin hour,day"), "{doctor}");
    let refused = sandbox.run(&["inc", "c", "m", "--set", "time.zone=UTC"]).expect(2);
    assert!(refused.err.contains("`Europe/Berlin`"), "{}", refused.err);
    let warned = sandbox.run(&["doctor", "--set", "time.zone=UTC"]).expect(0).out;
    assert!(warned.contains("warn  schedule") && warned.contains("counting is refused"), "{warned}");

    // Events around the change, told to a store that knows both eras.
    let since = eras[1].split(' ').find(|word| word.ends_with("T00:00:00Z")).unwrap();
    let since: jiff::Timestamp = since.parse().unwrap();
    for (seconds, n) in [(-86_400, "10"), (-1, "100"), (0, "1000"), (86_400, "10000")] {
        let time = (since + jiff::SignedDuration::from_secs(seconds)).to_string();
        let tsv = ["ingest", "-f", "tsv", "--time-field", "1", "-c", "d:m", "--amount", "2"];
        sandbox.run_on(&tsv, format!("{time}\t{n}\n").as_bytes()).expect(0);
    }
    let day = |seconds| (since + jiff::SignedDuration::from_secs(seconds)).to_string()[..10].to_owned();
    let ask = |bucket: &str| sandbox.run(&["get", "d", "m", "--bucket", bucket]);
    assert_eq!(ask(&day(-86_400)).expect(0).out, "110\n", "the last day of UTC");
    assert_eq!(ask(&day(86_400)).expect(0).out, "10000\n");
    assert_eq!(ask("all").expect(0).out, "11110\n");
    let inside = ask(&day(0)).expect(1);
    assert!(inside.err.contains("the zone of the store changed at"), "{}", inside.err);
    let hour = |seconds| (since + jiff::SignedDuration::from_secs(seconds)).to_string()[..13].to_owned();
    assert_eq!(ask(&hour(0)).expect(0).out, "1000\n");
    let before = ask(&hour(-1)).expect(1);
    assert!(before.err.contains("stores no hour buckets"), "{}", before.err);
}

#[test]
fn concurrent_first_writers_agree_on_one_schedule() {
    for round in 0..20 {
        let sandbox = Sandbox::new();
        let start = |zone| sandbox.start(&["inc", "c", "m", "--set", &format!("time.zone={zone}")]);
        let children = [start("Europe/Berlin"), start("Asia/Tokyo"), start("Europe/Berlin")];
        let codes = children.map(|child| finish(child).code);
        assert!([[0, 2, 0], [2, 0, 2]].contains(&codes), "round {round}: {codes:?}");
        let counted = codes.iter().filter(|code| **code == 0).count();
        assert_eq!(get(&sandbox, &["--bucket", "all"]), counted.to_string());
    }
}

#[test]
fn days_are_named_in_one_way() {
    let sandbox = Sandbox::new();
    sandbox.run(&["inc", "c", "m", "1", "--date", "today"]).expect(0);
    sandbox.run(&["inc", "c", "m", "10", "--date", "yesterday"]).expect(0);
    sandbox.run(&["inc", "c", "m", "100", "--date", "-7d"]).expect(0);
    sandbox.run(&["inc", "c", "m", "1000", "--date=2015-05-17"]).expect(0);
    for (day, n) in
        [("today", "1"), ("yesterday", "10"), ("-1d", "10"), ("-7d", "100"), ("2015-05-17", "1000")]
    {
        assert_eq!(get(&sandbox, &["--date", day]), n, "{day}");
    }
    assert_eq!(get(&sandbox, &["--bucket", "all"]), "1111");
    for (day, advice) in [
        ("2015-05", "--bucket"),
        ("2015-05-17T10", "--bucket"),
        ("2015-05-17T10:00:00Z", "--time"),
        ("2015-02-30", "there is no day"),
        ("tomorrow", "2015-05-17, today, yesterday or -7d"),
    ] {
        for command in [&["get", "c"][..], &["inc", "c", "m"], &["all"], &["top", "c"]] {
            let ran = sandbox.run(&[command, &["--date", day]].concat()).expect(2);
            assert!(ran.err.contains(advice), "{day}: {}", ran.err);
            assert!(!ran.err.contains("jiff") && !ran.err.contains("parse"), "{}", ran.err);
        }
    }
    assert_eq!(get(&sandbox, &["--bucket", "all"]), "1111", "nothing was counted");
}

#[test]
fn time_without_offset_is_in_the_stores_zone() {
    let sandbox = Sandbox::new();
    sandbox.run(&[&BERLIN[..], &["inc", "c", "m", "--time", "2015-05-17T23:30:00+02:00"]].concat()).expect(0);
    // Read and counted without a configuration of its own.
    sandbox.run(&["inc", "c", "m", "10", "--time", "2015-05-17 00:30:00"]).expect(0);
    sandbox.run(&["inc", "c", "m", "100", "--at", "2015-05-17T22:00:00Z"]).expect(0);
    assert_eq!(get(&sandbox, &["--date", "2015-05-17"]), "11");
    assert_eq!(get(&sandbox, &["--date", "2015-05-18"]), "100");
}
