//! Changed weights in the layers of the fixtures.

use qoft_hqq::REGISTRATION;
use qoft_scheme::kernels::FloatFormat;
use qoft_scheme::{
    BackendOptions, Checkpoint, CheckpointLayer, LayerSource, Matrix, Nearest, NewTensor, Purpose,
    Registry,
};
use safetensors::SafeTensors;

/// A weight is on its layer's grid already; rounding of products makes a difference, in bf16 most.
const OWN: f64 = 4e-3;

/// What rounding to so many codes costs.
fn expected(format: &str) -> f64 {
    match format {
        "int1" | "ternary" => 0.45,
        "int2" => 0.4,
        "int3" => 0.22,
        "int4" => 0.14,
        "int5" | "int6" => 0.06,
        _ => 0.01,
    }
}

#[test]
fn layers_can_be_written_again() {
    let folders = qoft_fixtures::folders("schemes/hqq");
    // One folder holds a pickle.
    let folders = folders.iter().filter(|f| !f.ends_with("qmodel_pt"));
    let layers = qoft_conformance::requantize(&REGISTRATION, folders);
    assert!(layers.len() >= 100, "only {} layers", layers.len());
    for layer in layers {
        let (own, rotated) = (layer.own.clone().unwrap(), layer.rotated.clone().unwrap());
        assert!(own < OWN, "{layer:?}");
        assert!(rotated < expected(&layer.format), "{layer:?}");
        println!("{layer:?}");
    }
}

/// A layer of a checkpoint.
fn parse(layer: LayerSource, checkpoint: &Checkpoint) -> CheckpointLayer {
    let registry = Registry::new([&REGISTRATION]).unwrap();
    let schemes = registry.open(checkpoint, &BackendOptions::default());
    schemes.unwrap().find(layer).unwrap().parse().unwrap()
}

fn floats(tensor: &NewTensor) -> Vec<f32> {
    let format = qoft_scheme::float_format(tensor.dtype).unwrap();
    let mut values = vec![0.0; tensor.bytes.len() / format.size()];
    format.decode(&tensor.bytes, &mut values);
    values
}

#[test]
fn the_librarys_tensors_come_out_of_the_weights_that_it_had() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/hqq") {
        // With two or three codes the library destroys some groups, and these keep what they had.
        let name = folder.file_name().unwrap().as_encoded_bytes();
        let source = std::fs::read(folder.join("source.safetensors"));
        let Some(source) = source.ok().filter(|_| !name.starts_with(b"int1")) else {
            continue;
        };
        let source = SafeTensors::deserialize(&source).unwrap();
        let checkpoint = Checkpoint::open(&folder).unwrap();
        for (name, tensor) in source.iter() {
            let path = name.strip_suffix(".weight").unwrap();
            let layer = LayerSource::new(&checkpoint, path, None);
            let mut values = vec![0.0; tensor.data().len() / 4];
            FloatFormat::F32.decode(tensor.data(), &mut values);
            let weight = Matrix::new(values, tensor.shape().try_into().unwrap());
            let parsed = parse(layer, &checkpoint);
            for found in parsed.requantize(&weight, &Nearest, &checkpoint).unwrap() {
                let expected = layer.copy(&found.suffix).unwrap();
                let case = format!("{}: {path}.{}", folder.display(), found.suffix);
                assert!(found == expected, "{case}");
            }
            layers += 1;
        }
    }
    assert!(layers >= 48, "only {layers} layers");
}

/// The library's scales and zero points for weights on a grid of few codes can be much worse.
#[test]
fn groups_that_have_not_changed_stay() {
    let mut layers = 0;
    for folder in qoft_fixtures::folders("schemes/hqq") {
        if folder.ends_with("qmodel_pt") {
            continue;
        }
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let codes = checkpoint.names().filter_map(|n| n.strip_suffix(".W_q"));
        for path in codes {
            let layer = LayerSource::new(&checkpoint, path, None);
            let parsed = parse(layer, &checkpoint);
            let loaded = parsed.load(Purpose::Forward).unwrap();
            let mut weight = Matrix::decode(&*loaded.weight);
            weight.values[0] += 0.5;
            let written = parsed.requantize(&weight, &Nearest, &checkpoint).unwrap();
            let changed = |tensor: &NewTensor| {
                let before = layer.tensor(&tensor.suffix).unwrap().to_f32().unwrap();
                let after = floats(tensor);
                before.iter().zip(&after).filter(|(a, b)| a != b).count()
            };
            let of = |name| written.iter().find(|tensor| tensor.suffix == name).unwrap();
            assert!(changed(of("scale")) <= 1, "{}: {path}", folder.display());
            assert!(changed(of("zero")) <= 1, "{}: {path}", folder.display());
            layers += 1;
        }
    }
    assert!(layers >= 100, "only {layers} layers");
}
