//! Optimizers by the names that transformers has for them.

use anyhow::{Result, bail};

/// What ends the names of optimizers that keep less, or keep it elsewhere.
const SPARING: [&str; 3] = ["_8bit", "_4bit", "_32bit"];
/// What such names begin with.
const PAGED: &str = "paged_";

/// The optimizer here that a name stands for, which may be one of bitsandbytes or torchao: they keep the same
/// numbers in fewer bits, or in the memory of the CPU.
///
/// # Errors
/// For optimizers that there are not, and that many know.
pub(super) fn optimizer_here(name: &str) -> Result<String> {
    let given = name.to_lowercase().replace('-', "_");
    match given.as_str() {
        "adafactor" => bail!(
            "--optimizer {name}: Adafactor saves the memory of Adam's averages, which for an adapter is little; \
             adamw is the default, and sgd keeps nothing"
        ),
        "rmsprop" | "adagrad" | "adalomo" | "lomo" | "galore_adamw" | "apollo_adamw" => bail!(
            "--optimizer {name}: there is no such optimizer here; adamw is the default, and adam, sgd, adan, lion, \
             schedule_free_adamw and muon are the others"
        ),
        _ => {}
    }
    Ok(match bare(&given) {
        "adamw_bnb" => "adamw".to_owned(),
        kept => kept.to_owned(),
    })
}

/// A line about an optimizer that keeps less elsewhere than here.
pub(super) fn note(name: &str) -> Option<String> {
    let given = name.to_lowercase().replace('-', "_");
    let here = optimizer_here(name).ok()?;
    (bare(&given) != given).then(|| {
        format!(
            "--optimizer {name}: it is {here} with all averages in float32 and in memory; they are as large as the \
             adapter twice at most, so that fewer bits or paging would save little"
        )
    })
}

/// A name without what says how much is kept, and where.
fn bare(name: &str) -> &str {
    let name = name.strip_prefix(PAGED).unwrap_or(name);
    // `lion_32bit` is one that transformers has as well.
    let ends = SPARING.iter().find_map(|end| name.strip_suffix(end));
    ends.unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparing_optimizers_are_those_that_they_spare() {
        for (given, here) in [
            ("adamw_8bit", "adamw"),
            ("adamw_bnb_8bit", "adamw"),
            ("adamw_torch_8bit", "adamw_torch"),
            ("adamw_torch_4bit", "adamw_torch"),
            ("paged_adamw", "adamw"),
            ("paged_adamw_32bit", "adamw"),
            ("paged_adamw_8bit", "adamw"),
            ("lion_8bit", "lion"),
            ("paged_lion_32bit", "lion"),
        ] {
            assert_eq!(optimizer_here(given).unwrap(), here, "{given}");
            assert!(note(given).unwrap().contains("float32"), "{given}");
        }
        for given in ["adamw", "adamw_torch_fused", "AdamW", "schedule_free_adamw"] {
            assert_eq!(optimizer_here(given).unwrap(), given.to_lowercase());
            assert_eq!(note(given), None);
        }
        let error = optimizer_here("adafactor").unwrap_err().to_string();
        assert!(error.contains("sgd keeps nothing"), "{error}");
    }
}
