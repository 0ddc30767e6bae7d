#!/bin/sh
# Writes everything below data/ again. PYTHON names an interpreter with requirements.txt installed.
set -eu
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1 PYTHONHASHSEED=0 PYTHONWARNINGS=ignore PYTHONDONTWRITEBYTECODE=1
export TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1
for part in bnb models peft train chat; do
    "${PYTHON:-python3}" "make_$part.py"
done
