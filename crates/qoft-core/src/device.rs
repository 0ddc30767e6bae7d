//! Devices by their names.
// Burn's ndarray backend is on its way out, but people may still select it.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

use burn::tensor::Device;

use qoft_scheme::{Error, Result};

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

/// The environment variable that names the device where nothing else does.
pub const DEVICE_VARIABLE: &str = "QOFT_DEVICE";

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

/// A device by name: `cpu` is Burn's flex backend, and of GPUs the first one is taken.
///
/// # Errors
/// If the name is not in [`DEVICES`], or the machine has no such device.
pub fn device(name: &str) -> Result<Device> {
    let error = |reason: String| Error::Device {
        name: name.into(),
        reason,
    };
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        #[cfg(feature = "cubecl")]
        _ if DEVICES.contains(&name) => gpu(name).map_err(error),
        _ => Err(error(format!("this build has: {}", DEVICES.join(", ")))),
    }
}

/// A GPU, if the machine has one.
#[cfg(feature = "cubecl")]
fn gpu(name: &str) -> std::result::Result<Device, String> {
    use burn_cubecl::CubeDevice;
    use burn_cubecl::cubecl::device::WgpuDeviceKind;

    const GRAPHICS: &str = "a driver for Vulkan (on Linux the GPU's own, or `mesa-vulkan-drivers`, \
                            which also computes on the CPU), Metal or DirectX 12";
    let kind = WgpuDeviceKind::default();
    let (device, driver) = match name {
        "vulkan" => (CubeDevice::vulkan(kind), "a driver for Vulkan"),
        "metal" => (CubeDevice::metal_msl(kind), "a Mac"),
        "cuda" => (CubeDevice::cuda(0), "NVIDIA's driver and CUDA"),
        "rocm" => (CubeDevice::rocm(0), "AMD's driver and ROCm"),
        _ => (CubeDevice::wgpu(kind), GRAPHICS),
    };
    let device = device.map_err(|error| format!("{error}; it needs {driver}"))?;
    Ok(Device::new(device))
}
