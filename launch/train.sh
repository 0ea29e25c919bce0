#!/usr/bin/env bash
# Trains one recipe on all devices of this host.
# bash launch/train.sh configs/real_2mm.py --workdir runs/real --data.store data/store
set -euo pipefail
cd "$(dirname "$0")/.."
bmjax=bmjax
[ -x .venv/bin/bmjax ] && bmjax=.venv/bin/bmjax
exec "$bmjax" train "$@"
