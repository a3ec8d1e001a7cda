//! What the kernel knows about the measured processes.

use std::collections::HashMap;
use std::fs;
use std::io;

use super::BenchError;

/// The server's processes.
#[derive(Debug, Default)]
pub(super) struct Processes {
    processes: Vec<Process>,
}

/// What they use at one moment, all together.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    /// Processor time since they started, in nanoseconds.
    pub(super) cpu_ns: u64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// Threads.
    pub(super) threads: u64,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    /// What every thread had used when it was last seen. Those that ended stay, so that the sum never falls.
    threads: HashMap<u32, u64>,
    clock_ticks: bool,
}

impl Processes {
    /// The processes with these ids.
    ///
    /// # Errors
    /// [`BenchError::Process`] if one of them does not exist.
    pub(super) fn new(pids: &[u32]) -> Result<Self, BenchError> {
        let mut processes = Vec::new();
        for &pid in pids {
            // Kernels built without scheduler statistics have no such file.
            let clock_ticks = fs::metadata(format!("/proc/{pid}/schedstat")).is_err();
            processes.push(Process { pid, threads: HashMap::new(), clock_ticks });
        }
        let mut processes = Self { processes };
        processes.usage()?;
        Ok(processes)
    }

    /// What they use now; `None` if there are none to look at.
    ///
    /// # Errors
    /// [`BenchError::Process`] if one of them has ended.
    pub(super) fn usage(&mut self) -> Result<Option<Usage>, BenchError> {
        if self.processes.is_empty() {
            return Ok(None);
        }
        let mut sum = Usage::default();
        for process in &mut self.processes {
            let usage = process.usage().map_err(|cause| BenchError::Process { pid: process.pid, cause })?;
            sum.cpu_ns += usage.cpu_ns;
            sum.rss_bytes += usage.rss_bytes;
            sum.threads += usage.threads;
        }
        Ok(Some(sum))
    }
}

impl Process {
    fn usage(&mut self) -> io::Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        let cpu_ns = if self.clock_ticks { self.ticks()? } else { self.schedule()? };
        Ok(Usage { cpu_ns, rss_bytes: field("VmRSS").unwrap_or(0) * 1024, threads: field("Threads").unwrap_or(0) })
    }

    /// Nanoseconds on a processor, from the scheduler's own account of every thread.
    fn schedule(&mut self) -> io::Result<u64> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let path = entry?.path();
            let thread = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            // A thread may end between being listed and being read.
            let (Some(thread), Ok(text)) = (thread, fs::read_to_string(path.join("schedstat"))) else { continue };
            if let Some(used) = text.split_whitespace().next().and_then(|field| field.parse().ok()) {
                self.threads.insert(thread, used);
            }
        }
        Ok(self.threads.values().sum())
    }

    /// The same in steps of a clock tick, which is 1/100 s for everybody who asks Linux.
    fn ticks(&self) -> io::Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name in parentheses may hold spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
            return Err(io::Error::other("stat has no utime and stime"));
        };
        Ok((user + system) * 10_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something_by_either_account() {
        let mut process = Process { pid: std::process::id(), threads: HashMap::new(), clock_ticks: false };
        let usage = process.usage().unwrap();
        assert!(usage.cpu_ns > 0 && usage.rss_bytes > 0 && usage.threads > 0, "{usage:?}");
        process.ticks().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Processes::new(&[u32::MAX]).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295"), "{error}");
    }
}
