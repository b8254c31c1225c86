//! Laws of the configuration as a whole.

use std::time::Duration;

use std::{
    fs,
    path::{Path, PathBuf},
};

use countem_core::{CollectionName, Period};
use countem_engine::EngineConfig;
use proptest::prelude::*;

use crate::{keys::KEYS, *};

mod environment;
mod retention;
mod server;

fn from_text(toml: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("countem.toml"), toml).unwrap();
    let mut config = Config::load(&Sources::default().directory(folder.path()))?;
    // Paths begin in the folder, which is another one each time.
    let folder = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    config.store_uri = StoreUri::new(&config.store_uri.expose().replace(&folder, "")).unwrap();
    // As text: a path loses its last separator with its prefix.
    let dir = config.durability.dir.to_str().and_then(|dir| dir.strip_prefix(&folder)).map(PathBuf::from);
    config.durability.dir = dir.unwrap_or(config.durability.dir);
    Ok(config)
}

fn from_flag(key: &str, value: &str) -> Result<Config, ConfigError> {
    Config::load(&Sources::default().flag("--set", key, value))
}

/// Returns the lines of the error of a file, without the folder of the file.
fn said_of(toml: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("countem.toml"), toml).unwrap();
    let error = Config::load(&Sources::default().directory(folder.path())).unwrap_err().to_string();
    let prefix = format!("{}{}", folder.path().display(), std::path::MAIN_SEPARATOR);
    error.replace(&prefix, "").lines().map(str::to_owned).collect()
}

fn leaves(table: &toml::Table) -> Vec<String> {
    let mut names: Vec<_> = table
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn default_file_is_exactly_the_default() {
    let loaded = from_text(&Config::default_toml()).unwrap();
    assert_eq!(loaded, Config::default());
}

#[test]
fn checked_in_file_is_the_default_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/countem.toml");
    assert_eq!(fs::read_to_string(path).unwrap(), Config::default_toml());
}

#[test]
fn default_file_shows_every_key_and_no_other() {
    let shown = leaves(&Config::default_toml().parse().unwrap());
    let exist = leaves(&toml::Table::try_from(Config::default()).unwrap());
    let mut known: Vec<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    known.sort();
    assert_eq!(shown, exist);
    assert_eq!(known, exist);
}

#[test]
fn every_key_of_the_default_file_is_explained() {
    let text = Config::default_toml();
    let lines: Vec<_> = text.lines().collect();
    for pair in lines.windows(2) {
        let is_key = !pair[1].starts_with('#') && pair[1].contains(" = ");
        assert!(!is_key || pair[0].starts_with("# "), "`{}` has no comment", pair[1]);
        assert!(pair[1].chars().count() <= 120, "`{}` is too long", pair[1]);
    }
}

#[test]
fn commented_example_of_a_collection_works() {
    let text = Config::default_toml();
    let (_, example) = text.split_once("# [coll").unwrap();
    let config = from_text(&format!("[coll{}", example.replace("\n# ", "\n"))).unwrap();
    let periods = &config.to_engine_config().schedule.own["app-events"];
    assert_eq!(*periods, [Period::Hour, Period::Day]);
}

#[test]
fn default_is_the_default_of_the_engine() {
    assert_eq!(
        format!("{:#?}", Config::default().to_engine_config()),
        format!("{:#?}", EngineConfig::default())
    );
}

