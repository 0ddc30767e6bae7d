//! What programs do with the layers of a checkpoint.

use qoft_kernels::{FloatFormat, Matrix};
use qoft_scheme::{
    BackendOptions, Checkpoint, ClaimedLayer, LayerSource, Nearest, Purpose, Registry, Result,
};

/// Values of a weight that are worth the time to decode them.
const DECODED: usize = 1 << 16;

/// Opens the checkpoint with all schemes and a few of its names, reads every tensor, and loads and
/// writes every layer that a scheme claims.
///
/// # Errors
/// What the checkpoint lacks or has too much of.
pub fn read_all(checkpoint: &Checkpoint) -> Result<()> {
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name)?;
        // Anything but a float is an error.
        let _ = tensor.to_finite_f32();
    }
    let schemes = Registry::linked()?.open(checkpoint, &BackendOptions::default())?;
    for name in checkpoint.names() {
        // Its parts may not fit each other.
        if let Ok(Some(parameter)) = schemes.parameter(checkpoint, name)
            && parameter.shape.iter().product::<usize>() <= DECODED
        {
            parameter.to_bytes(FloatFormat::Bf16);
        }
    }
    for path in checkpoint.modules() {
        for shape in [None, Some([32, 64])] {
            if let Some(layer) = schemes.claim(LayerSource::new(checkpoint, path, shape)) {
                // Another layer may be whole.
                let _ = load_and_write(&layer, checkpoint);
            }
        }
    }
    Ok(())
}

fn load_and_write(layer: &ClaimedLayer, checkpoint: &Checkpoint) -> Result<()> {
    let parsed = layer.parse()?;
    let shape = parsed.shape();
    let small = shape[0].saturating_mul(shape[1]) <= DECODED;
    for purpose in [Purpose::Forward, Purpose::Dequantize] {
        let loaded = parsed.load(purpose)?;
        if small {
            let weight = Matrix::decode(&*loaded.weight);
            if layer.capabilities().requantize && purpose == Purpose::Dequantize {
                parsed.requantize(&weight, &Nearest, checkpoint)?;
            }
        }
    }
    Ok(())
}
