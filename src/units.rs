//! Durations, sizes and shares, as people write them in a configuration and read them in messages.
//!
//! Errors never repeat the text they are about: it may have come from the environment.

use std::time::Duration;

/// What is wrong with a duration, a size or a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not even a digit.
    #[error("this does not begin with a number")]
    NoNumber,
    /// A bare number where seconds and milliseconds are equally likely to be meant.
    #[error("the unit is missing")]
    NoUnit,
    /// A number, then something else.
    #[error("this unit is not known")]
    UnknownUnit,
    /// Does not fit the type, or is beyond what anybody can mean.
    #[error("this number is too large")]
    TooLarge,
    /// A share beyond the whole.
    #[error("this is not between 0% and 100%")]
    NotAShare,
}

const DURATION_UNITS: [(&str, u128); 5] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

const SIZE_UNITS: [(&str, u128); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads `250ms`, `1.5s`, `15m`, `1h` or `7d`; `0` needs no unit.
///
/// # Errors
///
/// Says which part cannot be read; a bare number other than zero has no unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let number = Number::split(text)?;
    if number.unit.is_empty() {
        return if number.digits == 0 { Ok(Duration::ZERO) } else { Err(UnitError::NoUnit) };
    }
    let nanos = number.times(unit_of(&DURATION_UNITS, number.unit, false)?)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| UnitError::TooLarge)?;
    // The remainder of a division by 10^9 fits.
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// Reads `16KiB`, `1.5GiB`, `10MB` or plain bytes. Upper and lower case are the same.
///
/// # Errors
///
/// Says which part cannot be read.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let number = Number::split(text)?;
    let bytes = number.times(unit_of(&SIZE_UNITS, number.unit, true)?)?;
    u64::try_from(bytes).map_err(|_| UnitError::TooLarge)
}

/// Reads `20%` or `12.5%`; the result is between 0 and 1.
///
/// # Errors
///
/// Says which part cannot be read; a bare number has no unit.
pub fn parse_share(text: &str) -> Result<f64, UnitError> {
    let number = Number::split(text)?;
    match number.unit {
        "%" => {}
        "" => return Err(UnitError::NoUnit),
        _ => return Err(UnitError::UnknownUnit),
    }
    let share = number.digits as f64 / number.scale as f64 / 100.0;
    if share <= 1.0 { Ok(share) } else { Err(UnitError::NotAShare) }
}

/// Writes a duration in the largest unit that divides it: `15m`, `90s`, `250ms`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if !nanos.is_multiple_of(1_000_000) {
        return format!("{duration:?}");
    }
    // Days are left out: "24h" is read at a glance, "1d" only by those who know it.
    let units = DURATION_UNITS[..4].iter().rev();
    largest(units, nanos).unwrap_or_default()
}

/// Writes a size in the largest binary unit that divides it: `16KiB`, `1000B`, `0`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    largest(SIZE_UNITS[1..6].iter().rev(), u128::from(bytes)).unwrap_or_default()
}

/// Writes a share as a percentage: `20%`, `12.5%`.
#[must_use]
pub fn format_share(share: f64) -> String {
    let hundredths = (share * 10_000.0).round() / 100.0;
    format!("{hundredths}%")
}

fn largest<'a>(units: impl Iterator<Item = &'a (&'a str, u128)>, value: u128) -> Option<String> {
    let (unit, factor) = units.into_iter().find(|(_, factor)| value.is_multiple_of(*factor))?;
    Some(format!("{}{unit}", value / factor))
}

fn unit_of(units: &[(&str, u128)], text: &str, fold: bool) -> Result<u128, UnitError> {
    units
        .iter()
        .find(|(unit, _)| *unit == text || (fold && unit.eq_ignore_ascii_case(text)))
        .map(|(_, factor)| *factor)
        .ok_or(UnitError::UnknownUnit)
}

/// A decimal number, exact, and what follows it: `1.5s` is 15 over 10, then `s`.
struct Number<'a> {
    digits: u128,
    scale: u128,
    unit: &'a str,
}

