//! The memory of this process and of its machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// From one look at the memory to the next.
const PAUSE: Duration = Duration::from_millis(2);

/// The resident set of this process, in bytes.
pub fn resident() -> Result<u64> {
    Look::new()?
        .resident()
        .context("the memory of this process")
}

/// What this process can have in all: what it has, and what is available beside it.
pub fn limit() -> Result<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let free = match system.cgroup_limits() {
        Some(limits) => limits.free_memory.min(system.available_memory()),
        None => system.available_memory(),
    };
    Ok(resident()? + free)
}

/// Watches the resident set until it is asked for the highest value.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    highest: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin() -> Result<Self> {
        let mut look = Look::new()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let highest = Arc::new(AtomicU64::new(resident()?));
        let (over, high) = (is_over.clone(), highest.clone());
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                high.fetch_max(look.resident().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            is_over,
            highest,
            thread,
        })
    }

    /// The highest value since the beginning, in bytes.
    pub fn end(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        // A thread that only looks does not panic; without it the highest value so far stays.
        let _ = self.thread.join();
        self.highest.load(Ordering::Relaxed)
    }
}

/// Looks at this process.
struct Look {
    system: System,
    pid: Pid,
}

impl Look {
    fn new() -> Result<Self> {
        let pid = sysinfo::get_current_pid().map_err(anyhow::Error::msg)?;
        Ok(Self {
            system: System::new(),
            pid,
        })
    }

    fn resident(&mut self) -> Option<u64> {
        self.system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[self.pid]),
            false,
            ProcessRefreshKind::nothing().with_memory().without_tasks(),
        );
        Some(self.system.process(self.pid)?.memory())
    }
}
