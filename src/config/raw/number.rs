//! Numbers of all kinds: whole ones, sizes, shares and factors.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{Table, Value};
use crate::units;

impl Table<'_> {
    /// A whole number within a range that fits `T`.
    pub(in super::super) fn number<T>(
        &self,
        key: &'static str,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T
    where
        T: TryFrom<u64>,
    {
        let written = self.get(key).and_then(|value| value.number(&range));
        written.and_then(|number| T::try_from(number).ok()).unwrap_or(default)
    }

    /// A number of bytes: `"16KiB"`, or a plain number.
    pub(in super::super) fn size<T>(
        &self,
        key: &'static str,
        default: T,
        range: RangeInclusive<u64>,
    ) -> T
    where
        T: TryFrom<u64>,
    {
        let written = self.get(key).and_then(|value| value.size(&range));
        written.and_then(|size| T::try_from(size).ok()).unwrap_or(default)
    }

    /// A share such as `"20%"`, between 0 and 1.
    pub(in super::super) fn share(&self, key: &'static str, default: f64) -> f64 {
        self.get(key).and_then(|value| value.share()).unwrap_or(default)
    }

    /// A plain factor such as `1.25`.
    pub(in super::super) fn factor(
        &self,
        key: &'static str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> f64 {
        self.get(key).and_then(|value| value.factor(&range)).unwrap_or(default)
    }
}

impl Value<'_> {
    /// A whole number, or a variable that holds one.
    pub(in super::super) fn number(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let number = match self.de {
            DeValue::Integer(_) => self.integer(),
            DeValue::String(_) => {
                let text = self.any_text()?;
                text.value.parse::<i128>().ok().filter(|_| text.from_env)
            }
            _ => None,
        };
        let Some(number) = number else {
            self.wrong_type("a whole number", "write digits only, without quotes");
            return None;
        };
        let range = i128::from(*range.start())..=i128::from(*range.end());
        let number = self.in_range(number, &range, |n| n.to_string())?;
        u64::try_from(number).ok()
    }

    /// TOML's integers end at 64 bits, its parser's do not: what is larger is out of any range.
    fn integer(&self) -> Option<i128> {
        let integer = self.de.as_integer()?;
        let digits = integer.as_str();
        let beyond = if digits.starts_with('-') { i128::MIN } else { i128::MAX };
        Some(i128::from_str_radix(digits, integer.radix()).unwrap_or(beyond))
    }

    /// A number of bytes.
    fn size(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let size = match self.de {
            DeValue::Integer(_) => {
                let largest = i128::from(u64::MAX);
                u64::try_from(self.integer()?.clamp(-1, largest)).unwrap_or(0)
            }
            DeValue::String(_) => {
                let text = self.text()?;
                let size = units::parse_size(&text.value).map_err(|error| {
                    let message = format!("{} is not a size: {}", self.name, text.shown());
                    let help =
                        "write a number and a unit: \"16KiB\", \"1MiB\", \"1GiB\" or \"10MB\"";
                    self.error("bad-size", message, &error.to_string(), help.to_owned());
                });
                size.ok()?
            }
            _ => {
                self.wrong_type("a size", "write a number and a unit in quotes, such as \"16KiB\"");
                return None;
            }
        };
        self.in_range(size, range, units::format_size)
    }

    /// A share of a whole.
    fn share(&self) -> Option<f64> {
        if !self.de.is_str() {
            let help = match self.de.as_float().and_then(|f| f.as_str().parse::<f64>().ok()) {
                Some(share) if (0.0..=1.0).contains(&share) => {
                    format!("write \"{}\"", units::format_share(share))
                }
                _ => "write it in percent and in quotes, such as \"20%\"".to_owned(),
            };
            self.wrong_type("a share", &help);
            return None;
        }
        let text = self.text()?;
        let share = units::parse_share(&text.value).map_err(|error| {
            let message = format!("{} is not a share: {}", self.name, text.shown());
            let help = "write it in percent, between \"0%\" and \"100%\"".to_owned();
            self.error("bad-share", message, &error.to_string(), help);
        });
        share.ok()
    }

    /// A number that may have a fraction.
    fn factor(&self, range: &RangeInclusive<f64>) -> Option<f64> {
        let number = match self.de {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(_) => self.integer().map(|whole| whole as f64),
            _ => None,
        };
        match number {
            Some(number) => self.in_range(number, range, |n| n.to_string()),
            None => {
                self.wrong_type("a number", "write a number without quotes, such as 1.25");
                None
            }
        }
    }
}
