//! Whole numbers that are written as floating-point numbers.

/// Maximum number of digits of a double, so that no two texts are one double.
const MAX_DIGITS: usize = 15;
/// The first number with more digits.
const END: f64 = 1e15;

/// Reads a whole number: `5`, `5.0`, `5e+3`. `None` for any other text, and for one that is not exact.
pub(crate) fn whole(text: &str) -> Option<i64> {
    if let Some((mantissa, _)) = text.split_once(['e', 'E']) {
        let is_plain = mantissa.chars().all(|char| char.is_ascii_digit() || "+-.".contains(char));
        let digits = mantissa.chars().filter(char::is_ascii_digit).count();
        return if is_plain && digits <= MAX_DIGITS { whole_double(text.parse().ok()?) } else { None };
    }
    let (number, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().all(|byte| byte == b'0') { number.parse().ok() } else { None }
}

/// Returns a double that is a whole number and exact.
pub(crate) fn whole_double(double: f64) -> Option<i64> {
    let is_exact = double.fract() == 0.0 && double.abs() < END;
    is_exact.then(|| format!("{double:.0}").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_exact_whole_numbers_are_read() {
        for (text, number) in [
            ("5", Some(5)),
            ("-5.000", Some(-5)),
            ("5.", Some(5)),
            ("-0.0", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775807.0", Some(i64::MAX)),
            ("1e+06", Some(1_000_000)),
            ("1.5E1", Some(15)),
            ("1.5e0", None),
            ("5.0000000000000000001", None),
            ("5.0000000000000000001e0", None),
            ("9.007199254740993e15", None),
            ("9223372036854775808", None),
            ("1e19", None),
            ("", None),
            (".", None),
            ("e5", None),
            ("inf", None),
            ("NaN", None),
            ("0x10", None),
            (" 5", None),
        ] {
            assert_eq!(whole(text), number, "{text}");
        }
        assert_eq!(whole_double(-999_999_999_999_999.0), Some(-999_999_999_999_999));
        assert_eq!(whole_double(1e15), None);
        assert_eq!(whole_double(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn notations_of_a_number_read_alike(number in -99_999_999_999_i64..99_999_999_999) {
            prop_assert_eq!(whole(&number.to_string()), Some(number));
            prop_assert_eq!(whole(&format!("{number}.00")), Some(number));
            prop_assert_eq!(whole(&format!("{number}e0")), Some(number));
        }
    }
}
