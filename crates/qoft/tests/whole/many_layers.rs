//! Models with very many layers: what takes time in proportion to their number stays so.

use std::time::{Duration, Instant};

use qoft::core::kernels::FloatFormat;
use qoft::core::{Dtype, LayerKind, Schemes};
use qoft::models::{Architectures, ModelFolder};
use qoft::oft::OftConfig;
use qoft::peft::{CommonConfig, ModelFacts, ModuleKind, Modules, OneOrMany, Selection};
use qoft::{MergePlan, MergeTarget, inspect};
use safetensors::tensor::TensorView;

/// Numbers of layers, the second eight times the first.
const FEW: usize = 2_500;
const MANY: usize = 20_000;

fn paths(count: usize) -> Vec<String> {
    let path = |at: usize| format!("model.layers.{}.mlp.experts.{}.proj", at / 64, at % 64);
    (0..count).map(path).collect()
}

/// The shortest of some runs.
fn time(run: impl Fn()) -> Duration {
    let runs = (0..5).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    runs.min().unwrap()
}

/// Eight times as many layers take far less than the 64 times as long of comparing each with each.
#[track_caller]
fn check(few: Duration, many: Duration) {
    assert!(
        many < few * 24,
        "{FEW} layers take {few:?}, {MANY} take {many:?}"
    );
}

#[test]
fn layers_find_their_owners_in_time() {
    let seconds = |count| {
        let dir = tempfile::tempdir().unwrap();
        let (weight, bias) = ([0; 16], [0; 8]);
        let tensors = paths(count).into_iter().flat_map(|path| {
            let view = |shape, bytes| TensorView::new(Dtype::F32, shape, bytes).unwrap();
            [
                (format!("{path}.bias"), view(vec![2], &bias[..])),
                (format!("{path}.weight"), view(vec![2, 2], &weight[..])),
            ]
        });
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let file = dir.path().join("model.safetensors");
        safetensors::serialize_to_file(tensors, None, &file).unwrap();
        let folder = ModelFolder::open(dir.path(), &Architectures::linked().unwrap()).unwrap();
        let schemes = Schemes::linked(folder.checkpoint()).unwrap();
        time(|| {
            let found = inspect(&folder, &schemes).unwrap();
            assert_eq!(found.layers.len(), count);
            assert_eq!(found.other_parameters, 2 * count);
            let target = MergeTarget::Dense(FloatFormat::F32);
            MergePlan::new(&folder, &schemes, &[], target).unwrap();
        })
    };
    check(seconds(FEW), seconds(MANY));
}

#[test]
fn layers_are_chosen_by_name_in_time() {
    let seconds = |count| {
        let paths = paths(count);
        let layers = paths.iter();
        let layers = layers.map(|path| (path, ModuleKind::Layer(LayerKind::Linear)));
        let modules = Modules::new(layers, "lm_head");
        let mut config = OftConfig::default();
        config.common = CommonConfig::targeting(OneOrMany::Many(paths.clone()));
        time(|| {
            let selection =
                Selection::new(&config, ModelFacts::NONE.with_head("lm_head"), &modules);
            assert_eq!(selection.unwrap().rotated().len(), count);
        })
    };
    check(seconds(FEW), seconds(MANY));
}
