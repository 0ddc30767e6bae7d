//! The optimizer, and what it lets decay.

use burn::module::{ParamGroup, ParamId};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{
    AdamConfig, AdamWConfig, AdanConfig, LionConfig, ModuleOptimizer, Optimizer, SgdConfig,
};
use qoft_core::BIAS;
use qoft_core::{LayerKind, Walk};

use super::config::TrainConfig;
use super::moments::parameters;
use super::muon::MatrixMuon;
use super::optimizer_kind::OptimizerKind;
use super::schedule_free::ScheduleFree;
use crate::model::TrainModel;

/// Lion's second beta where the settings say nothing: AdamW's is too long a memory for it.
const LION_BETA_2: f32 = 0.99;

/// The optimizer of a run of `total` steps. As in transformers, biases and the weights of norms do not decay.
pub(super) fn new(config: &TrainConfig, model: &impl TrainModel, total: usize) -> ModuleOptimizer {
    let matrices = parameters(model).into_iter();
    let matrices = matrices.filter_map(|parameter| Some((parameter.id, parameter.matrix?)));
    build(config, without_decay(model), matrices.collect(), total)
}

fn build(
    config: &TrainConfig,
    staying: Vec<ParamId>,
    matrices: Vec<(ParamId, [usize; 2])>,
    total: usize,
) -> ModuleOptimizer {
    let [beta_1, beta_2] = config.betas().map(|beta| beta as f32);
    let epsilon = config.adam_epsilon as f32;
    match config.optimizer {
        OptimizerKind::AdamW | OptimizerKind::Muon => {
            let mut optimizer = grouped(config, staying, |decay| {
                let adamw = AdamWConfig::new().with_beta_1(beta_1).with_beta_2(beta_2);
                adamw.with_epsilon(epsilon).with_weight_decay(decay).build()
            });
            if config.optimizer == OptimizerKind::Muon {
                for (id, shape) in matrices {
                    let muon = MatrixMuon::new(shape, config.weight_decay as f32);
                    optimizer = optimizer.with_group(ParamGroup::from_ids(vec![id]), muon, None);
                }
            }
            optimizer
        }
        OptimizerKind::ScheduleFreeAdamW => grouped(config, staying, |decay| ScheduleFree {
            betas: config.betas(),
            epsilon: config.adam_epsilon,
            weight_decay: f64::from(decay),
            warmup: config.warmup(total),
        }),
        OptimizerKind::Adam => grouped(config, staying, |decay| {
            let adam = AdamConfig::new().with_beta_1(beta_1).with_beta_2(beta_2);
            adam.with_epsilon(epsilon)
                .with_weight_decay(penalty(decay))
                .build()
        }),
        OptimizerKind::Sgd => grouped(config, staying, |decay| {
            SgdConfig::new().with_weight_decay(penalty(decay)).build()
        }),
        OptimizerKind::Adan => grouped(config, staying, |decay| {
            let adan = AdanConfig::new().with_epsilon(epsilon);
            adan.with_weight_decay(decay).build()
        }),
        OptimizerKind::Lion => {
            let beta_2 = match config.adam_beta2 {
                None => LION_BETA_2,
                Some(_) => beta_2,
            };
            grouped(config, staying, |decay| {
                let lion = LionConfig::new().with_beta_1(beta_1).with_beta_2(beta_2);
                lion.with_weight_decay(decay).build()
            })
        }
    }
}

/// One optimizer for the parameters that decay, and one for those that stay.
fn grouped<O: Optimizer>(
    config: &TrainConfig,
    staying: Vec<ParamId>,
    build: impl Fn(f32) -> O,
) -> ModuleOptimizer {
    let decaying = ModuleOptimizer::from(build(config.weight_decay as f32));
    decaying.with_group(ParamGroup::from_ids(staying), build(0.0), None)
}

fn penalty(decay: f32) -> Option<WeightDecayConfig> {
    (decay > 0.0).then(|| WeightDecayConfig::new(decay))
}

fn without_decay(model: &impl Walk) -> Vec<ParamId> {
    let mut ids = Vec::new();
    for (_, layer) in model.layers() {
        let slots = layer.adapters().slots().iter();
        let own = slots.flat_map(|slot| slot.own());
        let staying = own.filter(|own| layer.kind() == LayerKind::Norm || own.name() == BIAS);
        ids.extend(staying.map(|own| own.param().id()));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::schedule_free;
    use burn::module::{Module, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor};
    use serde::Deserialize;

    #[derive(Module, Debug)]
    struct Pair {
        decaying: Param<Tensor<1>>,
        staying: Param<Tensor<1>>,
    }

    #[derive(Deserialize)]
    struct Case {
        optimizer: String,
        settings: serde_json::Map<String, serde_json::Value>,
        rates: Vec<f64>,
        gradients: Vec<[Vec<f32>; 2]>,
        values: Vec<[Vec<f32>; 2]>,
        averages: Option<Vec<[Vec<f32>; 2]>>,
        shape: Option<[usize; 2]>,
    }

    fn assert_close(found: &[Vec<f32>; 2], expected: &[Vec<f32>; 2], place: &str) {
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            let error = (found - expected).abs();
            assert!(error < 2e-6, "{place}: {found} {expected}");
        }
    }

    #[test]
    fn steps_are_those_of_the_libraries() {
        let text = std::fs::read(qoft_fixtures::path("optim/optimizers.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
        assert_eq!(cases.len(), 9);
        for mut case in cases {
            let name = case.optimizer.clone();
            case.settings
                .insert("optimizer".into(), name.clone().into());
            let config: TrainConfig = serde_json::from_value(case.settings.into()).unwrap();
            let device = Device::flex().autodiff();
            let [decaying, staying] = case.values[0].clone().map(|values| {
                Param::from_tensor(Tensor::<1>::from_data(&*values, &device).require_grad())
            });
            let mut pair = Pair { decaying, staying };
            let matrices = case.shape.map(|shape| (pair.decaying.id, shape));
            let matrices = matrices.into_iter().collect();
            let mut optimizer = build(&config, vec![pair.staying.id], matrices, 8);
            for (step, gradients) in case.gradients.into_iter().enumerate() {
                let ids = [pair.decaying.id, pair.staying.id];
                let mut all = GradientsParams::new();
                for (id, gradient) in ids.into_iter().zip(gradients) {
                    all.register(id, Tensor::<1>::from_data(&*gradient, &Device::flex()));
                }
                pair = optimizer.step(case.rates[step], pair, all);
                let found = [&pair.decaying, &pair.staying];
                let found = found.map(|found| found.val().into_data().iter::<f32>().collect());
                assert_close(
                    &found,
                    &case.values[step + 1],
                    &format!("{name}, step {step}"),
                );
                if let Some(averages) = &case.averages {
                    let tensors = schedule_free::kept(&optimizer).unwrap();
                    let beta1 = config.betas()[0];
                    let found = ids.map(|id| {
                        schedule_free::average(
                            &tensors[&(id.val(), "y")],
                            &tensors[&(id.val(), "z")],
                            beta1,
                        )
                    });
                    assert_close(
                        &found,
                        &averages[step],
                        &format!("average of {name}, step {step}"),
                    );
                }
            }
        }
    }
}
