//! `README.md` of a trained adapter: a model card as PEFT writes one, with what the training was.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use qoft::core::{read_text_if_there, write_file};
use qoft::peft::AdapterConfig;
use qoft::train::train::Summary;
use serde_json::{Map, Value};

use crate::print::warnln;
use crate::{args, progress};

const NAME: &str = "README.md";
/// By this a card is known as one of this program, which a new one may replace.
const TAG: &str = "- qoft\n";
/// Options that are no one's but the machine's.
const LOCAL: [&str; 5] = ["json", "threads", "device", "quantize_cache", "ddp_timeout"];

/// Options by which a dense model was quantized, which what uses the adapter needs, too.
const QUANTIZING: [&str; 9] = [
    "quantize",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage",
    "quantization_config",
    "quantize_skip",
    "quantize_dtype",
];

/// What a card tells.
pub struct Card<'a> {
    /// The adapter's configuration.
    pub adapter: &'a dyn AdapterConfig,
    /// The type of the model, as `config.json` has it.
    pub model_type: &'a str,
    /// The options of the run.
    pub options: Map<String, Value>,
    /// Rows that were learned.
    pub rows: usize,
    /// Of the last step, which may be one of an earlier part of the run.
    pub last_loss: Option<f64>,
    /// What the run did.
    pub summary: &'a Summary,
}

impl Card<'_> {
    /// Writes the card into the adapter's folder, unless one of another hand is there.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        match read_text_if_there(&path)? {
            Some(text) if !text.contains(TAG) => {
                warnln!("{}: it stays as it is", path.display());
                Ok(())
            }
            _ => Ok(write_file(&path, self.text().as_bytes())?),
        }
    }

    /// The options by which the model was quantized.
    fn quantizing(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let given = QUANTIZING
            .iter()
            .filter_map(|name| Some((*name, self.options.get(*name)?)));
        given.filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)))
    }

    /// The same as arguments.
    fn load(&self) -> String {
        let argument = |(name, value): (&str, &Value)| match value {
            Value::Bool(_) => format!(" --{}", name.replace('_', "-")),
            value => format!(" --{} {}", name.replace('_', "-"), args::text(value)),
        };
        self.quantizing().map(argument).collect()
    }

    /// The configuration of bitsandbytes by which the model was quantized, as Python makes it.
    fn bitsandbytes(&self) -> Option<String> {
        let loads = |(key, _): (&str, &Value)| key.starts_with("load_in_");
        if !self.quantizing().any(loads) {
            return None;
        }
        let argument = |(key, value): (&str, &Value)| match (key, value) {
            ("quantize_skip", value) => {
                let skipped = args::text(value);
                let names: Vec<&str> = skipped.split(',').map(str::trim).collect();
                let names = Value::from(names);
                (!skipped.is_empty()).then(|| format!("llm_int8_skip_modules={names}"))
            }
            (key, _) if !key.starts_with("load_in_") && !key.starts_with("bnb_") => None,
            (key, Value::Bool(_)) => Some(format!("{key}=True")),
            (key, value) => Some(format!("{key}={value}")),
        };
        let arguments: Vec<String> = self.quantizing().filter_map(argument).collect();
        Some(format!("BitsAndBytesConfig({})", arguments.join(", ")))
    }

    fn text(&self) -> String {
        let config = self.adapter.to_json();
        let family = config["peft_type"].as_str().unwrap_or_default();
        let base = config["base_model_name_or_path"]
            .as_str()
            .unwrap_or_default();
        let of = Path::new(base).file_name().unwrap_or_default();
        let of = of.to_string_lossy();
        // The Hub takes names only.
        let (named, tagged) = match Path::new(base).exists() {
            true => (String::new(), String::new()),
            false => (
                format!("base_model: {}\n", Value::from(base)),
                format!("- base_model:adapter:{base}\n"),
            ),
        };
        let mut text = format!(
            "---\n{named}library_name: peft\npipeline_tag: text-generation\ntags:\n{tagged}- {}\n\
             {TAG}- transformers\n---\n\n# {family} adapter for {of}\n\n\
             An adapter of the family {family} for [`{base}`]({base}) ({}), trained with \
             [qoft](https://crates.io/crates/qoft) and kept in PEFT's format.\n\n## Training\n\n",
            family.to_lowercase(),
            self.model_type
        );
        text.push_str("| | |\n|---|---|\n");
        let summary = self.summary;
        let loss = |loss: Option<f64>| loss.map(|loss| format!("{loss:.4}"));
        let rows = [
            ("rows", Some(progress::grouped(self.rows))),
            ("steps", Some(progress::grouped(summary.steps))),
            ("loss of the last step", loss(self.last_loss)),
            ("evaluation loss", loss(summary.eval_loss)),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                // Writing into a string does not fail.
                let _ = writeln!(text, "| {name} | {value} |");
            }
        }
        text.push_str("\n| option | value |\n|---|---|\n");
        for (key, value) in self
            .options
            .iter()
            .filter(|(key, _)| !LOCAL.contains(&key.as_str()))
        {
            let value = args::text(value)
                .replace('|', "\\|")
                .replace(['\n', '\r'], " ");
            let _ = writeln!(text, "| `{key}` | `{value}` |");
        }
        let load = self.load();
        let python = self.bitsandbytes();
        if !load.is_empty() {
            text.push_str(
                "\nThe model is dense and was quantized when it was loaded: the adapter belongs to the \
                 quantized weights.",
            );
            text.push_str(match python {
                Some(_) => "\n",
                None => {
                    " In Python give `from_pretrained` the same as its `quantization_config`.\n"
                }
            });
        }
        let (imported, quantization) = match &python {
            None => ("", String::new()),
            Some(config) => (
                ", BitsAndBytesConfig",
                format!(", quantization_config={config}"),
            ),
        };
        let _ = write!(
            text,
            "\n## Use\n\n```sh\nqoft generate --model {base}{load} --adapter FOLDER --prompt \"...\"\n```\n\n\
             ```python\nfrom peft import PeftModel\nfrom transformers import \
             AutoModelForCausalLM{imported}\n\n\
             model = AutoModelForCausalLM.from_pretrained({0}{quantization})\n\
             model = PeftModel.from_pretrained(model, \"FOLDER\")\n```\n",
            Value::from(base),
        );
        text
    }
}
