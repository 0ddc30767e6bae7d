//! A mixture of experts: feed-forward layers of which each token meets a few.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use qoft_core::kernels::ops::Activation;
use qoft_core::ops::{self, Traced};
use qoft_core::{Linear, Result, Walk, walk};

use super::balance::balance;
use super::expert::{Expert, ExpertNames};
use super::mlp::{Mlp, MlpConfig};
use super::router::{RouterConfig, Routing};
use crate::loader::Loader;

/// A mixture of experts, described.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MixtureConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside an expert.
    pub inner: usize,
    /// How tokens are routed.
    pub router: RouterConfig,
    /// What the gate in an expert goes through.
    pub activation: Activation,
    /// Layers that all tokens meet, with a gate of one feature; its sigmoid multiplies them.
    pub shared: Option<MlpConfig>,
    /// What the layers of an expert are called.
    pub names: ExpertNames,
    /// Path of the mixture in transformers' model, below the block, where files have another one.
    pub module: &'static str,
}

impl MixtureConfig {
    /// Experts of `[inner, hidden]` under the usual names, whose gate goes through `silu`; nothing is
    /// shared.
    pub fn new([inner, hidden]: [usize; 2], router: RouterConfig) -> Self {
        Self {
            hidden,
            inner,
            router,
            activation: Activation::Silu,
            shared: None,
            names: ExpertNames::USUAL,
            module: "mlp",
        }
    }
}

/// `Σ w_e(x) · expert_e(x)` over the experts that a router chooses for `x`, and perhaps shared layers.
#[derive(Module, Debug, Walk)]
pub struct Mixture {
    gate: Linear,
    experts: Vec<Expert>,
    shared_expert: Option<Mlp>,
    shared_expert_gate: Option<Linear>,
    #[module(skip)]
    #[walk(skip)]
    router: RouterConfig,
    #[module(skip)]
    #[walk(skip)]
    activation: Activation,
}

impl Mixture {
    /// Makes the layers. `block` is the module path of the block.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit.
    pub fn load(loader: &Loader, block: &str, config: &MixtureConfig) -> Result<Self> {
        let (hidden, count) = (config.hidden, config.router.experts);
        let module = walk::join(block, config.module);
        let gate = loader.router("gate", [count, hidden], &format!("{module}.gate.weight"))?;
        let shape = [config.inner, hidden];
        let parameters = walk::join(&module, "experts");
        let experts = Expert::load_all(loader, count, shape, &config.names, &parameters)?;
        let shared = config.shared.as_ref();
        let below = loader.below("shared_expert");
        let shared_expert = shared.map(|shared| Mlp::load(&below, shared)).transpose()?;
        let load_gate = |_| loader.linear("shared_expert_gate", [1, hidden], false);
        let shared_expert_gate = shared.map(load_gate).transpose()?;
        Ok(Self {
            gate,
            experts,
            shared_expert,
            shared_expert_gate,
            router: config.router,
            activation: config.activation,
        })
    }

    /// The mixture on the rows of `x`, `[rows, hidden]`. Of which rows it is told which ones count, it tells
    /// how they are distributed: what [`Body::auxiliary_loss`](crate::Body::auxiliary_loss) needs.
    pub fn forward(
        &self,
        x: Traced<2>,
        counted: Option<&[bool]>,
    ) -> (Tensor<2>, Option<Tensor<3>>) {
        let logits = self.gate.forward(x.clone());
        let chosen = self.router.chosen(&logits);
        let Some(counted) = counted else {
            return (self.experts_on(x, logits, &chosen), None);
        };
        let balance = balance(&self.router, logits.clone(), &chosen, counted);
        // All but the router read another node of the graph. Gradients of a node are added up in the order
        // in which the backward finds its readers; the router is found earlier where the whole graph is
        // gone through, and of two gradients the order does not matter.
        (self.experts_on(x.apart(), logits, &chosen), Some(balance))
    }

    fn experts_on(&self, x: Traced<2>, logits: Tensor<2>, chosen: &[usize]) -> Tensor<2> {
        let routing = self.router.route(logits, chosen);
        let rows = ops::spread_rows(x.clone().into_tensor(), routing.rows.clone());
        let hit = |&(expert, rows): &(usize, usize)| (&self.experts[expert], rows);
        let hits: Vec<(&Expert, usize)> = routing.hits.iter().map(hit).collect();
        let Routing {
            rows: routed,
            weights,
            ..
        } = routing;
        let y = Expert::forward_all(&hits, rows, weights, self.activation);
        let y = ops::collect_rows(y, routed);
        let (Some(shared), Some(gate)) = (&self.shared_expert, &self.shared_expert_gate) else {
            return y;
        };
        let (gate, shared) = (sigmoid(gate.forward(x.clone())), shared.forward(x));
        let (gate, shared) = ops::lifted(gate, shared);
        let (y, shared) = ops::lifted(y, gate * shared);
        y + shared
    }
}
