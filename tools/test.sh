#!/usr/bin/env bash
# Set up what is needed, check style and types, run the tests.  Arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
python=${ASR_KD_PYTHON:-$root/.venv/bin/python}
cd "$root"
"$python" -m ruff check asr_kd tests tools
"$python" -m mypy
"$(dirname "$python")/lint-imports" --no-logo --no-cache
# A file's tests stay in one process, which keeps what its fixtures made; files in the order of tests/conftest.py.
OMP_NUM_THREADS=1 "$python" -m pytest -n "${PYTEST_JOBS:-2}" --dist loadfile --no-loadscope-reorder "$@"
