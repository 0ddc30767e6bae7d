//! Whether a checkpoint has all layers of its model.

use qoft_core::{Error, LayerKind, Result, Schemes};
use qoft_models::{LayerSpec, ModelFolder};

/// Fails if the model's architecture is known and one of its layers is not there: what is made of
/// the checkpoint could not be loaded.
///
/// # Errors
/// [`Error::MissingTensor`] for the weight of the first such layer.
pub fn check_complete(folder: &ModelFolder, schemes: &Schemes) -> Result<()> {
    let Some(spec) = folder.known() else {
        return Ok(());
    };
    let checkpoint = folder.checkpoint();
    let there = |layer: &LayerSpec| match layer.kind {
        // Its tensors may be those of a layer beside it.
        LayerKind::Linear if checkpoint.under(&layer.path).next().is_none() => {
            schemes.claim(layer.source(checkpoint)).is_some()
        }
        LayerKind::Linear => true,
        _ => checkpoint.under(&layer.path).next().is_some(),
    };
    let mut own = spec.layers().iter().filter(|layer| layer.tied_to.is_none());
    match own.find(|layer| !there(layer)) {
        None => Ok(()),
        Some(layer) => Err(Error::MissingTensor {
            folder: checkpoint.path().to_owned(),
            tensor: format!("{}.weight", layer.path),
        }),
    }
}
