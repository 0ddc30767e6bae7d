//! Two adapters on one model.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor};
use qoft::nn::{self, CommonConfig, OftConfig, Walk};
use serde_json::Value;

use crate::fixture::{Tensors, json, near, off, path};
use crate::models::{Mlp, Net};

const PAIRS: [&str; 4] = ["same", "different", "same_blocks_of_5", "other_sizes"];

/// The model with the two adapters of a pair, and what is expected of it.
fn pair(case: &str) -> (Mlp, Tensors) {
    let expected = Tensors::open(&format!("pair_{case}/expected.safetensors"));
    let mut model = Mlp::load();
    for name in ["0", "1"] {
        let folder = path(&format!("pair_{case}/{name}"));
        nn::load(
            &mut model,
            &folder,
            &nn::Families::linked().unwrap(),
            name,
            &Device::flex(),
        )
        .unwrap();
    }
    (model, expected)
}

#[test]
fn each_choice_computes_merged_or_not() {
    for case in PAIRS {
        let (mut model, expected) = pair(case);
        let input = Mlp::input(&expected);
        let choices: [&[&str]; 4] = [&["0"], &["1"], &["0", "1"], &["1", "0"]];
        for names in choices {
            let wanted: Tensor<2> = expected.float(&format!("adapted.{}", names.concat()));
            nn::activate(&mut model, names).unwrap();
            let what = format!("{case} {names:?}");
            near(&model.run(input.clone()), &wanted, &what);
            nn::merge(&mut model).unwrap();
            near(&model.run(input.clone()), &wanted, &what);
            nn::unmerge(&mut model).unwrap();
            near(&model.run(input.clone()), &wanted, &what);
        }
        nn::disable_all(&mut model);
        near(&model.run(input), &expected.float("base"), case);
    }
}

#[test]
fn merging_one_after_another_is_merging_both() {
    for case in PAIRS {
        let (mut model, expected) = pair(case);
        let input = Mlp::input(&expected);
        for name in ["1", "0"] {
            nn::activate(&mut model, &[name]).unwrap();
            nn::merge(&mut model).unwrap();
        }
        // What is merged later stands further from the weight, so it is applied first.
        near(&model.run(input), &expected.float("adapted.01"), case);
    }
}

#[test]
fn the_order_matters_where_rotations_do_not_commute() {
    for case in PAIRS {
        let (_, expected) = pair(case);
        let [a, b] = ["01", "10"].map(|order| expected.float::<2>(&format!("adapted.{order}")));
        let matters = ["same_blocks_of_5", "other_sizes"].contains(&case);
        assert_eq!(off(&a, &b) > 1e-3, matters, "{case}");
    }
}

/// The adapters of layers that get gradients, as PEFT names them.
fn trained(model: &Mlp) -> BTreeSet<String> {
    let y = model.run(Tensor::ones([1, 10], &Device::flex()));
    let mut found = BTreeSet::new();
    if !y.device().is_autodiff() {
        return found;
    }
    let gradients = y.sum().backward();
    for (path, layer) in model.layers() {
        for slot in layer.adapters().slots() {
            if slot.params()[0].gradient(&gradients).is_some() {
                found.insert(format!("{path}.oft_R.{}", slot.name()));
            }
        }
    }
    found
}

#[test]
fn only_active_adapters_train() {
    let expected = json("expected.json");
    for (case, second) in [("different", "lin1"), ("same", "lin0")] {
        let mut model = Mlp::load();
        for (name, target) in [("default", "lin0"), ("adapter1", second)] {
            let mut config = OftConfig::default();
            config.r = 2;
            config.oft_block_size = 0;
            config.common = CommonConfig::targeting([target]);
            nn::inject(&mut model, &config, name, 1, &Device::flex().autodiff()).unwrap();
        }
        for step in expected["trained"][case].as_array().unwrap() {
            match step[0].as_str().unwrap() {
                "" => nn::disable_all(&mut model),
                name => nn::activate(&mut model, &[name]).unwrap(),
            }
            let names: Vec<Value> = step[1].as_array().unwrap().clone();
            let wanted: BTreeSet<String> = names
                .iter()
                .map(|name| name.as_str().unwrap().to_owned())
                .collect();
            assert_eq!(trained(&model), wanted, "{case}: {step}");
        }
    }
}