impl<'a> Number<'a> {
    fn split(text: &'a str) -> Result<Self, UnitError> {
        let end = text.bytes().position(|b| !b.is_ascii_digit() && b != b'.' && b != b'_');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if !is_digits(whole) || !is_digits(fraction) {
            return Err(UnitError::NoNumber);
        }
        // Beyond nanoseconds nothing can be meant, and the product below must not overflow.
        if whole.len() > 24 || fraction.len() > 9 {
            return Err(UnitError::TooLarge);
        }
        let digits: String = [whole, fraction].concat().replace('_', "");
        let decimals = fraction.bytes().filter(u8::is_ascii_digit).count();
        Ok(Self {
            digits: digits.parse().map_err(|_| UnitError::TooLarge)?,
            scale: 10u128.pow(decimals as u32),
            unit: unit.trim_start(),
        })
    }

    fn times(&self, factor: u128) -> Result<u128, UnitError> {
        let product = self.digits.checked_mul(factor).ok_or(UnitError::TooLarge)?;
        Ok(product / self.scale)
    }
}

fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("250ms", Duration::from_millis(250)),
            ("2s", Duration::from_secs(2)),
            ("1.5s", Duration::from_millis(1500)),
            ("0.25s", Duration::from_millis(250)),
            ("15m", Duration::from_secs(900)),
            ("1h", Duration::from_secs(3600)),
            ("7d", Duration::from_secs(7 * 86_400)),
            ("600 s", Duration::from_secs(600)),
            ("1_000ms", Duration::from_secs(1)),
            ("0", Duration::ZERO),
            ("0s", Duration::ZERO),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_why() {
        let cases = [
            ("", UnitError::NoNumber),
            ("fast", UnitError::NoNumber),
            ("-2s", UnitError::NoNumber),
            (".5s", UnitError::NoNumber),
            ("1.s", UnitError::NoNumber),
            ("1.2.3s", UnitError::NoNumber),
            ("_1s", UnitError::NoNumber),
            ("30", UnitError::NoUnit),
            ("2sec", UnitError::UnknownUnit),
            ("2S", UnitError::UnknownUnit),
            ("1h30m", UnitError::UnknownUnit),
            ("9999999999999999999999d", UnitError::TooLarge),
            ("99999999999999999999999999999999999999999s", UnitError::TooLarge),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("16KiB", 16 * 1024),
            ("1MiB", 1 << 20),
            ("1GiB", 1 << 30),
            ("1.5kib", 1536),
            ("10MB", 10_000_000),
            ("2TiB", 2 << 40),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_size("16K"), Err(UnitError::UnknownUnit));
        assert_eq!(parse_size("big"), Err(UnitError::NoNumber));
        assert_eq!(parse_size("99999999TiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn shares_are_read() {
        assert_eq!(parse_share("20%"), Ok(0.2));
        assert_eq!(parse_share("12.5%"), Ok(0.125));
        assert_eq!(parse_share("0%"), Ok(0.0));
        assert_eq!(parse_share("100%"), Ok(1.0));
        assert_eq!(parse_share("0.2"), Err(UnitError::NoUnit));
        assert_eq!(parse_share("101%"), Err(UnitError::NotAShare));
        assert_eq!(parse_share("20p"), Err(UnitError::UnknownUnit));
        assert_eq!(parse_share("%"), Err(UnitError::NoNumber));
    }

    #[test]
    fn values_are_written_in_the_largest_unit_that_fits() {
        let durations = [(0, "0s"), (250, "250ms"), (90_000, "90s"), (900_000, "15m")];
        for (millis, text) in durations {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(format_duration(Duration::from_secs(86_400)), "24h");
        for (bytes, text) in [(0, "0"), (1000, "1000B"), (16 << 10, "16KiB"), (1 << 30, "1GiB")] {
            assert_eq!(format_size(bytes), text);
        }
        assert_eq!(format_share(0.2), "20%");
        assert_eq!(format_share(0.125), "12.5%");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(millis in 0u64..1 << 50, bytes: u64, share in 0u32..=10_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
            let share = f64::from(share) / 10_000.0;
            let read = parse_share(&format_share(share)).unwrap();
            prop_assert!((read - share).abs() < 1e-9);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_share(&text));
        }
    }
}
