//! What this computer has: free space, memory, CPU, and what this process used at most.
use std::path::Path;

/// Bytes that an unprivileged process can still write where `path` is (or its nearest existing parent); `None` where unknown.
pub fn free_bytes(path: &Path) -> Option<u64> { todo!() }
/// Memory this process may use: the machine's, or the control group's limit where lower; `None` where unknown.
pub fn memory_bytes() -> Option<u64> { todo!() }
/// Memory available now without swapping; `None` where unknown.
pub fn memory_available_bytes() -> Option<u64> { todo!() }
/// The CPU's model name; `None` where unknown.
pub fn cpu_model() -> Option<String> { todo!() }
/// Most memory this process has had resident; `None` where unknown.
pub fn peak_rss_bytes() -> Option<u64> { todo!() }
