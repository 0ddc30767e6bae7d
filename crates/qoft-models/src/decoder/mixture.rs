//! A mixture of experts: feed-forward layers of which each token meets a few.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk, lanes, walk};

use super::balance::balance;
use super::expert::{Expert, ExpertConfig, ExpertInput};
use super::mlp::{Mlp, MlpConfig, MlpNames};
use super::router::{RouterConfig, Routing, Scores};
use crate::loader::Loader;

/// A mixture of experts, described.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MixtureConfig {
    /// How tokens are routed.
    pub router: RouterConfig,
    /// What the layer that chooses experts is called.
    pub router_name: RouterName,
    /// Whether it has a bias.
    pub router_bias: bool,
    /// The experts.
    pub experts: ExpertConfig,
    /// Layers that all tokens meet.
    pub shared: Option<SharedConfig>,
    /// Path of the mixture in transformers' model, below the block, where files have another one.
    pub module: &'static str,
    /// What files call tensors and modules of the mixture, and what these are called here.
    pub older_names: &'static [(&'static str, &'static str)],
}

/// What the layer that chooses experts is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterName {
    /// `gate`.
    Gate,
    /// `router`.
    Router,
}

/// Layers that all tokens meet, described.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedConfig {
    /// `shared_expert`, multiplied by the sigmoid of a gate of one feature, `shared_expert_gate`.
    Gated(MlpConfig),
    /// `shared_experts`.
    Plain(MlpConfig),
    /// `shared_mlp` of the block.
    Beside(MlpConfig),
}

impl MixtureConfig {
    /// Experts of `[inner, hidden]` without biases under the usual names, whose gate goes through `silu`;
    /// nothing is shared.
    pub fn new([inner, hidden]: [usize; 2], router: RouterConfig) -> Self {
        Self {
            router,
            router_name: RouterName::Gate,
            router_bias: false,
            experts: ExpertConfig {
                hidden,
                inner,
                input: ExpertInput::Gated(Activation::Silu),
                names: MlpNames::USUAL,
                bias: false,
                together: false,
            },
            shared: None,
            module: "mlp",
            older_names: &[],
        }
    }
}

/// `Σ w_e(x) · expert_e(x)` over the experts that a router chooses for `x`, and perhaps shared layers.
#[derive(Module, Debug, Walk)]
pub struct Mixture {
    gate: Option<Linear>,
    router: Option<Linear>,
    experts: Vec<Expert>,
    shared_expert: Option<Mlp>,
    shared_expert_gate: Option<Linear>,
    shared_experts: Option<Mlp>,
    /// What is added to the scores of experts where they are chosen.
    #[module(skip)]
    #[walk(skip)]
    correction: Option<Arc<[f32]>>,
    #[module(skip)]
    #[walk(skip)]
    routing: RouterConfig,
}

