#!/usr/bin/env bash
# Repeats the 2-D study of Kaur and Singh (2024): table4.csv, table4.md, figures/ and report.html in the workdir.
# bash launch/kaur2024.sh --workdir study2d --reduced                    synthetic exams, for a CPU
# bash launch/kaur2024.sh --workdir study2d --data UCSF-BMSR             the paper's sizes; needs a GPU
set -euo pipefail
cd "$(dirname "$0")/.."
bmjax=bmjax
[ -x .venv/bin/bmjax ] && bmjax=.venv/bin/bmjax
exec "$bmjax" study kaur2024 "$@"
