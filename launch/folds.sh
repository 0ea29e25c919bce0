#!/usr/bin/env bash
# Trains the folds of a cross-validation: one after the other, or one on each of DEVICES at a time.
# bash launch/folds.sh configs/resenc_m.py --workdir RUNS --data.store STORE     -> RUNS/fold_0 .. fold_4
# DEVICES='0 1 2 3' bash launch/folds.sh ...   one fold per GPU, the next fold to the first that is free
# FOLDS='0 2' bash launch/folds.sh ...         only these; exit code 75 if one was stopped, 1 if one failed
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
read -ra free <<< "${DEVICES:-all}"
declare -A device
result=0
trap 'result=75; kill -TERM "${!device[@]}" 2> /dev/null || true' TERM USR1 INT
train() {
  [ "$2" = all ] || export CUDA_VISIBLE_DEVICES=$2
  exec "$bmjax" train "${args[@]}" --workdir "$runs/fold_$1" --data.fold "$1" --data.num-folds 5
}
finish() {
  sleep 0.2 || true
  for pid in "${!device[@]}"; do
    kill -0 "$pid" 2> /dev/null && continue
    wait "$pid" || result=$(($? == 75 && result != 1 ? 75 : 1))
    free+=("${device[$pid]}") && unset "device[$pid]"
  done
}
for fold in "${folds[@]}"; do
  while [ ${#free[@]} = 0 ]; do finish; done
  [ "$result" != 75 ] || break
  train "$fold" "${free[0]}" &
  device[$!]=${free[0]} free=("${free[@]:1}")
done
while [ ${#device[@]} -gt 0 ]; do finish; done
exit "$result"
