#!/usr/bin/env bash
# Trains the folds of a cross-validation: one after the other, or one on each of DEVICES at a time.
# bash launch/folds.sh configs/resenc_m.py --workdir RUNS --data.store STORE     -> RUNS/fold_0 .. fold_4
#
# DEVICES='0 1 2 3' bash launch/folds.sh ...   one fold per GPU, the next fold to the first that is free
# FOLDS='0 2' bash launch/folds.sh ...         only these
# Folds that are finished are only validated again; exit code 75 if one was stopped, 1 if one failed.
set -euo pipefail
cd "$(dirname "$0")/.."
bmjax=bmjax
[ -x .venv/bin/bmjax ] && bmjax=.venv/bin/bmjax
args=() runs=
while [ $# -gt 0 ]; do
  if [ "$1" = --workdir ]; then runs=$2; shift; else args+=("$1"); fi
  shift
done
[ -n "$runs" ] || { echo 'folds.sh: give --workdir RUNS' >&2; exit 2; }
read -ra folds <<< "${FOLDS:-0 1 2 3 4}"
read -ra free <<< "${DEVICES:-}"
declare -A device
trap 'kill -TERM "${!device[@]}" 2> /dev/null || true' TERM INT
result=0
train() { "$bmjax" train "${args[@]}" --workdir "$runs/fold_$1" --data.fold "$1" --data.num-folds 5; }
finish() {
  local code=0
  wait -n -p ended "${!device[@]}" || code=$?
  [ "$code" = 0 ] || [ "$result" = 1 ] || result=$code
  if [ -n "${ended:-}" ]; then free+=("${device[$ended]}") && unset "device[$ended]"; fi
}
[ ${#free[@]} -gt 0 ] || free=("${CUDA_VISIBLE_DEVICES:-}")
for fold in "${folds[@]}"; do
  while [ ${#free[@]} = 0 ]; do finish; done
  CUDA_VISIBLE_DEVICES=${free[0]} train "$fold" &
  device[$!]=${free[0]} free=("${free[@]:1}")
done
while [ ${#device[@]} -gt 0 ]; do finish; done
exit "$result"
