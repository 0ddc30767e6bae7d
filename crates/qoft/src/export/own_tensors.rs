//! Trained biases and whole modules beside a LoRA, which PEFT has in such a folder, too.

use std::collections::BTreeSet;

use qoft_core::kernels::FloatFormat;
use qoft_core::{ClaimedLayer, Result};
use qoft_models::ModelFolder;
use qoft_peft::PREFIX;

use super::Named;
use crate::adapter::ScaledAdapter;
use crate::own;
use crate::owners::Owners;
use crate::write::Output;

/// What the adapters have instead of the checkpoint's tensors.
pub(super) struct Own<'a> {
    adapters: Vec<&'a ScaledAdapter>,
    /// Paths of the layers that get a LoRA.
    rotated: BTreeSet<&'a str>,
    outputs: Vec<Output<'a>>,
}

impl<'a> Own<'a> {
    /// What adapters that were checked have, beside a LoRA for the layers `rotated`.
    ///
    /// # Errors
    /// If one of these layers is a whole module, too.
    pub fn new(
        folder: &'a ModelFolder,
        layers: &[ClaimedLayer],
        rotated: &[&ClaimedLayer<'a>],
        adapters: &'a [ScaledAdapter],
    ) -> Result<Self> {
        let checkpoint = folder.checkpoint();
        let rotated: BTreeSet<&str> = rotated.iter().map(|layer| layer.path()).collect();
        let used: Vec<_> = adapters.iter().filter(|a| a.strength != 0.0).collect();
        for adapter in &used {
            let own = adapter.folder.own().keys();
            let mut paths = own.filter_map(|name| name.strip_suffix(".weight"));
            if let Some(path) = paths.find(|path| rotated.contains(path)) {
                let reason = format!(
                    "it has `{path}` in whole, for which another adapter has a rotation: a LoRA \
                     folder cannot hold both; merge the adapters instead"
                );
                return Err(adapter.folder.error(reason));
            }
        }
        let names = used.iter().flat_map(|adapter| adapter.folder.own().keys());
        let names: BTreeSet<&String> = names.collect();
        let (format, owners) = (FloatFormat::F32, Owners::new(layers));
        let mut outputs = Vec::new();
        for name in names {
            let owner = name.strip_suffix(".bias").and_then(|path| owners.at(path));
            let spread = owner.map(own::spread_bias);
            outputs.push(match (owner, spread.transpose()?.flatten()) {
                (Some(layer), Some(bias)) => own::gathered(layer, adapters, bias, format)?,
                _ => {
                    let tied = own::tied_table(folder).filter(|_| *name == own::head(folder));
                    let from = tied.as_deref().unwrap_or(name);
                    own::named(checkpoint, adapters, name, from, Some(format))?
                }
            });
        }
        Ok(Self {
            adapters: used,
            rotated,
            outputs,
        })
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// The tensors under PEFT's names.
    ///
    /// # Errors
    /// If one has values that are not finite.
    pub fn tensors(&self) -> Result<Vec<Named>> {
        let tensors = self.outputs.iter().map(|output| {
            let (path, tensor) = output.name.rsplit_once('.').unwrap_or_default();
            // PEFT keeps the layer below its LoRA.
            let base = match self.rotated.contains(path) {
                true => "base_layer.",
                false => "",
            };
            let name = format!("{PREFIX}{path}.{base}{tensor}");
            Ok((name, output.shape.clone(), output.content()?.into_owned()))
        });
        tensors.collect()
    }

    /// PEFT's word for the biases that train.
    pub fn bias(&self) -> &'static str {
        let kinds = || {
            self.adapters
                .iter()
                .map(|a| &a.folder.config().common().bias)
        };
        if kinds().any(|bias| bias == "all") {
            "all"
        } else if kinds().any(|bias| bias != "none") {
            "lora_only"
        } else {
            "none"
        }
    }

    /// The modules that are whole; `None` without any.
    pub fn modules_to_save(&self) -> Option<BTreeSet<&str>> {
        let configs = self.adapters.iter().map(|a| a.folder.config());
        let names = configs.flat_map(|config| config.common().modules_to_save());
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        (!names.is_empty()).then_some(names)
    }
}
