#!/usr/bin/env bash
# Runs what depends on transformers' internals on another transformers: .ci/compat.sh VERSION [TESTS...]
# Its environment holds that version and the packages that must be older for it; all others are those of .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
shift
python=${PYTHON:-.venv/bin/python}
venv=.venv-transformers-$version
if [ ! -e "$venv/.ready" ]; then
    "$python" -m venv --clear --without-pip "$venv"
    site='import sysconfig; print(sysconfig.get_path("purelib"))'
    echo "import site; site.addsitedir('$("$python" -c "$site")')" > "$("$venv/bin/python" -c "$site")/shared.pth"
    "$venv/bin/python" -m pip install --quiet "transformers==$version" datasets
    touch "$venv/.ready"
fi
"$venv/bin/python" -c "import transformers; assert transformers.__version__ == '$version', transformers.__version__"
tests=(tests/modeling tests/pretraining tests/examples/test_finetuning_*.py tests/evaluation)
"$venv/bin/python" -m pytest -q -n "${JOBS:-2}" --max-worker-restart 0 -m "not slow and not gpu and not hub" "${@:-${tests[@]}}"
