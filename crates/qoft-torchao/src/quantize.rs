//! Quantizing dense weights by the library's rules.

use std::collections::BTreeMap;

use qoft_scheme::kernels::{Codes, Fp8Format, transpose};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Keys, NewTensor, QuantizedModel, Quantizer, Result, float_dtype,
};
use serde_json::{Value, json};

use crate::config::{METHOD, QUANT_TYPE, SKIPS, WITH_HEAD, WeightOnly};
use crate::description::{Description, Kind, TENSOR_NAMES, WEIGHT};
use crate::grid::{AoGrid, Rule};
use crate::layout::{CODES, SCALES, ZEROS};
use crate::requantize::bytes;

/// The settings of all layers.
pub struct ToTorchAo {
    how: WeightOnly,
    /// The output head is quantized as well.
    with_head: bool,
    skips: Option<Vec<String>>,
}

impl ToTorchAo {
    /// Reads the settings; `None` if they are of another scheme.
    ///
    /// # Errors
    /// If a setting is impossible, or one of those that this crate does not write.
    pub fn read(keys: &Keys) -> Result<Option<Self>> {
        if keys.is_of_another(&[METHOD]) {
            return Ok(None);
        }
        let with_head = keys.flag(WITH_HEAD, false)?;
        let skips = keys.get(SKIPS)?;
        Ok(Some(Self {
            how: WeightOnly::read(keys)?,
            with_head,
            skips: skips.or(with_head.then(Vec::new)),
        }))
    }
}

impl Quantizer for ToTorchAo {
    fn config(&self, model: &QuantizedModel) -> Value {
        let skips = model.skips.filter(|skips| !skips.is_empty());
        json!({
            "quant_method": METHOD,
            QUANT_TYPE: self.how.to_json(),
            SKIPS: skips,
            WITH_HEAD: self.with_head,
            "untie_embedding_weights": false,
        })
    }

    fn metadata(&self, model: &QuantizedModel) -> BTreeMap<String, String> {
        let kind = self.how.kind;
        let layers = model.layers.iter().map(|layer| {
            let blocks = self.how.blocks(layer.shape);
            let text = Description::text(kind, blocks, layer.shape, model.format);
            (format!("{}.{WEIGHT}", layer.path), text)
        });
        let others = model.others.iter();
        let others = others.map(|name| (name.clone(), Description::plain()));
        let mut all: BTreeMap<String, String> = layers.chain(others).collect();
        let names: Vec<&String> = all.keys().collect();
        let names = json!(names).to_string();
        all.insert(TENSOR_NAMES.to_owned(), names);
        all
    }

    fn skips(&self) -> Option<&[String]> {
        self.skips.as_deref()
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let ([n, k], kind) = (dense.weight.shape, self.how.kind);
        let blocks = self.how.blocks([n, k]);
        if !k.is_multiple_of(blocks[1]) {
            let reason = format!("{k} input features are no whole groups of {}", blocks[1]);
            return Err(dense.error(reason));
        }
        let rule = Rule {
            kind,
            blocks,
            mapping: self.how.mapping,
            format: dense.format,
            float8: Fp8Format::E4m3,
        };
        let grid = AoGrid::new(dense.weight, rule);
        if grid.scales.iter().any(|scale| !scale.is_finite()) {
            return Err(dense.error("a scale is too large for its dtype"));
        }
        let codes = search.codes(dense.weight, &grid);
        let groups = [n / blocks[0], k / blocks[1]];
        let format = dense.format;
        let whole = |codes, dtype| dense.new_tensor(CODES, dtype, &[n, k], codes);
        let floats = || {
            let bytes = grid.scales.iter().flat_map(|scale| scale.to_le_bytes());
            dense.new_tensor(SCALES, Dtype::F32, &groups, bytes.collect())
        };
        let zeros = || dense.new_tensor(ZEROS, Dtype::I8, &groups, bytes(&grid.zeros));
        Ok(match kind {
            Kind::Int8 { .. } => vec![whole(codes, Dtype::I8), floats(), zeros()],
            Kind::Float8 => vec![whole(codes, Dtype::F8_E4M3), floats()],
            Kind::Intx(_) => {
                let scales = format.to_bytes(&grid.scales);
                let scales = dense.new_tensor(SCALES, float_dtype(format), &groups, scales);
                vec![whole(codes, Dtype::I8), scales, zeros()]
            }
            Kind::Int4 | Kind::Int4Tiles => {
                let turned = |name, values: &[f32]| {
                    let bytes = transpose(&format.to_bytes(values), format.size(), groups);
                    let shape = [groups[1], groups[0]];
                    dense.new_tensor(name, float_dtype(format), &shape, bytes)
                };
                let words = Codes::pack(4, codes).bytes.to_vec();
                vec![
                    dense.new_tensor(CODES, Dtype::I8, &[n, k / 2], words),
                    turned(SCALES, &grid.scales),
                    turned(ZEROS, &grid.zeros),
                ]
            }
        })
    }
}
