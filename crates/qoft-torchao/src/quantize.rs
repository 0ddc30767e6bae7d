//! Quantizing dense weights by the library's rules.

use std::collections::BTreeMap;

use qoft_scheme::kernels::{Codes, FloatFormat, Fp8Format, Matrix, transpose};
use qoft_scheme::{
    CodeSearch, DenseLayer, Dtype, Keys, NewTensor, QuantizedModel, Quantizer, Result, float_dtype,
};
use serde_json::{Value, json};

use crate::by_name::LayerConfigs;
use crate::config::{METHOD, QUANT_TYPE, SKIPS, WITH_HEAD, WeightOnly};
use crate::description::{Description, Kind, TENSOR_NAMES, WEIGHT};
use crate::grid::{AoGrid, Rule};
use crate::layout::{BOTH, CODES, SCALES, ZEROS};
use crate::requantize::{bytes, scales_and_zeros};
use crate::tiles;

/// The settings of all layers.
pub struct ToTorchAo {
    layers: LayerConfigs,
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
            layers: LayerConfigs::read(keys)?,
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
            QUANT_TYPE: {"default": self.layers.to_json()},
            SKIPS: skips,
            WITH_HEAD: self.with_head,
            "untie_embedding_weights": false,
        })
    }

    fn metadata(&self, model: &QuantizedModel) -> BTreeMap<String, String> {
        let layers = model.layers.iter().filter_map(|layer| {
            let how = self.layers.of(&layer.path).ok()??;
            let blocks = how.blocks(layer.shape);
            let text = Description::text(how.kind, blocks, layer.shape, model.format);
            Some((format!("{}.{WEIGHT}", layer.path), text))
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

    /// Where no configuration is given for a layer, and where the library leaves its weight as it is.
    fn stays_dense(&self, path: &str, [_, in_features]: [usize; 2]) -> Result<bool> {
        let how = self.layers.of(path)?;
        Ok(how.is_none_or(|how| !how.takes(in_features)))
    }

    fn quantize(&self, dense: &DenseLayer, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
        let ([n, k], how) = (dense.weight.shape, self.layers.of(dense.path)?);
        let Some(how @ WeightOnly { kind, mapping, .. }) = how else {
            return Err(dense.error("the configuration leaves it dense"));
        };
        let blocks = how.blocks([n, k]);
        if !k.is_multiple_of(blocks[1]) {
            let expected = format!("in_features to be a multiple of `group_size` {}", blocks[1]);
            return Err(dense.sizes_error(expected));
        }
        let rule = Rule {
            kind,
            blocks,
            mapping,
            format: dense.format,
            float8: Fp8Format::E4m3,
        };
        if kind == Kind::Int4Tiles {
            return in_tiles(dense, rule, search);
        }
        let grid = finite(dense, AoGrid::new(dense.weight, rule))?;
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

/// # Errors
/// If a scale is not finite.
fn finite(dense: &DenseLayer, grid: AoGrid) -> Result<AoGrid> {
    match grid.scales.iter().all(|scale| scale.is_finite()) {
        true => Ok(grid),
        false => Err(dense.error("a scale is too large for its dtype")),
    }
}

/// Tiles of the weight, filled up with zeros, which have codes of 0.
fn in_tiles(dense: &DenseLayer, rule: Rule, search: &dyn CodeSearch) -> Result<Vec<NewTensor>> {
    if dense.format != FloatFormat::Bf16 {
        let found = dense.format.torch_name();
        return Err(dense.error(format!(
            "the library packs bfloat16 into tiles, found {found}"
        )));
    }
    let [n, k] = dense.weight.shape;
    let filled = tiles::filled([n, k]);
    let [rows, columns] = filled.ok_or_else(|| dense.error("it is too large"))?;
    let mut values = vec![0.0; rows * columns];
    for (row, from) in values
        .chunks_mut(columns)
        .zip(dense.weight.values.chunks(k))
    {
        row[..k].copy_from_slice(from);
    }
    let grid = AoGrid::new(&Matrix::new(values, [rows, columns]), rule);
    let grid = finite(dense, grid)?;
    let codes = search.codes(dense.weight, &grid);
    let mut words = vec![0; rows * columns / 2];
    tiles::pack(&mut words, columns, &tiles::centered(&codes), k);
    let groups = columns / rule.blocks[1];
    let mut both = vec![0.0; 2 * rows * groups];
    scales_and_zeros(&mut both, &grid, rows, groups);
    let both = dense.format.to_bytes(&both);
    let (words_shape, dtype) = (
        tiles::words_shape([rows, columns]),
        float_dtype(dense.format),
    );
    Ok(vec![
        dense.new_tensor(CODES, Dtype::I32, &words_shape, words),
        dense.new_tensor(BOTH, dtype, &[groups, rows, 2], both),
    ])
}
