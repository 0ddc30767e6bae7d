//! How large the files of a checkpoint become.

use std::str::FromStr;

/// Names of units, and their bytes: those with an `i` count by 1024.
const UNITS: [(&str, u64); 9] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1000),
    ("b", 1),
];

/// The most bytes of tensors that go into one file: transformers' `max_shard_size`, with its default
/// of 50 GB. A tensor that is larger has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxShardSize(u64);

impl MaxShardSize {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Default for MaxShardSize {
    fn default() -> Self {
        Self(50_000_000_000)
    }
}

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 5GB, 500MB, 2GiB or a number of bytes")]
pub struct NoSize;

impl FromStr for MaxShardSize {
    type Err = NoSize;

    fn from_str(text: &str) -> Result<Self, NoSize> {
        let text = text.trim().to_ascii_lowercase();
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = match unit {
            Some((unit, factor)) => (text[..text.len() - unit.len()].trim_end(), *factor),
            None => (text.as_str(), 1),
        };
        if let Ok(whole) = number.parse::<u64>() {
            let bytes = whole.checked_mul(factor).filter(|bytes| *bytes > 0);
            return bytes.map(Self).ok_or(NoSize);
        }
        let bytes = number.parse::<f64>().map_err(|_| NoSize)? * factor as f64;
        match bytes.is_finite() && (1.0..u64::MAX as f64).contains(&bytes) {
            true => Ok(Self(bytes as u64)),
            false => Err(NoSize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_in_transformers() {
        let read = |text: &str| text.parse::<MaxShardSize>().map(|size| size.0);
        assert_eq!(read("5GB"), Ok(5_000_000_000));
        assert_eq!(read("200mb"), Ok(200_000_000));
        assert_eq!(read("1.5 KB"), Ok(1500));
        assert_eq!(read("2GiB"), Ok(2 << 30));
        assert_eq!(read("4096"), Ok(4096));
        assert_eq!(read("7B"), Ok(7));
        for wrong in [
            "0",
            "0.1B",
            "",
            "GB",
            "-1GB",
            "five",
            "1XB",
            "NaN",
            "infGB",
            "99999999999999TB",
        ] {
            assert_eq!(read(wrong), Err(NoSize), "{wrong}");
        }
    }
}
