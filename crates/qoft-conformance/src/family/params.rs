//! Parameters of new adapters.

use qoft_core::{ParamPlace, Walk};
use qoft_peft::Site;
use serde_json::{Value, json};

use super::case::{ADAPTER, Case, Start, train};
use super::model::Model;
use crate::compute::device;

pub(super) fn check(case: &Case) {
    names_and_shapes(case);
    start(case);
    only_parameters(case);
    shared_keys(case);
}

/// The parameters are those that the configuration tells, and optimizers find them again.
fn names_and_shapes(case: &Case) {
    let model = case.model(1, &device().autodiff());
    let bare = Model::new();
    for (path, layer) in bare.layers() {
        let rotations = Case::rotations(&model);
        let rotation = rotations.iter().find(|(known, _)| *known == path);
        let is_target = case.targets.contains(&path);
        assert_eq!(rotation.is_some(), is_target, "{case}: `{path}`");
        let Some((_, rotation)) = rotation else {
            continue;
        };
        let site = Site::of(&path, layer);
        let shapes = case.config.param_shapes(&site);
        let shapes = shapes.unwrap_or_else(|e| panic!("{case}: {e}"));
        let names = case.config.param_names(site.kind);
        assert_eq!(names.len(), shapes.len(), "{case}: names and shapes");
        let told: Vec<_> = names.iter().copied().zip(shapes).collect();
        let found = rotation.params().into_iter();
        let found: Vec<_> = found.map(|p| (p.name(), p.shape().to_vec())).collect();
        assert_eq!(
            found, told,
            "{case}: parameters of `{path}`, and what was told"
        );
        for param in rotation.params() {
            let id = ParamPlace::of_adapter(ADAPTER)
                .at(&path)
                .named(param.name())
                .id();
            assert_eq!(param.id(), id, "{case}: id of `{path}.{}`", param.name());
            assert!(
                param.trains(),
                "{case}: `{path}.{}` does not train",
                param.name()
            );
        }
        let mut changed = rotation.boxed_clone();
        for param in changed.params_mut() {
            param.set(vec![0.5; param.len()]);
        }
        let values = changed.params().into_iter().flat_map(|p| p.to_vec());
        assert!(
            values.into_iter().all(|value| value == 0.5),
            "{case}: `params` and `params_mut` are not the same"
        );
    }
}

fn parameters(model: &Model) -> Vec<Vec<f32>> {
    let rotations = Case::rotations(model).into_iter();
    rotations
        .flat_map(|(_, rotation)| {
            let params = rotation.params().into_iter();
            params.map(|p| p.to_vec()).collect::<Vec<_>>()
        })
        .collect()
}

/// Initial values follow from the seed, and mean what the case says.
fn start(case: &Case) {
    let [first, again, other] = [1, 1, 2].map(|seed| case.model(seed, &device()));
    assert_eq!(
        parameters(&first),
        parameters(&again),
        "{case}: two adapters of one seed"
    );
    match case.start {
        Start::Identity => case.expect_same(&first, &Model::new(), "a new adapter"),
        Start::Dropout => {}
        Start::Random => {
            assert!(
                Case::differ(&first, &Model::new()),
                "{case}: a new adapter changes nothing"
            );
            assert_ne!(
                parameters(&first),
                parameters(&other),
                "{case}: two adapters of different seeds"
            );
        }
    }
}

/// What an adapter computes follows from its parameters.
fn only_parameters(case: &Case) {
    let trained = case.trained(1, &device());
    let mut other = case.model(2, &device());
    assert!(
        Case::differ(&trained, &Model::new()),
        "{case}: other parameters change nothing"
    );
    let mut values = parameters(&trained).into_iter();
    other.walk_mut("", &mut |_, layer| {
        let slots = layer.adapters_mut().slots_mut();
        for param in slots.iter_mut().flat_map(|slot| slot.params_mut()) {
            param.set(values.next().expect("the same parameters"));
        }
    });
    case.expect_same(
        &other,
        &trained,
        "an adapter with the parameters of another one",
    );

    let mut twice = case.model(1, &device());
    train(&mut twice, ADAPTER, 1);
    let once = parameters(&twice);
    twice.walk_mut("", &mut |_, layer| {
        let slots = layer.adapters_mut().slots_mut();
        for rotation in slots.iter_mut().filter_map(|slot| slot.rotation_mut()) {
            rotation.constrain();
        }
    });
    for (once, twice) in once.iter().zip(parameters(&twice)) {
        let off = super::model::off(once, &twice);
        assert!(off < 1e-5, "{case}: `constrain` changes parameters twice");
    }
}

/// The keys of all families are read and checked.
fn shared_keys(case: &Case) {
    let family = case.registration.item();
    let with = |key: &str, value: Value| {
        let mut json = case.config.to_json();
        json[key] = value;
        family.read(json, "configuration")
    };
    let only = format!("{}_only", family.peft_type().to_lowercase());
    for (key, value) in [
        ("task_type", json!("CAUSAL_LM")),
        ("base_model_name_or_path", json!("some/model")),
        ("exclude_modules", json!(["lm_head"])),
        ("layers_to_transform", json!([0, 2])),
        ("bias", json!("all")),
        ("bias", json!(only)),
        ("modules_to_save", json!(["score"])),
        ("inference_mode", json!(true)),
        ("a_key_of_the_future", json!({"a": [1]})),
    ] {
        let config = with(key, value.clone()).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(config.to_json()[key], value, "{case}: `{key}` is lost");
        let common = serde_json::to_value(config.common()).expect("a plain struct");
        assert_eq!(
            common[key], value,
            "{case}: `{key}` is not among the shared keys"
        );
    }
    for (key, value) in [
        ("bias", json!("some")),
        ("peft_type", json!("ANOTHER")),
        ("target_modules", json!(3)),
    ] {
        let error = with(key, value.clone()).err();
        let error = error.unwrap_or_else(|| panic!("{case}: `{key}` may be {value}"));
        let text = error.to_string();
        assert!(
            text.contains(key) || text.contains("configuration"),
            "{case}: the error about `{key}` names neither it nor the file: {text}"
        );
    }
    assert_eq!(case.config.peft_type(), family.peft_type(), "{case}");
    assert_eq!(
        family.defaults()["peft_type"],
        family.peft_type(),
        "{case}: `peft_type` among the defaults"
    );
    case.config
        .validate("configuration")
        .unwrap_or_else(|e| panic!("{case}: {e}"));
}
