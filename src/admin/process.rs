//! The `process_*` metrics that every Prometheus client gives, read from `/proc`.
//!
//! Source: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics> and proc(5).

use std::fmt::Write as _;
use std::fs;

/// What is known of this process. What cannot be read is left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    cpu_seconds: Option<f64>,
    start_time_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

impl Process {
    /// Reads this process.
    pub(super) fn read() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text));
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Process {
            open_fds,
            max_fds: limit.map(|limit| limit as f64),
            ..Process::parse(&stat, booted, ticks(), rustix::param::page_size() as f64)
        }
    }

    /// Reads `/proc/self/stat`. The name of the program is in brackets and may hold anything, so fields
    /// are counted from the last bracket: there, the state is the first (field 3 of proc(5)).
    fn parse(stat: &str, booted: Option<f64>, ticks: f64, page: f64) -> Process {
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|f| f.parse::<f64>().ok());
        let started = field(22).map(|started| started / ticks);
        Process {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
            start_time_seconds: booted.zip(started).map(|(booted, started)| booted + started),
            threads: field(20),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * page),
            ..Process::default()
        }
    }

    /// Prometheus text.
    pub(super) fn render(&self, out: &mut String) {
        let metrics = [
            ("process_cpu_seconds_total", "counter", "CPU time used.", self.cpu_seconds),
            (
                "process_start_time_seconds",
                "gauge",
                "Unix time of the start.",
                self.start_time_seconds,
            ),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", self.resident_bytes),
            ("process_virtual_memory_bytes", "gauge", "Virtual memory.", self.virtual_bytes),
            ("process_threads", "gauge", "Threads.", self.threads),
            ("process_open_fds", "gauge", "Open descriptors.", self.open_fds),
            ("process_max_fds", "gauge", "Limit of open descriptors.", self.max_fds),
        ];
        for (name, kind, help, value) in metrics {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            }
        }
    }
}

fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Clock ticks a second, in which `/proc` counts time.
fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 1000 \
                    8192000 300 18446744073709551615 1 1";
        let process = Process::parse(stat, Some(1_000_000.0), 100.0, 4096.0);
        assert_eq!(process.cpu_seconds, Some(3.0));
        assert_eq!(process.threads, Some(7.0));
        assert_eq!(process.start_time_seconds, Some(1_000_010.0));
        assert_eq!(process.virtual_bytes, Some(8_192_000.0));
        assert_eq!(process.resident_bytes, Some(300.0 * 4096.0));
    }

    #[test]
    fn this_process_can_be_read_whole() {
        let process = Process::read();
        let mut out = String::new();
        process.render(&mut out);
        assert_eq!(out.lines().filter(|line| !line.starts_with('#')).count(), 7, "{out}");
        assert!(process.resident_bytes > Some(100_000.0));
        assert!(process.start_time_seconds > Some(1_500_000_000.0));
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let mut out = String::new();
        Process::parse("", None, 100.0, 4096.0).render(&mut out);
        assert_eq!(out, "");
    }
}