#[test]
fn every_key_reaches_its_field() {
    let cases = [
        ("store.lanes", "7", "lanes: 7,"),
        ("store.required", "true", "store_required: true,"),
        ("collectors.min", "2", "collectors_min: 2,"),
        ("collectors.max", "97", "collectors_max: Some(97)"),
        ("flush.interval", "3s", "flush_interval: 3s,"),
        ("flush.jitter", "0.25", "flush_jitter: 0.25,"),
        ("flush.counters", "11", "flush_counters: 11,"),
        ("flush.batch_counters", "12", "batch_counters: 12,"),
        ("flush.retry_first", "13ms", "retry_first: 13ms,"),
        ("flush.retry_longest", "14s", "retry_longest: 14s,"),
        ("time.zone", "Europe/Berlin", "Europe/Berlin"),
        ("time.periods", "hour,month", " periods: Some([Hour, Month]),"),
        ("time.past_window", "1m", "past_window: 60s,"),
        ("time.future_window", "16s", "future_window: 16s,"),
        ("limits.metrics_per_bucket", "17", "metrics_per_bucket: 17,"),
        ("limits.label_sets", "20", "label_sets: 20,"),
        ("limits.pending_counters", "18", "pending_counters: 18,"),
        ("limits.warn_on_stderr", "false", "warn_on_stderr: false,"),
        ("reads.stored_age", "21s", "stored_age: 21s,"),
        ("shutdown.deadline", "19s", "shutdown_deadline: 19s"),
        ("durability.level", "journal", "durability: Journal {"),
        (
            "time.retention",
            "minute=48h, day=forever",
            "retention: Some(Retention({Minute: Some(48h), Day: None}))",
        ),
        ("collections.a.b.periods", "all", "own: {\"a.b\": [All]},"),
        ("collections.a.b.retention", "day=90d", "own_retention: {\"a.b\": Retention({Day: Some(2160h)})}"),
    ];
    for (key, value, told) in cases {
        let config = format!("{:?}", from_flag(key, value).unwrap().to_engine_config());
        assert!(config.contains(told), "`{key}` does not tell the engine `{told}`: {config}");
    }
    let covered: Vec<_> = cases.iter().map(|&(key, ..)| key).collect();
    let elsewhere = ["store.uri", "mongodb.", "durability.", "server."];
    for key in KEYS.iter().filter(|key| !elsewhere.iter().any(|other| key.name.starts_with(other))) {
        assert!(covered.contains(&key.name), "`{}` is missing in this test", key.name);
    }
    let journal = |key, value| {
        let mut config = from_flag(key, value).unwrap();
        config.durability.level = DurabilityLevel::Journal;
        format!("{:?}", config.to_engine_config().durability)
    };
    assert!(journal("durability.dir", "/var/j").contains("dir: \"/var/j\""));
    assert!(journal("durability.tick", "5ms").contains("tick: 5ms"));
    assert!(journal("durability.max_bytes", "1000000").contains("max_bytes: 1000000"));
    assert!(journal("durability.keep_resolved", "0s").contains("resolved_retention: 0ns"));
    let mongodb = |key, value| from_flag(key, value).unwrap().mongodb().clone();
    assert_eq!(mongodb("mongodb.metrics_per_document", "100").metrics_per_document.get(), 100);
    assert_eq!(mongodb("mongodb.writer_shards", "4").writer_shards.get(), 4);
    assert_eq!(mongodb("mongodb.deadline", "5s").deadline, Duration::from_secs(5));
    assert_eq!(from_flag("store.uri", "memory://").unwrap().store_uri().expose(), "memory://");
}

#[test]
fn hierarchy_belongs_to_one_collection() {
    let config = from_flag("collections.a.b.hierarchy", "/").unwrap();
    let of = |name| config.hierarchy(&CollectionName::new(name).unwrap());
    assert_eq!((of("a.b"), of("a")), (Some("/"), None));
    assert_eq!(from_text(&config.to_toml()).unwrap(), config);
    assert!(from_flag("collections.a.hierarchy", "").unwrap_err().to_string().contains("text such as"));
}

#[test]
fn later_layers_win_and_are_the_origin() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("countem.toml");
    fs::write(&file, "[flush]\ninterval = \"1s\"\njitter = 0.5\ncounters = 10\n").unwrap();
    let sources = Sources::default()
        .directory(folder.path())
        .environment([("COUNTEM__FLUSH__JITTER", "0.6"), ("COUNTEM__FLUSH__COUNTERS", "20"), ("HOME", "/")])
        .assignment("--set", "flush.counters=30")
        .assignment("--set", "flush.counters=40");
    let config = Config::load(&sources).unwrap();
    let engine = config.to_engine_config();
    assert_eq!(
        (engine.flush_interval.as_millis(), engine.flush_jitter, engine.flush_counters),
        (1000, 0.6, 40)
    );
    assert_eq!(config.file(), Some(file.as_path()));
    assert_eq!(*config.origin("flush.interval"), Origin::File(file));
    assert_eq!(config.origin("flush.jitter").to_string(), "environment variable `COUNTEM__FLUSH__JITTER`");
    assert_eq!(config.origin("flush.counters").to_string(), "flag `--set`");
    assert_eq!(*config.origin("flush.batch_counters"), Origin::Default);
}

#[test]
fn only_a_named_file_has_to_exist() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(&Sources::default().directory(folder.path())).unwrap();
    assert_eq!((config.file(), &config), (None, &Config::default()));

    let missing = folder.path().join("missing.toml");
    let error = Config::load(&Sources::default().file(&missing)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read the configuration file `{}`: ", missing.display())),
        "{error}"
    );

    fs::create_dir(folder.path().join("countem.toml")).unwrap();
    let error = Config::load(&Sources::default().directory(folder.path())).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file"), "{error}");
}

