//! Which layers can have adapters that train.

use qoft_core::{Result, Schemes, Walk};
use qoft_models::ModelFolder;

/// Fails if an adapter of `model`, which was loaded from the folder, is on a layer whose scheme
/// says that adapters do not train on its layers.
///
/// # Errors
/// The error names the first such layer and its backend.
pub fn check_trainable(folder: &ModelFolder, schemes: &Schemes, model: &impl Walk) -> Result<()> {
    let layers = model.layers().into_iter();
    let adapted = layers.filter(|(_, layer)| !layer.adapters().slots().is_empty());
    for (path, _) in adapted {
        let claimed = schemes.claim(folder.source(&path));
        if let Some(layer) = claimed.filter(|layer| !layer.capabilities().train) {
            return Err(layer.source().incapable("train adapters on its layers"));
        }
    }
    Ok(())
}
