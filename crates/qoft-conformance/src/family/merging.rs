//! Adapters in the weight, and several at once.

use qoft_core::{ParamPlace, Walk, adapters};
use qoft_oft::OftConfig;
use qoft_peft::{self as peft, CommonConfig};

use super::case::{ADAPTER, Case, FACTS, train};
use super::model::Model;
use crate::compute::device;

pub(super) fn check(case: &Case) {
    one(case);
    two(case);
    beside_another_family(case);
}

fn merged(case: &Case, model: &Model) -> Model {
    let mut merged = model.clone();
    adapters::merge(&mut merged).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(
        adapters::active(&merged),
        [""; 0],
        "{case}: merged and active"
    );
    merged
}

/// Takes adapters out again. Where a family has no inverse, the error says so, and nothing changes.
fn unmerge(case: &Case, merged: &Model, adapted: &Model, base: &Model) {
    let mut model = merged.clone();
    match adapters::unmerge(&mut model) {
        Ok(()) => {
            assert_eq!(adapters::active(&model), adapters::active(adapted));
            case.expect_same(&model, adapted, "adapters that were merged and taken out");
            adapters::disable_all(&mut model);
            case.expect_same(&model, base, "a weight that adapters were taken out of");
        }
        Err(error) => {
            assert!(error.to_string().contains("no inverse"), "{case}: {error}");
            case.expect_same(
                &model,
                merged,
                "a weight that adapters cannot be taken out of",
            );
        }
    }
}

fn one(case: &Case) {
    let adapted = case.trained(1, &device());
    let merged = merged(case, &adapted);
    case.expect_same(&merged, &adapted, "a merged adapter");
    unmerge(case, &merged, &adapted, &Model::new());
}

/// A model with the adapters `first` and `second`.
fn pair(case: &Case) -> Model {
    let mut model = Model::new();
    for (seed, name) in [(1, "first"), (2, "second")] {
        case.attach(&mut model, name, seed, &device());
        train(&mut model, name, seed);
    }
    model
}

fn two(case: &Case) {
    let both = pair(case);
    let merged = merged(case, &both);
    case.expect_same(&merged, &both, "two adapters that are merged at once");
    unmerge(case, &merged, &both, &Model::new());

    // One after another: the one next to the weight first. The rows of a table come out of it, so there
    // it is the one that they meet first.
    let layers = both.layers();
    let layer = layers.iter().find(|(path, _)| path == Model::FIRST);
    let order = layer.expect("the first layer").1.adapters().active();
    let order: Vec<String> = order.map(|slot| slot.name().to_owned()).collect();
    let in_order = |names: &mut dyn Iterator<Item = &String>| {
        let mut model = both.clone();
        for name in names {
            adapters::activate(&mut model, &[name]).unwrap_or_else(|e| panic!("{case}: {e}"));
            adapters::merge(&mut model).unwrap_or_else(|e| panic!("{case}: {e}"));
        }
        model
    };
    let [layers, tables] = [
        in_order(&mut order.iter().rev()),
        in_order(&mut order.iter()),
    ];
    let what = "two adapters that are merged one after another";
    case.expect_same_of(&layers, &both, what, |path| path != Model::TABLE);
    case.expect_same_of(&tables, &both, what, |path| path == Model::TABLE);

    let mut second = both.clone();
    adapters::activate(&mut second, &["second"]).unwrap_or_else(|e| panic!("{case}: {e}"));
    let mut alone = Model::new();
    case.attach(&mut alone, "second", 2, &device());
    train(&mut alone, "second", 2);
    case.expect_same(&second, &alone, "one of two adapters");
    assert!(
        Case::differ(&both, &second),
        "{case}: two adapters compute what one of them does"
    );

    adapters::rename(&mut second, "first", "another").expect("a new name");
    adapters::delete(&mut second, "second").expect("an adapter");
    for (path, layer) in second.layers() {
        for param in layer.adapters().slots().iter().flat_map(|s| s.params()) {
            let id = ParamPlace::of_adapter("another")
                .at(&path)
                .named(param.name())
                .id();
            assert_eq!(param.id(), id, "{case}: the id of a renamed adapter");
        }
    }
}

fn beside_another_family(case: &Case) {
    let mut oft = OftConfig::default();
    oft.oft_block_size = 4;
    oft.init_weights = false;
    oft.common = CommonConfig::targeting(case.targets.clone());
    for oft_first in [true, false] {
        let mut model = Model::new();
        let attach = |model: &mut Model| {
            peft::attach(model, &oft, FACTS, "oft", 3, &device()).expect("OFT fits all layers");
        };
        if oft_first {
            attach(&mut model);
        }
        case.attach(&mut model, ADAPTER, 1, &device());
        train(&mut model, ADAPTER, 1);
        if !oft_first {
            attach(&mut model);
        }
        let merged = merged(case, &model);
        case.expect_same(&merged, &model, "an adapter beside one of OFT, merged");
    }
}
