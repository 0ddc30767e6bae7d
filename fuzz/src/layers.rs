//! What programs do with the layers of a checkpoint.

use qoft_kernels::{FloatFormat, Matrix};
use qoft_scheme::{
    BackendOptions, Checkpoint, ClaimedLayer, Keys, LayerSource, Nearest, Purpose, Registry, Result,
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

/// Quantizes small weights by the configuration that the checkpoint has.
///
/// # Errors
/// If no scheme quantizes by it.
pub fn quantize(checkpoint: &Checkpoint) -> Result<()> {
    let keys = Keys::quantization(checkpoint, &[])?;
    let quantization = Registry::linked()?.quantization_of(&keys)?;
    for shape in [[8, 64], [64, 128], [3, 5]] {
        for path in ["a.b", "model.layers.0.self_attn.k_proj"] {
            // The settings need not fit every shape.
            let _ = quantization.stays_dense(path, shape);
            let values = (0..shape[0] * shape[1]).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0);
            let weight = Matrix::new(values.collect(), shape);
            let _ = quantization.quantize(path, weight, FloatFormat::Bf16, &Nearest);
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
