#!/usr/bin/env bash
# Draws two phantom cohorts and runs the whole transfer study on them with small networks, on a CPU.
# bash launch/transfer_phantom.sh WORKDIR [--dry-run]     -> WORKDIR/study/report.html
set -euo pipefail
cd "$(dirname "$0")/.."
python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
workdir=$1
shift
"$python" -m bmjax.study.phantoms "$workdir/raw"
exec "$python" -m bmjax study transfer --workdir "$workdir/study" \
  --source "$workdir/raw/source" --target "$workdir/raw/target" --num-test 6 --folds 2 \
  --models configs/phantom_{default,tverskybce,segresnet}.py \
  --spacing-mm 3 3 3 --patch-size 32 32 32 --batch-size 2 \
  --pretrain-epochs 30 --finetune-epochs 12 "$@"
