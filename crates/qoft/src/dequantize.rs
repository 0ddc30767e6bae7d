//! Writing a quantized checkpoint as a dense one.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Mutex;

use qoft_core::kernels::FloatFormat;
use qoft_core::{
    Checkpoint, Dense, Dtype, Error, LayerSource, LoadOptions, Purpose, QuantBackend, Registry,
    Result, StagedDir, TensorView, write_file,
};
use safetensors::View;
use serde_json::{Map, Value, json};

use crate::layers::{claimed, is_under};

/// Shards are at most this large, as transformers writes them.
const SHARD_BYTES: usize = 5_000_000_000;
/// Rows that are decoded at once.
const ROWS: usize = 256;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct DequantizeReport {
    /// Layers that were quantized.
    pub layers: usize,
    /// Tensors in the output.
    pub tensors: usize,
    /// Files that hold them.
    pub shards: usize,
    /// Bytes of all tensors.
    pub bytes: usize,
}

/// Writes a dense checkpoint in `format` to the new folder `output`, layer by layer.
///
/// The configuration loses its `quantization_config`; tokenizer files are copied.
/// `progress` is told how many of how many tensors are written.
///
/// # Errors
/// If a layer is damaged or of no known scheme, or the output cannot be written; then there is
/// no output folder.
pub fn dequantize(
    checkpoint: &Checkpoint,
    registry: &Registry,
    output: &Path,
    format: FloatFormat,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<DequantizeReport> {
    let staged = StagedDir::new(output)?;
    let (tensors, layers) = plan(checkpoint, registry)?;
    let shards = into_shards(&tensors, format);
    let count = shards.len();
    let written = Mutex::new((0, None));
    let mut weight_map = Map::new();
    for (index, shard) in shards.iter().enumerate() {
        let name = shard_name(index, count);
        let views = shard.iter().map(|tensor| {
            weight_map.insert(tensor.name.clone(), Value::from(name.clone()));
            let progress = || {
                let mut written = written.lock().unwrap_or_else(|e| e.into_inner());
                written.0 += 1;
                progress(written.0, tensors.len());
            };
            (
                tensor.name.as_str(),
                Lazy {
                    tensor,
                    format,
                    written: &written,
                    progress,
                },
            )
        });
        let views: Vec<_> = views.collect();
        let path = staged.path().join(&name);
        let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
        safetensors::serialize_to_file(views, metadata, &path)
            .map_err(|e| Error::file(output.join(&name), e))?;
        if let Some(error) = written.lock().unwrap_or_else(|e| e.into_inner()).1.take() {
            return Err(error);
        }
    }
    let bytes = tensors.iter().map(|t| t.bytes(format)).sum();
    if count > 1 {
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        write_json(&staged.path().join("model.safetensors.index.json"), &index)?;
    }
    write_json(
        &staged.path().join("config.json"),
        &dense_config(checkpoint, format),
    )?;
    copy_others(checkpoint.dir(), staged.path())?;
    staged.commit()?;
    Ok(DequantizeReport {
        layers,
        tensors: tensors.len(),
        shards: count,
        bytes,
    })
}

/// A tensor to write.
struct Output<'a> {
    name: String,
    shape: Vec<usize>,
    source: Source<'a>,
}

enum Source<'a> {
    Layer(LayerSource<'a>, &'static dyn QuantBackend),
    Plain(TensorView),
}

impl Output<'_> {
    fn bytes(&self, format: FloatFormat) -> usize {
        self.shape.iter().product::<usize>() * format.size()
    }

    /// The values in `format`.
    fn data(&self, format: FloatFormat) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes(format));
        match &self.source {
            Source::Plain(tensor) => format.encode(&tensor.to_f32()?, &mut bytes),
            Source::Layer(layer, backend) => {
                let weight = backend.load(layer, &options())?.weight;
                let [n, k] = weight.shape();
                let mut rows = vec![0.0; ROWS.min(n) * k];
                for start in (0..n).step_by(ROWS) {
                    let end = (start + ROWS).min(n);
                    let rows = &mut rows[..(end - start) * k];
                    weight.decode_tile(start..end, 0..k, rows);
                    format.encode(rows, &mut bytes);
                }
            }
        }
        Ok(bytes)
    }
}

