//! Families with a fault, each of which the suite has to find.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::Tensor;
use qoft_conformance::FamilySubject;
use qoft_core::ops::Traced;
use qoft_core::{
    AdapterParam, Composition, Draw, LayerKind, OftAdapter, ParamPlace, Pass, Random, Result,
};
use qoft_oft::OftConfig;
use qoft_peft::{
    AdapterConfig, AdapterFamily, CommonConfig, ConfigFile, FamilyKeys, FamilyRegistration, Site,
};
use serde_json::{Value, json};

/// What is wrong with an OFT.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Weights are not turned.
    OneSided,
    /// Rotations make their input longer.
    Longer,
    /// Gradients do not pass.
    Detached,
    /// Initial values do not follow from the seed.
    Unseeded,
    /// Dropout is the same in each micro-batch.
    SameDraw,
    /// Optimizers find parameters under ids of their own.
    OwnIds,
    /// The keys that all families share are not checked.
    Unchecked,
    /// Sizes of 0 are not expected.
    Panics,
    /// Half of an adapter is all of it.
    AllOrNothing,
}

#[derive(Debug, Clone, Copy)]
struct Faulty(Fault);

impl AdapterFamily for Faulty {
    fn peft_type(&self) -> &'static str {
        "OFT"
    }

    fn defaults(&self) -> Value {
        OftConfig::default().to_json()
    }

    fn read(&self, mut config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>> {
        match self.0 {
            Fault::Unchecked if config["bias"] == "some" => config["bias"] = "none".into(),
            Fault::Panics if config["oft_block_size"] == 0 => panic!("a size of 0"),
            _ => {}
        }
        let inner = OftConfig::from_json(config, file)?;
        let family: &'static Self = Box::leak(Box::new(*self));
        Ok(Arc::new(FaultyConfig { inner, family }))
    }
}

#[derive(Debug)]
struct FaultyConfig {
    inner: OftConfig,
    family: &'static Faulty,
}

impl ConfigFile for FaultyConfig {
    fn family(&self) -> &'static dyn AdapterFamily {
        self.family
    }

    fn common(&self) -> &CommonConfig {
        &self.inner.common
    }

    fn validate(&self, file: &str) -> Result<()> {
        self.inner.validate(file)
    }

    fn to_json(&self) -> Value {
        self.inner.to_json()
    }
}

impl AdapterConfig for FaultyConfig {
    fn param_names(&self, kind: LayerKind) -> &'static [&'static str] {
        self.inner.param_names(kind)
    }

    fn param_shapes(&self, site: &Site) -> Result<Vec<Vec<usize>>> {
        self.inner.param_shapes(site)
    }

    fn initial_values(&self, site: &Site, name: &str, shape: &[usize], random: Random) -> Vec<f32> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let random = match self.family.0 {
            Fault::Unseeded => Random::new(COUNT.fetch_add(1, Ordering::Relaxed)),
            _ => random,
        };
        self.inner.initial_values(site, name, shape, random)
    }

    fn rotation(
        &self,
        site: &Site,
        strength: f64,
        mut params: Vec<AdapterParam>,
    ) -> Result<Box<dyn OftAdapter>> {
        let fault = self.family.0;
        if fault == Fault::OwnIds {
            let own = |p: &AdapterParam| {
                let id = ParamPlace::of_adapter("own")
                    .at(site.path)
                    .named(p.name())
                    .id();
                AdapterParam::new(p.name(), p.shape(), p.to_vec(), id, &p.device())
            };
            params = params.iter().map(own).collect();
        }
        let strength = match fault {
            Fault::AllOrNothing => strength.ceil(),
            _ => strength,
        };
        let inner = self.inner.rotation(site, strength, params)?;
        Ok(Box::new(FaultyRotation { inner, fault }))
    }
}

#[derive(Debug)]
struct FaultyRotation {
    inner: Box<dyn OftAdapter>,
    fault: Fault,
}

impl FaultyRotation {
    fn spoiled(&self, rows: Tensor<2>) -> Tensor<2> {
        match self.fault {
            Fault::Longer => rows * 1.1,
            Fault::Detached => rows.detach(),
            _ => rows,
        }
    }

    fn pass(&self, pass: Pass) -> Pass {
        match pass.draw() {
            Some(draw) if self.fault == Fault::SameDraw => {
                Pass::training(Draw::new(draw.seed, draw.step as usize, 0))
            }
            _ => pass,
        }
    }
}

impl OftAdapter for FaultyRotation {
    fn forward(&self, x: Traced<2>, pass: Pass) -> Tensor<2> {
        self.spoiled(self.inner.forward(x, self.pass(pass)))
    }

    fn rotate_weight(&self, weight: Tensor<2>, pass: Pass) -> Tensor<2> {
        match self.fault {
            Fault::OneSided => weight,
            _ => self.spoiled(self.inner.rotate_weight(weight, self.pass(pass))),
        }
    }

    fn unrotate(&self, _: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    fn unrotate_weight(&self, _: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    fn composition(&self) -> Composition {
        self.inner.composition()
    }

    fn orthogonality_error(&self) -> f64 {
        self.inner.orthogonality_error()
    }

    fn params(&self) -> Vec<&AdapterParam> {
        self.inner.params()
    }

    fn params_mut(&mut self) -> Vec<&mut AdapterParam> {
        self.inner.params_mut()
    }

    fn boxed_clone(&self) -> Box<dyn OftAdapter> {
        Box::new(Self {
            inner: self.inner.boxed_clone(),
            fault: self.fault,
        })
    }
}

/// Small blocks that are orthogonal, and more keys.
fn with(mut keys: Value) -> Value {
    keys["oft_block_size"] = 4.into();
    keys["use_cayley_neumann"] = false.into();
    keys
}

/// What the suite says of a family.
fn verdict(fault: Fault) -> Option<String> {
    let family: &'static Faulty = Box::leak(Box::new(Faulty(fault)));
    let registration = Box::leak(Box::new(FamilyRegistration::new(family)));
    let check = || {
        FamilySubject::new(registration)
            .random_at_start([with(json!({"init_weights": false}))])
            .with_dropout([with(json!({"module_dropout": 0.5}))])
            .check();
    };
    let panic = catch_unwind(AssertUnwindSafe(check)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.unwrap_or_default())
}

#[test]
fn faults_are_found_and_named() {
    assert_eq!(verdict(Fault::None), None);
    for (fault, words) in [
        (Fault::OneSided, "turning the input instead of the weight"),
        (Fault::Longer, "‖RᵀR − I‖"),
        (Fault::Detached, "no gradient reaches"),
        (Fault::Unseeded, "two adapters of one seed"),
        (Fault::SameDraw, "micro-batches do not matter"),
        (Fault::OwnIds, "id of `dense.oft_R.weight`"),
        (Fault::Unchecked, "`bias`"),
        (Fault::Panics, "panics when `/oft_block_size` is 0"),
        (Fault::AllOrNothing, "half of an adapter"),
    ] {
        let verdict = verdict(fault).unwrap_or_else(|| panic!("{fault:?} is not found"));
        assert!(verdict.contains(words), "{fault:?}: {verdict}");
    }
}
