//! Model folders, the work of a step and the bytes of a token.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// A model folder and what is in it.
#[derive(Debug, Clone)]
pub struct Model {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// `quant_method` of its `config.json`.
    pub method: Option<String>,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Decoder layers that are used.
    pub depth: usize,
    /// Numbers in a query, of all heads together.
    query_width: usize,
    layers: Vec<Layer>,
    head: Head,
}

/// What `qoft inspect --json` says.
#[derive(Debug, Deserialize)]
pub struct Inspection {
    quant_method: Option<String>,
    layers: Vec<Layer>,
}

/// A linear layer.
#[derive(Debug, Clone, Deserialize)]
struct Layer {
    name: String,
    backend: String,
    format: String,
    in_features: usize,
    out_features: usize,
    packed_bytes: usize,
}

/// The output head where it is the embedding table.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Head {
    weights: usize,
    bytes: usize,
}

impl Model {
    /// Reads `config.json` and the headers of the weight files.
    ///
    /// # Errors
    ///
    /// If one of them is not as expected.
    pub fn new(folder: &Path, inspection: Inspection) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let config: Value =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let size = |key: &str| {
            let value = config[key].as_u64().map(|value| value as usize);
            value.with_context(|| format!("{}: `{key}` is no number", path.display()))
        };
        let either = |key: &str, old: &str| size(key).or_else(|_| size(old));
        let heads = either("num_attention_heads", "n_head")?;
        let query_width = match size("head_dim") {
            Ok(width) => heads * width,
            Err(_) => either("hidden_size", "n_embd")?,
        };
        let tied = !inspection.layers.iter().any(Layer::is_head);
        let head = if tied { table(folder)? } else { Head::NONE };
        Ok(Self {
            name: folder
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            folder: folder.into(),
            method: inspection.quant_method,
            vocab_size: size("vocab_size")?,
            depth: either("num_hidden_layers", "n_layer")?,
            query_width,
            layers: inspection.layers,
            head,
        })
    }

    /// The backend of its first layer that is not dense.
    pub fn backend(&self) -> &str {
        let packed = self.layers.iter().find(|layer| layer.backend != "dense");
        packed.map_or("dense", |layer| &layer.backend)
    }

    /// Whether all of its layers are dense and in `f32`.
    pub fn is_dense_f32(&self) -> bool {
        let mut layers = self.layers.iter();
        layers.all(|layer| layer.backend == "dense" && layer.format == "f32")
    }

    /// Floating-point operations of the matrix products in a training step of `rows` × `length`
    /// tokens.
    ///
    /// With weights these are the forward and the gradient of each layer's input, the head among
    /// them. The first layers' are too, since the gradients of their rotations need them. With
    /// attention, where a query meets the keys up to its own: scores and their products with
    /// values, and the gradients of both factors of each. Nothing that is computed twice counts.
    pub fn step_flops(&self, [rows, length]: [usize; 2]) -> f64 {
        let weights = self.used().map(Layer::weights).sum::<usize>() + self.head.weights;
        let pairs = length * (length + 1) / 2;
        let attention = 12 * pairs * self.query_width * self.depth;
        (4 * rows * length * weights + rows * attention) as f64
    }

    /// Bytes of weights that the computation of one token reads.
    pub fn token_bytes(&self) -> f64 {
        let layers: usize = self.used().map(|layer| layer.packed_bytes).sum();
        (layers + self.head.bytes) as f64
    }

    /// The layers whose number is below the depth, and those without number.
    fn used(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| {
            let number = layer.name.split('.').find_map(|part| part.parse().ok());
            number.is_none_or(|number: usize| number < self.depth)
        })
    }

    /// A folder at `at` with the first `depth` layers of the model: a `config.json` that says so
    /// beside links to the other files.
    ///
    /// # Errors
    ///
    /// If the files cannot be written.
    pub fn cut(&self, depth: usize, at: &Path) -> Result<Self> {
        std::fs::create_dir(at).with_context(|| at.display().to_string())?;
        let folder = std::fs::canonicalize(&self.folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let to = at.join(entry.file_name());
            if entry.file_name() == "config.json" {
                let mut config: Value = serde_json::from_slice(&std::fs::read(entry.path())?)?;
                let deep = ["num_hidden_layers", "n_layer"];
                let key = deep.iter().find(|key| config.get(key).is_some());
                config[*key.context("config.json names no number of layers")?] = depth.into();
                // A list with an entry for each layer has to become shorter as well.
                if let Some(Value::Array(kinds)) = config.get_mut("layer_types") {
                    kinds.truncate(depth);
                }
                std::fs::write(to, serde_json::to_vec_pretty(&config)?)?;
            } else if entry.path().is_file() {
                link(&entry.path(), &to)?;
            }
        }
        Ok(Self {
            folder: at.into(),
            depth,
            ..self.clone()
        })
    }
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(from, to)?)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)?;
    Ok(())
}

