//! `adapter_config.json`, with PEFT's keys and defaults.

use std::path::Path;

use qoft_core::kernels::ops::CayleyMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use qoft_core::{Error, Result, read_json};
use qoft_peft::{CommonConfig, FamilyKeys, read_keys};

/// PEFT's `OFTConfig`. Keys that are not known here survive reading and writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OftConfig {
    /// Number of blocks of a layer; 0: given by `oft_block_size`.
    pub r: usize,
    /// Size of a block; 0: given by `r`.
    pub oft_block_size: usize,
    /// Share of blocks that a training step replaces by the identity.
    pub module_dropout: f64,
    /// True for weights stored as `[in, out]`. The model knows itself how it stores them, and goes
    /// before this.
    pub fan_in_fan_out: bool,
    /// True: start from the identity. False: from random rotations.
    pub init_weights: bool,
    /// Constrained OFT.
    pub coft: bool,
    /// Radius of constrained OFT.
    pub eps: f64,
    /// One block for all positions of a layer.
    pub block_share: bool,
    /// Approximate the Cayley map by its Neumann series.
    pub use_cayley_neumann: bool,
    /// Terms of the series.
    pub num_cayley_neumann_terms: usize,
    /// The keys that all families share. A file without `peft_version` is from before 0.18.
    #[serde(flatten)]
    pub common: CommonConfig,
}

impl Default for OftConfig {
    fn default() -> Self {
        Self {
            r: 0,
            oft_block_size: 32,
            module_dropout: 0.0,
            fan_in_fan_out: false,
            init_weights: true,
            coft: false,
            eps: 6e-5,
            block_share: false,
            use_cayley_neumann: true,
            num_cayley_neumann_terms: 5,
            common: CommonConfig::default(),
        }
    }
}

impl OftConfig {
    /// The most terms of the series: each is a matrix product for every block.
    pub const MAX_TERMS: usize = 1000;

    /// Reads and validates `adapter_config.json`.
    ///
    /// # Errors
    /// If the file is no valid OFT configuration, or is from before PEFT 0.14.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(read_json(path)?, &path.display().to_string())
    }

    /// The map from parameters to rotations.
    pub fn cayley_map(&self) -> CayleyMap {
        match (self.use_cayley_neumann, self.before_0_18()) {
            (false, _) => CayleyMap::Exact,
            (true, false) => CayleyMap::Neumann(self.num_cayley_neumann_terms),
            (true, true) => CayleyMap::LegacyNeumann(self.num_cayley_neumann_terms),
        }
    }

    /// PEFT 0.18 changed the last term of the series; adapters without a version are older.
    fn before_0_18(&self) -> bool {
        let version = self.common.peft_version.as_deref().unwrap_or("0");
        let version = without_mark(version);
        let mut parts = version.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().unwrap_or(0)
        });
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (0, 18)
    }
}

/// A version without the blanks and the letter that Python allows before its number.
fn without_mark(version: &str) -> &str {
    version.trim().trim_start_matches(['v', 'V'])
}

impl FamilyKeys for OftConfig {
    const PEFT_TYPE: &'static str = "OFT";

    fn common_keys(&self) -> &CommonConfig {
        &self.common
    }

    fn check(&self, file: &str) -> Result<()> {
        let fail = |key: &str, reason: String| Err(Error::config(file).key(key, reason));
        let version = self.common.peft_version.as_deref();
        let is_version =
            |version: &str| without_mark(version).starts_with(|c: char| c.is_ascii_digit());
        if let Some(other) = version.filter(|version| !is_version(version)) {
            let reason =
                format!("`{other}` is no version, by which the formula of the adapter is chosen");
            return fail("peft_version", reason);
        }
        if (self.r == 0) == (self.oft_block_size == 0) {
            let reason = format!(
                "exactly one of r and oft_block_size must be 0, found r = {} and \
                 oft_block_size = {}",
                self.r, self.oft_block_size
            );
            return fail("oft_block_size", reason);
        }
        if !(0.0..=1.0).contains(&self.module_dropout) {
            return fail(
                "module_dropout",
                format!("{} is not in 0..=1", self.module_dropout),
            );
        }
        if self.coft && !(self.eps > 0.0 && self.eps.is_finite()) {
            return fail("eps", format!("{} is not positive", self.eps));
        }
        let terms = self.num_cayley_neumann_terms;
        if self.use_cayley_neumann && !(1..=Self::MAX_TERMS).contains(&terms) {
            let most = Self::MAX_TERMS;
            let reason = format!("{terms} is not in 1..={most}; about 5 terms are usual");
            return fail("num_cayley_neumann_terms", reason);
        }
        Ok(())
    }

