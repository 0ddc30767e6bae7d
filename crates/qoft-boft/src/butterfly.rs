//! Sizes of a butterfly, and the order of features in its factors.

use burn::tensor::Tensor;
use qoft_core::{Error, LayerKind, Result};
use qoft_peft::Site;

use crate::config::BoftConfig;

/// The sizes of a layer's butterfly `B₍ₙ₋₁₎ · … · B₁ · B₀`.
///
/// The factor `Bᵢ` is `Pᵢ · blockdiag(R₁, …, R_d) · Pᵢᵀ`. `Pᵢ` is a permutation of the features: it
/// takes apart each group of `2ⁱ` blocks, in halves of blocks, and puts the even halves before the odd
/// ones. So a factor mixes features that lie `2ⁱ` halves apart, and all factors together any feature of
/// a group with any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Butterfly {
    /// Factors.
    pub factors: usize,
    /// Blocks of a factor.
    pub blocks: usize,
    /// Size of a block.
    pub size: usize,
}

impl Butterfly {
    /// The butterfly for a layer, of so many factors.
    ///
    /// # Errors
    /// As in PEFT: if the blocks do not fit the features, or the layer is a convolution with groups or
    /// with filters that are not square. The error names the key.
    pub fn new(config: &BoftConfig, factors: usize, site: &Site) -> Result<Self> {
        check_kind(site)?;
        let (features, path) = (site.in_features, site.path);
        let (key, given) = match config.boft_block_size {
            0 => ("boft_block_num", config.boft_block_num),
            size => ("boft_block_size", size),
        };
        if given == 0 || !features.is_multiple_of(given) {
            let reason = format!("{given} does not divide the {features} features of `{path}`");
            return Err(no_fit(key, reason));
        }
        let (blocks, size) = match key {
            "boft_block_num" => (given, features / given),
            _ => (features / given, given),
        };
        let butterfly = Self {
            factors,
            blocks,
            size,
        };
        if butterfly.factors > 1 {
            let group = 1usize.checked_shl(butterfly.factors as u32 - 1);
            if !group.is_some_and(|group| blocks.is_multiple_of(group)) || !size.is_multiple_of(2) {
                let factors = butterfly.factors;
                let reason = format!(
                    "{factors} factors need a number of blocks that 2 divides {} times, and blocks of \
                     an even size; `{path}` has {blocks} blocks of {size} features",
                    factors - 1
                );
                return Err(no_fit("boft_n_butterfly_factor", reason));
            }
        }
        Ok(butterfly)
    }

    /// Features that it turns.
    pub fn features(&self) -> usize {
        self.blocks * self.size
    }

    /// `rows · P` for the permutation of a factor.
    pub(crate) fn gather(&self, rows: Tensor<2>, factor: usize) -> Tensor<2> {
        self.reorder(rows, factor, |group| [2, group])
    }

    /// `rows · Pᵀ`.
    pub(crate) fn scatter(&self, rows: Tensor<2>, factor: usize) -> Tensor<2> {
        self.reorder(rows, factor, |group| [group, 2])
    }

    fn reorder(
        &self,
        rows: Tensor<2>,
        factor: usize,
        halves: impl Fn(usize) -> [usize; 2],
    ) -> Tensor<2> {
        if factor == 0 {
            return rows;
        }
        let [count, features] = rows.dims();
        let group = 1 << factor;
        let [outer, inner] = halves(group);
        let halves = [count, self.blocks / group, outer, inner, self.size / 2];
        rows.reshape(halves)
            .swap_dims(2, 3)
            .reshape([count, features])
    }
}

fn check_kind(site: &Site) -> Result<()> {
    let reason = match (site.kind, site.filter) {
        (LayerKind::Conv2d, Some(filter)) if filter.groups > 1 => "a convolution with groups",
        (LayerKind::Conv2d, Some(filter)) if filter.size[0] != filter.size[1] => {
            "a convolution with filters that are not square"
        }
        _ => return Ok(()),
    };
    let reason = format!("`{}` is {reason}, which BOFT is not for", site.path);
    Err(no_fit("target_modules", reason))
}

fn no_fit(key: &str, reason: String) -> Error {
    Error::config("adapter configuration").key(key, reason)
}
