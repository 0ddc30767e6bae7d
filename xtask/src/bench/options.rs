//! The options of `cargo xtask bench`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};

/// Measures qoft, beside PEFT if an interpreter is given, and prints tables.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
pub struct Options {
    /// A folder of model folders; those that qoft can read are measured.
    #[arg(long, default_value = "models")]
    pub models: PathBuf,
    /// A model folder, instead of those of --models; several times for several.
    #[arg(long)]
    pub model: Vec<PathBuf>,
    /// The Python that has PEFT (scripts/requirements.txt), or with `METHOD=` the one for models
    /// of a quant_method, such as `hqq=venv-hqq/bin/python`. Without it PEFT is left out.
    #[arg(long, value_name = "[METHOD=]PATH", value_parser = Python::parse)]
    pub python: Vec<Python>,
    /// Threads of everything that is measured [default: as many as the machine has].
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Tiny sizes and few repetitions: shows that all of it works; the times say little.
    #[arg(long)]
    pub quick: bool,
    /// Measure only this; several times for several.
    #[arg(long, value_enum, value_name = "NAME")]
    pub only: Vec<Section>,
    /// Write docs/benchmarks.md and the files in docs/benchmarks.
    #[arg(long)]
    pub write: bool,
    /// Measure this program instead of building one.
    #[arg(long, value_name = "PATH")]
    pub qoft: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// A training step of each model.
    Step,
    /// Tokens that each model writes.
    Generate,
    /// Merging an adapter into each model.
    Merge,
    /// One layer of a 7B model.
    Layer,
    /// A step over the number of layers and the length of the text.
    Trend,
}

/// An interpreter, and the quantization method that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Python {
    method: Option<String>,
    path: PathBuf,
}

impl Python {
    fn parse(text: &str) -> Result<Self, String> {
        let all = |path: &str| Self {
            method: None,
            path: path.into(),
        };
        let python = match text.split_once('=') {
            Some((method, path)) if !method.contains('/') => Self {
                method: Some(method.into()),
                ..all(path)
            },
            _ => all(text),
        };
        if python.path.is_file() {
            Ok(python)
        } else {
            Err(format!("{} is no file", python.path.display()))
        }
    }
}

impl Options {
    /// Whether a part is to be measured.
    pub fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    /// The interpreter for models of a method: the one that names it, or else the one for all.
    pub fn python(&self, method: Option<&str>) -> Option<&Path> {
        let find = |wanted| self.python.iter().find(|p| p.method.as_deref() == wanted);
        let named = method.and_then(|method| find(Some(method)));
        Some(&named.or_else(|| find(None))?.path)
    }

    /// How often and how large everything is.
    pub fn sizes(&self) -> Sizes {
        if self.quick {
            Sizes::QUICK
        } else {
            Sizes::FULL
        }
    }
}

/// Sizes and repetitions.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Rows and tokens of a training step.
    pub shapes: &'static [[usize; 2]],
    /// Steps of a run, of which the first are not counted.
    pub steps: usize,
    /// Runs of each program, which take turns.
    pub rounds: usize,
    /// Tokens to write.
    pub new_tokens: usize,
    /// Outputs and inputs of the layers.
    pub layers: &'static [[usize; 2]],
    /// Rows of their inputs.
    pub layer_rows: &'static [usize],
    /// Depths and lengths of the trend.
    pub depths: &'static [usize],
    /// Tokens of the one row.
    pub lengths: &'static [usize],
    /// The shape while the depth changes.
    pub depth_shape: [usize; 2],
    /// Bytes that are read to measure the memory.
    pub stream_bytes: usize,
}

impl Sizes {
    const FULL: Self = Self {
        shapes: &[[4, 128], [1, 1024]],
        steps: 8,
        rounds: 2,
        new_tokens: 128,
        layers: &[[4096, 4096], [11008, 4096]],
        layer_rows: &[1, 16, 512, 4096],
        depths: &[1, 2, 4, 8, 16, 30],
        lengths: &[128, 256, 512, 1024, 2048, 4096],
        depth_shape: [4, 128],
        stream_bytes: 1 << 30,
    };
    const QUICK: Self = Self {
        shapes: &[[1, 16]],
        steps: 4,
        rounds: 1,
        new_tokens: 4,
        layers: &[[512, 256]],
        layer_rows: &[1, 16],
        depths: &[1, 2],
        lengths: &[8, 16],
        depth_shape: [1, 16],
        stream_bytes: 1 << 27,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_may_be_for_one_method() {
        let work = tempfile::tempdir().unwrap();
        let [all, hqq] = ["python", "hqq-python"].map(|name| work.path().join(name));
        for path in [&all, &hqq] {
            std::fs::write(path, "").unwrap();
        }
        let arguments = [
            "bench".to_owned(),
            format!("--python={}", all.display()),
            format!("--python=hqq={}", hqq.display()),
        ];
        let options = Options::try_parse_from(arguments).unwrap();
        assert_eq!(options.python(Some("hqq")), Some(&*hqq));
        assert_eq!(options.python(Some("bitsandbytes")), Some(&*all));
        assert_eq!(options.python(None), Some(&*all));
        assert!(Options::try_parse_from(["bench", "--python=/nowhere"]).is_err());
    }

    #[test]
    fn parts_can_be_chosen() {
        let options = Options::try_parse_from(["bench", "--only", "layer"]).unwrap();
        assert!(options.wants(Section::Layer) && !options.wants(Section::Step));
        assert_eq!(options.python(None), None);
        let all = Options::try_parse_from(["bench"]).unwrap();
        assert!(all.wants(Section::Layer) && all.wants(Section::Step));
    }
}
