#!/usr/bin/env bash
# Writes every row of the suite on a GPU host, beside PyTorch where it is, then the tables.
# bash launch/bench_gpu.sh [--quick] [--peers torch,flax] [--peer-python PYTHON] [--case TEXT]
#
# Rows go to benchmarks/results/, one file per device: what a GPU computes to the GPU's,
# what the host computes (metrics, preprocessing) to the CPU's. Each row records these:
#   XLA_FLAGS=--xla_gpu_force_conv_nhwc=true    convolutions in our own order of axes
#   XLA_FLAGS=--xla_gpu_force_conv_nchw=true    convolutions in torch's order
#   XLA_FLAGS=--xla_gpu_autotune_level=0 .. 4   how hard algorithms are compared; 0 compiles
#                                               fastest, 4 is XLA's default
#   JAX_DEFAULT_MATMUL_PRECISION=float32        no TF32 in ours
#   NVIDIA_TF32_OVERRIDE=0                      no TF32 in anybody's
# Try one at a time and keep its rows apart:
#   XLA_FLAGS=--xla_gpu_force_conv_nchw=true bash launch/bench_gpu.sh --out nchw
set -euo pipefail
cd "$(dirname "$0")/.."
python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
"$python" -m benchmarks all --large "$@"
exec "$python" -m benchmarks.tables
