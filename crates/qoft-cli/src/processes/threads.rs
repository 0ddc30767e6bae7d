//! How many threads each of several processes has.

use std::num::NonZeroUsize;

use qoft::train::group::{Group, GroupError};

/// `given`, or if that is 0 the processors that a process may use, over the processes that may use the same
/// ones; the least number of all of them, so that all compute alike.
pub(super) fn share(group: &dyn Group, given: usize) -> Result<usize, GroupError> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let host = read("/proc/sys/kernel/hostname");
    let place = format!("{} {}", host.trim(), allowed.unwrap_or_default().trim());
    let all = group.gather(place.as_bytes())?;
    let sharing = all.iter().filter(|other| **other == place.as_bytes());
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let own = (processors / sharing.count().max(1)).max(1);
    let all = group.gather(own.to_string().as_bytes())?;
    let numbers = all
        .iter()
        .filter_map(|said| std::str::from_utf8(said).ok()?.parse().ok());
    let least = numbers.min().unwrap_or(own);
    Ok(if given > 0 { given } else { least })
}
