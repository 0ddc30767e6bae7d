//! The backward block by block gives the gradients of the whole graph, whatever family adapters are of.

use std::collections::BTreeMap;

use crate::common::load;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Int, Tensor};
use qoft::core::{Walk, default_device};
use qoft::models::CausalLm;
use qoft::peft::{self, Families, ModelFacts};
use serde_json::{Value, json};

const IDS: [i32; 12] = [4, 9, 14, 19, 24, 29, 34, 39, 3, 7, 21, 40];

/// Gradients by the path of their parameter.
type ByName = BTreeMap<String, Vec<f32>>;

/// The model with adapters of a family, away from the identity where the family starts there.
fn adapted(case: &str, peft_type: &str, keys: &Value) -> CausalLm {
    let mut model = load(&qoft_fixtures::path(&format!("models/{case}")), &[]);
    let families = Families::linked().unwrap();
    let family = families.find(peft_type, "the test").unwrap();
    let mut config = family.defaults();
    let all = config.as_object_mut().unwrap();
    all.extend(keys.as_object().unwrap().clone());
    all.insert("init_weights".into(), false.into());
    let config = family.read(config, "the test").unwrap();
    let device = default_device().unwrap().autodiff();
    let head = model.head().to_owned();
    let facts = ModelFacts::NONE.with_head(&head);
    peft::attach(&mut model, &*config, facts, "default", 1, &device).unwrap();
    model
}

fn add(sum: &mut ByName, gradients: Gradients, model: &CausalLm) {
    let mut gradients = GradientsParams::from_grads(gradients, model);
    for (path, layer) in model.layers() {
        let slots = layer.adapters().slots().iter();
        for param in slots.flat_map(|slot| slot.params()) {
            if let Some(gradient) = gradients.remove::<1>(param.id()) {
                let values = gradient.into_data().try_into_vec().unwrap();
                let name = format!("{path}.{}", param.name());
                assert!(sum.insert(name, values).is_none(), "two gradients");
            }
        }
    }
}

/// Families whose parameters go through many operations first, and models whose projections share an
/// input: its gradient is a sum of several, the order of which must not depend on what lies below.
#[test]
fn gradients_are_the_same_bit_by_bit() {
    let targets: Vec<Option<u32>> = IDS[1..].iter().map(|&id| u32::try_from(id).ok()).collect();
    let targets = [targets, vec![None]].concat();
    let families = [
        (
            "OFT",
            json!({"oft_block_size": 4, "coft": true, "eps": 0.1}),
        ),
        (
            "BOFT",
            json!({"boft_block_size": 4, "boft_n_butterfly_factor": 2}),
        ),
        ("HRA", json!({"r": 2})),
        ("HRA", json!({"r": 3, "apply_GS": true})),
    ];
    for case in ["qwen3", "gpt2", "olmo2"] {
        for (peft_type, keys) in &families {
            for modules in [json!("all-linear"), json!(["q_proj", "up_proj", "c_attn"])] {
                let mut keys = keys.clone();
                keys["target_modules"] = modules;
                let model = adapted(case, peft_type, &keys);
                let ids = || Tensor::<2, Int>::from_data([IDS], &default_device().unwrap());
                let (mut whole, mut found) = (ByName::new(), ByName::new());
                let loss = model.loss(ids(), targets.clone(), 11.0);
                add(&mut whole, loss.backward(), &model);
                let mut sink = |part| add(&mut found, part, &model);
                model.backward_by_block(ids(), targets.clone(), 11.0, &mut sink);
                assert!(!whole.is_empty() && whole.keys().eq(found.keys()));
                let others = whole.keys().filter(|name| whole[*name] != found[*name]);
                let others: Vec<_> = others.collect();
                assert!(others.is_empty(), "{case}: {peft_type} {keys}: {others:?}");
            }
        }
    }
}
