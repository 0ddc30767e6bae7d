//! The forward of int8 layers, against bitsandbytes' own, and where codes are.

use qoft_bnb::{REGISTRATION_4BIT, REGISTRATION_8BIT};
use qoft_scheme::{BackendOptions, Checkpoint, LayerSource, Purpose, Registry};
use safetensors::SafeTensors;

fn registry() -> Registry {
    Registry::new([&REGISTRATION_4BIT, &REGISTRATION_8BIT]).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

#[test]
fn int8_forwards_equal_the_reference() {
    let option = |value| BackendOptions::parse(&[format!("bnb-8bit.int8_activations={value}")]);
    let mut compared = 0;
    for variant in qoft_fixtures::folders("bnb") {
        let expected = std::fs::read(variant.join("expected.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&expected).unwrap();
        let checkpoint = Checkpoint::open(&variant).unwrap();
        for (name, tensor) in expected.iter() {
            let Some(case) = name.strip_suffix(".input") else {
                continue;
            };
            for (mode, kind) in [("false", "train_output"), ("true", "eval_output")] {
                let schemes = registry().open(&checkpoint, &option(mode).unwrap());
                let layer = LayerSource::new(&checkpoint, "proj", None);
                let loaded = schemes.unwrap().load(layer, Purpose::Forward).unwrap();
                let [n, k] = loaded.weight.shape();
                let mut x = floats(tensor.data());
                if let Some(quantizer) = &loaded.input_quantizer {
                    quantizer.quantize(&mut x, k);
                }
                let mut y = qoft_scheme::kernels::ops::packed_matmul(&x, &*loaded.weight, false);
                if let Some(bias) = &loaded.bias {
                    y.iter_mut()
                        .enumerate()
                        .for_each(|(i, y)| *y += bias[i % n]);
                }
                let reference = floats(expected.tensor(&format!("{case}.{kind}")).unwrap().data());
                let scale = reference.iter().fold(1.0f32, |max, v| max.max(v.abs()));
                for (a, b) in y.iter().zip(&reference) {
                    assert!(
                        (a - b).abs() <= 3e-5 * scale,
                        "{variant:?} {case} {kind}: {a} {b}"
                    );
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 16, "only {compared} forwards were compared");
}

#[test]
fn codes_stay_in_the_file() {
    let mut seen = 0;
    for variant in qoft_fixtures::folders("bnb") {
        let checkpoint = Checkpoint::open(&variant).unwrap();
        let options = BackendOptions::default();
        let schemes = registry().open(&checkpoint, &options).unwrap();
        let paths = checkpoint.names().filter_map(|name| {
            let four_bit = name.strip_suffix(".weight.quant_map");
            four_bit.or_else(|| name.strip_suffix(".SCB"))
        });
        for path in paths {
            let layer = LayerSource::new(&checkpoint, path, None);
            let weight = schemes.load(layer, Purpose::Forward).unwrap().weight;
            let stored = checkpoint.tensor(&format!("{path}.weight")).unwrap();
            // `None` where rows end inside of bytes.
            let Some(codes) = weight.rows_in_memory() else {
                continue;
            };
            assert_eq!(
                codes.as_ptr(),
                stored.bytes().as_ptr(),
                "{variant:?} {path}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} layers were looked at");
}
