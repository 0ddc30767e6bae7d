//! OFT for models of your own.
//!
//! Build the model with [`Linear`], [`Conv2d`] and [`Embedding`] in place of Burn's layers: each
//! is made from Burn's by `from`, frozen. Derive [`Walk`], which finds the layers in it.
//! Then [`inject`] adapters, train with a loop of your own, [`save`], [`load`] and [`merge`]. Or let the
//! model be a [`TrainModel`](qoft_train::TrainModel): then the training loop of the program trains it,
//! with its schedules, checkpoints and reports.
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::LinearConfig;
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Tensor};
//! use qoft::nn::{self, CommonConfig, Draw, Families, Linear, OftConfig, Walk};
//!
//! #[derive(Module, Debug, Walk)]
//! struct Mlp {
//!     up: Linear,
//!     down: Linear,
//! }
//!
//! impl Mlp {
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         self.down.forward(self.up.forward(x).tanh())
//!     }
//! }
//!
//! /// What is random follows from it.
//! const SEED: u64 = 1;
//!
//! # fn main() -> qoft::core::Result<()> {
//! let device = Device::flex();
//! let mut model = Mlp {
//!     up: Linear::from(&LinearConfig::new(8, 16).init(&device)),
//!     down: Linear::from(&LinearConfig::new(16, 8).init(&device)),
//! };
//! let mut config = OftConfig::default();
//! config.oft_block_size = 4;
//! config.common = CommonConfig::targeting("all-linear");
//! // Adapters on an autodiff device train; the layers need none.
//! let adapted = nn::inject(&mut model, &config, "mine", SEED, &device.clone().autodiff())?;
//! assert_eq!(adapted, 2);
//!
//! let mut optimizer = AdamConfig::new().init();
//! let x = Tensor::<2>::ones([4, 8], &device);
//! for step in 0..3 {
//!     nn::begin(&mut model, Draw::new(SEED, step, 0));
//!     let loss = model.forward(x.clone()).powi_scalar(2).mean();
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     model = optimizer.step(0.01, model, gradients);
//! }
//!
//! let folder = std::env::temp_dir().join("qoft-nn-example");
//! nn::save(&model, &config, "mine", &folder)?;
//! let trained = model.valid().forward(x.clone());
//! nn::delete(&mut model, "mine")?;
//! nn::load(&mut model, &folder, &Families::linked()?, "mine", &device)?;
//! nn::merge(&mut model)?;
//! let off = (model.forward(x) - trained).abs().max().into_scalar::<f32>();
//! assert!(off < 1e-5);
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok(())
//! # }
//! ```

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;

pub use qoft_core::adapters::{
    activate, active, begin, delete, disable_all, merge, names, rename, unmerge,
};
pub use qoft_core::walk::Walk;
pub use qoft_core::{
    Adapters, Conv2d, Conv2dOptions, Draw, Embedding, Layer, LayerKind, Linear, Norm,
};
use qoft_core::{Error, Result};
pub use qoft_derive::FacadeWalk as Walk;
pub use qoft_oft::OftConfig;
use qoft_peft as peft;
use qoft_peft::ModelFacts;
pub use qoft_peft::{AdapterConfig, CommonConfig, Families, Layers, OneOrMany};

/// Adds an adapter of any family to each layer that `target_modules` means; returns to how many.
/// `bias` and `modules_to_save` work as in PEFT, see [`qoft_peft`].
///
/// The adapter trains if `device` is an autodiff device. It starts as its family has it: OFT as the
/// identity, or with `init_weights: false` from random values that follow from `seed`.
///
/// # Errors
/// If the configuration has an impossible value, no layer is meant, a module that is to be trained whole is absent or quantized, or the model
/// has an adapter of this name.
pub fn inject(
    model: &mut impl Walk,
    config: &dyn AdapterConfig,
    adapter: &str,
    seed: u64,
    device: &Device,
) -> Result<usize> {
    peft::attach(model, config, ModelFacts::default(), adapter, seed, device)
}

/// Writes an adapter as PEFT does to `folder`, which is made if absent.
///
/// # Errors
/// If there is no such adapter, the folder cannot be written, or a value is not finite.
pub fn save(
    model: &impl Walk,
    config: &dyn AdapterConfig,
    adapter: &str,
    folder: &Path,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    peft::save(model, config, adapter, folder)
}

/// Adds a saved adapter of one of these families under the name `adapter`; returns its
/// configuration.
///
/// # Errors
/// If the folder is damaged, does not fit the model, or the name is taken.
pub fn load(
    model: &mut impl Walk,
    folder: &Path,
    families: &Families,
    adapter: &str,
    device: &Device,
) -> Result<Arc<dyn AdapterConfig>> {
    peft::load(
        model,
        folder,
        families,
        ModelFacts::default(),
        adapter,
        device,
    )
}
