//! Numbers of lines: amounts, and times since 1970.

use std::cmp::Ordering;

use crate::Reject;

/// Units of a number, told apart by its magnitude: each begins in the year 1973 and is taken up to 2286, so that no
/// number has two meanings.
const UNITS: [(i128, u32); 4] = [
    // Seconds, milliseconds, microseconds, nanoseconds: the first magnitude beyond, and the decimal digits of the unit.
    (100_000_000_000, 0),
    (100_000_000_000_000, 3),
    (100_000_000_000_000_000, 6),
    (100_000_000_000_000_000_000, 9),
];

/// Smallest number that is taken for a time. A smaller one is rather a size or an id.
const MIN: i128 = 100_000_000;

/// First second that is beyond the times of logs, in the year 2286. A larger number is rather a date in digits, with a mistake.
const MAX_SECOND: u64 = 10_000_000_000;

/// Digits that an exact number may have. Further ones are below a nanosecond.
const MAX_DIGITS: usize = 30;

/// A decimal number, exactly: `mantissa * 10^exponent`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    mantissa: i128,
    exponent: i32,
    /// Further digits than an exact number may have were dropped.
    is_cut: bool,
}

impl Decimal {
    /// Reads digits with an optional sign, fraction and exponent; `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sign, unsigned) = match text.as_bytes().first()? {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i16>().ok()?.into()),
            None => (unsigned, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        if whole.is_empty() || !all().all(|byte| byte.is_ascii_digit()) || whole.len() > MAX_DIGITS {
            return None;
        }
        let (fraction, cut) = fraction.split_at(fraction.len().min(MAX_DIGITS - whole.len()));
        let mantissa = whole
            .bytes()
            .chain(fraction.bytes())
            .fold(0, |sum: i128, byte| sum * 10 + i128::from(byte - b'0'));
        Some(Self {
            mantissa: sign * mantissa,
            exponent: exponent - i32::try_from(fraction.len()).ok()?,
            is_cut: cut.bytes().any(|byte| byte != b'0'),
        })
    }

    /// Returns the number if it is whole and fits.
    pub(crate) fn whole(self) -> Option<i64> {
        let floor = self.floor(0)?;
        // A number above its floor has a floor of its negation that is one lower.
        let is_whole = Self { mantissa: -self.mantissa, ..self }.floor(0)? == -floor;
        i64::try_from(floor).ok().filter(|_| is_whole && !self.is_cut)
    }

    /// Compares two numbers, exactly up to the digits that are kept.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        let sign = |number: Self| number.mantissa.signum();
        let magnitude = |number: Self| {
            let digits = number.mantissa.unsigned_abs().checked_ilog10().unwrap_or_default();
            i64::from(digits) + i64::from(number.exponent)
        };
        let order = sign(self).cmp(&sign(other));
        if order.is_ne() || self.mantissa == 0 {
            return order;
        }
        let larger =
            magnitude(self).cmp(&magnitude(other)).then_with(|| self.aligned().cmp(&other.aligned()));
        if self.mantissa > 0 { larger } else { larger.reverse() }
    }

    /// Returns the digits without the sign, moved to the left so that numbers of equal magnitude compare.
    fn aligned(self) -> u128 {
        let digits = self.mantissa.unsigned_abs();
        let missing = u128::MAX.ilog10() - 1 - digits.checked_ilog10().unwrap_or_default();
        digits.saturating_mul(10_u128.pow(missing))
    }

    /// Returns the largest whole number that is not above this one, after a division by `10^digits`.
    pub(crate) fn floor(self, digits: u32) -> Option<i128> {
        let exponent = self.exponent - i32::try_from(digits).ok()?;
        let power = 10_i128.checked_pow(exponent.unsigned_abs());
        if exponent >= 0 {
            return self.mantissa.checked_mul(power?);
        }
        Some(power.map_or_else(|| -i128::from(self.mantissa < 0), |power| self.mantissa.div_euclid(power)))
    }

    /// Returns the number as a second since 1970, in the unit that its magnitude tells.
    pub(crate) fn second(self) -> Option<i64> {
        let size = self.floor(0)?.unsigned_abs();
        let (_, digits) = UNITS.iter().find(|(end, _)| size < end.unsigned_abs())?;
        if size < MIN.unsigned_abs() {
            return None;
        }
        i64::try_from(self.floor(*digits)?).ok().filter(|second| second.unsigned_abs() < MAX_SECOND)
    }

    /// Returns the number as a second since 1970; it counts units of `10^-digits` seconds.
    pub(crate) fn second_of(self, digits: u32) -> Option<i64> {
        i64::try_from(self.floor(digits)?).ok()
    }
}

