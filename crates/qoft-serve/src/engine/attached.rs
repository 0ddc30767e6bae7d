//! The adapters that are on the model.

use std::collections::BTreeMap;

use burn::tensor::Device;
use qoft_core::{AdapterChoice, adapters};
use qoft_models::CausalLm;
use qoft_peft::{AdapterFolder, attach_folder};
use qoft_train::model_facts;
use qoft_train::tokenizer::ChatTemplates;

use crate::error::{ApiError, ServeError};
use crate::names::Wanted;

/// Adapters with strengths that requests asked for, of which so many stay on the model.
const KEPT: usize = 32;

/// An adapter that requests can name.
#[derive(Debug, Clone)]
pub struct NamedAdapter {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: AdapterFolder,
    /// What strengths of requests are multiplied by.
    pub strength: f64,
    /// The chat templates that it was trained with, where these are not the model's.
    pub chat_templates: Option<ChatTemplates>,
}

/// The adapters that are on the model, none of which is active: rows choose.
#[derive(Debug)]
pub struct Attached {
    adapters: Vec<NamedAdapter>,
    device: Device,
    /// Those with strengths of requests, and when each was used last.
    extra: BTreeMap<String, u64>,
    clock: u64,
}

impl Attached {
    /// Puts all of them on the model.
    ///
    /// # Errors
    /// If one does not fit it.
    pub fn new(
        model: &mut CausalLm,
        adapters: Vec<NamedAdapter>,
        device: &Device,
    ) -> Result<Self, ServeError> {
        let device = device.clone().without_autodiff();
        for adapter in &adapters {
            attach(model, adapter, 1.0, &device).map_err(|source| ServeError::Adapter {
                name: adapter.name.clone(),
                source: Box::new(source),
            })?;
            // Before the next one: two that train the same module whole cannot both be active.
            adapters::disable_all(model);
        }
        Ok(Self {
            adapters,
            device,
            extra: BTreeMap::new(),
            clock: 0,
        })
    }

    /// What rows have to choose for what is wanted; adapters that are not there yet are put on the model.
    /// Those in `used` stay.
    ///
    /// # Errors
    /// If the adapters cannot be used together, or not with these strengths.
    pub fn choose(
        &mut self,
        model: &mut CausalLm,
        wanted: &Wanted,
        used: &[&AdapterChoice],
    ) -> Result<AdapterChoice, ApiError> {
        self.clock += 1;
        let refused = |error: qoft_core::Error| ApiError::field("model", error);
        let mut slots = Vec::new();
        for (name, strength) in &wanted.0 {
            let slot = Wanted::slot(name, *strength);
            if *strength != 1.0 && self.extra.insert(slot.clone(), self.clock).is_none() {
                let adapter = self.adapters.iter().find(|known| known.name == *name);
                let adapter = adapter.ok_or_else(|| ApiError::no_model(name, &[]))?;
                if let Err(error) = attach(model, adapter, *strength, &self.device) {
                    self.extra.remove(&slot);
                    return Err(refused(error));
                }
                adapters::disable_all(model);
            }
            slots.push(slot);
        }
        if slots.len() > 1 {
            let names: Vec<&str> = slots.iter().map(String::as_str).collect();
            adapters::activate(model, &names).map_err(refused)?;
            adapters::disable_all(model);
        }
        let choice = AdapterChoice::new(slots);
        self.forget(model, &choice, used);
        Ok(choice)
    }

    /// Takes adapters from the model that were not used for long, if there are too many.
    fn forget(&mut self, model: &mut CausalLm, choice: &AdapterChoice, used: &[&AdapterChoice]) {
        let is_used = |slot: &str| {
            let all = used.iter().copied().chain([choice]);
            all.flat_map(AdapterChoice::names).any(|name| name == slot)
        };
        while self.extra.len() > KEPT {
            let unused = self.extra.iter().filter(|(slot, _)| !is_used(slot));
            let Some((slot, _)) = unused.min_by_key(|(_, when)| **when) else {
                return;
            };
            let slot = slot.clone();
            self.extra.remove(&slot);
            if let Err(error) = adapters::delete(model, &slot) {
                tracing::warn!("adapter `{slot}` stays on the model: {error}");
            }
        }
    }
}

fn attach(
    model: &mut CausalLm,
    adapter: &NamedAdapter,
    strength: f64,
    device: &Device,
) -> qoft_core::Result<()> {
    let spec = model.spec().clone();
    let slot = Wanted::slot(&adapter.name, strength);
    let strength = adapter.strength * strength;
    attach_folder(
        model,
        &adapter.folder,
        strength,
        model_facts(&spec),
        &slot,
        device,
    )
}
