//! A scheme that this repository does not ship, registered from outside.

use std::sync::Arc;

use qoft::core::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft::core::{
    Capabilities, Checkpoint, Dtype, Error, LayerSource, LoadOptions, LoadedLinear, QuantBackend,
    Registration, Registry, Result, register_backend,
};
use qoft::models::{Architectures, ModelFolder};
use safetensors::tensor::TensorView;

/// 8-bit integers with a scale for each row.
struct My8;

static REGISTRATION: Registration = Registration {
    order: 1_000,
    backend: &My8,
};

register_backend!(REGISTRATION);

impl QuantBackend for My8 {
    fn name(&self) -> &'static str {
        "my8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("my8_codes")
    }

    fn load(&self, layer: &LayerSource, _options: &LoadOptions) -> Result<LoadedLinear> {
        let codes = layer.tensor("my8_codes")?;
        let &[rows, cols] = codes.expect_dtype(&[Dtype::I8])?.shape() else {
            return Err(codes.error("a matrix", format!("shape {:?}", codes.shape())));
        };
        let scales = layer
            .tensor("my8_scales")?
            .expect_shape(&[rows])?
            .floats()?;
        let codes = Codes {
            bytes: codes.bytes().clone(),
            bits: 8,
        };
        let scales = Scales::Plain(scales);
        let weight = GroupedWeight::new(
            [rows, cols],
            codes,
            CodeMap::Int8,
            Groups::ROW,
            scales,
            "my8",
        )
        .map_err(layer.weight_error(self))?;
        let bias = layer.bias(rows)?;
        Ok(LoadedLinear {
            weight: Arc::new(weight),
            bias,
            input_quantizer: None,
        })
    }
}

/// A checkpoint with one layer of the scheme, under the given names.
fn folder(codes: &str, scales: &str) -> (tempfile::TempDir, ModelFolder) {
    let (c, s) = (
        [1u8, 2, 0xff, 4, 5, 0x80],
        [0.5f32, 2.0].map(f32::to_le_bytes).concat(),
    );
    let tensors = [
        (codes, TensorView::new(Dtype::I8, vec![2, 3], &c).unwrap()),
        (scales, TensorView::new(Dtype::F32, vec![2], &s).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    let folder = ModelFolder::open(dir.path(), &Architectures::linked().unwrap()).unwrap();
    (dir, folder)
}

#[test]
fn a_registered_scheme_is_found_inspected_and_dequantized() {
    let registry = Registry::linked().unwrap();
    let (_model, folder) = folder("block.proj.my8_codes", "block.proj.my8_scales");
    let inspection = qoft::inspect(&folder, &registry).unwrap();
    let layers: Vec<_> = inspection
        .layers
        .iter()
        .map(|l| (l.name.as_str(), l.backend))
        .collect();
    assert_eq!(layers, [("block.proj", "my8")]);

    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("dense");
    let format = qoft::core::kernels::FloatFormat::F32;
    qoft::dequantize(&folder, &registry, &output, format, &|_, _| ()).unwrap();
    let dense = Checkpoint::open(&output).unwrap();
    let values = dense.tensor("block.proj.weight").unwrap().to_f32().unwrap();
    assert_eq!(values, [0.5, 1.0, -0.5, 8.0, 10.0, -256.0]);
}

#[test]
fn an_unknown_scheme_is_an_error_that_lists_the_registered_ones() {
    let (_model, folder) = folder("block.proj.their_codes", "block.proj.their_scales");
    let error = qoft::inspect(&folder, &Registry::linked().unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoBackend { .. }));
    let text = error.to_string();
    assert!(
        text.contains("block.proj") && text.contains("my8, dense"),
        "{text}"
    );
}

#[test]
fn two_backends_of_one_name_are_an_error() {
    let error = Registry::new([&REGISTRATION, &REGISTRATION])
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, Error::DuplicateBackend(name) if name == "my8"));
}
