//! Layers of other schemes, made up with their tensors' names, dtypes and shapes.

use qoft_core::{BackendOptions, Dtype, LayerSource, Registry};
use serde_json::{Value, json};

use crate::layer::only_name;
use crate::layer_file::{FileTensor, LayerFile};

type Tensors = &'static [(&'static str, Dtype, &'static [usize])];

/// A layer of 64 inputs and 32 outputs in each scheme: the backend's name, the quantization's
/// configuration and the tensors.
fn layers() -> Vec<(&'static str, Value, Tensors)> {
    use Dtype::{BF16, F8_E4M3, F16, F32, I8, I16, I32, I64, U8, U32};
    vec![
        ("dense", Value::Null, &[("weight", BF16, &[32, 64])]),
        (
            "bnb-8bit",
            json!({"quant_method": "bitsandbytes", "load_in_8bit": true}),
            &[
                ("weight", I8, &[32, 64]),
                ("SCB", F32, &[32]),
                ("weight_format", U8, &[]),
            ],
        ),
        (
            "bnb-4bit",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            &[
                ("weight", U8, &[1024, 1]),
                ("weight.absmax", F32, &[32]),
                ("weight.quant_map", F32, &[16]),
                ("weight.quant_state.bitsandbytes__nf4", U8, &[90]),
            ],
        ),
        (
            "eetq",
            json!({"quant_method": "eetq", "weights": "int8"}),
            &[("weight", I8, &[64, 32]), ("weight_scales", F16, &[32])],
        ),
        (
            "aqlm",
            json!({"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16}),
            &[
                ("codes", I16, &[32, 8, 1]),
                ("codebooks", F16, &[1, 65536, 1, 8]),
                ("scales", F16, &[32, 1, 1, 1]),
            ],
        ),
        (
            "awq",
            json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}),
            &[
                ("qweight", I32, &[64, 4]),
                ("qzeros", I32, &[2, 4]),
                ("scales", F16, &[2, 32]),
            ],
        ),
        (
            "gptq",
            json!({"quant_method": "gptq", "bits": 4, "group_size": 32}),
            &[
                ("qweight", I32, &[8, 32]),
                ("qzeros", I32, &[2, 4]),
                ("scales", F16, &[2, 32]),
                ("g_idx", I32, &[64]),
            ],
        ),
        (
            "hqq",
            json!({"quant_method": "hqq"}),
            &[
                ("W_q", U8, &[16, 64]),
                ("scale", F16, &[32, 1]),
                ("zero", F16, &[32, 1]),
                ("shape", I64, &[2]),
                ("nbits", I32, &[]),
                ("group_size", I32, &[]),
                ("axis", I32, &[]),
            ],
        ),
        (
            "inc-fp8",
            json!({"fp8_config": "E4M3", "mode": "LOAD"}),
            &[
                ("weight", F8_E4M3, &[64, 32]),
                ("scale_weight", BF16, &[]),
                ("scale_input", BF16, &[]),
                ("quant_input.scale_inv", BF16, &[]),
            ],
        ),
        (
            "fp8",
            json!({"quant_method": "fp8", "weight_block_size": [128, 128]}),
            &[
                ("weight", F8_E4M3, &[32, 64]),
                ("weight_scale_inv", F32, &[1, 1]),
            ],
        ),
        (
            "compressed-tensors",
            json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}),
            &[
                ("weight_packed", I32, &[32, 8]),
                ("weight_scale", BF16, &[32, 2]),
                ("weight_shape", I64, &[2]),
            ],
        ),
        (
            "bitnet",
            json!({"quant_method": "bitnet"}),
            &[("weight", U8, &[8, 64]), ("weight_scale", BF16, &[1])],
        ),
        ("gguf", Value::Null, &[("weight.Q8_0", U8, &[32, 68])]),
        (
            "mlx",
            json!({"group_size": 64, "bits": 4}),
            &[
                ("weight", U32, &[32, 8]),
                ("scales", F16, &[32, 1]),
                ("biases", F16, &[32, 1]),
            ],
        ),
        (
            "modelopt",
            json!({"quant_method": "modelopt", "quant_algo": "NVFP4"}),
            &[
                ("weight", U8, &[32, 32]),
                ("weight_scale", F8_E4M3, &[32, 4]),
                ("weight_scale_2", F32, &[]),
                ("input_scale", F32, &[]),
            ],
        ),
    ]
}

/// The backend claims none of the others' layers but those that it replaces.
pub(crate) fn check(registry: &Registry, replaced: &[String]) {
    const PATH: &str = "model.layers.0.self_attn.q_proj";
    let own = only_name(registry);
    for (name, config, tensors) in layers() {
        if name == own || replaced.iter().any(|replaced| replaced == name) {
            continue;
        }
        let tensor = |&(suffix, dtype, shape): &(&str, Dtype, &[usize])| FileTensor {
            name: format!("{PATH}.{suffix}"),
            dtype,
            shape: shape.to_vec(),
            bytes: vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8],
        };
        let file = LayerFile {
            path: PATH.into(),
            config: json!({ "quantization_config": config }),
            tensors: tensors.iter().map(tensor).collect(),
        };
        let claimed = file.with(|checkpoint| {
            let schemes = registry.open(checkpoint, &BackendOptions::default());
            let schemes = schemes.unwrap_or_else(|e| panic!("a checkpoint of {name}: {e}"));
            let layer = LayerSource::new(checkpoint, PATH, None);
            schemes.claim(layer).is_some()
        });
        assert_eq!(claimed, Some(false), "{own} claims a layer of {name}");
    }
}
