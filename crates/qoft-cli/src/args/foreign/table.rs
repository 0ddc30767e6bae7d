//! Options of other programs that none of this one stands for, with the values that ask for nothing and why others
//! are errors.

/// What an option of another program comes to.
pub struct Foreign {
    /// Its names, with hyphens.
    pub names: &'static [&'static str],
    /// Values that ask for nothing that is not so anyway.
    pub given_anyway: Anyway,
    /// Why other values are errors.
    pub reason: &'static str,
}

/// Which values ask for nothing that is not so anyway.
pub enum Anyway {
    /// Only those that switch it off.
    Off,
    /// Any: it changes nothing here.
    Any,
    /// These, in small letters.
    These(&'static [&'static str]),
}

/// Values by which something is not wanted.
pub const OFF: [&str; 7] = ["false", "no", "none", "null", "0", "0.0", ""];

const fn off(names: &'static [&'static str], reason: &'static str) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::Off,
        reason,
    }
}

const fn any(names: &'static [&'static str], reason: &'static str) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::Any,
        reason,
    }
}

const fn these(
    names: &'static [&'static str],
    values: &'static [&'static str],
    reason: &'static str,
) -> Foreign {
    Foreign {
        names,
        given_anyway: Anyway::These(values),
        reason,
    }
}

