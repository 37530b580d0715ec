//! What the kernel says of a process: CPU time and memory.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// Memory of one process, kB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Resident, shared pages counted in full.
    pub rss_kb: u64,
    /// Resident, shared pages divided among their users.
    pub pss_kb: u64,
    /// Resident and private to the process: heap and stacks.
    pub anonymous_kb: u64,
}

impl Memory {
    /// Reads `/proc/PID/smaps_rollup`.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| {
                    line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()
                })
                .with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self { rss_kb: field("Rss")?, pss_kb: field("Pss")?, anonymous_kb: field("Anonymous")? })
    }
}

/// CPU time that a process has used so far, user and system, ms.
pub fn cpu_ms(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The name in parentheses may hold anything, so count from its end: utime and stime are fields 14 and 15.
    let ticks: Option<u64> = text.rsplit_once(") ").and_then(|(_, rest)| {
        let mut fields = rest.split(' ').skip(11);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
    });
    // SAFETY: no memory is involved.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Ok(ticks.with_context(|| format!("{path}: {text:?} is not understood"))? * 1000 / hertz)
}

/// The machine: what numbers are worth depends on it.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// CPUs that this process may use.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_memory_and_its_cpu_time_grows() {
        let pid = std::process::id() as i32;
        let memory = Memory::of(pid).unwrap();
        assert!(memory.rss_kb >= memory.pss_kb && memory.anonymous_kb > 0, "{memory:?}");
        let before = cpu_ms(pid).unwrap();
        let mut n = 0u64;
        while cpu_ms(pid).unwrap() < before + 20 {
            n = std::hint::black_box(n + 1);
        }
    }
}