impl Mixture {
    /// Makes the layers. `block` is the module path of the block.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, block: &str, config: &MixtureConfig) -> Result<Self> {
        let (hidden, count) = (config.experts.hidden, config.router.experts);
        let module = walk::join(block, config.module);
        for (old, name) in config.older_names {
            loader.also_called(old, name);
        }
        let router = |name: RouterName, path: &str| {
            let parameter = format!("{module}.{path}.weight");
            let load = || loader.router(path, [count, hidden], config.router_bias, &parameter);
            (config.router_name == name).then(load).transpose()
        };
        let gate = router(RouterName::Gate, "gate")?;
        let router = router(RouterName::Router, "router")?;
        let correction = match config.router.scores {
            Scores::Softmax => None,
            Scores::Sigmoid(_) => {
                let loader = loader.below("gate");
                let correction: Tensor<1> = loader.tensor("e_score_correction_bias", [count])?;
                Some(correction.into_data().iter::<f32>().collect())
            }
        };
        let parameters = walk::join(&module, "experts");
        let experts = Expert::load_all(loader, count, &config.experts, &parameters)?;
        let (gated, plain) = match &config.shared {
            None | Some(SharedConfig::Beside(_)) => (None, None),
            Some(SharedConfig::Gated(shared)) => (Some(shared), None),
            Some(SharedConfig::Plain(shared)) => (None, Some(shared)),
        };
        let shared = |name: &str, shared: Option<&MlpConfig>| {
            let load = |shared| Mlp::load(&loader.below(name), shared);
            shared.map(load).transpose()
        };
        let load_gate = |_| loader.linear("shared_expert_gate", [1, hidden], false);
        Ok(Self {
            gate,
            router,
            experts,
            shared_expert: shared("shared_expert", gated)?,
            shared_expert_gate: gated.map(load_gate).transpose()?,
            shared_experts: shared("shared_experts", plain)?,
            correction,
            routing: config.router,
        })
    }

    /// The mixture on the rows of `x`, `[rows, hidden]`. Of which rows it is told which ones count, it tells
    /// how they are distributed: what [`Body::auxiliary_loss`](crate::Body::auxiliary_loss) needs. What the
    /// layers `beside` it make of `x` is added.
    pub fn forward(
        &self,
        x: Traced<2>,
        counted: Option<&[bool]>,
        beside: Option<&Mlp>,
    ) -> (Tensor<2>, Option<Tensor<3>>) {
        let Some(counted) = counted else {
            // Experts get rows in an order of their own.
            let lanes = lanes::several() && self.experts.iter().any(Expert::has_adapters);
            let y = match lanes {
                true => lanes::each(x.into_tensor(), |x| self.experts_of(x.into(), beside)),
                false => self.experts_of(x, beside),
            };
            return (y, None);
        };
        let logits = self.router().forward(x.clone());
        let chosen = self.routing.chosen(&logits, self.correction.as_deref());
        let balance = balance(&self.routing, logits.clone(), &chosen, counted);
        // All but the router read another node of the graph. Gradients of a node are added up in the order
        // in which the backward finds its readers; the router is found earlier where the whole graph is
        // gone through, and of two gradients the order does not matter.
        (
            self.experts_on(x.apart(), logits, &chosen, beside),
            Some(balance),
        )
    }

    /// What the experts make of rows that they alone see.
    fn experts_of(&self, x: Traced<2>, beside: Option<&Mlp>) -> Tensor<2> {
        let logits = self.router().forward(x.clone());
        let chosen = self.routing.chosen(&logits, self.correction.as_deref());
        self.experts_on(x, logits, &chosen, beside)
    }

    fn router(&self) -> &Linear {
        let router = self.gate.as_ref().or(self.router.as_ref());
        router.expect("one of the names")
    }

    fn experts_on(
        &self,
        x: Traced<2>,
        logits: Tensor<2>,
        chosen: &[usize],
        beside: Option<&Mlp>,
    ) -> Tensor<2> {
        let routing = self.routing.route(logits, chosen);
        let rows = ops::spread_rows(x.clone().into_tensor(), routing.rows.clone());
        let hit = |&(expert, rows): &(usize, usize)| (&self.experts[expert], rows);
        let hits: Vec<(&Expert, usize)> = routing.hits.iter().map(hit).collect();
        let Routing {
            rows: routed,
            weights,
            ..
        } = routing;
        let y = Expert::forward_all(&hits, rows, weights);
        let y = ops::collect_rows(y, routed);
        let shared = match (&self.shared_expert, &self.shared_expert_gate) {
            (Some(shared), Some(gate)) => {
                let (gate, shared) = (sigmoid(gate.forward(x.clone())), shared.forward(x));
                let (gate, shared) = ops::lifted(gate, shared);
                Some(gate * shared)
            }
            _ => {
                let shared = self.shared_experts.as_ref().or(beside);
                shared.map(|shared| shared.forward(x))
            }
        };
        match shared {
            Some(shared) => {
                let (y, shared) = ops::lifted(y, shared);
                y + shared
            }
            None => y,
        }
    }
}