/// All of them.
pub const FOREIGN: &[Foreign] = &[
    these(
        &["num-beams"],
        &["1"],
        "texts are made token by token, without beams; --do-sample, --temperature, --top-k, --top-p and \
         --min-p say how each is chosen",
    ),
    off(
        &["alpha", "lora-alpha"],
        "qoft trains rotations, not LoRA, and they have no scale; how much of an adapter is applied is \
         said where it is used: --adapter PATH=STRENGTH",
    ),
    off(
        &["lora-r", "lora-rank", "lora-target", "rank"],
        "qoft trains rotations, not LoRA; the size of an adapter is that of its blocks: \
         --oft-block-size; its layers are those of --target-modules",
    ),
    off(
        &["lora-layers", "lora-parameters", "num-layers"],
        "qoft trains rotations, not LoRA, in all layers of the model; --target-modules takes a regular \
         expression for some of them, and --adapter-option PEFT's layers_to_transform",
    ),
    off(
        &["val-batches"],
        "evaluations are on all rows of --eval-data; --max-samples reads fewer of each file",
    ),
    off(
        &["lora-dropout"],
        "qoft trains rotations, not LoRA; what OFT has for dropout is --module-dropout",
    ),
    off(
        &[
            "init-lora-weights",
            "lora-bias",
            "loraplus-lr-ratio",
            "loftq-config",
            "pissa-init",
            "use-dora",
            "use-loraplus",
            "use-rslora",
        ],
        "qoft trains rotations, not LoRA, DoRA or their kin (--peft-type: oft, boft or hra)",
    ),
    these(
        &["fine-tune-type", "finetuning-type"],
        &["oft"],
        "qoft trains rotations: oft, or another family by --peft-type",
    ),
    off(
        &[
            "ref-model",
            "ref-model-adapters",
            "ref-model-quantization-bit",
            "reference-free",
            "sync-ref-model",
        ],
        "the reference of dpo and kto is the model without the adapter that trains; an adapter that belongs \
         to it goes below: --adapter PATH",
    ),
    off(
        &[
            "max-completion-length",
            "max-prompt-length",
            "max-target-length",
        ],
        "--max-length is for a prompt and its answer together",
    ),
    these(
        &["f-divergence-type"],
        &["reverse_kl"],
        "the distance to the reference is the reverse Kullback-Leibler divergence",
    ),
    off(
        &["ld-alpha", "use-weighting"],
        "all tokens and pairs count the same",
    ),
    these(
        &["do-train", "train"],
        &["true"],
        "`qoft train` trains; without that, `qoft eval` measures",
    ),
    any(&["do-eval"], "evaluations are on --eval-data"),
    off(&["do-predict"], "`qoft generate` writes text"),
    these(
        &["task-type"],
        &["causal_lm"],
        "qoft trains models that predict the next token: CAUSAL_LM",
    ),
    off(
        &["fp16", "half", "pure-bf16"],
        "products can be computed in bfloat16, --compute-dtype bf16, and activations be kept in it, \
         --activation-dtype bf16; `bf16: true` asks for both",
    ),
    any(
        &["tf32"],
        "products are computed in f32, or as --compute-dtype says",
    ),
    any(
        &[
            "attn-implementation",
            "flash-attention",
            "flash-attn",
            "sdp-attention",
            "use-unsloth",
            "xformers-attention",
        ],
        "qoft has one way to compute attention, which never holds the matrix of scores",
    ),
    off(
        &[
            "deepspeed",
            "fsdp",
            "fsdp-config",
            "local-rank",
            "tensor-parallel-size",
        ],
        "each process has the whole model; `mpirun -n N qoft train` trains in several: docs/cluster.md",
    ),
    any(
        &["ddp-find-unused-parameters"],
        "parameters without a gradient are told to the other processes as such",
    ),
    any(
        &[
            "dataloader-num-workers",
            "dataloader-pin-memory",
            "dataset-num-proc",
            "preprocessing-num-workers",
        ],
        "--threads says how many threads compute",
    ),
    any(
        &[
            "disable-tqdm",
            "include-num-input-tokens-seen",
            "include-tokens-per-second",
            "logging-first-step",
            "low-cpu-mem-usage",
            "overwrite-cache",
            "plot-loss",
            "remove-unused-columns",
            "resize-vocab",
            "use-fast-tokenizer",
        ],
        "it is so anyway",
    ),
    off(
        &[
            "logging-dir",
            "tensorboard",
            "use-wandb",
            "wandb",
            "wandb-project",
        ],
        "nothing is sent anywhere; log.jsonl is in the output folder, and --report-to tensorboard writes \
         event files",
    ),
    any(&["run-name"], "a run is called as its output folder is"),
    these(
        &["logging-strategy"],
        &["steps"],
        "log.jsonl has a row for each step; --logging-steps is for messages",
    ),
    off(
        &[
            "hub-model-id",
            "hub-token",
            "push-to-hub",
            "token",
            "use-auth-token",
        ],
        "`qoft push FOLDER OWNER/NAME` puts an adapter on the Hub; the token is in HF_TOKEN",
    ),
    any(
        &["trust-remote-code"],
        "no code of a model's folder is ever run",
    ),
    these(
        &["metric-for-best-model"],
        &["loss", "eval_loss"],
        "evaluations give a loss: the lowest is the best",
    ),
    off(
        &["greater-is-better", "save-only-model"],
        "the lowest loss is the best, and each checkpoint can be resumed",
    ),
    off(
        &["template"],
        "messages are written by the chat template of the model's folder; --chat-template takes a file, or \
         alpaca, chatml, llama3, mistral, vicuna or zephyr",
    ),
    any(
        &["model-type", "tokenizer-type"],
        "what a folder has is told by its config.json and tokenizer_config.json",
    ),
    any(
        &["eval-sample-packing", "pad-to-sequence-len"],
        "rows of an evaluation are packed as those of the training, and padded to the longest of a batch",
    ),
    any(
        &["dataset-prepared-path"],
        "tokens of data are kept in --data-cache",
    ),
    any(
        &["debug", "strict"],
        "names that there are not are errors anyway; QOFT_LOG says more",
    ),
    any(
        &["enable-liger-kernel", "use-liger-kernel"],
        "it changes no result: qoft has kernels of its own",
    ),
    any(
        &["gradient-checkpointing-kwargs"],
        "blocks are computed once more in one way",
    ),
    any(
        &["dtype", "torch-dtype"],
        "weights are those of the files, and --compute-dtype says in what products are computed",
    ),
    any(
        &["streaming"],
        "rows are read one after another, and tokens of large data are on disk: --data-cache",
    ),
    these(
        &["save-safetensors"],
        &["true"],
        "adapters are written as safetensors",
    ),
    these(
        &["use-peft"],
        &["true"],
        "`qoft train` trains adapters alone",
    ),
    these(
        &["data-seed"],
        &["none", ""],
        "the order of the rows follows from --seed",
    ),
    these(
        &["assistant-only-loss"],
        &["true"],
        "without it the assistant's turns are learned; --train-on all learns all of a row, its prompts among it",
    ),
    these(
        &["mix-strategy"],
        &["concat"],
        "--data PATH:WEIGHT says how much of each file is taken; without weights all rows are",
    ),
    off(
        &["interleave-probs"],
        "--data PATH:WEIGHT says how much of each file is taken",
    ),
    off(
        &["rope-scaling"],
        "positions are as the model's config.json says; a `rope_scaling` there is followed",
    ),
    off(
        &["special-tokens"],
        "special tokens are those of the model's tokenizer_config.json; --add-special-tokens adds new ones",
    ),
    off(
        &["dataset-dir"],
        "--data takes files and folders, not names of a list",
    ),
    these(
        &["quantization-method"],
        &["bnb"],
        "--quantize SCHEME quantizes by another scheme; `qoft backends` lists them",
    ),
    off(
        &["bits", "q-bits", "qlora", "quantize-bits"],
        "bits are told by the scheme: --load-in-4bit, --load-in-8bit, or --quantize SCHEME",
    ),
];
