//! How a dense checkpoint is quantized while it is loaded.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use qoft::QuantizeOptions;
use qoft::core::kernels::FloatFormat;
use qoft::core::{Keys, Quantization, Registry, read_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::names::names;
use super::scheme_name::{self, Naming};

/// The settings of 4-bit bitsandbytes that have options of their own.
const FOUR_BIT: [&str; 4] = [
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage",
    "bnb_4bit_compute_dtype",
];

/// Options that quantize a dense checkpoint while it is loaded, by transformers' names.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Quantizing a dense model")]
pub struct LoadArgs {
    /// Quantize to 4 bits, as bitsandbytes does.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub load_in_4bit: Option<bool>,
    /// `fp4` or `nf4` [default: fp4].
    #[arg(long)]
    pub bnb_4bit_quant_type: Option<String>,
    /// Quantize the absmax values as well [default: false].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub bnb_4bit_use_double_quant: Option<bool>,
    /// Dtype under which packed codes are stored [default: uint8].
    #[arg(long)]
    pub bnb_4bit_quant_storage: Option<String>,
    /// Dtype that transformers computes in, for the configuration that is written; here --compute-dtype
    /// says it [default: float32].
    #[arg(long)]
    pub bnb_4bit_compute_dtype: Option<String>,
    /// Quantize to int8, as bitsandbytes does.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub load_in_8bit: Option<bool>,
    /// A JSON file with a `quantization_config` as transformers writes it.
    #[arg(long, value_name = "FILE")]
    pub quantization_config: Option<PathBuf>,
    /// Modules that stay dense, separated by commas: ends of their paths, or regular expressions
    /// [default: the output head].
    #[arg(long, value_name = "NAMES")]
    pub quantize_skip: Option<String>,
    /// Dtype that weights have before: `float32`, `float16` or `bfloat16` [default: that of the model].
    #[arg(long, value_name = "DTYPE")]
    pub quantize_dtype: Option<String>,
    /// A folder that keeps the packed weights, so that the next start is quick.
    #[arg(long, value_name = "DIR")]
    pub quantize_cache: Option<PathBuf>,
}

impl LoadArgs {
    /// What is asked for; `scheme` is the value of an option like `--quantize`. `None` if nothing is.
    pub fn quantization(
        &self,
        scheme: Option<&str>,
        registry: &Registry,
    ) -> Result<Option<Quantization>> {
        let (four, eight) = (on(self.load_in_4bit), on(self.load_in_8bit));
        let file = self.quantization_config.as_deref();
        let asked = [four, eight, scheme.is_some(), file.is_some()];
        match asked.iter().filter(|asked| **asked).count() {
            0 => {
                self.refuse_alone()?;
                return Ok(None);
            }
            1 => {}
            _ => bail!(
                "more than one of --load-in-4bit, --load-in-8bit, --quantization-config and the scheme's own \
                 option (--load-in, or --scheme of `qoft quantize`) is given"
            ),
        }
        let given = self.four_bit()?;
        if let Some((key, _)) = given.iter().next().filter(|_| !four) {
            bail!("{} needs --load-in-4bit", flag(key));
        }
        if let Some(text) = scheme {
            return Ok(Some(parse_scheme(text, registry, Naming::Loaded)?));
        }
        if let Some(path) = file {
            let config = Keys::new(path.display().to_string(), read_json(path)?);
            ensure!(
                config.all().is_some_and(Value::is_object),
                "{}: expected a JSON object",
                path.display()
            );
            let inner = config.object("quantization_config").unwrap_or(config);
            return Ok(Some(registry.quantization_of(&inner)?));
        }
        let backend = if four { "bnb-4bit" } else { "bnb-8bit" };
        let settings = Keys::new("--load-in-4bit", given.into());
        Ok(Some(registry.quantization(backend, &settings)?))
    }

    /// Whether one of these options asks for a quantized model.
    pub fn asks(&self) -> bool {
        on(self.load_in_4bit) || on(self.load_in_8bit) || self.quantization_config.is_some()
    }

    /// The options beside the settings.
    pub fn options(&self) -> Result<QuantizeOptions> {
        let format = self.quantize_dtype.as_deref().map(|name| match name {
            "float32" | "f32" => Ok(FloatFormat::F32),
            "float16" | "f16" => Ok(FloatFormat::F16),
            "bfloat16" | "bf16" => Ok(FloatFormat::Bf16),
            _ => bail!("--quantize-dtype {name}: expected float32, float16 or bfloat16"),
        });
        let mut options = QuantizeOptions::default();
        options.skips = self.quantize_skip.as_deref().map(names);
        options.format = format.transpose()?;
        options.cache = self.quantize_cache.clone();
        Ok(options)
    }

    /// Options that mean nothing unless something is quantized.
    fn refuse_alone(&self) -> Result<()> {
        let given = serde_json::to_value(self).context("options")?;
        let given = given.as_object().into_iter().flatten();
        // `false` is an answer.
        let mut given =
            given.filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
        match given.next() {
            None => Ok(()),
            Some((key, _)) => bail!(
                "{} does nothing unless the model is quantized: by --load-in-4bit, --load-in-8bit, \
                 --load-in or --quantization-config",
                flag(key)
            ),
        }
    }

    /// The same without the options that also say how a model is written.
    pub fn of_reading(&self) -> Self {
        Self {
            quantize_skip: None,
            quantize_dtype: None,
            ..self.clone()
        }
    }

    /// The options that decide what the model becomes, as they are given.
    pub fn flags(&self) -> Vec<String> {
        let deciding = Self {
            quantize_cache: None,
            ..self.clone()
        };
        let given = match serde_json::to_value(deciding) {
            Ok(Value::Object(given)) => given,
            _ => Map::new(),
        };
        let given = given.into_iter().filter_map(|(key, value)| match value {
            Value::Bool(true) => Some(flag(&key)),
            Value::String(text) => Some(format!("{} {text}", flag(&key))),
            _ => None,
        });
        given.collect()
    }

    fn four_bit(&self) -> Result<Map<String, Value>> {
        let Value::Object(mut all) = serde_json::to_value(self)? else {
            return Ok(Map::new());
        };
        all.retain(|key, value| FOUR_BIT.contains(&key.as_str()) && !value.is_null());
        Ok(all)
    }
}

/// A scheme with its settings as one text; an error has names that are like those that there are not.
pub fn parse_scheme(text: &str, registry: &Registry, naming: Naming) -> Result<Quantization> {
    registry.parse_quantization(text).map_err(|error| {
        // A scheme that this build lacks is meant as it is.
        let is_lacking = qoft::missing_feature(&error).is_some();
        match scheme_name::meant(text, registry, naming).filter(|_| !is_lacking) {
            Some(meant) => anyhow!("{error}; {meant}"),
            None => error.into(),
        }
    })
}

fn on(flag: Option<bool>) -> bool {
    flag.unwrap_or(false)
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}
