//! Changed weights in the layers of the fixtures.

use qoft_eetq::REGISTRATION;
use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{
    BackendOptions, Checkpoint, LayerSource, Matrix, Nearest, Purpose, Registry, Schemes,
    WaitingFile,
};
use safetensors::SafeTensors;

/// The library scales a row so that its largest weight would get code 128, but there is none above
/// 127: such a row comes back with a scale that is smaller by 1/128.
const OWN: f64 = 1.0 / 128.0;
/// What rounding to 8 bits costs.
const ROTATED: f64 = 0.01;

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/eetq");
    let layers = qoft_conformance::requantize(&REGISTRATION, folders);
    assert!(layers.len() >= 40, "only {} layers", layers.len());
    for layer in layers {
        let (own, rotated) = (layer.own.clone().unwrap(), layer.rotated.clone().unwrap());
        assert!(own < OWN, "{layer:?}");
        assert!(rotated < ROTATED, "{layer:?}");
        println!("{layer:?}");
    }
}

fn open(checkpoint: &Checkpoint) -> Schemes {
    let registry = Registry::new([&REGISTRATION]).unwrap();
    registry
        .open(checkpoint, &BackendOptions::default())
        .unwrap()
}

/// Writes a layer with a weight.
fn write(schemes: &Schemes, checkpoint: &mut Checkpoint, path: &str, weight: &Matrix) {
    let layer = schemes.find(LayerSource::new(checkpoint, path, None));
    let layer = layer.unwrap().parse().unwrap();
    let tensors = layer.requantize(weight, &Nearest, checkpoint).unwrap();
    let mut file = WaitingFile::new(&std::env::temp_dir()).unwrap();
    checkpoint.replace(path, &tensors, &mut file).unwrap();
}

fn load(schemes: &Schemes, checkpoint: &Checkpoint, path: &str) -> Matrix {
    let layer = LayerSource::new(checkpoint, path, None);
    let loaded = schemes.load(layer, Purpose::Forward);
    Matrix::decode(&*loaded.unwrap().weight)
}

/// EETQ quantized q, k and v as one matrix, gate and up as another one, and cut the bytes.
#[test]
fn the_librarys_bytes_come_out_of_the_weights_that_it_had() {
    for case in ["fused_sm80", "fused_sm70"] {
        let folder = qoft_fixtures::path(&format!("schemes/eetq/{case}"));
        let file = std::fs::read(folder.join("source.safetensors")).unwrap();
        let source = SafeTensors::deserialize(&file).unwrap();
        let source = source.iter().map(|(name, tensor)| {
            let mut values = vec![0.0; tensor.data().len() / 2];
            FloatFormat::F16.decode(tensor.data(), &mut values);
            let shape = tensor.shape().try_into().unwrap();
            let path = name.strip_suffix(".weight").unwrap();
            (path.to_owned(), Matrix::new(values, shape))
        });
        let source: Vec<(String, Matrix)> = source.collect();
        assert_eq!(source.len(), 7);

        let library = Checkpoint::open(&folder).unwrap();
        let mut ours = library.clone();
        let schemes = &open(&library);
        let same = |ours: &Checkpoint, path: &str| {
            let names = ["qweight", "weight_scales"].map(|suffix| format!("{path}.{suffix}"));
            let tensors = |from: &Checkpoint| {
                let tensors = names.iter().map(|name| from.tensor(name).unwrap());
                tensors.map(|t| t.bytes().to_vec()).collect::<Vec<_>>()
            };
            tensors(ours) == tensors(&library)
        };
        for (path, weight) in &source {
            // Other weights, with other scales.
            let mut other = weight.clone();
            other.values.reverse();
            write(schemes, &mut ours, path, &other);
        }
        for (path, weight) in &source {
            assert!(!same(&ours, path), "{case}: {path}");
            assert!(
                load(schemes, &ours, path) != load(schemes, &library, path),
                "{case}: {path}"
            );
            write(schemes, &mut ours, path, weight);
            assert!(
                load(schemes, &ours, path) == load(schemes, &library, path),
                "{case}: {path}"
            );
        }
        for (path, _) in &source {
            assert!(same(&ours, path), "{case}: {path}");
        }
    }
}
