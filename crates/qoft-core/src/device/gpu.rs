//! GPUs of this machine.

use burn::tensor::Device;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::device::WgpuDeviceKind;
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};

use super::DeviceFacts;

/// Kinds of devices that are GPUs, if the build has them.
pub const KINDS: [&str; 5] = ["wgpu", "vulkan", "metal", "cuda", "rocm"];

/// What a device of a graphics API needs.
const GRAPHICS: &str = "a driver for Vulkan (on Linux the GPU's own, or `mesa-vulkan-drivers`, \
                        which also computes on the CPU), Metal or DirectX 12";

/// A GPU, if the machine has one; without an index the first one, or with a graphics API the best.
pub fn device(kind: &str, index: Option<usize>) -> Result<Device, String> {
    Ok(Device::new(found(kind, index)?))
}

/// All GPUs of a kind.
pub fn all(kind: &str) -> Result<Vec<DeviceFacts>, String> {
    let numbers = 0..;
    let devices: Vec<CubeDevice> = numbers.map_while(|n| found(kind, Some(n)).ok()).collect();
    if devices.is_empty() {
        // Which says why.
        found(kind, None)?;
    }
    let facts = |(index, device): (usize, &CubeDevice)| {
        let client = device.client();
        let properties = client.properties();
        let types = &properties.features.types.elem;
        DeviceFacts {
            name: format!("{kind}:{index}"),
            model: Some(properties.identity.name.clone()),
            largest_buffer: Some(properties.memory.max_page_size),
            tensor_cores: !properties.features.matmul.cmma.is_empty(),
            bf16: types.contains_key(&ElemType::Float(FloatKind::BF16)),
        }
    };
    Ok(devices.iter().enumerate().map(facts).collect())
}

fn found(kind: &str, index: Option<usize>) -> Result<CubeDevice, String> {
    let (device, driver) = match kind {
        "cuda" => {
            let device = CubeDevice::cuda(index.unwrap_or(0));
            (device, "NVIDIA's driver (libcuda)")
        }
        "rocm" => (
            CubeDevice::rocm(index.unwrap_or(0)),
            "AMD's driver and ROCm",
        ),
        "vulkan" => (graphics(index, CubeDevice::vulkan), "a driver for Vulkan"),
        "metal" => (graphics(index, CubeDevice::metal_msl), "a Mac"),
        _ => (graphics(index, CubeDevice::wgpu), GRAPHICS),
    };
    let device = device.map_err(|error| format!("{error}; it needs {driver}"))?;
    if kind == "cuda" {
        check_toolkit()?;
    }
    Ok(device)
}

/// A device of a graphics API, which tells kinds of devices apart and numbers each: here the numbers go on from
/// discrete ones to integrated ones, virtual ones and programs on the CPU.
fn graphics<E>(
    index: Option<usize>,
    named: impl Fn(WgpuDeviceKind) -> Result<CubeDevice, E>,
) -> Result<CubeDevice, E> {
    let Some(index) = index else {
        return named(WgpuDeviceKind::default());
    };
    let kinds = [
        WgpuDeviceKind::DiscreteGpu,
        WgpuDeviceKind::IntegratedGpu,
        WgpuDeviceKind::VirtualGpu,
        WgpuDeviceKind::Other,
    ];
    let mut before = 0;
    for kind in kinds {
        let mut number = 0;
        while let Ok(device) = named(kind(number)) {
            if before == index {
                return Ok(device);
            }
            (before, number) = (before + 1, number + 1);
        }
    }
    match before == index {
        true => named(WgpuDeviceKind::Cpu),
        // The error is that of a device beyond the last.
        false => named(WgpuDeviceKind::DiscreteGpu(WgpuDeviceKind::MAX_INDEX)),
    }
}

/// CUDA's mathematical functions are linked into kernels when these are compiled, on this machine.
fn check_toolkit() -> Result<(), String> {
    use std::path::{Path, PathBuf};

    const ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    const LIBRARY: &str = "nvvm/libdevice/libdevice.10.bc";
    let has = |root: &Path| root.join(LIBRARY).is_file();
    let path = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    match path {
        Some(path) if !has(&path) => Err(format!(
            "CUDA_PATH is {}, which has no {LIBRARY}; CUDA's toolkit has it, and PyPI's package \
             nvidia-nvvm",
            path.display()
        )),
        None if !ROOTS.iter().any(|root| has(Path::new(root))) => Err(format!(
            "there is no {LIBRARY} in {}; CUDA's toolkit has it, and PyPI's package nvidia-nvvm: \
             CUDA_PATH names the folder that has nvvm",
            ROOTS.join(", ")
        )),
        _ => Ok(()),
    }
}
