//! How many data threads a machine, or a container's share of one, can feed.

use std::path::Path;
use std::thread::available_parallelism;

/// CPU time per period, as the kernel's control groups count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of CPU time.
    pub quota: u64,
    /// In so many microseconds.
    pub period: u64,
}

impl CpuQuota {
    /// Reads `cpu.max` of control groups v2: `150000 100000`, or `max 100000` for none.
    #[must_use]
    pub fn from_cpu_max(text: &str) -> Option<Self> {
        let (quota, period) = text.trim().split_once(' ')?;
        Self::new(quota.parse().ok()?, period.parse().ok()?)
    }

    /// Reads `cpu.cfs_quota_us` and `cpu.cfs_period_us` of control groups v1; a quota of -1 is none.
    #[must_use]
    pub fn from_cfs(quota: &str, period: &str) -> Option<Self> {
        Self::new(quota.trim().parse().ok()?, period.trim().parse().ok()?)
    }

    fn new(quota: u64, period: u64) -> Option<Self> {
        (quota > 0 && period > 0).then_some(Self { quota, period })
    }

    /// Data threads for this quota: rounded up, because half a CPU unused costs more than a thread;
    /// never more than the CPUs that may be run on.
    #[must_use]
    pub fn threads(self, parallelism: usize) -> usize {
        // The standard library's figure is the smaller of the CPUs and the quota rounded down.
        let whole = usize::try_from(self.quota / self.period).unwrap_or(usize::MAX).max(1);
        if parallelism < whole {
            return parallelism.max(1);
        }
        usize::try_from(self.quota.div_ceil(self.period)).unwrap_or(whole)
    }
}

/// The default of `threads`: the CPU quota of the control group rounded up, else the CPUs that this
/// process may run on; at least 1.
#[must_use]
pub fn available() -> usize {
    let parallelism = available_parallelism().map_or(1, usize::from);
    let quota = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| smallest_quota(Path::new("/sys/fs/cgroup"), &groups));
    quota.map_or(parallelism, |quota| quota.threads(parallelism))
}

/// The tightest quota of the process's group and its parents. `groups` is `/proc/self/cgroup`.
fn smallest_quota(root: &Path, groups: &str) -> Option<CpuQuota> {
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?.trim_start_matches('/')))
        })
        .filter_map(|(controllers, path)| match controllers {
            "" => tightest(root, path, read_v2),
            _ if controllers.split(',').any(|c| c == "cpu") => {
                let at = |dir: &str| tightest(&root.join(dir), path, read_v1);
                at(controllers).or_else(|| at("cpu"))
            }
            _ => None,
        })
        .min_by(compare)
}

/// In a container the path is the host's and may not exist here; its parents up to the root do.
fn tightest(root: &Path, path: &str, read: fn(&Path) -> Option<CpuQuota>) -> Option<CpuQuota> {
    let group = root.join(path);
    let parents = group.ancestors().take_while(|dir| dir.starts_with(root));
    parents.filter_map(read).min_by(compare)
}

fn compare(a: &CpuQuota, b: &CpuQuota) -> std::cmp::Ordering {
    let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
    product(a.quota, b.period).cmp(&product(b.quota, a.period))
}

fn read_v2(dir: &Path) -> Option<CpuQuota> {
    CpuQuota::from_cpu_max(&std::fs::read_to_string(dir.join("cpu.max")).ok()?)
}

fn read_v1(dir: &Path) -> Option<CpuQuota> {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).ok();
    CpuQuota::from_cfs(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(quota: u64) -> CpuQuota {
        CpuQuota { quota, period: 100_000 }
    }

    #[test]
    fn both_versions_are_read() {
        assert_eq!(CpuQuota::from_cpu_max("150000 100000\n"), Some(quota(150_000)));
        assert_eq!(CpuQuota::from_cpu_max("max 100000\n"), None);
        assert_eq!(CpuQuota::from_cpu_max(""), None);
        assert_eq!(CpuQuota::from_cpu_max("1000 0"), None);
        assert_eq!(CpuQuota::from_cfs("200000\n", "100000\n"), Some(quota(200_000)));
        assert_eq!(CpuQuota::from_cfs("-1\n", "100000\n"), None);
    }

    #[test]
    fn a_quota_is_rounded_up_and_bounded_by_the_cpus() {
        // The second figure is what the standard library says under that quota.
        let cases = [(50_000, 1, 1), (150_000, 1, 2), (200_000, 2, 2), (400_000, 1, 1)];
        for (micros, parallelism, threads) in cases {
            assert_eq!(quota(micros).threads(parallelism), threads, "{micros}");
        }
    }

    #[test]
    fn the_tightest_group_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("pod/box");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("cpu.max"), "400000 100000").unwrap();
        std::fs::write(root.path().join("pod/cpu.max"), "150000 100000").unwrap();
        assert_eq!(smallest_quota(root.path(), "0::/pod/box\n"), Some(quota(150_000)));
        assert_eq!(smallest_quota(root.path(), "0::/elsewhere\n"), None);
    }

    #[test]
    fn version_one_is_found_under_either_name() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cpu");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("cpu.cfs_quota_us"), "300000").unwrap();
        std::fs::write(dir.join("cpu.cfs_period_us"), "100000").unwrap();
        let groups = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n";
        assert_eq!(smallest_quota(root.path(), groups), Some(quota(300_000)));
    }

    #[test]
    fn there_is_always_one_thread() {
        assert!(available() >= 1);
    }
}
