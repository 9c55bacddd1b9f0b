//! Times of log lines in UTC. Formatting a date takes longer than the rest of a line, and most lines
//! share their second with the one before, so the last second's text is kept.

/// Remembers how the last second is written.
#[derive(Default)]
pub struct TimeCache {
    /// Seconds since 1970 that the texts stand for.
    second: Option<u64>,
    rfc3339: [u8; 19],
    combined: [u8; 20],
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// The end of year 9999: the formats have four digits for a year.
const LAST_SECOND: u64 = 253_402_300_799;

impl TimeCache {
    /// Appends `2026-11-22T21:56:15.042Z`; later than the year 9999 is written as its end.
    pub fn write_rfc3339(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        self.renew(unix_ms / 1000);
        out.extend_from_slice(&self.rfc3339);
        let ms = (unix_ms % 1000) as u32;
        let fraction = [ms / 100, ms / 10 % 10, ms % 10].map(digit);
        out.push(b'.');
        out.extend_from_slice(&fraction);
        out.push(b'Z');
    }

    /// Appends `22/Nov/2026:21:56:15 +0000`.
    pub fn write_combined(&mut self, unix_ms: u64, out: &mut Vec<u8>) {
        self.renew(unix_ms / 1000);
        out.extend_from_slice(&self.combined);
        out.extend_from_slice(b" +0000");
    }

    fn renew(&mut self, second: u64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let second = second.min(LAST_SECOND);
        let (year, month, day) = date(second / 86_400);
        let of_day = (second % 86_400) as u32;
        let clock = [of_day / 3600, of_day / 60 % 60, of_day % 60].map(two);
        let year = [two(year / 100), two(year % 100)].concat();
        let name = MONTHS[month as usize - 1];
        let [hour, minute, second] = clock;
        let (month, day) = (two(month), two(day));
        put(&mut self.rfc3339, &[&year, b"-", &month, b"-", &day, b"T"], &[hour, minute, second]);
        put(&mut self.combined, &[&day, b"/", name, b"/", &year, b":"], &[hour, minute, second]);
    }
}

/// Writes the parts, then the clock with colons.
fn put(out: &mut [u8], parts: &[&[u8]], clock: &[[u8; 2]; 3]) {
    let [hour, minute, second] = clock;
    let clock: [&[u8]; 5] = [hour, b":", minute, b":", second];
    let mut at = 0;
    for part in parts.iter().chain(&clock) {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
}

fn two(value: u32) -> [u8; 2] {
    [digit(value / 10 % 10), digit(value % 10)]
}

fn digit(value: u32) -> u8 {
    b'0' + value as u8
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Years are counted from March, so that a leap day is the last of its year, in cycles of 400 years,
/// which all have 146,097 days.
fn date(day: u64) -> (u32, u32, u32) {
    let since_0000_03_01 = day + 719_468;
    let cycle = since_0000_03_01 / 146_097;
    let of_cycle = since_0000_03_01 % 146_097;
    let leaps = of_cycle / 1_460 - of_cycle / 36_524 + of_cycle / 146_096;
    let year = (of_cycle - leaps) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    // From March on, the months' lengths repeat every five: 153 days.
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    ((cycle * 400 + year + next_year) as u32, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(unix_ms: u64) -> String {
        let mut out = Vec::new();
        TimeCache::default().write_rfc3339(unix_ms, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_times() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_001, "2000-03-01T00:00:00.001Z"),
            (1_767_225_599_010, "2025-12-31T23:59:59.010Z"),
            (1_795_384_575_042, "2026-11-22T21:56:15.042Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST_SECOND * 1000, "9999-12-31T23:59:59.000Z"),
            (u64::MAX / 1000 * 1000, "9999-12-31T23:59:59.000Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn days_follow_one_another() {
        let (mut year, mut month, mut day) = date(0);
        for n in 1..200_000 {
            let next = date(n);
            let expected = [(year, month, day + 1), (year, month + 1, 1), (year + 1, 1, 1)];
            assert!(expected.contains(&next), "{n}: {next:?}");
            (year, month, day) = next;
        }
        // 200,000 days are 547 years and some: no month was lost or doubled.
        assert_eq!((year, month, day), (2517, 7, 31));
    }

    #[test]
    fn a_cached_second_equals_a_fresh_one() {
        let mut cache = TimeCache::default();
        for ms in [0, 999, 1000, 61_000, 61_500, 86_400_000, 5] {
            let (mut out, mut combined) = (Vec::new(), Vec::new());
            cache.write_rfc3339(ms, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), rfc3339(ms));
            cache.write_combined(ms, &mut combined);
            assert_eq!(combined.len(), "22/Nov/2026:21:56:15 +0000".len());
        }
        let mut out = Vec::new();
        cache.write_combined(1_795_384_575_042, &mut out);
        assert_eq!(out, b"22/Nov/2026:21:56:15 +0000");
    }
}