#[test]
fn text_is_read_as_its_keys_type() {
    let sources = Sources::default().environment([
        ("COUNTEM__STORE__URI", "mongodb://anna:007@host/"),
        ("COUNTEM__STORE__LANES", "04"),
        ("COUNTEM__COLLECTIONS__App.Events__x__PERIODS", " day , hour,day"),
    ]);
    let config = Config::load(&sources).unwrap();
    let engine = config.to_engine_config();
    assert_eq!(config.store_uri().expose(), "mongodb://anna:007@host/");
    assert_eq!(engine.lanes, 4);
    let (name, periods) = engine.schedule.own.iter().next().unwrap();
    assert_eq!((name.as_str(), &**periods), ("App.Events__x", &[Period::Hour, Period::Day][..]));
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_eq!(
        said_of(
            r#"
            store = 3
            [collectors]
            min = 0
            max = "many"
            [flush]
            interval = 10
            intervall = "10s"
            jitter = 1.5
            batch_counters = "12"
            retry_longest = "-1s"
            [time]
            zone = "Europe/Berln"
            periods = []
            past_window = "soon"
            [flsh]
            [colections.web]
            periods = ["day"]
            [collections."no spaces"]
            [collections.web]
            periods = ["day", "dai"]
            [collections.app.events]
            periods = ["day"]
            "#
        ),
        [
            "unknown key `colections.web.periods` in countem.toml; did you mean `collections.web.periods`?",
            "unknown key `collections.app.events.periods` in countem.toml; \
             did you mean `collections.\"app.events\".periods`?",
            "`collections.\"no spaces\"` in countem.toml is refused: collection name `no spaces` has ' ' at byte 2; \
             allowed: letters, digits and `.`, `_`, `-` after the first character",
            "`collections.web.periods` in countem.toml names the period `dai`; did you mean `day`? allowed: one or \
             more of second, minute, hour, day, week, month, year, all in a list such as [\"hour\", \"day\"]",
            "`collectors.max` in countem.toml is `\"many\"`; allowed: \"auto\" or a whole number from 1 to 1024",
            "`collectors.min` in countem.toml is `0`; allowed: a whole number from 1 to 1024",
            "unknown key `flsh` in countem.toml; did you mean `flush`?",
            "`flush.batch_counters` in countem.toml is `\"12\"`; allowed: a whole number from 1 to 4294967295",
            "`flush.interval` in countem.toml is `10`; allowed: text such as \"250ms\", \"10s\" or \"1h 30m\", from \
             1ms to 36525d",
            "unknown key `flush.intervall` in countem.toml; did you mean `flush.interval`?",
            "`flush.jitter` in countem.toml is `1.5`; allowed: a number from 0 to 1",
            "`flush.retry_longest` in countem.toml is `\"-1s\"`; allowed: text such as \"250ms\", \"10s\" or \
             \"1h 30m\", from 1ms to 36525d",
            "`store` in countem.toml is `3`; allowed: a section with the keys `uri`, `lanes`, `required`",
            "`time.past_window` in countem.toml is `\"soon\"`; allowed: text such as \"250ms\", \"10s\" or \
             \"1h 30m\", from 0s to 36525d",
            "`time.periods` in countem.toml is empty; allowed: one or more of second, minute, hour, day, week, \
             month, year, all in a list such as [\"hour\", \"day\"]",
            "`time.zone` in countem.toml is `\"Europe/Berln\"`; allowed: an IANA time zone such as \"UTC\" or \
             \"Europe/Berlin\"; did you mean `Europe/Berlin`?",
        ]
    );
}

#[test]
fn mistake_hidden_by_later_layer_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    fs::write(&file, "flush = 3\n[store]\nlanes = 0\n").unwrap();
    let sources = Sources::default()
        .file(&file)
        .environment([("COUNTEM__FLUSH__INTERVAL", "1s"), ("COUNTEM__STORE__LANES", "")])
        .assignment("--set", "store.lanes=3")
        .assignment("--set", "lanes");
    let error = Config::load(&sources).unwrap_err();
    let origins: Vec<_> = error.problems().iter().map(|problem| problem.origin().clone()).collect();
    let variable = Origin::Variable("COUNTEM__STORE__LANES".to_owned());
    let flag = Origin::Flag("--set".to_owned());
    assert_eq!(origins, [Origin::File(file.clone()), Origin::File(file), variable, flag]);
}

