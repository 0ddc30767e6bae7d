//! Where the codes of a layer are: in a tensor of its own, or in a matrix that was cut.

use std::ops::Range;

use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

use crate::stored::{ByteOrder, Stored};

/// The codes, as transformers and as EETQ itself name them.
pub const CODES: [&str; 2] = ["weight", "qweight"];
/// The scales.
pub const SCALES: &str = "weight_scales";

/// Layers that EETQ itself quantizes as one matrix. It then cuts the finished bytes into columns,
/// which leaves each layer with bytes of the others.
const FUSED: [&[&str]; 2] = [&["q_proj", "k_proj", "v_proj"], &["gate_proj", "up_proj"]];

/// A stored matrix and the part of it that is a layer's.
#[derive(Debug, Clone)]
pub struct CutMatrix {
    /// The matrix.
    pub stored: Stored,
    /// The layer's channels in it.
    pub channels: Range<usize>,
    /// Module paths of the layers that have its parts, from left to right.
    pub layers: Vec<String>,
}

impl CutMatrix {
    /// The tensor of the layer itself; `None` if it does not consist of whole tiles.
    pub fn alone(
        layer: &LayerSource,
        codes: &TensorView,
        [rows, columns]: [usize; 2],
    ) -> Option<Self> {
        let parts = vec![(codes.bytes().clone(), columns)];
        Some(Self {
            stored: Stored::new(rows, parts)?,
            channels: 0..columns,
            layers: vec![layer.path().to_owned()],
        })
    }

    /// The matrix of `rows` rows that a layer of EETQ's own saver may be cut from.
    ///
    /// # Errors
    /// If the layer's name says that it has siblings, but they do not make up such a matrix.
    pub fn fused(layer: &LayerSource, rows: usize) -> Result<Option<Self>> {
        let name = layer.path().rsplit('.').next().unwrap_or_default();
        let Some(names) = FUSED.into_iter().find(|names| names.contains(&name)) else {
            return Ok(None);
        };
        let parent = &layer.path()[..layer.path().len() - name.len()];
        let (mut parts, mut layers, mut channels, mut first) =
            (Vec::new(), Vec::new(), 0..0, 0usize);
        for sibling in names {
            let path = format!("{parent}{sibling}");
            let source = layer.sibling(&path);
            // Where a sibling is not quantized, EETQ's saver was not at work.
            if source.has(CODES[0]) {
                return Ok(None);
            }
            let tensor = source.tensor(CODES[1])?;
            let [k, n] = sizes(&tensor)?;
            if k != rows {
                let expected = format!("{rows} rows as in `{}.{}`", layer.path(), CODES[1]);
                return Err(tensor.error(expected, tensor.shown_shape()));
            }
            let end = first.checked_add(n).ok_or_else(|| {
                let expected = "columns that can be counted with those of the layers beside it";
                tensor.error(expected, tensor.shown_shape())
            })?;
            if *sibling == name {
                channels = first..end;
            }
            first = end;
            parts.push((tensor.bytes().clone(), n));
            layers.push(path);
        }
        Ok(Stored::new(rows, parts).map(|stored| Self {
            stored,
            channels,
            layers,
        }))
    }

    /// The same cut as it is in a checkpoint in which layers were written.
    ///
    /// # Errors
    /// If a tensor is missing or has another size.
    pub fn within(&self, layer: &LayerSource, name: &str) -> Result<Self> {
        let mut parts = Vec::with_capacity(self.layers.len());
        for (path, width) in self.layers.iter().zip(self.stored.widths()) {
            let tensor = layer.sibling(path).tensor(name)?;
            tensor.expect_shape(&[self.stored.rows(), width])?;
            parts.push((tensor.bytes().clone(), width));
        }
        let stored = Stored::new(self.stored.rows(), parts);
        Ok(Self {
            stored: stored.ok_or_else(|| layer.error("its codes have changed their size"))?,
            ..self.clone()
        })
    }

    /// The layer's `[out_features, in_features]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.channels.len(), self.stored.rows()]
    }

    /// The layer's codes, row-major.
    pub fn codes(&self, order: ByteOrder) -> Vec<u8> {
        self.stored.codes(order, self.channels.clone())
    }

    /// The bytes of all parts where the layer has other codes.
    pub fn with_codes(&self, order: ByteOrder, codes: &[u8]) -> Vec<Vec<u8>> {
        let (rows, columns) = (self.stored.rows(), self.stored.columns());
        let mut all = self.stored.codes(order, 0..columns);
        all[self.channels.start * rows..self.channels.end * rows].copy_from_slice(codes);
        self.stored.cut(&order.encode(&all, [columns, rows]))
    }
}

/// Rows and columns of a tensor of codes.
pub fn sizes(tensor: &TensorView) -> Result<[usize; 2]> {
    tensor.expect_dtype(&[Dtype::I8])?;
    match *tensor.shape() {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(tensor.error("a matrix", tensor.shown_shape())),
    }
}

/// The codes of a layer and how it may have been cut.
pub struct LayerCodes {
    /// The name of the tensor that holds them.
    pub name: &'static str,
    /// That tensor.
    pub tensor: TensorView,
    /// Cuts, the likeliest one first.
    pub cuts: Vec<CutMatrix>,
}

impl LayerCodes {
    /// Looks for a layer's codes.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit the others.
    pub fn of(layer: &LayerSource) -> Result<Self> {
        let is_qweight = layer.has(CODES[1]) && !layer.has(CODES[0]);
        let name = CODES[usize::from(is_qweight)];
        let tensor = layer.tensor(name)?;
        let sizes = sizes(&tensor)?;
        let fused = match is_qweight {
            true => CutMatrix::fused(layer, sizes[0])?,
            false => None,
        };
        let alone = CutMatrix::alone(layer, &tensor, sizes);
        Ok(Self {
            name,
            tensor,
            cuts: fused.into_iter().chain(alone).collect(),
        })
    }
}
