//! The adapters of `qoft train`: the one that trains, and those below it.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use qoft::core::read_json;
use qoft::peft::{self, AdapterConfig, CONFIG, Families, PEFT_VERSION};
use serde_json::{Map, Value};

use super::names::{names, parse_targets};
use super::{AdapterArg, TrainArgs};
use crate::located::name_and_revision;

/// The adapter options that have the same name in PEFT's configuration.
const ADAPTER: &[&str] = &[
    "bias",
    "use_cayley_neumann",
    "num_cayley_neumann_terms",
    "coft",
    "eps",
    "block_share",
    "module_dropout",
];

impl TrainArgs {
    /// The adapters below the one that trains.
    pub fn frozen(&self) -> Result<Vec<AdapterArg>> {
        let given = self.adapter.iter().flatten();
        let parse = |text: &String| {
            let parsed = AdapterArg::from_text(text);
            parsed.map_err(|e| anyhow!("--adapter {text}: {e}"))
        };
        given.map(parse).collect()
    }

    /// The configuration of the adapter.
    pub fn adapter_config(&self, families: &Families) -> Result<Arc<dyn AdapterConfig>> {
        // A run from the weights of an adapter has its options.
        let start = self.start_from.as_ref();
        start.map_or(Ok(()), |folder| peft::expect_adapter(folder))?;
        let start = start.map(|folder| folder.join(CONFIG));
        let saved = self.adapter_config.as_ref().or(start.as_ref());
        let saved = saved.map(|path| Ok((path.display().to_string(), read_json(path)?)));
        let saved = saved.transpose().map_err(|e: qoft::core::Error| e)?;
        let of_file = saved
            .as_ref()
            .and_then(|(_, json)| json["peft_type"].as_str());
        let peft_type = self.peft_type.as_deref().or(of_file).unwrap_or("OFT");
        let family = families.find(peft_type, "adapter configuration")?;
        let defaults = family.defaults();
        let mut config = match saved {
            Some((file, json)) => family.read(json, &file)?.to_json(),
            None => defaults.clone(),
        };
        for (key, value) in self.adapter_options(&defaults)? {
            let known = defaults.as_object().context("defaults are an object")?;
            if !known.contains_key(&key) {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let (family, names) = (family.peft_type(), names.join(", "));
                bail!("`{key}` is no option of {family} adapters; their options: {names}");
            }
            config[&key] = value;
        }
        if let Some(parameters) = &self.target_parameters {
            config["target_parameters"] = names(parameters).into();
        }
        config["peft_version"] = PEFT_VERSION.into();
        config["inference_mode"] = false.into();
        if config["task_type"].is_null() {
            config["task_type"] = "CAUSAL_LM".into();
        }
        if let Some(model) = &self.model {
            let (model, revision) = name_and_revision(model);
            config["base_model_name_or_path"] = model.into();
            if let Some(revision) = revision {
                config["revision"] = revision.into();
            }
        }
        Ok(family.read(config, "adapter configuration")?)
    }

    /// The options of the adapter that are given, by PEFT's names.
    fn adapter_options(&self, defaults: &Value) -> Result<Map<String, Value>> {
        let mut options = self.given(ADAPTER)?;
        if defaults.get("oft_block_size").is_some() {
            // One of the two is 0.
            match (
                self.oft_r.filter(|r| *r != 0),
                self.oft_block_size.filter(|b| *b != 0),
            ) {
                (Some(_), Some(_)) => bail!("--oft-r and --oft-block-size exclude each other"),
                (None, None) if self.oft_r.or(self.oft_block_size).is_some() => bail!(
                    "--oft-r and --oft-block-size are both 0: one of them says how large blocks are"
                ),
                (None, None) => {}
                (r, size) => {
                    options.insert("r".into(), r.unwrap_or(0).into());
                    options.insert("oft_block_size".into(), size.unwrap_or(0).into());
                }
            }
        } else {
            let given = [("r", self.oft_r), ("oft_block_size", self.oft_block_size)];
            for (key, value) in given {
                options.extend(value.map(|value| (key.to_owned(), value.into())));
            }
        }
        if let Some(targets) = &self.target_modules {
            if targets.trim().eq_ignore_ascii_case("all") {
                bail!(
                    "--target-modules {targets}: all linear layers but the output head are `all-linear`"
                );
            }
            let targets = serde_json::to_value(parse_targets(targets))?;
            options.insert("target_modules".into(), targets);
        }
        if let Some(excluded) = &self.exclude_modules {
            let excluded = serde_json::to_value(parse_targets(excluded))?;
            options.insert("exclude_modules".into(), excluded);
        }
        if let Some(modules) = &self.modules_to_save {
            options.insert("modules_to_save".into(), names(modules).into());
        }
        for option in self.adapter_option.iter().flatten() {
            let split = option.split_once('=');
            let (key, value) =
                split.with_context(|| format!("--adapter-option {option}: expected KEY=VALUE"))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            options.insert(key.to_owned(), value);
        }
        Ok(options)
    }
}
