#!/bin/sh
# Writes everything below data/ again. PYTHON names an interpreter with requirements.txt installed.
# The libraries of the schemes do not fit into one environment: PYTHON_GPTQ, PYTHON_AWQ,
# PYTHON_AUTO_ROUND, PYTHON_AQLM, PYTHON_EETQ, PYTHON_HQQ, PYTHON_INC_FP8, PYTHON_FP8, PYTHON_FBGEMM,
# PYTHON_COMPRESSED_TENSORS, PYTHON_MLX, PYTHON_MODELOPT, PYTHON_MXFP4 and PYTHON_TORCHAO name interpreters with
# requirements-<scheme>.txt; PYTHON_AWQ_GPTQMODEL is one with requirements-gptq.txt.
# A scheme without one keeps the checkpoints that it has.
set -eu
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 PYTHONHASHSEED=0 PYTHONWARNINGS=ignore PYTHONDONTWRITEBYTECODE=1
export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
for part in bnb models dense gemma mixtures gpt_oss mistral3 hybrids peft saved_embeddings peft_table hra custom train quantize quantize_train optim boft gpt2 generation scripted chat jinja added_tokens tokenizer_classes; do
    "${PYTHON:-python3}" "make_$part.py"
done
if [ -n "${QOFT:-}" ]; then
    "${PYTHON:-python3}" make_saved.py
    "${PYTHON:-python3}" make_new_tokens.py
else
    echo "skipped make_saved.py and make_new_tokens.py: QOFT does not name the program"
fi
for scheme in gptq awq awq_gptqmodel auto_round aqlm eetq hqq inc_fp8 fp8 fbgemm compressed_tensors mlx modelopt mxfp4 torchao; do
    variable="PYTHON_$(echo "$scheme" | tr a-z A-Z)"
    eval "interpreter=\${$variable:-}"
    if [ -n "$interpreter" ]; then
        "$interpreter" "make_$scheme.py"
    else
        echo "skipped make_$scheme.py: $variable is not set"
    fi
done
"${PYTHON:-python3}" make_scheme_references.py
if [ -n "${PYTHON_HQQ:-}" ]; then
    "$PYTHON_HQQ" make_quantize_train_hqq.py
else
    echo "skipped make_quantize_train_hqq.py: PYTHON_HQQ is not set"
fi
# PYTHON_GGUF is an interpreter with requirements-gguf.txt, and GGML a clone of ggml.
if [ -n "${PYTHON_GGUF:-}" ] && [ -n "${GGML:-}" ]; then
    "$PYTHON_GGUF" make_gguf.py "$GGML"
else
    echo "skipped make_gguf.py: PYTHON_GGUF or GGML is not set"
fi
# PYTHON_PREFERENCE is an interpreter with requirements-preference.txt.
if [ -n "${PYTHON_PREFERENCE:-}" ]; then
    "$PYTHON_PREFERENCE" make_preference.py
    "$PYTHON_PREFERENCE" make_chat_rows.py
    "$PYTHON_PREFERENCE" make_sft.py
else
    echo "skipped make_preference.py, make_chat_rows.py and make_sft.py: PYTHON_PREFERENCE is not set"
fi
# WHEELS names the folder with the wheels of requirements-templates.txt.
if [ -n "${WHEELS:-}" ]; then
    "${PYTHON:-python3}" make_templates.py "$WHEELS"
else
    echo "skipped make_templates.py: WHEELS is not set"
fi
# PYTHON_LM_EVAL is an interpreter with requirements-lm-eval.txt.
if [ -n "${PYTHON_LM_EVAL:-}" ]; then
    "$PYTHON_LM_EVAL" make_choices.py
else
    echo "skipped make_choices.py: PYTHON_LM_EVAL is not set"
fi
# VLLM names vLLM's wheel: pip download --no-deps vllm==0.33.0
if [ -n "${VLLM:-}" ]; then
    "${PYTHON:-python3}" make_penalties.py "$VLLM"
else
    echo "skipped make_penalties.py: VLLM is not set"
fi
