//! `adapter_config.json` of BOFT, with PEFT's keys and defaults.

use qoft_core::{Error, Result};
use qoft_peft::{CommonConfig, FamilyKeys};
use serde::{Deserialize, Serialize};

/// PEFT's `BOFTConfig`. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BoftConfig {
    /// Size of a block; 0: given by `boft_block_num`.
    pub boft_block_size: usize,
    /// Number of blocks of a layer; 0: given by `boft_block_size`.
    pub boft_block_num: usize,
    /// Factors of a butterfly. One is a single block diagonal matrix.
    pub boft_n_butterfly_factor: usize,
    /// Share of the blocks of one factor that a training step replaces by the identity.
    pub boft_dropout: f64,
    /// True for weights stored as `[in, out]`. The model knows itself how it stores them, and goes
    /// before this.
    pub fan_in_fan_out: bool,
    /// True: start from the identity. False: from random rotations and scales.
    pub init_weights: bool,
    /// The keys that all families share.
    #[serde(flatten)]
    pub common: CommonConfig,
}

impl Default for BoftConfig {
    fn default() -> Self {
        Self {
            boft_block_size: 4,
            boft_block_num: 0,
            boft_n_butterfly_factor: 1,
            boft_dropout: 0.0,
            fan_in_fan_out: false,
            init_weights: true,
            common: CommonConfig::default(),
        }
    }
}

impl BoftConfig {
    /// The most factors: a butterfly of more would need more blocks than a layer can have.
    pub const MAX_FACTORS: usize = 32;
}

impl FamilyKeys for BoftConfig {
    const PEFT_TYPE: &'static str = "BOFT";

    fn common_keys(&self) -> &CommonConfig {
        &self.common
    }

    fn check(&self, file: &str) -> Result<()> {
        let fail = |key: &str, reason: String| Err(Error::config(file).key(key, reason));
        if (self.boft_block_size == 0) == (self.boft_block_num == 0) {
            let reason = format!(
                "exactly one of boft_block_size and boft_block_num must be 0, found \
                 boft_block_size = {} and boft_block_num = {}",
                self.boft_block_size, self.boft_block_num
            );
            return fail("boft_block_size", reason);
        }
        let factors = self.boft_n_butterfly_factor;
        if !(1..=Self::MAX_FACTORS).contains(&factors) {
            let most = Self::MAX_FACTORS;
            let reason = format!("{factors} is not in 1..={most}; 1 or 2 are usual");
            return fail("boft_n_butterfly_factor", reason);
        }
        if !(0.0..=1.0).contains(&self.boft_dropout) {
            let reason = format!("{} is not in 0..=1", self.boft_dropout);
            return fail("boft_dropout", reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use qoft_peft::ConfigFile;

    use super::*;

    fn error(key: &str, value: Value) -> String {
        let mut json = BoftConfig::default().to_json();
        json[key] = value;
        BoftConfig::from_json(json, "x").unwrap_err().to_string()
    }

    #[test]
    fn impossible_values_are_named() {
        let default = BoftConfig::default().to_json();
        assert_eq!(
            BoftConfig::from_json(default, "x").unwrap(),
            BoftConfig::default()
        );
        for (key, value) in [
            ("boft_block_size", Value::from(0)),
            ("boft_n_butterfly_factor", 0.into()),
            ("boft_n_butterfly_factor", u64::MAX.into()),
            ("boft_dropout", 1.5.into()),
            ("bias", "some".into()),
            ("peft_type", "OFT".into()),
        ] {
            let error = error(key, value);
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
        assert!(error("boft_block_num", 2.into()).contains("`boft_block_size`"));
        assert!(error("boft_block_size", "four".into()).contains("not a configuration of BOFT"));
    }
}
