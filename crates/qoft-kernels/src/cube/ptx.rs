//! The kernels as NVIDIA's assembly, which needs no GPU: each representation's, for each architecture.

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::features::Features;
use cubecl::ir::nvidia::SmArch;
use cubecl::ir::{
    AddressType, DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties,
    TargetProperties,
};
use cubecl::prelude::*;
use cubecl::profile::TimingMethod;
use cubecl_llvm::nvptx::ptx_version::PtxVersion;
use cubecl_llvm::{LlvmTarget, PlironArtifact, PlironCompiler, PlironOptions};
use cubecl_runtime::kernel::CubeKernel;

use super::FEW;
use super::matmul::{SIDE, WIDE, few_rows, tiled};
use crate::device::{
    CodebookLayout, DeviceLayout, GroupLayout, GroupedLayout, MapLayout, ZeroLayout,
};
use crate::floats::FloatFormat;
use crate::nibble_order::NibbleOrder;

/// Where the files are written, for NVIDIA's assembler.
const FOLDER: &str = "QOFT_PTX_DIR";
/// Architectures with their numbers: A100 and H100, whose own instructions are those of `sm_90a`.
const ARCHITECTURES: [(u32, bool); 2] = [(80, false), (90, true)];
/// CUDA 13.0, as a driver numbers it.
const DRIVER: i32 = 13_000;

/// What kernels are told of a device that is not there.
fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 32,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (u32::MAX, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    Arc::new(DeviceProperties::new(
        Features::default(),
        MemoryDeviceProperties::new(u64::MAX, 256),
        hardware,
        TimingMethod::Device,
        DeviceIdentity {
            name: "none".into(),
            fingerprint: "none".into(),
            physical: None,
        },
    ))
}

fn ptx(kernel: &impl CubeKernel, (number, is_specific): (u32, bool)) -> String {
    let mut compiler = PlironCompiler {
        target: LlvmTarget::Nvptx,
    };
    let options = PlironOptions {
        sm_arch: Some(SmArch::new(number, is_specific)),
        ptx_version: PtxVersion::for_driver(DRIVER),
        grid_constants: true,
        ..Default::default()
    };
    match compiler.compile(kernel.define(), &options) {
        // SAFETY: the compiler ends its text with a zero, as the driver wants it.
        Ok(PlironArtifact::NvptxCode(module)) => unsafe {
            CStr::from_ptr(module.ptx.as_ptr())
                .to_string_lossy()
                .into_owned()
        },
        Ok(_) => panic!("no PTX"),
        Err(error) => panic!("{error:?}"),
    }
}

