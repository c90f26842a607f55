#!/usr/bin/env bash
# Everything that needs a GPU, the most important first. Each part writes as it goes; the same
# command continues, without the runs that are finished.
#
#   benchmarks/gpu.sh DATA WEIGHTS OUT [OPTION...]
#
# DATA is Office-31's folder, WEIGHTS a ResNet-50's state_dict, OUT a folder for results. Options of
# train_office.py replace "--epochs 40". BACKBONE=resnet50_v1 has its strides in the first
# convolutions; DEVICE=cpu and QUICK=1 with --max-steps 2 try the script without a GPU.
set -euo pipefail
data=$1 weights=$2 out=$3 options=("${@:4}")
[ $# -gt 3 ] || options=(--epochs 40)
cd "$(dirname "$0")/.."
mkdir -p "$out"
device=${DEVICE:-cuda}

train() { # TASK METHOD...
  python examples/train_office.py --dataset office31 --root "$data" --task "$1" --method "${@:2}" \
    --backbone "${BACKBONE:-resnet50}" --weights "$weights" --bottleneck 256 --seeds 0 \
    --precision bf16 --cache device --device "$device" --out "$out/runs" --resume "${options[@]}"
}

pytest --no-cov -q -m slow tests/test_accelerator.py
python benchmarks/losses.py --device "$device" ${QUICK:+--quick} | tee "$out/losses.txt"
python benchmarks/step.py --device "$device" --precision bf16 ${QUICK:+--quick} | tee "$out/step.txt"
train A2W symnets-v2-balanced symnets
for task in D2A W2A A2D; do
  train "$task" symnets-v2-balanced symnets
done
python examples/report.py "$out/runs"
