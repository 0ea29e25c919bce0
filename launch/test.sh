#!/usr/bin/env bash
# Lint, import contracts, types and fast tests in .venv; --all adds the slow and the parity tests.
# bash launch/test.sh [--all]
set -euo pipefail
cd "$(dirname "$0")/.."
extras=dev which='not slow and not parity'
if [ "${1:-}" = --all ]; then extras=dev,parity which=''; fi
[ -x .venv/bin/python ] || python3 -m venv .venv
export PATH="$PWD/.venv/bin:$PATH"
echo "installing bmjax[$extras] into .venv ..." >&2
pip install --quiet --disable-pip-version-check --editable ".[$extras]"
ruff check .
ruff format --check .
lint-imports
pyright --pythonpath .venv/bin/python
python -m pytest -n 2 -m "$which"