/// A layout of each kind.
fn layouts() -> Vec<(&'static str, DeviceLayout)> {
    use FloatFormat::{Bf16, F16, F32};
    let plain = GroupedLayout {
        bits: 4,
        order: NibbleOrder::LowFirst,
        map: MapLayout::Unsigned,
        groups: GroupLayout::Blocks(Some(1), Some(128)),
        scales: F16,
        nested: None,
        zeros: None,
        factor: false,
        rounding: F16,
        whole_runs: true,
    };
    let table = GroupedLayout {
        order: NibbleOrder::HighFirst,
        map: MapLayout::Table,
        groups: GroupLayout::Flat(64),
        scales: F32,
        rounding: Bf16,
        ..plain
    };
    let rows = GroupedLayout {
        bits: 8,
        map: MapLayout::Int8,
        groups: GroupLayout::Blocks(Some(1), None),
        ..plain
    };
    let grouped = [
        ("nf4", table),
        (
            "nf4_odd_rows",
            GroupedLayout {
                whole_runs: false,
                ..table
            },
        ),
        (
            "nf4_nested",
            GroupedLayout {
                nested: Some(256),
                ..table
            },
        ),
        (
            "int8_rows",
            GroupedLayout {
                scales: F32,
                factor: true,
                ..rows
            },
        ),
        ("int8_f16", rows),
        (
            "bits_2",
            GroupedLayout {
                bits: 2,
                zeros: Some(ZeroLayout::Bytes),
                ..plain
            },
        ),
        (
            "bits_3",
            GroupedLayout {
                bits: 3,
                zeros: Some(ZeroLayout::Bytes),
                ..plain
            },
        ),
        (
            "bits_4",
            GroupedLayout {
                zeros: Some(ZeroLayout::Bytes),
                ..plain
            },
        ),
        (
            "bits_4_indexed",
            GroupedLayout {
                groups: GroupLayout::Indexed,
                zeros: Some(ZeroLayout::Bytes),
                ..plain
            },
        ),
        (
            "bits_8",
            GroupedLayout {
                bits: 8,
                zeros: Some(ZeroLayout::Bytes),
                ..plain
            },
        ),
        (
            "bits_4_float_zeros",
            GroupedLayout {
                groups: GroupLayout::Flat(64),
                zeros: Some(ZeroLayout::Floats(F16)),
                ..plain
            },
        ),
        (
            "bits_1_interleaved",
            GroupedLayout {
                bits: 1,
                groups: GroupLayout::Interleaved,
                zeros: Some(ZeroLayout::Floats(F32)),
                scales: F32,
                rounding: F32,
                ..plain
            },
        ),
        (
            "fp8_blocks",
            GroupedLayout {
                bits: 8,
                map: MapLayout::Table,
                groups: GroupLayout::Blocks(Some(128), Some(128)),
                scales: F32,
                rounding: Bf16,
                ..plain
            },
        ),
        (
            "fp8_tensor",
            GroupedLayout {
                bits: 8,
                map: MapLayout::Table,
                groups: GroupLayout::Blocks(None, None),
                scales: Bf16,
                rounding: Bf16,
                ..plain
            },
        ),
        (
            "nvfp4",
            GroupedLayout {
                map: MapLayout::Table,
                groups: GroupLayout::Blocks(Some(1), Some(16)),
                scales: F32,
                factor: true,
                rounding: F32,
                ..plain
            },
        ),
    ];
    let books = CodebookLayout {
        out_group_size: 1,
        in_group_size: 8,
        num_codebooks: 2,
        nbits_per_codebook: 8,
        code_bytes: 1,
        books: F16,
        scales: F16,
    };
    let books = [
        ("books_2x8", books),
        (
            "books_1x16",
            CodebookLayout {
                num_codebooks: 1,
                nbits_per_codebook: 16,
                code_bytes: 2,
                ..books
            },
        ),
    ];
    let grouped = grouped.map(|(name, layout)| (name, DeviceLayout::Grouped(layout)));
    let books = books.map(|(name, layout)| (name, DeviceLayout::Codebook(layout)));
    let dense = [("f32", F32), ("f16", F16), ("bf16", Bf16)];
    let dense = dense.map(|(name, format)| (name, DeviceLayout::Dense(format)));
    [&grouped[..], &books, &dense].concat()
}

#[test]
fn kernels_compile_for_each_architecture() {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    let buffer = || BufferCompilationArg { inplace: None };
    let target = || Arc::new(TargetProperties::default());
    let settings =
        |dim: CubeDim| KernelSettings::new(*dim, ExecutionMode::Checked, AddressType::U32);
    for (name, layout) in layouts() {
        for architecture in ARCHITECTURES {
            let (number, is_specific) = architecture;
            let of = |kind: &str, text: String| {
                assert!(text.contains(".visible .entry"), "{name} {kind}: {text}");
                let suffix = if is_specific { "a" } else { "" };
                let file = format!("sm_{number}{suffix}.{name}.{kind}.ptx");
                if let Some(folder) = &folder {
                    std::fs::write(folder.join(file), text).unwrap();
                }
            };
            for (kind, transpose) in [("forward", false), ("dx", true)] {
                let dim = CubeDim::new_2d(SIDE as u32, SIDE as u32);
                let kernel = tiled::Tiled::new(
                    settings(dim),
                    device(),
                    target(),
                    buffer(),
                    buffer(),
                    buffer(),
                    (),
                    (),
                    (),
                    layout,
                    transpose,
                );
                of(kind, ptx(&kernel, architecture));
            }
            for (kind, most) in [("one_row", 1), ("few_rows", FEW)] {
                let dim = CubeDim::new_1d(WIDE as u32);
                let kernel = few_rows::FewRows::new(
                    settings(dim),
                    device(),
                    target(),
                    buffer(),
                    buffer(),
                    buffer(),
                    (),
                    (),
                    (),
                    layout,
                    most,
                );
                of(kind, ptx(&kernel, architecture));
            }
        }
    }
}
