//! What all processes have to have in common.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Group, GroupError};

/// Fails unless all processes have the same values under the same names.
///
/// # Errors
/// [`GroupError::Different`] about the first rank that has others than rank 0, with all that differs.
pub fn check_same(group: &dyn Group, own: &[(String, String)]) -> Result<(), GroupError> {
    if group.size() == 1 {
        return Ok(());
    }
    let bytes = serde_json::to_vec(own).map_err(|e| GroupError::Library(e.to_string()))?;
    let all = group.gather(&bytes)?;
    let read = |rank: usize| -> Result<Vec<(String, String)>, GroupError> {
        let bytes = &all[rank];
        serde_json::from_slice(bytes)
            .map_err(|_| GroupError::unreadable(rank, bytes, "names and values"))
    };
    let expected = read(0)?;
    for rank in 1..group.size() {
        if all[rank] == all[0] {
            continue;
        }
        let found = read(rank)?;
        let value = |pairs: &[(String, String)], name: &str| {
            let pair = pairs.iter().find(|(key, _)| key == name);
            pair.map_or_else(|| "absent".to_owned(), |(_, value)| value.clone())
        };
        let mut names: Vec<&String> = expected.iter().chain(&found).map(|(key, _)| key).collect();
        names.sort();
        names.dedup();
        let pairs = names.into_iter();
        let pairs = pairs.map(|name| (name, value(&found, name), value(&expected, name)));
        let differences = pairs.filter(|(_, found, expected)| found != expected).map(
            |(name, found, expected)| format!("{name} is {found} there, and {expected} on rank 0"),
        );
        return Err(GroupError::Different {
            rank,
            differences: differences.collect(),
        });
    }
    Ok(())
}

/// What rank 0 decides, for all of them.
///
/// # Errors
/// The error of `decide`, on rank 0; the others wait for its end. [`GroupError`] as `E`.
pub fn decide<T, E>(group: &dyn Group, decide: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: From<GroupError>,
{
    if group.rank() == 0 {
        let decision = decide()?;
        if group.size() > 1 {
            let bytes = serde_json::to_vec(&decision);
            group.gather(&bytes.map_err(|e| GroupError::Library(e.to_string()))?)?;
        }
        return Ok(decision);
    }
    let all = group.gather(&[])?;
    let decision = serde_json::from_slice(&all[0]);
    Ok(decision.map_err(|_| GroupError::unreadable(0, &all[0], "a decision"))?)
}