#[test]
fn contradiction_names_both_sides() {
    let sources = Sources::default()
        .environment([("COUNTEM__COLLECTORS__MIN", "8"), ("COUNTEM__FLUSH__RETRY_FIRST", "1m")])
        .flag("--collectors", "collectors.max", "4");
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "`collectors.min` is 8 (environment variable `COUNTEM__COLLECTORS__MIN`) and `collectors.max` is 4 (flag \
         `--collectors`); allowed: `collectors.min` up to `collectors.max`\n\
         `flush.retry_first` is 1m (environment variable `COUNTEM__FLUSH__RETRY_FIRST`) and `flush.retry_longest` is \
         30s (default); allowed: `flush.retry_first` up to `flush.retry_longest`"
    );
    let refused = from_text("[flush]\nretry_first = \"1m\"\nretry_longest = \"soon\"\n").unwrap_err();
    assert_eq!(refused.problems().len(), 1, "compared with what was refused: {refused}");
    from_flag("collectors.min", "1024").expect("`auto` is never below `collectors.min`");
}

#[test]
fn unknown_variable_leads_to_the_right_one() {
    let sources = Sources::default().environment([
        ("COUNTEM__FLUSH__INTERVALL", "1s"),
        ("COUNTEM__COLLECTIONS__Web__PERIOD", "day"),
        ("COUNTEM_OTHER", "x"),
    ]);
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "unknown key `collections.Web.period` in environment variable `COUNTEM__COLLECTIONS__Web__PERIOD`; did you \
         mean `collections.Web.periods`, set by `COUNTEM__COLLECTIONS__Web__PERIODS`?\n\
         unknown key `flush.intervall` in environment variable `COUNTEM__FLUSH__INTERVALL`; did you mean \
         `flush.interval`, set by `COUNTEM__FLUSH__INTERVAL`?"
    );
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_text_is_refused() {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    let value = OsString::from_vec(vec![0x31, 0xff]);
    let sources =
        Sources::default().environment([("COUNTEM__STORE__LANES", value.clone()), ("OTHER", value)]);
    assert_eq!(
        Config::load(&sources).unwrap_err().to_string(),
        "`store.lanes` in environment variable `COUNTEM__STORE__LANES` is not UTF-8"
    );
}

#[test]
fn no_text_shows_a_password() {
    let secret = "mongodb://anna:hunter2@host/";
    let config = from_flag("store.uri", secret).unwrap();
    for text in [format!("{config:?}"), config.to_toml(), toml::to_string(&config).unwrap()] {
        assert!(text.contains("mongodb://anna:****@host/") && !text.contains("hunter2"), "{text}");
    }
    let mistakes = [
        said_of(&format!("[store]\nuri = \"{secret}")),
        said_of(&format!("[store]\nuri = {secret}")),
        said_of(&format!("[store]\nurl = \"{secret}\"")),
        said_of(&format!("[store]\nuri = \"x{secret}\"")),
        said_of(&format!("[store]\nuri = [\"{secret}\"]")),
        said_of(&format!("[store.uri]\n\"{secret}\" = 1")),
        said_of(&format!("[time]\nzone = \"{secret}\"\nperiods = [\"{secret}\"]")),
        vec![from_flag(&format!("{secret}?a"), "b").unwrap_err().to_string()],
        vec![Config::load(&Sources::default().assignment("--set", secret)).unwrap_err().to_string()],
    ];
    for lines in mistakes {
        assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
    }
}

#[test]
fn broken_file_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("countem.toml"), "[store]\nlanes = 2\nlanes = 3\n").unwrap();
    let sources = Sources::default().directory(folder.path()).flag("--set", "store.lanes", "many");
    let error = Config::load(&sources).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].ends_with("countem.toml: line 3: duplicate key"), "{error}");
    assert_eq!(
        lines[1..],
        ["`store.lanes` in flag `--set` is `many`; allowed: a whole number from 1 to 1024"]
    );
}

#[test]
fn configuration_in_effect_can_be_loaded_again() {
    let sources = Sources::default()
        .environment([
            ("COUNTEM__FLUSH__INTERVAL", "90s"),
            ("COUNTEM__COLLECTIONS__a.b__PERIODS", "all,second"),
        ])
        .flag("--zone", "time.zone", "america/new_york")
        .flag("--jitter", "flush.jitter", "1");
    let config = Config::load(&sources).unwrap();
    let text = config.to_toml();
    assert_eq!(from_text(&text).unwrap(), config);
    for line in [
        "# The configuration in effect, without a file.",
        "interval = \"1m 30s\" # environment variable `COUNTEM__FLUSH__INTERVAL`",
        "zone = \"America/New_York\" # flag `--zone`",
        "jitter = 1.0 # flag `--jitter`",
        "lanes = 2",
        "periods = [\"second\", \"all\"] # environment variable `COUNTEM__COLLECTIONS__a.b__PERIODS`",
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is missing in {text}");
    }
}

