//! Mixtures of experts: a tensor of a file has the weights of one layer of all experts.

use std::borrow::Cow;

use qoft_scheme::{Keys, Result};
use serde_json::{Map, Value, json};

use crate::file::File;

/// Where a model has its experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mixture {
    /// The list of experts in a block.
    list: &'static str,
    /// What chooses them.
    pub router: &'static str,
    /// Names of the layers of an expert, as files have them in [`LAYERS`].
    layers: [&'static str; 3],
    /// There is an expert for all tokens, too.
    pub shared: bool,
    /// The weights of the chosen experts add up to 1. Files do not say it.
    normalized: bool,
    /// The keys of how many experts there are, that of other releases last.
    count: [&'static str; 2],
    /// The key of their width.
    width: &'static str,
}

/// Names of the layers of all experts in files.
const LAYERS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];
/// The gate of the shared expert, which files have as a vector.
pub const SHARED_GATE: &str = "ffn_gate_inp_shexp";
const NAMES: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

pub const QWEN3: Mixture = Mixture {
    list: "mlp.experts",
    router: "mlp.gate",
    layers: NAMES,
    shared: false,
    normalized: true,
    count: ["num_experts", "num_local_experts"],
    width: "moe_intermediate_size",
};
pub const QWEN2: Mixture = Mixture {
    shared: true,
    normalized: false,
    ..QWEN3
};
pub const OLMOE: Mixture = Mixture {
    normalized: false,
    width: "intermediate_size",
    ..QWEN3
};
pub const MIXTRAL: Mixture = Mixture {
    list: "block_sparse_moe.experts",
    router: "block_sparse_moe.gate",
    layers: ["w1", "w3", "w2"],
    count: ["num_local_experts", "num_experts"],
    width: "intermediate_size",
    ..QWEN3
};

impl Mixture {
    /// The names in the model for a tensor of a file with the layers of so many experts.
    pub fn model_names(&self, name: &str, count: usize) -> Option<Vec<String>> {
        let (block, module) = name.strip_prefix("blk.")?.split_once('.')?;
        block.parse::<usize>().ok()?;
        let module = module.strip_suffix(".weight")?;
        let layer = self.layers[LAYERS.iter().position(|layer| *layer == module)?];
        let list = self.list;
        let name = |expert| format!("model.layers.{block}.{list}.{expert}.{layer}.weight");
        Some((0..count).map(name).collect())
    }

    /// The tensor of a file, and the expert, that a tensor of the model belongs to.
    pub fn place(&self, name: &str) -> Option<(String, usize)> {
        let (block, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        block.parse::<usize>().ok()?;
        let rest = rest.strip_prefix(self.list)?.strip_prefix('.')?;
        let (expert, layer) = rest.strip_suffix(".weight")?.split_once('.')?;
        let at = self.layers.iter().position(|known| *known == layer)?;
        Some((
            format!("blk.{block}.{}.weight", LAYERS[at]),
            expert.parse().ok()?,
        ))
    }

    /// Refuses what files cannot say of a mixture, and returns what they do: keys and sizes.
    ///
    /// # Errors
    /// Then, or if a size is missing.
    pub fn sizes(&self, keys: &Keys) -> Result<Vec<(&'static str, usize)>> {
        let required = |key: &str| {
            let value: Option<usize> = keys.get(key)?;
            value.ok_or_else(|| keys.error(key, "is missing"))
        };
        // Mixtral's are always normalized, and no key says so.
        let default = self.count == MIXTRAL.count;
        if keys.flag("norm_topk_prob", default)? != self.normalized {
            let reason = format!("files always mean {}", self.normalized);
            return Err(keys.error("norm_topk_prob", reason));
        }
        let step: Option<usize> = keys.get("decoder_sparse_step")?;
        let dense: Option<Vec<usize>> = keys.get("mlp_only_layers")?;
        if step.is_some_and(|step| step != 1) || dense.is_some_and(|dense| !dense.is_empty()) {
            let reason = "files have experts in every block";
            return Err(keys.error("decoder_sparse_step", reason));
        }
        if keys.value("clip_qkv").is_some_and(|clip| !clip.is_null()) {
            return Err(keys.error("clip_qkv", "files cannot say it"));
        }
        let count = keys.first::<usize>(&self.count)?.map(|(_, count)| count);
        let mut sizes = vec![
            (
                "expert_count",
                count.ok_or_else(|| keys.error(self.count[0], "is missing"))?,
            ),
            ("expert_used_count", required("num_experts_per_tok")?),
        ];
        if self.width == QWEN3.width {
            sizes.push(("expert_feed_forward_length", required(self.width)?));
        }
        if self.shared {
            let width = required("shared_expert_intermediate_size")?;
            sizes.push(("expert_shared_feed_forward_length", width));
        }
        Ok(sizes)
    }

    /// Puts what files of a kind of model say of a mixture into a configuration.
    ///
    /// # Errors
    /// If they say too little.
    pub fn read(&self, kind: &str, files: &[File], config: &mut Map<String, Value>) -> Result<()> {
        let metadata = &files[0].metadata;
        let rows = |layer: &str| {
            let name = format!("blk.0.{layer}.weight");
            let mut tensors = files.iter().flat_map(|file| &file.tensors);
            let found = tensors.find(|tensor| tensor.name == name);
            let rows = found
                .and_then(|tensor| Some(*tensor.shape.get(tensor.shape.len().checked_sub(2)?)?));
            rows.ok_or_else(|| metadata.error(&name, "no such matrix"))
        };
        let required = |name: &str| {
            let key = format!("{kind}.{name}");
            metadata.require(&key, metadata.size(&key))
        };
        let mut set = |name: &str, value: Value| config.insert(name.to_owned(), value);
        set(self.count[0], required("expert_count")?.into());
        set("num_experts_per_tok", required("expert_used_count")?.into());
        set(self.width, rows(LAYERS[0])?.into());
        if self.count != MIXTRAL.count {
            set("norm_topk_prob", self.normalized.into());
        }
        if self.width == QWEN3.width {
            set("decoder_sparse_step", 1.into());
            set("mlp_only_layers", json!([]));
        }
        if self.shared {
            set(
                "shared_expert_intermediate_size",
                rows("ffn_gate_shexp")?.into(),
            );
        }
        Ok(())
    }
}

/// The bytes of all parts, one after the other.
pub fn joined<'a>(parts: impl Iterator<Item = Result<Cow<'a, [u8]>>>) -> Result<Cow<'a, [u8]>> {
    let mut all = Vec::new();
    for part in parts {
        all.extend_from_slice(&part?);
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_experts_belong_together() {
        for (mixture, model) in [
            (QWEN3, "model.layers.3.mlp.experts.1.up_proj.weight"),
            (
                MIXTRAL,
                "model.layers.3.block_sparse_moe.experts.1.w3.weight",
            ),
        ] {
            let file = "blk.3.ffn_up_exps.weight";
            assert_eq!(mixture.place(model), Some((file.to_owned(), 1)));
            assert_eq!(mixture.model_names(file, 2).unwrap()[1], model);
            assert_eq!(mixture.place("model.layers.3.mlp.gate.weight"), None);
            assert_eq!(mixture.model_names("blk.3.ffn_up.weight", 2), None);
        }
    }
}
