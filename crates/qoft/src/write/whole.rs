//! Tensors of experts that files only have together.

use std::collections::{BTreeMap, BTreeSet};

use qoft_core::{Dtype, Result};
use qoft_models::ModelFolder;

use super::{Data, Output};

/// A tensor that takes the place of others.
#[derive(Default)]
struct Whole<'a> {
    list: String,
    shares: usize,
    parts: BTreeMap<usize, Output<'a>>,
}

impl Whole<'_> {
    /// Dtype and shape of each part, if they are the same and all are there.
    fn alike(&self) -> Option<(Dtype, Vec<usize>)> {
        let first = self.parts.values().next()?;
        let (dtype, shape) = (first.dtype, first.shape.clone());
        let alike = |part: &Output| part.dtype == dtype && part.shape == shape;
        let complete = self.parts.keys().copied().eq(0..self.parts.len());
        let whole = complete
            && self.parts.len().is_multiple_of(self.shares)
            && self.parts.values().all(alike)
            && !shape.is_empty();
        whole.then_some((dtype, shape))
    }
}

/// Tensors of experts put together where no file has them one by one: then nobody reads them so. In a scheme
/// whose tensors cannot be put together they stay as they are.
pub fn together<'a>(folder: &ModelFolder, outputs: Vec<Output<'a>>) -> Vec<Output<'a>> {
    let Some(spec) = folder.known() else {
        return outputs;
    };
    let (mut all, mut wholes) = (Vec::new(), BTreeMap::<String, Whole>::new());
    let mut divided = BTreeSet::new();
    for output in outputs {
        match spec.in_all_experts(&output.name) {
            None => all.push(output),
            Some((list, None)) => {
                divided.insert(list.to_owned());
                all.push(output);
            }
            Some((list, Some(place))) => {
                let whole = wholes.entry(place.tensor).or_default();
                whole.list = list.to_owned();
                whole.shares = place.shares;
                whole.parts.insert(place.index, output);
            }
        }
    }
    let odd = wholes.values().filter(|whole| whole.alike().is_none());
    divided.extend(odd.map(|whole| whole.list.clone()));
    for (name, whole) in wholes {
        match whole.alike().filter(|_| !divided.contains(&whole.list)) {
            Some((dtype, shape)) => all.push(joined(name, whole, dtype, &shape)),
            None => all.extend(whole.parts.into_values()),
        }
    }
    all
}

fn joined<'a>(name: String, whole: Whole<'a>, dtype: Dtype, shape: &[usize]) -> Output<'a> {
    let Whole { shares, parts, .. } = whole;
    let mut all = vec![parts.len() / shares, shape[0] * shares];
    all.extend(&shape[1..]);
    let make = move || -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for part in parts.values() {
            bytes.extend_from_slice(&part.content()?);
        }
        Ok(bytes)
    };
    Output {
        name,
        dtype,
        shape: all,
        data: Data::Made(Box::new(make)),
    }
}
