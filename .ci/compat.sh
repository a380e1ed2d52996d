#!/usr/bin/env bash
# Runs the model tests on one old transformers, in an environment of its own: .ci/compat.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
venv=.venv-transformers-$version
if [ ! -e "$venv/.ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    "$venv/bin/python" -m pip install --quiet "torch==$(sed -n 's/^torch==//p' constraints.txt)"
    "$venv/bin/python" -m pip install --quiet "transformers==$version" -e . pytest pytest-xdist nnaudio
    touch "$venv/.ready"
fi
"$venv/bin/python" -m pytest -q -m "not slow and not gpu and not hub" tests/modeling