impl Layer {
    fn weights(&self) -> usize {
        self.in_features * self.out_features
    }

    fn is_head(&self) -> bool {
        self.name.rsplit('.').next() == Some("lm_head")
    }
}

impl Head {
    const NONE: Self = Self {
        weights: 0,
        bytes: 0,
    };
}

/// The embedding table in the weight files.
fn table(folder: &Path) -> Result<Head> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "safetensors") {
            let header = header(&path).with_context(|| path.display().to_string())?;
            if let Some(head) = table_of(&header) {
                return Ok(head);
            }
        }
    }
    anyhow::bail!("{}: no embedding table in the files", folder.display())
}

/// The JSON object at the start of a safetensors file.
fn header(path: &Path) -> Result<Value> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    anyhow::ensure!(length <= size, "the header is longer than the file");
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn table_of(header: &Value) -> Option<Head> {
    let tensors = header.as_object()?.iter();
    let ends = ["embed_tokens.weight", "wte.weight"];
    let (_, tensor) = tensors
        .into_iter()
        .find(|(name, _)| ends.iter().any(|end| name.ends_with(end)))?;
    let numbers = |key: &str| -> Option<Vec<usize>> {
        let list = tensor[key].as_array()?.iter();
        list.map(|n| Some(n.as_u64()? as usize)).collect()
    };
    let offsets = numbers("data_offsets")?;
    Some(Head {
        weights: numbers("shape")?.iter().product(),
        bytes: offsets.get(1)?.checked_sub(*offsets.first()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layers of SmolLM2-135M, at four bits.
    fn smollm2() -> Model {
        let shapes = [
            ("self_attn.q_proj", 576, 576),
            ("self_attn.k_proj", 576, 192),
            ("self_attn.v_proj", 576, 192),
            ("self_attn.o_proj", 576, 576),
            ("mlp.gate_proj", 576, 1536),
            ("mlp.up_proj", 576, 1536),
            ("mlp.down_proj", 1536, 576),
        ];
        let layer = |number, (name, in_features, out_features): (&str, usize, usize)| Layer {
            name: format!("model.layers.{number}.{name}"),
            backend: "bnb-4bit".into(),
            format: "nf4".into(),
            in_features,
            out_features,
            packed_bytes: in_features * out_features / 2,
        };
        let layers = (0..30).flat_map(|number| shapes.map(|shape| layer(number, shape)));
        Model {
            name: "smollm2".into(),
            folder: PathBuf::new(),
            method: Some("bitsandbytes".into()),
            vocab_size: 49152,
            depth: 30,
            query_width: 576,
            layers: layers.collect(),
            head: Head {
                weights: 49152 * 576,
                bytes: 49152 * 576 * 4,
            },
        }
    }

    #[test]
    fn work_of_a_step() {
        let model = smollm2();
        // 106,168,320 weights in layers and 28,311,552 in the head, 512 tokens, 8256 pairs a row.
        let [weights, pairs] = [275_414_777_856.0, 4.0 * 8256.0];
        let attention = 30.0 * 576.0 * 12.0 * pairs;
        assert_eq!(model.step_flops([4, 128]), weights + attention);
        assert_eq!(model.token_bytes(), 53_084_160.0 + 113_246_208.0);
        let one = Model { depth: 1, ..model };
        let weights = 3_538_944.0 + 28_311_552.0;
        assert_eq!(
            one.step_flops([10, 1]),
            40.0 * weights + 10.0 * 576.0 * 12.0
        );
    }

    #[test]
    fn dense_models_are_told_apart() {
        let mut model = smollm2();
        assert_eq!(model.backend(), "bnb-4bit");
        assert!(!model.is_dense_f32());
        for layer in &mut model.layers {
            (layer.backend, layer.format) = ("dense".into(), "f32".into());
        }
        assert_eq!(model.backend(), "dense");
        assert!(model.is_dense_f32());
        model.layers[3].format = "bf16".into();
        assert!(!model.is_dense_f32());
    }

    #[test]
    fn the_table_is_found_in_a_header() {
        let header = serde_json::json!({
            "__metadata__": {"format": "pt"},
            "model.embed_tokens.weight": {"dtype": "BF16", "shape": [10, 4], "data_offsets": [8, 88]},
            "model.norm.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
        });
        let head = table_of(&header).unwrap();
        assert_eq!((head.weights, head.bytes), (40, 80));
        assert_eq!(table_of(&serde_json::json!({})), None);
    }
}
