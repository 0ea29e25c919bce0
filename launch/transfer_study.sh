#!/usr/bin/env bash
# Runs the transfer study: on this host, or as SLURM array jobs, one stage for each task.
# bash launch/transfer_study.sh --workdir STUDY --source RAW --target RAW [--devices 0 1 2 3]
# SLURM=1 bash launch/transfer_study.sh --workdir STUDY --source RAW --target RAW
set -euo pipefail
cd "$(dirname "$0")/.."
bmjax=bmjax
[ -x .venv/bin/bmjax ] && bmjax=.venv/bin/bmjax
[ -n "${SLURM:-}" ] || exec "$bmjax" study transfer "$@"
after=
for part in prepare/ pretrain/ crossvalidation finetune/ scratch/ predict/ evaluate/ scores statistics report; do
  stages=$("$bmjax" study transfer "$@" --list-stages "$part")
  [ -n "$stages" ] || continue
  last=$(($(wc -l <<< "$stages") - 1))
  [ "$part" != prepare/ ] || last=0 # one after the other
  job=$(STAGES=$stages sbatch --parsable --array "0-$last" ${after:+--dependency "afterok:$after"} \
    --ntasks 1 launch/slurm.sbatch study transfer "$@")
  echo "$part: job $job, $((last + 1)) tasks" >&2
  after=$job
done
