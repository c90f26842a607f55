#!/usr/bin/env bash
# What needs a GPU most. The same command continues, without what is finished.
#
#   benchmarks/gpu.sh DATA WEIGHTS OUT [OPTION...]
#
# DATA is Office-31's folder, WEIGHTS a ResNet-50's state_dict (or none), OUT a folder for results.
# Options of train_office.py replace "--epochs 40". BACKBONE=resnet50_v1 has its strides in the first
# convolutions; DEVICE=cpu and QUICK=1 with --max-steps 2 try the script without a GPU.
set -euo pipefail
data=$(realpath "$1") weights=$2 out=$(realpath -m "$3") options=("${@:4}")
[ "$weights" = none ] || weights=$(realpath "$weights")
[ $# -gt 3 ] || options=(--epochs 40)
cd "$(dirname "$0")/.."
mkdir -p "$out"
device=${DEVICE:-cuda}

measure() { # NAME OPTION...
  [ -s "$out/$1.txt" ] && return
  python "benchmarks/$1.py" --device "$device" "${@:2}" ${QUICK:+--quick} --out "$out/$1.txt" ||
    echo "benchmarks/$1.py failed" >&2
}

train() { # TASK
  python examples/train_office.py --dataset office31 --root "$data" --task "$1" \
    --method symnets-v2-balanced symnets --backbone "${BACKBONE:-resnet50}" --weights "$weights" \
    --bottleneck 256 --seeds 0 --precision bf16 --cache device --device "$device" \
    --out "$out/runs" --resume "${options[@]}"
}

measure losses
measure step --precision bf16
for task in A2W D2A W2A A2D; do
  train "$task"
done
python examples/report.py "$out/runs"