fn options() -> LoadOptions {
    LoadOptions {
        purpose: Purpose::Dequantize,
        ..LoadOptions::default()
    }
}

/// What to write, with every layer loaded once to validate it before anything is written.
fn plan<'a>(checkpoint: &'a Checkpoint, registry: &Registry) -> Result<(Vec<Output<'a>>, usize)> {
    let mut layers = claimed(checkpoint, registry)?;
    layers.retain(|layer| layer.backend.name() != Dense.name());
    let mut outputs = Vec::new();
    for layer in &layers {
        let source = LayerSource::new(checkpoint, layer.path);
        let weight = layer.backend.load(&source, &options())?.weight;
        outputs.push(Output {
            name: format!("{}.weight", layer.path),
            shape: weight.shape().to_vec(),
            source: Source::Layer(source, layer.backend),
        });
    }
    for name in checkpoint.names() {
        let owner = layers.iter().find(|layer| is_under(name, layer.path));
        if owner.is_none_or(|layer| name.strip_prefix(layer.path) == Some(".bias")) {
            let tensor = checkpoint.tensor(name)?;
            tensor.float_format()?;
            let shape = tensor.shape().to_vec();
            outputs.push(Output {
                name: name.into(),
                shape,
                source: Source::Plain(tensor),
            });
        }
    }
    outputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((outputs, layers.len()))
}

fn into_shards<'a, 'b>(tensors: &'b [Output<'a>], format: FloatFormat) -> Vec<Vec<&'b Output<'a>>> {
    let mut shards: Vec<Vec<&Output>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.bytes(format);
        if size > 0 && size + bytes > SHARD_BYTES {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

fn shard_name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".into(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}

/// A tensor whose bytes are made when the file is written.
struct Lazy<'a, P> {
    tensor: &'a Output<'a>,
    format: FloatFormat,
    /// Tensors written, and the first error: a view cannot fail.
    written: &'a Mutex<(usize, Option<Error>)>,
    progress: P,
}

impl<P: Fn()> View for Lazy<'_, P> {
    fn dtype(&self) -> Dtype {
        match self.format {
            FloatFormat::F32 => Dtype::F32,
            FloatFormat::F16 => Dtype::F16,
            FloatFormat::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = self.tensor.data(self.format).unwrap_or_else(|error| {
            self.written
                .lock()
                .unwrap_or_else(|e| e.into_inner())
                .1
                .get_or_insert(error);
            vec![0; self.data_len()]
        });
        (self.progress)();
        Cow::Owned(data)
    }

    fn data_len(&self) -> usize {
        self.tensor.bytes(self.format)
    }
}

fn dense_config(checkpoint: &Checkpoint, format: FloatFormat) -> Value {
    let mut config = checkpoint.config().clone();
    if let Some(config) = config.as_object_mut() {
        config.shift_remove("quantization_config");
        let dtype = match format {
            FloatFormat::F32 => "float32",
            FloatFormat::F16 => "float16",
            FloatFormat::Bf16 => "bfloat16",
        };
        // Older versions of transformers read `torch_dtype`, newer ones `dtype`.
        let key = if config.contains_key("torch_dtype") {
            "torch_dtype"
        } else {
            "dtype"
        };
        config.insert(key.into(), dtype.into());
    }
    config
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::file(path, e))?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Copies tokenizer files, generation settings and the like.
fn copy_others(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).map_err(Error::io(from))? {
        let path = entry.map_err(Error::io(from))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            continue;
        };
        let kind = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let wanted = matches!(kind, "json" | "jinja" | "model" | "txt")
            && name != "config.json"
            && !name.ends_with(".index.json");
        if wanted && path.is_file() {
            std::fs::copy(&path, to.join(name)).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}