#[test]
fn default_in_effect_is_the_default_file() {
    let body = |text: &str| text.split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(body(&Config::default().to_toml()), body(&Config::default_toml()));
}

proptest! {
    /// One wrong letter in a key, in any layer: the answer names a key as near as the right one.
    #[test]
    fn mistyped_key_leads_to_one_that_exists(
        which in 0..KEYS.len(), at in any::<prop::sample::Index>(), edit in 0..4, letter in prop::char::range('a', 'z'),
    ) {
        let mut letters: Vec<char> = KEYS[which].name.chars().collect();
        let at = at.index(letters.len() - 1);
        match edit {
            0 => drop(letters.remove(at)),
            1 => letters.insert(at, letter),
            2 => letters[at] = letter,
            _ => letters.swap(at, at + 1),
        }
        let mistyped: String = letters.into_iter().collect();
        prop_assume!(!mistyped.starts_with('.') && !mistyped.contains("._") && !mistyped.contains("_."));
        prop_assume!(KEYS.iter().all(|key| key.name != mistyped));

        let variable = format!("COUNTEM__{}", mistyped.to_uppercase().replace('.', "__"));
        let answers = [
            from_flag(&mistyped, "1"),
            from_text(&format!("{mistyped} = 1")),
            Config::load(&Sources::default().environment([(variable, "1")])),
        ];
        for answer in answers {
            let answer = answer.unwrap_err();
            prop_assert_eq!(answer.problems().len(), 1);
            prop_assert_eq!(answer.problems()[0].key(), Some(mistyped.as_str()));
            let text = answer.to_string();
            let named = text.split_once("did you mean `").unwrap().1.split_once('`').unwrap().0;
            prop_assert!(KEYS.iter().any(|key| key.name == named), "{}", text);
            let is_moved = named.rsplit('.').next() == mistyped.rsplit('.').next();
            prop_assert!(is_moved || strsim::osa_distance(named, &mistyped) <= 1, "{}", text);
        }
    }

    /// Any text is accepted or refused in one line; nothing panics.
    #[test]
    fn any_value_is_accepted_or_clearly_refused(which in 0..KEYS.len(), value in "\\PC{0,20}|[0-9.\n-]{0,30}[a-z]{0,2}") {
        match from_flag(KEYS[which].name, &value) {
            Ok(config) => prop_assert_eq!(from_text(&config.to_toml()).unwrap(), config),
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
        }
    }
}

#[test]
fn journal_folder_is_kept_to_the_letter() {
    for dir in ["A/", "./A", "A//B", "A/.", "..", "/A/"] {
        let config = from_flag("durability.dir", dir).unwrap();
        assert_eq!(from_text(&config.to_toml()).unwrap(), config, "{dir}");
    }
}

#[test]
fn paths_of_a_file_begin_in_its_folder() {
    let here = Path::new("../../config/countem.toml");
    let config = Config::load(&Sources::default().file(here)).unwrap();
    assert_eq!(config.file(), Some(here));
    assert_eq!(config.store_uri().expose(), "sqlite://../../config/countem.db");
    assert_eq!(config.durability().dir, Path::new("../../config/countem-journal"));
    let flag = Sources::default().file(here).flag("--store", "store.uri", "sqlite://x.db");
    assert_eq!(Config::load(&flag).unwrap().store_uri().expose(), "sqlite://x.db");
}

#[test]
fn variable_with_single_underscores_is_a_problem() {
    let error =
        Config::load(&Sources::default().environment([("COUNTEM_FLUSH_INTERVAL", "1s")])).unwrap_err();
    let expected = "`COUNTEM_FLUSH_INTERVAL` is not read: the variable of `flush.interval` is `COUNTEM__FLUSH__INTERVAL`";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(Config::load(&Sources::default().environment([("COUNTEM_SEED", "1")])).is_ok());
}

#[test]
fn short_variable_names_the_store() {
    let variables = |uri: &str| Sources::default().environment([("COUNTEM_STORE", uri)]);
    let config = Config::load(&variables("sqlite://a.db")).unwrap();
    assert_eq!(config.store_uri().to_string(), "sqlite://a.db");
    let flag = variables("sqlite://a.db").flag("--store", "store.uri", "sqlite://b.db");
    assert_eq!(Config::load(&flag).unwrap().store_uri().to_string(), "sqlite://b.db");
    let error = Config::load(&variables("nonsense://")).unwrap_err().to_string();
    assert!(error.contains("COUNTEM_STORE"), "{error}");
}
