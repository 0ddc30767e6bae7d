//! The types of numbers that models are written in, by the names that llama.cpp's tools have, and
//! which tensor of a mix gets which type: those that `llama-quantize` chooses without an importance
//! matrix.

use qoft_scheme::Dtype;
use qoft_scheme::kernels::FloatFormat;

use crate::block::BlockType;
use crate::file::TensorType;

/// What a model is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// As tools call it, in lower case.
    pub name: &'static str,
    /// `general.file_type`.
    pub file_type: u64,
    /// The type of most matrices.
    main: TensorType,
}

/// What chooses experts, which has no blocks.
const ROUTER: &str = "ffn_gate_inp.weight";
/// With so many experts attention is stored more exactly, since it is a small part of the model.
const FEW_EXPERTS: usize = 8;

/// The type that follows from the model.
pub const AUTO: &str = "auto";

const fn float(name: &'static str, file_type: u64, dtype: Dtype) -> Numbers {
    Numbers {
        name,
        file_type,
        main: TensorType::Float(dtype),
    }
}

const fn blocks(name: &'static str, file_type: u64, block: BlockType) -> Numbers {
    Numbers {
        name,
        file_type,
        main: TensorType::Block(block),
    }
}

const F16: Numbers = float("f16", 1, Dtype::F16);
const BF16: Numbers = float("bf16", 32, Dtype::BF16);

/// All of them.
const ALL: [Numbers; 22] = [
    float("f32", 0, Dtype::F32),
    F16,
    BF16,
    blocks("q8_0", 7, BlockType::Q8_0),
    blocks("q4_0", 2, BlockType::Q4_0),
    blocks("q4_1", 3, BlockType::Q4_1),
    blocks("q5_0", 8, BlockType::Q5_0),
    blocks("q5_1", 9, BlockType::Q5_1),
    blocks("q2_k", 10, BlockType::Q2K),
    blocks("q2_k_s", 21, BlockType::Q2K),
    blocks("q3_k_s", 11, BlockType::Q3K),
    blocks("q3_k_m", 12, BlockType::Q3K),
    blocks("q3_k_l", 13, BlockType::Q3K),
    blocks("q4_k_s", 14, BlockType::Q4K),
    blocks("q4_k_m", 15, BlockType::Q4K),
    blocks("q5_k_s", 16, BlockType::Q5K),
    blocks("q5_k_m", 17, BlockType::Q5K),
    blocks("q6_k", 18, BlockType::Q6K),
    blocks("iq4_nl", 25, BlockType::Iq4Nl),
    blocks("iq4_xs", 30, BlockType::Iq4Xs),
    blocks("mxfp4", 38, BlockType::Mxfp4),
    // Experts alone; llama.cpp has no other one.
    blocks("mxfp4_moe", 38, BlockType::Mxfp4),
];

/// Other names of mixes.
const ALIASES: [(&str, &str); 3] = [("q3_k", "q3_k_m"), ("q4_k", "q4_k_m"), ("q5_k", "q5_k_m")];

/// The sizes that a mix depends on.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Blocks of the model.
    pub layers: usize,
    /// Queries' heads for each of the keys.
    pub share: usize,
    /// The table of tokens is the output head, too.
    pub tied: bool,
    /// Experts of a mixture; 0 in other models.
    pub experts: usize,
    /// One of the models of 70 billion parameters, whose values have more bits.
    pub is_70b: bool,
}

