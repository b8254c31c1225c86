//! Names for values that break the rules of metric names.

use std::fmt::Write as _;

use super::MetricName;
use crate::hash::fnv128;

/// Changes that [`MetricName::fit`] made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fitted {
    /// The value was empty.
    pub is_empty: bool,
    /// The value had control characters, or bytes that are no UTF-8.
    pub is_escaped: bool,
    /// The value was longer than [`MetricName::MAX_LEN`].
    pub is_shortened: bool,
}

impl Fitted {
    /// Returns true when the value is a metric name as it was.
    pub fn is_unchanged(self) -> bool {
        self == Self::default()
    }
}

/// Stands for an empty value.
const EMPTY: &str = "-";
/// Maximum number of bytes of a long name that stay.
const KEPT: usize = 494;
/// Longest escape, less one byte.
const ESCAPE_REST: usize = 3;

impl MetricName {
    /// Returns the name for any value: the value itself where that is a metric name, else the nearest one.
    ///
    /// Every door uses the same rule. An empty value becomes `-`. Control characters and bytes that are no UTF-8 become `\xNN`.
    /// A name of more than 512 bytes is cut at a character boundary to at most 494 bytes, and `…#` with 12 hexadecimal
    /// digits of the FNV-1a hash of the whole name follow. The same value has the same name in every version.
    ///
    /// ```
    /// use countem_core::MetricName;
    ///
    /// assert_eq!(MetricName::shortened("GET 200").as_str(), "GET 200");
    /// assert_eq!(MetricName::shortened("").as_str(), "-");
    /// assert_eq!(MetricName::shortened(b"caf\xe9\n").as_str(), r"caf\xe9\x0a");
    /// assert!(MetricName::shortened("x".repeat(600)).as_str().starts_with(&"x".repeat(494)));
    /// ```
    #[must_use]
    pub fn shortened(value: impl AsRef<[u8]>) -> Self {
        let mut name = value.as_ref().to_vec();
        Self(Self::fit(&mut name).0.into())
    }

    /// Replaces `value` by the name that [`shortened`](Self::shortened) gives it, and returns the name and the changes.
    pub fn fit(value: &mut Vec<u8>) -> (&str, Fitted) {
        let is_plain = |text: &str| !text.chars().any(char::is_control);
        let is_escaped = !str::from_utf8(value).is_ok_and(is_plain);
        let mut fitted = Fitted { is_empty: value.is_empty(), is_escaped, is_shortened: false };
        if fitted.is_empty {
            value.extend_from_slice(EMPTY.as_bytes());
        }
        if is_escaped {
            *value = escaped(value).into_bytes();
        }
        if value.len() > Self::MAX_LEN {
            fitted.is_shortened = true;
            shorten(value, is_escaped);
        }
        (str::from_utf8(value).expect("an escaped text is UTF-8, and is cut at a character"), fitted)
    }
}

fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len() + 16);
    let escape = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a string never fails.
            write!(text, "\\x{byte:02x}").ok();
        }
    };
    for chunk in value.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char.is_control() {
                true => escape(&mut text, char.encode_utf8(&mut [0; 4]).as_bytes()),
                false => text.push(char),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn shorten(name: &mut Vec<u8>, has_escapes: bool) {
    let hash = fnv128(name) & 0xffff_ffff_ffff;
    let is_boundary = |at: &usize| name[*at] & 0xc0 != 0x80;
    let mut end = (0..=KEPT).rev().find(is_boundary).unwrap_or_default();
    // A half escape would read like another value.
    let split = (end.saturating_sub(ESCAPE_REST)..end).find(|&at| name[at..].starts_with(b"\\x"));
    if let Some(split) = split.filter(|_| has_escapes) {
        end = split;
    }
    name.truncate(end);
    name.extend_from_slice(format!("…#{hash:012x}").as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(value: impl AsRef<[u8]>) -> String {
        MetricName::shortened(value).as_str().to_owned()
    }

    #[test]
    fn unfit_values_have_documented_names() {
        assert_eq!(name("tab\there"), r"tab\x09here");
        assert_eq!(name("\u{85}"), r"\xc2\x85");
        assert_eq!(name(b"\xff\xc3"), r"\xff\xc3");
        assert_eq!(name(r"\x16\x03"), r"\x16\x03");
        let long = "ä".repeat(300);
        let hash = fnv128(long.as_bytes()) & 0xffff_ffff_ffff;
        assert_eq!(name(&long), format!("{}…#{hash:012x}", "ä".repeat(247)));
        assert_eq!(name("x".repeat(512)), "x".repeat(512));
    }

    #[test]
    fn cut_never_splits_an_escape() {
        for plain in 480..500 {
            let kept = name([vec![b'a'; plain], vec![7; 40]].concat());
            let kept = kept.split_once('…').unwrap().0;
            assert_eq!(kept.trim_start_matches('a').len() % 4, 0, "{kept}");
        }
    }

    proptest! {
        #[test]
        fn every_value_has_a_valid_stable_name(value in prop::collection::vec(any::<u8>(), 0..700)) {
            let once = name(&value);
            prop_assert!(MetricName::validate(&once).is_ok());
            prop_assert_eq!(name(&once), once);
        }

        #[test]
        fn valid_names_stay_as_they_are(value in "[^\\p{Cc}]{1,170}") {
            let mut bytes = value.clone().into_bytes();
            let (name, fitted) = MetricName::fit(&mut bytes);
            prop_assert!(name.len() <= 512);
            prop_assert_eq!(fitted.is_unchanged(), value.len() <= 512);
        }
    }
}
