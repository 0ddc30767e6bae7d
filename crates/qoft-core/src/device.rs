//! Devices by their names.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[cfg(feature = "cubecl")]
mod gpu;

use burn::tensor::Device;

use qoft_scheme::{Error, Result};
use serde::Serialize;

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