impl Numbers {
    /// The names that are known.
    pub fn names() -> Vec<&'static str> {
        let aliases = ALIASES.iter().map(|(alias, _)| *alias);
        let names = ALL.iter().map(|numbers| numbers.name);
        [AUTO].into_iter().chain(names).chain(aliases).collect()
    }

    /// Those of a name. What follows from the model is 16 bits: `bf16` for a model that has it already,
    /// or else half precision, as the converter chooses.
    pub fn named(name: &str, format: FloatFormat) -> Option<Self> {
        if name == AUTO {
            return Some(match format {
                FloatFormat::Bf16 => BF16,
                _ => F16,
            });
        }
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        let name = alias.map_or(name, |(_, name)| name);
        ALL.into_iter().find(|numbers| numbers.name == name)
    }

    /// The type of a matrix by its name in files, with rows of so many columns.
    pub fn of_matrix(self, name: &str, columns: usize, sizes: Sizes) -> TensorType {
        let TensorType::Block(main) = self.main else {
            return self.main;
        };
        if name.ends_with(ROUTER) {
            return TensorType::Float(Dtype::F32);
        }
        let block = self.mixed(main, name, columns, sizes);
        fitting(block, columns)
    }

    fn mixed(self, main: BlockType, name: &str, columns: usize, sizes: Sizes) -> BlockType {
        use BlockType::{Mxfp4, Q3K, Q4K, Q5K, Q6K, Q8_0};
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'));
        let Some((layer, module)) = layer else {
            let is_table = name == "token_embd.weight";
            let is_head = name == "output.weight" || is_table && sizes.tied;
            return match main {
                Mxfp4 => Q8_0,
                _ if !is_head => main,
                _ if !columns.is_multiple_of(main.values()) => Q8_0,
                Q8_0 => main,
                _ => Q6K,
            };
        };
        let layer: usize = layer.parse().unwrap_or_default();
        let Sizes { layers, share, .. } = sizes;
        let first = layer < layers / 8;
        let more = first || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let many = share >= 4;
        let few_experts = sizes.experts == FEW_EXPERTS;
        match module.strip_suffix(".weight").unwrap_or(module) {
            module if self.name == "mxfp4_moe" && !module.ends_with("_exps") => Q8_0,
            "attn_v" | "attn_k" if few_experts => Q8_0,
            "attn_output" if few_experts => match self.name {
                "q2_k" | "q3_k_s" | "q3_k_m" | "q4_k_s" | "q4_k_m" | "iq4_nl" | "iq4_xs" => Q5K,
                _ => main,
            },
            "attn_v" | "attn_qkv" => {
                let chosen = match self.name {
                    "q2_k" if many => Q4K,
                    "q2_k" => Q3K,
                    "q2_k_s" if many => Q4K,
                    "q3_k_m" if layer < 2 => Q5K,
                    "q3_k_m" => Q4K,
                    "q3_k_l" => Q5K,
                    "iq4_nl" | "iq4_xs" if many => Q5K,
                    "q4_k_m" | "q5_k_m" if more => Q6K,
                    "q4_k_s" if layer < 4 => Q5K,
                    _ => main,
                };
                match chosen {
                    Q3K | Q4K if sizes.is_70b => Q5K,
                    chosen => chosen,
                }
            }
            "ffn_down" | "ffn_down_exps" | "ffn_down_shexp" => match self.name {
                "q2_k" => Q3K,
                "q2_k_s" if first => Q4K,
                "q3_k_m" if layer < layers / 16 => Q5K,
                "q3_k_m" => Q4K,
                "q3_k_l" => Q5K,
                "q4_k_m" | "q5_k_m" if more => Q6K,
                "iq4_nl" | "iq4_xs" | "q4_k_s" if first => Q5K,
                _ => main,
            },
            "attn_output" => match self.name {
                "q2_k" => Q3K,
                "q3_k_m" => Q4K,
                "q3_k_l" => Q5K,
                _ => main,
            },
            _ => main,
        }
    }
}

/// The same type, or the one that stands for it where rows are no whole blocks.
fn fitting(block: BlockType, columns: usize) -> TensorType {
    use BlockType::{Iq4Nl, Iq4Xs, Q2K, Q3K, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    let fits = |block: BlockType| columns.is_multiple_of(block.values());
    let other = match block {
        _ if fits(block) => block,
        Iq4Xs => Iq4Nl,
        Q2K | Q3K => Q4_0,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        small => small,
    };
    match fits(other) {
        true => TensorType::Block(other),
        false => TensorType::Float(Dtype::F16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_those_of_the_tool() {
        let sizes = Sizes {
            layers: 30,
            share: 3,
            tied: true,
            experts: 0,
            is_70b: false,
        };
        let of = |numbers: &str, name: &str, columns: usize| {
            let numbers = Numbers::named(numbers, FloatFormat::F32).unwrap();
            numbers.of_matrix(name, columns, sizes).name()
        };
        let more: Vec<usize> = (0..30)
            .filter(|i| of("q4_k", &format!("blk.{i}.ffn_down.weight"), 1536) == "Q6_K")
            .collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
        assert_eq!(of("q4_k_m", "blk.3.ffn_up.weight", 576), "Q5_0");
        assert_eq!(of("q4_k_m", "token_embd.weight", 576), "Q8_0");
        assert_eq!(of("q4_k_m", "token_embd.weight", 512), "Q6_K");
        assert_eq!(of("q4_0", "token_embd.weight", 576), "Q8_0");
        assert_eq!(of("q2_k", "blk.3.attn_output.weight", 512), "Q3_K");
        assert_eq!(of("iq4_xs", "blk.9.ffn_gate.weight", 576), "IQ4_NL");
        assert_eq!(of("q4_0", "blk.9.ffn_gate.weight", 40), "F16");
        assert_eq!(of("mxfp4_moe", "blk.9.ffn_gate_exps.weight", 64), "MXFP4");
        assert_eq!(of("mxfp4_moe", "blk.9.attn_q.weight", 64), "Q8_0");
        assert_eq!(of("q4_k_m", "blk.3.ffn_gate_inp.weight", 512), "F32");
        assert_eq!(of("auto", "blk.9.ffn_gate.weight", 40), "F16");
        assert!(Numbers::named("q9", FloatFormat::F32).is_none());
    }
}
