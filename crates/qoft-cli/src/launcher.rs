//! What launchers tell the processes that they start.

/// Variables with the number of processes: of Open MPI; of MPICH and its kin; of a step of SLURM.
const COUNTS: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
/// Those with the number of this one among them.
const RANKS: [&str; 3] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"];

/// How many processes a launcher started together, and the variable that says so; `None` for a process that
/// was started by itself.
pub fn processes() -> Option<(&'static str, usize)> {
    numbers(&COUNTS, variable).find(|(_, count)| *count > 0)
}

/// Whether this is one of several processes, and not the first one.
pub fn is_follower() -> bool {
    let rank = numbers(&RANKS, variable).next();
    processes().is_some_and(|(_, count)| count > 1) && rank.is_some_and(|(_, rank)| rank > 0)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variables that are numbers, and these.
fn numbers(
    names: &'static [&'static str],
    variable: impl Fn(&str) -> Option<String>,
) -> impl Iterator<Item = (&'static str, usize)> {
    let names = names.iter();
    names.filter_map(move |name| Some((*name, variable(name)?.trim().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_how_many_there_are() {
        let of = |set: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            numbers(&COUNTS, variable).next()
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("PMI_SIZE", "4")]), Some(("PMI_SIZE", 4)));
        assert_eq!(of(&[("PMI_SIZE", "many")]), None);
        let both = [("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "8")];
        assert_eq!(of(&both), Some(("OMPI_COMM_WORLD_SIZE", 8)));
    }
}
