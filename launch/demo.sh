#!/usr/bin/env bash
# Installs bmjax into .venv and runs the whole job on synthetic patients; ends with the path of a report.
# bash launch/demo.sh [--workdir DIR] [--seed N] [--quick]
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
echo 'installing bmjax into .venv ...' >&2
.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[report]'
exec .venv/bin/bmjax demo "$@"