    fn from_json(json: Value, file: &str) -> Result<Self> {
        if json.get("oft_block_size").is_none() {
            let reason = "it is missing: an adapter from before PEFT 0.14, whose rotations were \
                          parametrized otherwise and cannot be converted; train it again";
            return Err(Error::config(file).key("oft_block_size", reason));
        }
        read_keys(json, file)
    }
}

#[cfg(test)]
mod tests {
    use qoft_peft::ConfigFile;

    use super::*;

    #[test]
    fn unknown_keys_survive_a_rewrite() {
        let text = r#"{"peft_type":"OFT","oft_block_size":8,"future_key":{"a":[1]}}"#;
        let config = OftConfig::from_json(serde_json::from_str(text).unwrap(), "x").unwrap();
        let written = config.to_json();
        assert_eq!(written["future_key"], serde_json::json!({"a": [1]}));
        assert_eq!(written["oft_block_size"], 8);
        assert_eq!(written["peft_type"], "OFT");
    }

    #[test]
    fn the_series_depends_on_the_version_that_wrote_it() {
        let map = |version: Option<&str>| {
            let mut config = OftConfig::default();
            config.common.peft_version = version.map(str::to_owned);
            config.cayley_map()
        };
        assert_eq!(map(Some("0.21.2")), CayleyMap::Neumann(5));
        assert_eq!(map(Some("0.18.0.dev0")), CayleyMap::Neumann(5));
        assert_eq!(map(Some("0.17.1")), CayleyMap::LegacyNeumann(5));
        assert_eq!(map(Some("v0.18")), CayleyMap::Neumann(5));
        assert_eq!(map(None), CayleyMap::LegacyNeumann(5));
        let garbage =
            serde_json::json!({"peft_type": "OFT", "oft_block_size": 8, "peft_version": "new"});
        let error = OftConfig::from_json(garbage, "x").unwrap_err().to_string();
        assert!(
            error.contains("peft_version") && error.contains("`new`"),
            "{error}"
        );
        assert_eq!(OftConfig::default().cayley_map(), CayleyMap::Neumann(5));
        let read = |json: Value| OftConfig::from_json(json, "x").unwrap().cayley_map();
        let old = serde_json::json!({"peft_type": "OFT", "oft_block_size": 8});
        assert_eq!(read(old), CayleyMap::LegacyNeumann(5));
        let new = OftConfig::default().to_json();
        assert_eq!(read(new), CayleyMap::Neumann(5));
    }

    #[test]
    fn null_stands_for_a_default() {
        let json = serde_json::json!({
            "peft_type": "OFT", "oft_block_size": 32, "eps": null, "coft": null, "bias": null, "target_modules": null,
            "num_cayley_neumann_terms": null, "inference_mode": null, "more": null,
        });
        let read = OftConfig::from_json(json, "x").unwrap();
        let mut expected = OftConfig::default();
        expected.common.peft_version = None;
        expected.common.other.insert("more".into(), Value::Null);
        assert_eq!(read.to_json(), expected.to_json());
    }

    #[test]
    fn contradictions_are_refused() {
        let both = OftConfig {
            r: 4,
            ..OftConfig::default()
        };
        assert!(
            both.validate("x")
                .unwrap_err()
                .to_string()
                .contains("oft_block_size")
        );
        let dropout = OftConfig {
            module_dropout: 1.5,
            ..OftConfig::default()
        };
        assert!(dropout.validate("x").is_err());
        for terms in [0, 1_000_000_000, 1 << 63] {
            let terms = OftConfig {
                num_cayley_neumann_terms: terms,
                ..OftConfig::default()
            };
            let error = terms.validate("x").unwrap_err().to_string();
            assert!(error.contains("`num_cayley_neumann_terms`"), "{error}");
        }
    }
}
