//! A backend from outside in place of the one of this crate.

use qoft_bnb as _;
use qoft_conformance::{PeakAlloc, Subject};
use qoft_scheme::kernels::{CodeMap, Codes, GroupedWeight, Groups, Scales};
use qoft_scheme::{
    BackendOptions, Capabilities, Checkpoint, Dtype, LayerSource, LoadedLinear, ParsedLayer,
    Purpose, QuantBackend, Registration, Registry, Result, Scheme, SchemeOptions, TensorView,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Somebody else's reader of int8 layers. It writes none.
struct OtherInt8;

static REGISTRATION: Registration = Registration::new(&OtherInt8).replacing();

impl QuantBackend for OtherInt8 {
    fn name(&self) -> &'static str {
        "bnb-8bit"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Self)))
    }
}

impl Scheme for OtherInt8 {
    fn claim(&self, layer: &LayerSource) -> bool {
        layer.has("SCB")
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        let codes = layer.tensor("weight")?;
        let shape = codes.expect_dtype(&[Dtype::I8])?.matrix()?;
        let absmax = layer.tensor("SCB")?;
        absmax
            .expect_dtype(&[Dtype::F32])?
            .expect_shape(&shape[..1])?;
        Ok(Box::new(OtherLayer {
            shape,
            codes,
            absmax,
        }))
    }
}

struct OtherLayer {
    shape: [usize; 2],
    codes: TensorView,
    absmax: TensorView,
}

impl ParsedLayer for OtherLayer {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn load(&self, _: Purpose) -> Result<LoadedLinear> {
        let codes = Codes::new(self.codes.bytes().clone(), 8);
        let scales = Scales::Plain(self.absmax.floats()?);
        let weight = GroupedWeight::builder(self.shape, codes, CodeMap::Int8, Groups::ROW, scales);
        // The library's 1/127.
        let weight = weight.factor(7.874_016e-3).build("other int8")?;
        Ok(LoadedLinear::new(weight))
    }
}

fn folders() -> Vec<std::path::PathBuf> {
    let mut folders = qoft_fixtures::folders("bnb");
    folders.retain(|path| {
        path.file_name()
            .unwrap()
            .as_encoded_bytes()
            .starts_with(b"int8")
    });
    folders
}

#[test]
fn what_replaces_a_built_in_scheme_conforms() {
    Subject::new(&REGISTRATION).folders(folders()).check();
}

#[test]
fn it_takes_the_place_of_the_built_in_scheme() {
    let built_in = Registry::linked().unwrap();
    let registry = built_in.with(&REGISTRATION).unwrap();
    assert_eq!(
        registry.registrations().len(),
        built_in.registrations().len()
    );
    // It could be registered by the linker, too.
    let entries = built_in.registrations().iter();
    assert!(Registry::new([&REGISTRATION].into_iter().chain(entries)).is_ok());
    let mut layers = 0;
    for folder in folders() {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let schemes = registry.open(&checkpoint, &BackendOptions::default());
        let schemes = schemes.unwrap();
        let scales = checkpoint.names().filter(|name| name.ends_with(".SCB"));
        for path in scales.map(|name| name.strip_suffix(".SCB").unwrap()) {
            let layer = LayerSource::new(&checkpoint, path, None);
            assert_eq!(schemes.claimants(&layer), ["bnb-8bit"]);
            let loaded = schemes.load(layer, Purpose::Forward).unwrap();
            assert_eq!(loaded.weight.info().format, "other int8");
            layers += 1;
        }
    }
    assert!(layers > 2, "only {layers} layers");
}
