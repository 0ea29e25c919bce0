#!/usr/bin/env bash
# Trains one run with P processes of this host, or with this host's process of several.
# bash launch/multihost.sh 4 configs/resenc_m.py --workdir RUN --data.store STORE
# Over several hosts, on each: COORDINATOR=HOST0:12345 FIRST=0 TOTAL=8 bash launch/multihost.sh 4 ...
# (FIRST: number of the first process here; TOTAL: of all; COORDINATOR: of process 0).
# A GPU host gives each process one GPU. Exit code 75: stopped by a signal, all is saved.
set -euo pipefail
cd "$(dirname "$0")/.."
num=$1 first=${FIRST:-0} total=${TOTAL:-$1}
shift
coordinator=${COORDINATOR:-127.0.0.1:$((20000 + RANDOM % 20000))}
bmjax=bmjax
[ -x .venv/bin/bmjax ] && bmjax=.venv/bin/bmjax
declare -A name
stop() { kill -"$1" "${!name[@]}" 2> /dev/null || true; }
trap 'stop TERM' TERM INT
trap 'stop USR1' USR1
IFS=, read -ra gpus <<< "${CUDA_VISIBLE_DEVICES:-}"
for ((i = 0; i < num; i++)); do
  CUDA_VISIBLE_DEVICES=${gpus[i]:-$i} "$bmjax" train "$@" \
    --coordinator "$coordinator" --num-processes "$total" --process-id $((first + i)) &
  name[$!]=$((first + i))
done
result=0
while [ ${#name[@]} -gt 0 ]; do
  sleep 0.2 || true
  for pid in "${!name[@]}"; do
    kill -0 "$pid" 2> /dev/null && continue
    code=0
    wait "$pid" || code=$?
    i=${name[$pid]}
    unset "name[$pid]"
    if [ "$code" = 0 ] || [ "$result" != 0 ]; then continue; fi
    result=$code
    [ "$code" != 75 ] || continue
    echo "multihost.sh: process $i of $total ended with code $code; ending the others. The same command goes on from the last checkpoint" >&2
    stop KILL
  done
done
exit "$result"
