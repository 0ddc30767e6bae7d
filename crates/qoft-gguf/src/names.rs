//! Names of tensors: those of files and those of transformers.

use crate::experts::SHARED_GATE;
use crate::model::Kind;

/// Modules outside of blocks.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Modules in blocks.
const INSIDE: [(&str, &str); 12] = [
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Where norms stand around sublayers.
const AROUND: [(&str, &str); 3] = [
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// The expert for all tokens of a mixture.
const SHARED: [(&str, &str); 4] = [
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    (SHARED_GATE, "mlp.shared_expert_gate"),
];

/// Where gate and up are one.
const FUSED_UP: (&str, &str) = ("ffn_up", "mlp.gate_up_proj");

impl Kind {
    fn inside(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let Self { fused, gemma, .. } = *self;
        let usual = INSIDE.into_iter().filter_map(move |pair| match pair.0 {
            "ffn_up" if fused => Some(FUSED_UP),
            "ffn_norm" if gemma => None,
            _ => Some(pair),
        });
        let mixture = self.mixture;
        let router = mixture.map(|mixture| ("ffn_gate_inp", mixture.router));
        let shared = mixture.is_some_and(|mixture| mixture.shared);
        usual
            .chain(AROUND.into_iter().filter(move |_| gemma))
            .chain(router)
            .chain(SHARED.into_iter().filter(move |_| shared))
    }

    /// The name in the model for that of a file; `None` if it is no tensor of the model.
    pub fn model_name(&self, name: &str) -> Option<String> {
        let (module, suffix) = name.rsplit_once('.')?;
        let outside = OUTSIDE.iter().find(|(file, _)| *file == module);
        if let Some((_, model)) = outside {
            return Some(format!("{model}.{suffix}"));
        }
        let (number, module) = module.strip_prefix("blk.")?.split_once('.')?;
        number.parse::<usize>().ok()?;
        let (_, model) = self.inside().find(|(file, _)| *file == module)?;
        Some(format!("model.layers.{number}.{model}.{suffix}"))
    }

    /// The name in files for that of the model; `None` if files have none for it.
    pub fn file_name(&self, name: &str) -> Option<String> {
        let (module, suffix) = name.rsplit_once('.')?;
        let outside = OUTSIDE.iter().find(|(_, model)| *model == module);
        if let Some((file, _)) = outside {
            return Some(format!("{file}.{suffix}"));
        }
        let (number, module) = module.strip_prefix("model.layers.")?.split_once('.')?;
        number.parse::<usize>().ok()?;
        let (file, _) = self.inside().find(|(_, model)| *model == module)?;
        Some(format!("blk.{number}.{file}.{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_and_models_belong_together() {
        let phi = Kind::of_name("phi3").unwrap();
        let llama = Kind::of_name("llama").unwrap();
        let pairs = [
            (&llama, "token_embd.weight", "model.embed_tokens.weight"),
            (&llama, "output.weight", "lm_head.weight"),
            (
                &llama,
                "blk.12.attn_q.bias",
                "model.layers.12.self_attn.q_proj.bias",
            ),
            (
                &llama,
                "blk.0.ffn_norm.weight",
                "model.layers.0.post_attention_layernorm.weight",
            ),
            (
                &phi,
                "blk.1.ffn_up.weight",
                "model.layers.1.mlp.gate_up_proj.weight",
            ),
            (
                &phi,
                "blk.1.attn_qkv.weight",
                "model.layers.1.self_attn.qkv_proj.weight",
            ),
        ];
        for (kind, file, model) in pairs {
            assert_eq!(kind.model_name(file).as_deref(), Some(model));
            assert_eq!(kind.file_name(model).as_deref(), Some(file));
        }
        for unknown in [
            "rope_freqs.weight",
            "blk.x.attn_q.weight",
            "blk.0.other.weight",
            "output",
        ] {
            assert_eq!(llama.model_name(unknown), None);
        }
        for unknown in [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.x.weight",
        ] {
            assert_eq!(llama.file_name(unknown), None);
        }
    }
}
