#!/usr/bin/env bash
# Runs what depends on transformers' internals on another transformers: .ci/compat.sh VERSION|newest [TESTS...]
# Its environment holds that version and the packages that must be older for it; all others are those of .venv.
# `newest` takes the newest releases of NEWEST (transformers, torch, datasets and huggingface_hub) each time.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
shift
python=${PYTHON:-.venv/bin/python}
venv=.venv-transformers-$version
packages="transformers==$version datasets"
if [ "$version" = newest ]; then
    packages="--upgrade ${NEWEST:-transformers torch datasets huggingface_hub}"
    rm -f "$venv/.ready"
fi
if [ ! -e "$venv/.ready" ]; then
    "$python" -m venv --clear --without-pip "$venv"
    site='import sysconfig; print(sysconfig.get_path("purelib"))'
    echo "import site; site.addsitedir('$("$python" -c "$site")')" > "$("$venv/bin/python" -c "$site")/shared.pth"
    # shellcheck disable=SC2086  # several words
    "$venv/bin/python" -m pip install --quiet $packages
    touch "$venv/.ready"
fi
found=$("$venv/bin/python" -c "import transformers; print(transformers.__version__)")
if [ "$version" = newest ]; then
    "$venv/bin/python" -m pip list 2> /dev/null | grep -E "^(transformers|torch|datasets|huggingface_hub) "
elif [ "$version" != "$found" ]; then
    echo "transformers $found was installed in place of $version." >&2
    exit 1
fi
tests=(tests/modeling tests/pretraining tests/examples/test_finetuning_*.py tests/evaluation)
"$venv/bin/python" -m pytest -q -n "${JOBS:-2}" --max-worker-restart 0 -m "not slow and not gpu and not hub" "${@:-${tests[@]}}"
