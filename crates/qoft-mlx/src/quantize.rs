//! Quantizing a dense weight as MLX does on a CPU.

use qoft_scheme::kernels::{Codes, FloatFormat, Floats, Matrix};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Keys, NewTensor, QuantizedModel, Quantizer, Result, float_dtype,
};
use serde_json::{Map, Value, json};

use crate::config::{BITS, GROUP_SIZE, MODE, Mode, Parameters};
use crate::layout::{BIASES, SCALES, WEIGHT, WORD};

mod affine;
mod floats;

pub use affine::AffineGrid;
pub use floats::{float_grid, scale_bytes};

/// The settings of all layers.
pub struct ToMlx {
    all: Parameters,
    /// Those of single modules.
    own: Vec<(String, Parameters)>,
    /// Modules under whose path stands `false`.
    skips: Option<Vec<String>>,
}

impl ToMlx {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If the library has no such parameters.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&["mlx"]) {
            return Ok(None);
        }
        let (mut own, mut skips) = (Vec::new(), None);
        for (path, value) in keys.entries() {
            match value {
                Value::Bool(false) => skips.get_or_insert_with(Vec::new).push(path.to_owned()),
                Value::Object(_) => {
                    let keys = Keys::new(path, value.clone());
                    own.push((path.to_owned(), Parameters::read(&keys)?));
                }
                _ => {}
            }
        }
        Ok(Some(Self {
            all: Parameters::read(keys)?,
            own,
            skips,
        }))
    }

    fn of(&self, path: &str) -> Parameters {
        let own = self.own.iter().find(|(module, _)| module == path);
        own.map_or(self.all, |&(_, parameters)| parameters)
    }
}

impl Quantizer for ToMlx {
    fn config(&self, model: &QuantizedModel) -> Value {
        let object = |parameters: &Parameters| {
            json!({
                GROUP_SIZE: parameters.group_size,
                BITS: parameters.bits,
                MODE: parameters.mode.name(),
            })
        };
        let mut config = object(&self.all);
        let own = self
            .own
            .iter()
            .map(|(path, own)| (path.clone(), object(own)));
        let skips = model.skips.unwrap_or_default().iter();
        let skips = skips.map(|path| (path.clone(), Value::Bool(false)));
        let modules: Map<String, Value> = own.chain(skips).collect();
        if let Some(config) = config.as_object_mut() {
            config.extend(modules);
        }
        config
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let parameters = self.of(dense.path);
        let Parameters {
            mode,
            group_size,
            bits,
        } = parameters;
        let [n, k] = dense.weight.shape;
        let row = k.checked_mul(bits as usize);
        let row = row.filter(|bits| bits.is_multiple_of(WORD));
        let (Some(row), true) = (row, k.is_multiple_of(group_size)) else {
            let expected = format!(
                "in_features to be a multiple of `group_size` {group_size}, and rows of {bits}-bit codes \
                 to be whole words of {WORD} bits"
            );
            return Err(dense.sizes_error(expected));
        };
        let groups = [n, k / group_size];
        let words = |codes| {
            let bytes = Codes::pack(bits, codes).bytes.to_vec();
            dense.new_tensor(WEIGHT, Dtype::U32, &[n, row / WORD], bytes)
        };
        if mode != Mode::Affine {
            let bytes = scale_bytes(dense.weight, mode, group_size);
            let grid = float_grid(mode, group_size, k, &bytes);
            let codes = search.codes(dense.weight, &grid);
            let scales = dense.new_tensor(SCALES, Dtype::U8, &groups, bytes);
            return Ok(vec![words(codes), scales]);
        }
        let grid = AffineGrid::new(dense.weight, group_size, bits, dense.format)?;
        let codes = search.codes(dense.weight, &grid);
        let floats = |name, values: &[f32]| {
            let bytes = dense.format.to_bytes(values);
            dense.new_tensor(name, float_dtype(dense.format), &groups, bytes)
        };
        Ok(vec![
            words(codes),
            floats(SCALES, &grid.stored_scales),
            floats(BIASES, &grid.stored_biases),
        ])
    }
}

/// Values as readers find them in a dtype.
///
/// # Errors
/// If one is not finite there.
fn stored(values: &[f32], format: FloatFormat) -> Result<Vec<f32>> {
    let floats = Floats::from_f32(values, format)?;
    let mut values = vec![0.0; floats.len()];
    floats.read(0, &mut values);
    Ok(values)
}

/// The runs of `size` weights of all rows, which are whole.
fn groups(weight: &Matrix, size: usize) -> impl Iterator<Item = &[f32]> {
    weight.values.chunks_exact(size)
}
