//! Exports of GoatCounter: CSV with a row for every hit.

use countem_core::{CollectionName, MetricName, jiff::Timestamp};

use crate::{
    Counter, RowError,
    csv::{ColumnsError, split},
};

/// Columns of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hits {
    collection: CollectionName,
    columns: usize,
    path: usize,
    bot: usize,
    date: usize,
}

impl Hits {
    /// Returns the columns that `header` names. Its first one has the version of the format, `1Path` or `2Path`.
    ///
    /// # Errors
    /// [`ColumnsError`]: the file has another version, or a column is missing.
    pub fn new(header: &str, collection: CollectionName) -> Result<Self, ColumnsError> {
        let columns = split(header, ',').map_err(ColumnsError::Row)?;
        let first = columns.first().map_or("", |first| first.trim());
        if !["1Path", "2Path"].contains(&first) {
            return Err(ColumnsError::Version(first.to_owned()));
        }
        let find = |name| {
            let at = columns.iter().position(|column| column.trim() == name);
            at.ok_or(ColumnsError::Missing { name, separator: ',' })
        };
        Ok(Self { collection, columns: columns.len(), path: 0, bot: find("Bot")?, date: find("Date")? })
    }

    /// Reads a row as one count of its path in the second of the hit, `None` for a hit of a bot. A quoted field may have line breaks.
    ///
    /// # Errors
    /// [`RowError`]: the row is no hit.
    pub fn read(&self, row: &str) -> Result<Option<Counter>, RowError> {
        let fields = split(row, ',')?;
        if fields.len() != self.columns {
            return Err(RowError::Fields { found: fields.len(), columns: self.columns, separator: ',' });
        }
        let (path, bot, date) = (&fields[self.path], &fields[self.bot], &fields[self.date]);
        let moment: Timestamp = date.parse().map_err(|_| RowError::Date(date.to_string()))?;
        let counter = Counter::at(&self.collection, moment, MetricName::new(path)?, 1)?;
        match bot.parse::<u32>() {
            Ok(0) => Ok(Some(counter)),
            Ok(_) => Ok(None),
            Err(_) => Err(RowError::Bot(bot.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "2Path,Title,Event,UserAgent,Browser,System,Session,Bot,Referrer,Referrer scheme,Screen size,Location,FirstVisit,Date";

    fn read(header: &str, row: &str) -> Result<Option<String>, String> {
        let hits =
            Hits::new(header, CollectionName::new("web").unwrap()).map_err(|error| error.to_string())?;
        let counter = hits.read(row).map_err(|error| error.to_string())?;
        Ok(counter.map(|counter| format!("{} {} {}", counter.bucket, counter.metric, counter.value)))
    }

    #[test]
    fn hits_count_their_path() {
        let hit = |path: &str, bot: u32, date: &str| {
            format!(
                "{path},\"A, \n\"\"title\"\"\",false,,Firefox 1,Linux,1f,{bot},,,\"1920,1080,1\",DE,true,{date}"
            )
        };
        let date = "2020-12-27T00:38:27Z";
        let row = hit("/a.html", 0, date);
        assert_eq!(read(HEADER, &row), Ok(Some("2020-12-27T00:38:27 /a.html 1".to_owned())));
        let row = hit("\"/b,c\"", 0, "2020-12-27T00:38:27+02:00");
        assert_eq!(read(HEADER, &row), Ok(Some("2020-12-26T22:38:27 /b,c 1".to_owned())));
        assert_eq!(read(HEADER, &hit("/a.html", 3, date)), Ok(None));
        let old = "1Path,Title,Event,Bot,Session,FirstVisit,Referrer,Referrer scheme,Browser,Screen size,Location,Date";
        let row = format!("click,,true,0,1f,true,,,,,,{date}");
        assert_eq!(read(old, &row), Ok(Some("2020-12-27T00:38:27 click 1".to_owned())));
    }

    #[test]
    fn unclear_rows_are_refused() {
        let date = "2020-12-27T00:38:27Z";
        for (header, row, why) in [
            ("3Path,Bot,Date", String::new(), "`3Path`"),
            ("Path,Bot,Date", String::new(), "`Path`"),
            ("2Path,Date", String::new(), "no column `Bot`"),
            ("2Path,Bot,Date", format!("/a,0,{date},"), "4 fields where there are 3"),
            ("2Path,Bot,Date", format!(",0,{date}"), "metric name is empty"),
            ("2Path,Bot,Date", format!("/a,,{date}"), "`` is no number of a bot"),
            ("2Path,Bot,Date", "/a,0,2020-12-27".to_owned(), "date `2020-12-27`"),
            ("2Path,Bot,Date", format!("\"/a,0,{date}"), "quoted field"),
        ] {
            let error = read(header, &row).unwrap_err();
            assert!(error.contains(why), "{row}: {error}");
        }
    }
}
