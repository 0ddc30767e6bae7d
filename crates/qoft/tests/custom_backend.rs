//! A scheme that this repository does not ship, registered from outside.

use qoft::core::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft::core::{
    Capabilities, Checkpoint, Dtype, Error, LayerSource, LoadedLinear, ParsedLayer, Purpose,
    QuantBackend, Registration, Registry, Result, Scheme, SchemeOptions, Schemes, TensorView,
    register_backend,
};
use qoft::models::{Architectures, ModelFolder};
use safetensors::tensor::TensorView as View;

/// 8-bit integers with a scale for each row.
struct My8;

static REGISTRATION: Registration = Registration::new(&My8);

register_backend!(REGISTRATION);

impl QuantBackend for My8 {
    fn name(&self) -> &'static str {
        "my8"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Self)))
    }
}

impl Scheme for My8 {
    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("my8_codes")
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let codes = layer.tensor("my8_codes")?;
        let shape = codes.expect_dtype(&[Dtype::I8])?.matrix()?;
        let scales = layer.tensor("my8_scales")?;
        scales.expect_shape(&shape[..1])?;
        Ok(Box::new(My8Layer {
            shape,
            codes,
            scales,
        }))
    }
}

struct My8Layer {
    shape: [usize; 2],
    codes: TensorView,
    scales: TensorView,
}

impl ParsedLayer for My8Layer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _purpose: Purpose) -> Result<LoadedLinear> {
        let codes = Codes::new(self.codes.bytes().clone(), 8);
        let scales = Scales::Plain(self.scales.floats()?);
        let weight = GroupedWeight::builder(self.shape, codes, CodeMap::Int8, Groups::ROW, scales);
        Ok(LoadedLinear::new(weight.build("my8")?))
    }
}

/// A checkpoint with one layer of the scheme, under the given names.
fn folder(codes: &str, scales: &str) -> (tempfile::TempDir, ModelFolder) {
    let (c, s) = (
        [1u8, 2, 0xff, 4, 5, 0x80],
        [0.5f32, 2.0].map(f32::to_le_bytes).concat(),
    );
    let tensors = [
        (codes, View::new(Dtype::I8, vec![2, 3], &c).unwrap()),
        (scales, View::new(Dtype::F32, vec![2], &s).unwrap()),
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    let folder = ModelFolder::open(dir.path(), &Architectures::linked().unwrap()).unwrap();
    (dir, folder)
}

#[test]
fn a_registered_scheme_is_found_inspected_and_dequantized() {
    let (_model, folder) = folder("block.proj.my8_codes", "block.proj.my8_scales");
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let inspection = qoft::inspect(&folder, &schemes).unwrap();
    let layers: Vec<_> = inspection
        .layers
        .iter()
        .map(|l| (l.name.as_str(), l.backend))
        .collect();
    assert_eq!(layers, [("block.proj", "my8")]);

    let work = tempfile::tempdir().unwrap();
    let output = work.path().join("dense");
    let format = qoft::core::kernels::FloatFormat::F32;
    qoft::dequantize(&folder, &schemes, &output, format, &|_, _| ()).unwrap();
    let dense = Checkpoint::open(&output).unwrap();
    let values = dense.tensor("block.proj.weight").unwrap().to_f32().unwrap();
    assert_eq!(values, [0.5, 1.0, -0.5, 8.0, 10.0, -256.0]);
}

#[test]
fn an_unknown_scheme_is_an_error_that_lists_the_registered_ones() {
    let (_model, folder) = folder("block.proj.their_codes", "block.proj.their_scales");
    let schemes = Schemes::linked(folder.checkpoint()).unwrap();
    let error = qoft::inspect(&folder, &schemes).unwrap_err();
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
    assert!(matches!(error, Error::Duplicate { reason, .. } if reason.contains("`my8`")));
}
