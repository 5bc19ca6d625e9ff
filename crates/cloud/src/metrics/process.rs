//! What every Prometheus exporter says of its own process, by the names that everybody's dashboards know.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

/// Of the running process.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub memory_bytes: u64,
    pub open_files: u64,
    pub most_files: u64,
}

/// What the kernel says; 0 for what it does not.
pub fn usage() -> Usage {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let number = |text: &str, line: &str, word: usize| {
        let found =
            text.lines().find_map(|it| it.strip_prefix(line)?.split_whitespace().nth(word)?.parse().ok());
        found.unwrap_or(0)
    };
    Usage {
        memory_bytes: number(&read("status"), "VmRSS:", 0) * 1024,
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        most_files: number(&read("limits"), "Max open files", 0),
    }
}

pub(super) struct Process {
    memory: Gauge,
    open_files: Gauge,
    most_files: Gauge,
}

impl Process {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let process =
            Self { memory: Gauge::default(), open_files: Gauge::default(), most_files: Gauge::default() };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let started = Gauge::<f64, AtomicU64>::default();
        started.set(since.as_secs_f64());
        registry.register("process_start_time_seconds", "When it started, in seconds since 1970", started);
        registry.register("process_resident_memory_bytes", "Memory that it holds", process.memory.clone());
        registry.register(
            "process_open_fds",
            "Files and connections that it has open",
            process.open_files.clone(),
        );
        registry.register("process_max_fds", "How many it may have open", process.most_files.clone());
        process
    }

    pub(super) fn look(&self) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let usage = usage();
        self.memory.set(whole(usage.memory_bytes));
        self.open_files.set(whole(usage.open_files));
        self.most_files.set(whole(usage.most_files));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_memory_and_files() {
        let usage = usage();
        assert!(usage.memory_bytes > 1 << 20 && usage.open_files >= 3, "{usage:?}");
        assert!(usage.most_files >= usage.open_files, "{usage:?}");
    }
}
