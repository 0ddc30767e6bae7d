//! OFT for models of your own.
//!
//! Build the model with [`Linear`], [`Conv2d`] and [`Embedding`] in place of Burn's layers: each
//! is made from Burn's by `from`, frozen. Derive [`Walk`], which finds the layers in it.
//! Then [`inject`] adapters, train with a loop of your own, [`save`], [`load`] and [`merge`].
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::LinearConfig;
//! use burn::optim::{AdamConfig, GradientsParams};
//! use burn::tensor::{Device, Tensor};
//! use qoft::nn::{self, Linear, OftConfig, OneOrMany, Walk};
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
//! # fn main() -> qoft::core::Result<()> {
//! let device = Device::flex();
//! let mut model = Mlp {
//!     up: Linear::from(&LinearConfig::new(8, 16).init(&device)),
//!     down: Linear::from(&LinearConfig::new(16, 8).init(&device)),
//! };
//! let config = OftConfig {
//!     target_modules: Some(OneOrMany::One("all-linear".into())),
//!     oft_block_size: 4,
//!     ..OftConfig::default()
//! };
//! // Adapters on an autodiff device train; the layers need none.
//! let adapted = nn::inject(&mut model, &config, "mine", &device.clone().autodiff())?;
//! assert_eq!(adapted, 2);
//!
//! let mut optimizer = AdamConfig::new().init();
//! let x = Tensor::<2>::ones([4, 8], &device);
//! for _ in 0..3 {
//!     nn::constrain(&mut model);
//!     let loss = model.forward(x.clone()).powi_scalar(2).mean();
//!     let gradients = GradientsParams::from_grads(loss.backward(), &model);
//!     model = optimizer.step(0.01, model, gradients);
//! }
//!
//! let folder = std::env::temp_dir().join("qoft-nn-example");
//! nn::save(&model, &config, "mine", &folder)?;
//! let trained = model.valid().forward(x.clone());
//! nn::delete(&mut model, "mine")?;
//! nn::load(&mut model, &folder, "mine", &device)?;
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
    activate, active, constrain, delete, disable_all, merge, names, rename, unmerge,
};
pub use qoft_core::walk::Walk;
pub use qoft_core::{Adapters, Conv2d, Conv2dOptions, Embedding, Layer, LayerKind, Linear, Norm};
use qoft_core::{Error, Result};
pub use qoft_derive::FacadeWalk as Walk;
pub use qoft_oft::OftConfig;
use qoft_peft as peft;
pub use qoft_peft::{AdapterConfig, Layers, OneOrMany};

/// Adds an adapter to each layer that `config.target_modules` means; returns to how many. `bias` and
/// `modules_to_save` work as in PEFT, see [`qoft_peft`].
///
/// The adapter trains if `device` is an autodiff device. It starts as the identity, or random
/// with `init_weights: false`.
///
/// # Errors
/// If no layer is meant, a module that is to be trained whole is absent or quantized, or the model
/// has an adapter of this name.
pub fn inject(
    model: &mut impl Walk,
    config: &OftConfig,
    adapter: &str,
    device: &Device,
) -> Result<usize> {
    config.validate("adapter configuration")?;
    peft::attach(model, config, "", "", adapter, device)
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

/// Adds a saved adapter of any family under the name `adapter`; returns its configuration.
///
/// # Errors
/// If the folder is damaged, does not fit the model, or the name is taken.
pub fn load(
    model: &mut impl Walk,
    folder: &Path,
    adapter: &str,
    device: &Device,
) -> Result<Arc<dyn AdapterConfig>> {
    peft::load(model, folder, "", "", adapter, device)
}
