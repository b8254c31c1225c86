//! Times for which buckets are kept.

use std::fs;

use crate::{Config, Sources};

#[test]
fn retention_is_checked_against_the_stored_periods() {
    let problems = |file: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("countem.toml"), file).unwrap();
        let loaded = Config::load(&Sources::default().directory(folder.path()));
        let text = loaded.map_or_else(|error| error.to_string(), |config| config.to_toml());
        text.replace(&format!("{}/", folder.path().display()), "")
    };
    let stored = "[time]\nperiods = [\"hour\", \"day\"]\nretention = [\"hour=90d\", \"day=forever\"]\n";
    let own = "[collections.web]\nretention = [\"day=1d 12h\"]\n";
    let kept = problems(&(stored.to_owned() + own));
    assert!(kept.contains("\nretention = [\"hour=90d\", \"day=forever\"] # "), "{kept}");
    assert!(kept.contains("[collections.\"web\"]\nretention = [\"day=1d 12h\"] # "), "{kept}");
    for (text, told) in [
        (
            stored.replace("hour=90d", "minute=90d"),
            "`time.retention` in countem.toml names the period `minute`; stored are: hour, day",
        ),
        (
            stored.to_owned() + &own.replace("day", "week"),
            "`collections.web.retention` in countem.toml names the period `week`",
        ),
        (stored.replace("hour=90d", "hours=90d"), "names the period `hours`; did you mean `hour`?"),
        (stored.replace("hour=90d", "hour=90"), "has `hour=90`, which has no such time"),
        (stored.replace("hour=90d", "hour=59m"), "has `hour=59m`, which has no such time"),
        (stored.replace("hour=90d", "hour 90d"), "has `hour 90d`, which has no `=`"),
        (stored.replace("hour=90d", "day=90d"), "has `day=forever`, which is there twice"),
        (stored.replace("hour=90d", "all=90d"), "has `all=90d`, which cannot expire"),
        (
            "[mongodb]\nretention = \"400d\"\n".to_owned(),
            "unknown key `mongodb.retention` in countem.toml; did you mean `time.retention`?",
        ),
    ] {
        let problem = problems(&text);
        assert!(problem.contains(told), "{problem}");
    }
}
