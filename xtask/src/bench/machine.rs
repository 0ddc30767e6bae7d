//! The machine that is measured.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// The machine; only Linux tells all of it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Machine {
    /// Its processor's name.
    pub cpu: String,
    /// Threads that it has.
    pub threads: usize,
    /// Bytes of its memory.
    pub memory_bytes: Option<u64>,
    /// The widest vectors.
    pub simd: String,
    /// Whether it multiplies bf16 numbers.
    pub bf16: bool,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let mut words = cpu.split_whitespace();
        Self {
            cpu: value(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            memory_bytes: memory.map(|kibibytes| kibibytes * 1024),
            simd: qoft_kernels::simd_level().to_owned(),
            bf16: words.any(|word| matches!(word, "avx512_bf16" | "amx_bf16" | "bf16")),
        }
    }
}

impl Display for Machine {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{} ({}), {} threads", self.cpu, self.simd, self.threads)?;
        match self.memory_bytes {
            Some(bytes) => write!(f, ", {} GiB of memory", bytes >> 30),
            None => Ok(()),
        }
    }
}
