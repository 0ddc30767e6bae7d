//! What launchers tell the processes that they start.

/// Variables with the number of processes: of Open MPI; of MPICH and its kin; of a step of SLURM.
const COUNTS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// How many processes a launcher started together, and the variable that says so; `None` for a process that
/// was started by itself.
pub(super) fn processes() -> Option<(&'static str, usize)> {
    counted(|name| std::env::var(name).ok())
}

fn counted(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    let mut counts = COUNTS
        .iter()
        .filter_map(|name| Some((*name, variable(name)?.trim().parse().ok()?)));
    counts.find(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_how_many_there_are() {
        let of = |set: &[(&str, &str)]| {
            counted(|name| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("PMI_SIZE", "4")]), Some(("PMI_SIZE", 4)));
        assert_eq!(of(&[("PMI_SIZE", "many")]), None);
        let both = [("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "8")];
        assert_eq!(of(&both), Some(("OMPI_COMM_WORLD_SIZE", 8)));
    }
}
