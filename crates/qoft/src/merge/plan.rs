//! What a merge will do, before any weight is read.

use std::borrow::Cow;

use qoft_core::kernels::FloatFormat;
use qoft_core::{ClaimedLayer, Error, PackedParameter, Result, Schemes};
use qoft_models::ModelFolder;

use super::adapted;
use super::options::{MergeOptions, MergeTarget, NewScheme};
use crate::adapted::{check, of_model};
use crate::adapter::ScaledAdapter;
use crate::complete::check_complete;
use crate::layers::{ModelLayers, check_readable};
use crate::own;
use crate::quantize::Plan;
use crate::search::LayerSearch;
use crate::write::writer_of;

/// A merge that can be done, as far as that is known without its weights. Programs make it before they
/// read calibration data, for example.
pub struct MergePlan<'a> {
    pub(super) folder: &'a ModelFolder,
    pub(super) schemes: &'a Schemes,
    pub(super) adapters: Cow<'a, [ScaledAdapter]>,
    pub(super) options: MergeOptions<'a>,
    /// All linear layers.
    pub(super) layers: Vec<ClaimedLayer<'a>>,
    /// Packed parameters that are no layer's; none where they stay as they are.
    pub(super) packed: Vec<PackedParameter>,
    pub(super) way: Way<'a>,
}

/// What is done to the layers.
pub(super) enum Way<'a> {
    /// They are written dense.
    Dense(FloatFormat),
    /// They stay in their schemes.
    Same(&'a dyn LayerSearch),
    /// They are written in another one.
    New(NewScheme<'a>, Plan<'a>),
}

impl<'a> MergePlan<'a> {
    /// Looks at all layers, and reads no weight.
    ///
    /// # Errors
    /// If a layer is of no known scheme, or of one that cannot be written, or an adapter does not fit.
    pub fn new(
        folder: &'a ModelFolder,
        schemes: &'a Schemes,
        adapters: &'a [ScaledAdapter],
        options: impl Into<MergeOptions<'a>>,
    ) -> Result<Self> {
        let ModelLayers { layers, packed } = ModelLayers::find(folder, schemes)?;
        let options = options.into();
        if let Some(form) = options.container {
            form.writer()?;
        }
        check_complete(folder, schemes)?;
        let adapters = of_model(adapters, folder)?;
        check(&adapters, folder, &layers)?;
        let way = Way::new(folder, &adapters, &layers, options.target)?;
        let packed = match way {
            Way::Same(_) => Vec::new(),
            _ => packed,
        };
        Ok(Self {
            folder,
            schemes,
            adapters,
            options,
            layers,
            packed,
            way,
        })
    }

    /// The same with codes that another search chooses. Dense weights have none.
    #[must_use]
    pub fn searching(mut self, search: &'a dyn LayerSearch) -> Self {
        match &mut self.way {
            Way::Dense(_) => {}
            Way::Same(known) => *known = search,
            Way::New(scheme, _) => scheme.search = search,
        }
        self
    }
}

impl<'a> Way<'a> {
    /// The way to a target; `layers` are all of the model.
    pub fn new(
        folder: &'a ModelFolder,
        adapters: &[ScaledAdapter],
        layers: &[ClaimedLayer<'a>],
        target: MergeTarget<'a>,
    ) -> Result<Self> {
        match target {
            MergeTarget::Dense(format) => {
                check_readable(layers)?;
                Ok(Self::Dense(format))
            }
            MergeTarget::NewScheme(scheme) => {
                check_readable(layers)?;
                Ok(Self::New(scheme, scheme.plan(folder, layers.to_vec())?))
            }
            MergeTarget::SameScheme(search) => {
                check_requantizable(adapters, layers)?;
                writer_of(folder.checkpoint())?;
                own::refuse_spread(layers, adapters)?;
                Ok(Self::Same(search))
            }
        }
    }
}

/// Fails if a layer that changes is of a scheme that cannot be written.
fn check_requantizable(adapters: &[ScaledAdapter], layers: &[ClaimedLayer]) -> Result<()> {
    let mut stuck = layers
        .iter()
        .filter(|layer| adapted(adapters, layer.path()) && !layer.capabilities().requantize);
    let Some(layer) = stuck.next() else {
        return Ok(());
    };
    let others = match stuck.count() {
        0 => String::new(),
        others => format!(" (and {others} more layers)"),
    };
    Err(Error::Requantize {
        layer: layer.path().to_owned(),
        backend: layer.backend().to_owned(),
        reason: format!("changed weights cannot be written in this scheme{others}"),
    })
}
