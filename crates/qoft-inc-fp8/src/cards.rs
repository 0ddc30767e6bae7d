//! A layer's tensors, which may be spread over the accelerators that a model was saved from.

use qoft_scheme::{Dtype, LayerSource, Result, TensorView};

/// The tensors of a layer, under their plain names or as `<name>_<rank>_<count>` for each card.
#[derive(Debug, Clone, Copy)]
pub struct Cards<'a> {
    /// The layer.
    pub layer: LayerSource<'a>,
    /// How many cards; 1 means plain names.
    pub count: usize,
}

/// What the cards of a layer share out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitAxis {
    /// Each card has some output features.
    Out,
    /// Each card has some input features.
    In,
}

/// Layers whose input features are shared out, as tensor parallelism does it: those whose
/// products are added up at the end of attention and MLP, and the output embedding.
const SHARED_INPUTS: [&str; 9] = [
    "o_proj",
    "down_proj",
    "lm_head",
    "out_proj",
    "c_proj",
    "fc2",
    "dense_4h_to_h",
    "wo",
    "w2",
];

/// A tensor's name, the card and the number of cards, if a name has such an ending.
fn rank(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.rsplit_once('_')?;
    let (name, rank) = rest.rsplit_once('_')?;
    let (rank, count) = (rank.parse().ok()?, count.parse().ok()?);
    (rank < count).then_some((name, rank, count))
}

/// The name of a tensor, without the card's number.
pub fn without_rank(name: &str) -> &str {
    rank(name).map_or(name, |(name, ..)| name)
}

/// Whether the layer has a weight of 8-bit floats, whole or in parts.
pub fn has_fp8_weight(layer: &LayerSource) -> bool {
    let is_fp8 = |t: TensorView| matches!(t.dtype(), Dtype::F8_E4M3 | Dtype::F8_E5M2);
    layer
        .suffixes()
        .filter(|name| without_rank(name) == "weight")
        .any(|name| layer.get(name).is_some_and(is_fp8))
}

impl<'a> Cards<'a> {
    /// The cards that a layer names.
    pub fn of(layer: &LayerSource<'a>) -> Self {
        let counts = layer.suffixes().filter_map(rank).map(|(.., count)| count);
        let whole = layer.has("weight");
        Self {
            layer: *layer,
            count: counts.max().filter(|_| !whole).unwrap_or(1),
        }
    }

    /// The name that a tensor of a card has.
    pub fn name(&self, name: &str, rank: usize) -> String {
        match self.count {
            1 => name.to_owned(),
            count => format!("{name}_{rank}_{count}"),
        }
    }

    /// Whether any card has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.layer.suffixes().any(|s| without_rank(s) == name)
    }

    /// A tensor of all cards; they have one dtype and shape.
    ///
    /// # Errors
    /// If a card lacks it, or has another dtype or shape.
    pub fn tensors(&self, name: &str) -> Result<Vec<TensorView>> {
        let first = self.layer.tensor(&self.name(name, 0))?;
        let (dtype, shape) = (first.dtype(), first.shape().to_vec());
        let mut all = vec![first];
        for rank in 1..self.count {
            let tensor = self.layer.tensor(&self.name(name, rank))?;
            tensor.expect_dtype(&[dtype])?.expect_shape(&shape)?;
            all.push(tensor);
        }
        Ok(all)
    }

    /// What is shared out, for parts of `[out_features, in_features]` `part`.
    pub fn axis(&self, [n, k]: [usize; 2]) -> SplitAxis {
        let name = self.layer.path().rsplit('.').next().unwrap_or_default();
        match self.layer.expected_shape() {
            Some([rows, columns]) if rows == n && columns != k => SplitAxis::In,
            Some([rows, columns]) if rows != n && columns == k => SplitAxis::Out,
            _ if SHARED_INPUTS.contains(&name) => SplitAxis::In,
            _ => SplitAxis::Out,
        }
    }

    /// The bias of a layer of `out_features` that is spread over several cards.
    ///
    /// # Errors
    /// If it has another shape or dtype.
    pub fn bias(&self, out_features: usize) -> Result<Option<Vec<f32>>> {
        // One under its plain name is not the scheme's.
        if self.count == 1 || !self.has("bias") {
            return Ok(None);
        }
        let parts = self.tensors("bias")?;
        // Cards that share out the input features all have the whole bias.
        if parts[0].shape() == [out_features] {
            return parts[0].to_finite_f32().map(Some);
        }
        let mut bias = Vec::new();
        for part in parts {
            bias.extend(part.to_finite_f32()?);
        }
        if bias.len() != out_features {
            let reason = format!("{} values of bias, expected {out_features}", bias.len());
            return Err(self.layer.error(reason));
        }
        Ok(Some(bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_card_are_taken_apart() {
        assert_eq!(rank("weight_0_2"), Some(("weight", 0, 2)));
        assert_eq!(
            rank("quant_input.scale_inv_7_8"),
            Some(("quant_input.scale_inv", 7, 8))
        );
        for plain in ["weight", "scale_input", "weight_2_2", "scale_1", "0_1"] {
            assert_eq!(rank(plain), None);
            assert_eq!(without_rank(plain), plain);
        }
    }
}
