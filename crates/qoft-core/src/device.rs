//! Devices by their names.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[cfg(feature = "cubecl")]
mod gpu;

use burn::tensor::Device;

use qoft_kernels::ComputeDtype;
use qoft_scheme::{Error, Result};
use serde::Serialize;

use crate::ops::is_far;

/// Names of the devices of this build.
pub const DEVICES: &[&str] = &[
    "cpu",
    #[cfg(feature = "ndarray")]
    "ndarray",
    #[cfg(feature = "wgpu")]
    "wgpu",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "metal")]
    "metal",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "rocm")]
    "rocm",
];

/// The devices that only other builds have, which are Cargo features.
pub const OTHER_DEVICES: &[&str] = &[
    #[cfg(not(feature = "ndarray"))]
    "ndarray",
    #[cfg(not(feature = "wgpu"))]
    "wgpu",
    #[cfg(not(feature = "vulkan"))]
    "vulkan",
    #[cfg(not(feature = "metal"))]
    "metal",
    #[cfg(not(feature = "cuda"))]
    "cuda",
    #[cfg(not(feature = "rocm"))]
    "rocm",
];

/// The environment variable that names the device where nothing else does.
pub const DEVICE_VARIABLE: &str = "QOFT_DEVICE";

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceFacts {
    /// The name that [`device`] takes for it, such as `cuda:1`.
    pub name: String,
    /// What its driver calls it; none for the CPU.
    pub model: Option<String>,
    /// Bytes of the largest buffer that it has for a tensor; none for the CPU.
    pub largest_buffer: Option<u64>,
    /// Whether it multiplies small matrices in one instruction: tensor cores, cooperative matrices.
    pub tensor_cores: bool,
    /// Whether it computes with bf16.
    pub bf16: bool,
}

/// The device that [`DEVICE_VARIABLE`] names, `cpu` where it is not set.
///
/// # Errors
/// As [`device`].
pub fn default_device() -> Result<Device> {
    match std::env::var(DEVICE_VARIABLE) {
        Ok(name) if !name.is_empty() => device(&name),
        _ => device("cpu"),
    }
}

/// A device by name: `cpu` is Burn's flex backend; `cuda` is the first of its kind, and `cuda:1` the second.
///
/// # Errors
/// If the name is not in [`DEVICES`], or the machine has no such device.
pub fn device(name: &str) -> Result<Device> {
    let error = |reason: String| Error::Device {
        name: name.into(),
        reason,
    };
    let (kind, index) = match name.split_once(':') {
        None => (name, None),
        Some((kind, index)) => match index.parse() {
            Ok(index) => (kind, Some(index)),
            Err(_) => return Err(error(format!("`{index}` is no number of a device"))),
        },
    };
    match (kind, index) {
        ("cpu", None | Some(0)) => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        ("ndarray", None | Some(0)) => Ok(Device::ndarray()),
        #[cfg(feature = "cubecl")]
        _ if gpu::KINDS.contains(&kind) && DEVICES.contains(&kind) => {
            gpu::device(kind, index).map_err(error)
        }
        _ if DEVICES.contains(&kind) => Err(error("there is one only".to_owned())),
        _ if OTHER_DEVICES.contains(&kind) => Err(error(format!(
            "this build has: {}; the Cargo feature `{kind}` brings it",
            DEVICES.join(", ")
        ))),
        _ => Err(error(format!("this build has: {}", DEVICES.join(", ")))),
    }
}

/// The dtype of this name in which `device` computes products with frozen weights: `f32`, `bf16`, or `auto`
/// for bf16 where that is faster and f32 elsewhere.
///
/// # Errors
/// If there is none of this name, or the device has no instructions for it.
pub fn compute_dtype(name: &str, device: &Device) -> Result<ComputeDtype> {
    let has_bf16 = !is_far(device) && ComputeDtype::Bf16.is_native();
    let error = |reason: &str| {
        Err(Error::ComputeDtype {
            name: name.into(),
            reason: reason.into(),
        })
    };
    match name {
        "f32" | "float32" => Ok(ComputeDtype::F32),
        "bf16" | "bfloat16" if has_bf16 => Ok(ComputeDtype::Bf16),
        "auto" if has_bf16 => Ok(ComputeDtype::Bf16),
        "auto" => Ok(ComputeDtype::F32),
        "bf16" | "bfloat16" if is_far(device) => {
            error("products on GPUs are computed in f32; give f32, or auto")
        }
        "bf16" | "bfloat16" => error(
            "this processor has no instructions for it (AVX512-BF16), so that f32 is as fast; give f32, or auto",
        ),
        "f16" | "float16" => {
            error("f16 ends at 65504, which activations exceed; give bf16, f32 or auto")
        }
        _ => error("expected f32, bf16 or auto"),
    }
}

/// The devices of this machine, of each kind in [`DEVICES`].
///
/// # Errors
/// In place of devices where there is none of a kind: what it needs.
pub fn devices() -> Vec<(&'static str, Result<Vec<DeviceFacts>>)> {
    DEVICES.iter().map(|&kind| (kind, of_kind(kind))).collect()
}

fn of_kind(kind: &'static str) -> Result<Vec<DeviceFacts>> {
    #[cfg(feature = "cubecl")]
    if gpu::KINDS.contains(&kind) {
        return gpu::all(kind).map_err(|reason| Error::Device {
            name: kind.into(),
            reason,
        });
    }
    Ok(vec![DeviceFacts {
        name: kind.to_owned(),
        model: None,
        largest_buffer: None,
        tensor_cores: false,
        bf16: false,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compute_dtype_is_one_that_the_device_has() {
        let cpu = device("cpu").unwrap();
        assert_eq!(compute_dtype("float32", &cpu).unwrap(), ComputeDtype::F32);
        let has_bf16 = ComputeDtype::Bf16.is_native();
        let auto = compute_dtype("auto", &cpu).unwrap();
        assert_eq!(auto == ComputeDtype::Bf16, has_bf16);
        match compute_dtype("bfloat16", &cpu) {
            Ok(dtype) => assert!(has_bf16 && dtype == ComputeDtype::Bf16),
            Err(error) => assert!(!has_bf16 && error.to_string().contains("AVX512-BF16")),
        }
        let reason = |name: &str| compute_dtype(name, &cpu).unwrap_err().to_string();
        assert!(reason("f16").contains("give bf16"));
        assert!(reason("fp8").contains("compute dtype `fp8`: expected f32, bf16 or auto"));
    }

    #[test]
    fn a_device_is_named_by_its_kind_and_number() {
        assert!(device("cpu").is_ok() && device("cpu:0").is_ok());
        let reason = |name: &str| device(name).unwrap_err().to_string();
        assert!(reason("cpu:1").contains("there is one only"));
        assert!(reason("cpu:x").contains("`x` is no number"));
        assert!(reason("abacus").contains("this build has: cpu"));
        for kind in OTHER_DEVICES {
            let name = format!("{kind}:1");
            assert!(reason(&name).contains(&format!("Cargo feature `{kind}`")));
        }
        let all = devices();
        assert_eq!(all[0].0, "cpu");
        assert_eq!(all[0].1.as_ref().unwrap()[0].name, "cpu");
    }
}
