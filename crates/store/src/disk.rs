//! What this computer has: free space, memory, CPU, and what this process used at most.
//!
//! Linux tells through `/proc` and control groups; elsewhere most answers are `None`, and the caller says
//! "not measured".
use std::path::Path;

/// Bytes that an unprivileged process can still write where `path` is (or its nearest existing parent); `None` where unknown.
pub fn free_bytes(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let absolute = std::path::absolute(path).ok()?;
        let there = absolute.ancestors().find(|p| p.exists())?;
        let found = rustix::fs::statvfs(there).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Memory this process may use: the machine's, or the control group's limit where lower; `None` where unknown.
pub fn memory_bytes() -> Option<u64> {
    least(kilobytes("/proc/meminfo", "MemTotal:"), group_limit())
}

/// Memory available now without swapping; `None` where unknown.
pub fn memory_available_bytes() -> Option<u64> {
    let left_in_group = group_limit().map(|limit| {
        let used = number("/sys/fs/cgroup/memory.current").or_else(|| number("/sys/fs/cgroup/memory/memory.usage_in_bytes"));
        limit.saturating_sub(used.unwrap_or(0).saturating_sub(group_cache()))
    });
    least(kilobytes("/proc/meminfo", "MemAvailable:"), left_in_group)
}

/// The CPU's model name; `None` where unknown.
pub fn cpu_model() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name") || l.starts_with("Model"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned())
}

/// Most memory this process has had resident; `None` where unknown.
pub fn peak_rss_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Memory this process has resident now; `None` where unknown.
pub fn rss_bytes() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS:")
}

fn group_limit() -> Option<u64> {
    // Version 2 says "max" and version 1 a huge number where there is no limit; the lesser with MemTotal is right for both.
    number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
}

/// Of the memory that the group uses, pages of files, which make room where memory is needed: a base's files were read for their hashes.
fn group_cache() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let stat = read("/sys/fs/cgroup/memory.stat").or_else(|| read("/sys/fs/cgroup/memory/memory.stat")).unwrap_or_default();
    cached(&stat)
}

/// The same of a `memory.stat`: version 1 also has the lines of the group alone, without the groups in it.
fn cached(stat: &str) -> u64 {
    let line = |key: &str| stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
    let list = |total: &str, own: &str| line(total).or_else(|| line(own)).unwrap_or(0);
    list("total_inactive_file", "inactive_file").saturating_add(list("total_active_file", "active_file"))
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn kilobytes(path: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn linux_answers_everything_plausibly() {
        assert!(free_bytes(Path::new("/no/such/folder/yet")).unwrap() > 0);
        assert!(memory_bytes().unwrap() >= memory_available_bytes().unwrap());
        assert!(peak_rss_bytes().unwrap() >= 1 << 20);
        assert!(peak_rss_bytes().unwrap() >= rss_bytes().unwrap() / 2);
    }

    #[test]
    fn pages_of_files_make_room() {
        assert_eq!(cached("anon 9\nfile 8\ninactive_file 3\nactive_file 4\n"), 7);
        assert_eq!(cached("inactive_file 1\nactive_file 1\ntotal_inactive_file 30\ntotal_active_file 40\n"), 70);
        assert_eq!(cached(""), 0);
    }
}
