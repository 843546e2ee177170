//! The process itself, with the names that every Prometheus client uses.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// When this process began to count.
pub(super) struct Process {
    started_seconds: f64,
}

impl Process {
    /// The registry is made first of all, so its age is the process's.
    pub(super) fn started_now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_seconds: since.as_secs_f64() }
    }

    /// The present values; what the system does not tell is left out.
    pub(super) fn registry(&self) -> Registry {
        let mut to = Registry::default();
        let started = ConstGauge::new(self.started_seconds);
        to.register_with_unit("process_start_time", "Start of the process since the epoch", Unit::Seconds, started);
        if let Some(bytes) = resident_bytes() {
            let resident = ConstGauge::new(bytes);
            to.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident);
        }
        if let Some(count) = open_descriptors() {
            to.register("process_open_fds", "Open file descriptors", ConstGauge::new(count));
        }
        to
    }
}

/// `VmRSS` of proc(5): in kB, which are KiB.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_descriptors() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory that is being read.
    u64::try_from(entries.count()).ok()?.checked_sub(1)
}
