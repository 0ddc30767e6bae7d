//! A merge asks once whose a layer is, however much is done afterwards.

use std::sync::atomic::{AtomicUsize, Ordering};

use qoft::core::{
    BackendOptions, Capabilities, Checkpoint, LayerSource, Nearest, ParsedLayer, QuantBackend,
    Registration, Registry, Result, Scheme, SchemeOptions, StagedDir, Tier,
};
use qoft::models::{Architectures, ModelFolder};
use qoft::peft::{AdapterFolder, Families};
use qoft::{MergeOptions, MergePlan, MergeTarget, NewScheme, ScaledAdapter, merge_staged};

/// The layer that is counted.
const LAYER: &str = "model.layers.1.mlp.up_proj";

/// How often its owner was looked for.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Claims nothing, but is asked first.
struct Counting;

impl QuantBackend for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::LINEAR
    }

    fn open(&self, _: &Checkpoint, _: &SchemeOptions) -> Result<Option<Box<dyn Scheme>>> {
        Ok(Some(Box::new(Self)))
    }
}

impl Scheme for Counting {
    fn claim(&self, layer: &LayerSource) -> bool {
        if layer.path() == LAYER {
            ASKED.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    fn parse(&self, layer: &LayerSource) -> Result<Box<dyn ParsedLayer>> {
        Err(layer.error("nothing is claimed"))
    }
}

static COUNTING: Registration = Registration::new(&Counting).in_tier(Tier::Preferred);

#[test]
fn owners_are_found_once() {
    let path = qoft_fixtures::path("models/llama");
    let folder = ModelFolder::open(path, &Architectures::linked().unwrap()).unwrap();
    let linked = Registry::linked().unwrap();
    let counted = linked.with(&COUNTING).unwrap();
    let options = BackendOptions::default();
    let schemes = counted.open(folder.checkpoint(), &options).unwrap();
    let adapter = qoft_fixtures::path("adapters/dense_all_linear");
    let adapter = AdapterFolder::open(&adapter, &Families::linked().unwrap());
    let adapters = [ScaledAdapter::new(adapter.unwrap(), 1.0)];
    let quantization = linked.parse_quantization("bnb-8bit").unwrap();
    let target = NewScheme::new(&linked, &quantization, &Nearest);
    let options = MergeOptions::new(MergeTarget::NewScheme(target)).min_kept(0.0);

    let plan = MergePlan::new(&folder, &schemes, &adapters, options).unwrap();
    let plan = plan.searching(&Nearest);
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    let work = tempfile::tempdir().unwrap();
    let staged = StagedDir::new(&work.path().join("merged")).unwrap();
    let merged = merge_staged(plan, staged, &|_, _| ()).unwrap();
    assert!(merged.report.layers.iter().any(|layer| layer.name == LAYER));
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
}
