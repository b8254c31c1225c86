//! `17/May/2015:10:05:03 +0000`, the time of access logs.

use jiff::{civil::Date, tz::TimeZone};

/// Reads access log times. The day and the offset are remembered from line to line; only the time of day is read each time.
#[derive(Debug, Clone)]
pub(super) struct Clf {
    day: [u8; DAY_LEN],
    offset: [u8; OFFSET_LEN],
    /// The second at which that day begins at that offset, `None` when they are invalid.
    midnight: Option<i64>,
}

const DAY_LEN: usize = 11;
const OFFSET_LEN: usize = 5;

impl Default for Clf {
    fn default() -> Self {
        Self { day: [0; DAY_LEN], offset: [0; OFFSET_LEN], midnight: None }
    }
}

impl Clf {
    /// Returns `text` as a second since 1970, `None` when it is no such time.
    #[inline]
    pub(super) fn second(&mut self, text: &[u8]) -> Option<i64> {
        let text: &[u8; 26] = text.try_into().ok()?;
        let (day, rest) = text.split_first_chunk::<DAY_LEN>()?;
        let (clock, offset) = rest.split_last_chunk::<OFFSET_LEN>()?;
        if *day != self.day || *offset != self.offset {
            (self.day, self.offset) = (*day, *offset);
            self.midnight = midnight(day, offset);
        }
        let midnight = self.midnight?;
        match clock {
            [b':', h1, h2, b':', m1, m2, b':', s1, s2, b' '] => {
                let (hour, minute, second) = (pair(*h1, *h2)?, pair(*m1, *m2)?, pair(*s1, *s2)?);
                // A leap second counts in the minute that it ends.
                let is_clock = hour < 24 && minute < 60 && second <= 60;
                is_clock.then(|| midnight + hour * 3600 + minute * 60 + second.min(59))
            }
            _ => None,
        }
    }
}

#[inline]
fn pair(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

#[cold]
fn midnight(day: &[u8; DAY_LEN], offset: &[u8; OFFSET_LEN]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let [d1, d2, b'/', m1, m2, m3, b'/', y1, y2, y3, y4] = *day else { return None };
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(&[m1, m2, m3]))? + 1;
    let year = pair(y1, y2)? * 100 + pair(y3, y4)?;
    let date =
        Date::new(year.try_into().ok()?, month.try_into().ok()?, pair(d1, d2)?.try_into().ok()?).ok()?;
    let utc = date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    let [sign, h1, h2, m1, m2] = *offset;
    let (hours, minutes) = (pair(h1, h2)?, pair(m1, m2)?);
    let ahead = match sign {
        b'+' => hours * 3600 + minutes * 60,
        b'-' => -(hours * 3600 + minutes * 60),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then(|| utc - ahead)
}

#[cfg(test)]
mod tests {
    use jiff::fmt::strtime;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn leap_second_stays_in_its_day() {
        let mut clf = Clf::default();
        let before = clf.second(b"30/Jun/2015:23:59:59 +0000").unwrap();
        assert_eq!(clf.second(b"30/Jun/2015:23:59:60 +0000"), Some(before));
        assert_eq!(clf.second(b"01/Jul/2015:00:00:00 +0000"), Some(before + 1));
    }

    #[test]
    fn text_that_is_no_time_is_refused() {
        let mut clf = Clf::default();
        for bad in [
            "",
            "17/May/2015:10:05:03",
            "31/Feb/2015:10:05:03 +0000",
            "17/Mai/2015:10:05:03 +0000",
            "17/May/2015:24:05:03 +0000",
            "17/May/2015:10:60:03 +0000",
            "17/May/2015:10:05:61 +0000",
            "17/May/2015:10:05:03 00000",
            "17/May/2015:10:05:03 +2400",
            "17/May/2015 10:05:03 +0000",
            "17-May-2015:10:05:03 +0000",
            "17/May/2015:1a:05:03 +0000",
        ] {
            assert_eq!(clf.second(bad.as_bytes()), None, "{bad:?} was accepted");
        }
    }

    proptest! {
        /// One reader for all, so that its memory is part of the test.
        #[test]
        fn times_agree_with_strptime(moments in prop::collection::vec((0_i64..4_000_000_000, -23..24_i8, 0..60_i8), 1..20)) {
            let mut clf = Clf::default();
            for (second, hours, minutes) in moments {
                let offset = jiff::tz::Offset::from_seconds(i32::from(hours) * 3600 + i32::from(hours.signum() * minutes) * 60);
                let zoned = jiff::Timestamp::from_second(second).unwrap().to_zoned(TimeZone::fixed(offset.unwrap()));
                let text = strtime::format("%d/%b/%Y:%H:%M:%S %z", &zoned).unwrap();
                prop_assert_eq!(clf.second(text.as_bytes()), Some(second), "{}", text);
            }
        }
    }
}