/// Reads the whole number in the field of `index`, however it is written: `1024`, `1024.0` and `1e3` are. Access logs write `-` for no
/// bytes.
///
/// # Errors
/// [`Reject::Amount`] or [`Reject::TooLarge`].
pub fn amount(text: &[u8], index: usize) -> Result<i64, Reject> {
    let not_whole = Reject::Amount(index);
    let text = str::from_utf8(text).map_err(|_| not_whole)?.trim();
    if text == "-" {
        return Ok(0);
    }
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reject::TooLarge(index));
    }
    let number = Decimal::parse(text).ok_or(not_whole)?;
    let is_large = || number.floor(0).is_none_or(|floor| i64::try_from(floor).is_err());
    number.whole().ok_or_else(|| if is_large() { Reject::TooLarge(index) } else { not_whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str) -> Option<i64> {
        Decimal::parse(text)?.second()
    }

    #[test]
    fn magnitude_tells_the_unit() {
        for text in [
            "1664321642",
            "1664321642.999",
            "1664321642866",
            "1664321642866.728",
            "1664321642866626",
            "1664321642866626700",
            "1.664321642866E9",
            "1.6643216428666267e+09",
            "16643216428666267e-7",
            "1664321642866626700000e-3",
        ] {
            assert_eq!(second(text), Some(1_664_321_642), "{text}");
        }
        assert_eq!(second("-1664321642.5"), Some(-1_664_321_643));
    }

    #[test]
    fn number_that_is_no_time_is_refused() {
        for text in [
            "20150230000000",
            "0",
            "42",
            "99999999",
            "1e99",
            "1e-99",
            "1e20",
            "",
            "-",
            ".",
            "1.2.3",
            "0x10",
            "1e",
            "NaN",
            "1_000",
        ] {
            assert_eq!(second(text), None, "{text}");
        }
    }

    #[test]
    fn named_units_take_any_number() {
        let of = |text: &str, digits| Decimal::parse(text).unwrap().second_of(digits);
        assert_eq!(
            (of("0", 0), of("-0.5", 0), of("-1", 3), of("1999", 3)),
            (Some(0), Some(-1), Some(-1), Some(1))
        );
        assert_eq!(of("1e300", 0), None);
        assert_eq!(of("-1e-300", 0), Some(-1));
    }

    #[test]
    fn whole_numbers_are_exact() {
        let whole = |text: &str| Decimal::parse(text)?.whole();
        assert_eq!(
            (whole("1024.0"), whole("1e3"), whole("-2.50e1"), whole("0e99")),
            (Some(1024), Some(1000), Some(-25), None)
        );
        for text in
            ["1.5", "-0.5", "1e-3", "1e19", "9223372036854775808", "1.00000000000000000000000000000000001"]
        {
            assert_eq!(whole(text), None, "{text}");
        }
        assert_eq!(whole("-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn comparison_is_that_of_numbers() {
        let numbers =
            ["-1e9", "-20", "-2.5", "-0.001", "0", "1e-30", "0.25", "2", "10.0", "11", "1e3", "1e300"];
        for (at, text) in numbers.iter().enumerate() {
            for (other_at, other) in numbers.iter().enumerate() {
                let order = Decimal::parse(text).unwrap().compare(Decimal::parse(other).unwrap());
                assert_eq!(order, at.cmp(&other_at), "{text} and {other}");
            }
        }
        let equal = Decimal::parse("1e3").unwrap().compare(Decimal::parse("1000.00").unwrap());
        assert_eq!(equal, Ordering::Equal);
    }
    #[test]
    fn amount_is_whole_or_refused_with_its_reason() {
        for (text, expected) in [
            ("-9223372036854775808", Ok(i64::MIN)),
            (" 1e3 ", Ok(1000)),
            ("-", Ok(0)),
            ("9223372036854775808", Err(Reject::TooLarge(7))),
            ("-99999999999999999999999999999999999999999", Err(Reject::TooLarge(7))),
            ("1e30", Err(Reject::TooLarge(7))),
            ("1e300", Err(Reject::TooLarge(7))),
            ("1.5", Err(Reject::Amount(7))),
            ("1e-300", Err(Reject::Amount(7))),
            ("five", Err(Reject::Amount(7))),
        ] {
            assert_eq!(amount(text.as_bytes(), 7), expected, "{text}");
        }
    }
}
