#!/usr/bin/env bash
# Set up what is needed, check style and types, build the documentation, run the tests.  Arguments go to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
python=${ASR_KD_PYTHON:-$root/.venv/bin/python}
cd "$root"
"$python" -m ruff check asr_kd tests tools docs
docs=$(mktemp)
trap 'rm -f "$docs"' EXIT
bash tools/docs.sh >"$docs" 2>&1 & # beside mypy: it waits for the disk most of its time
"$python" -m mypy
"$(dirname "$python")/lint-imports" --no-logo --no-cache
wait $! || { cat "$docs"; exit 1; }
tail -n 1 "$docs"
# The tests of a file run in one process, so that its fixtures are set up once; tests/conftest.py orders the files.
OMP_NUM_THREADS=1 "$python" -m pytest -n "${PYTEST_JOBS:-2}" --dist loadfile --no-loadscope-reorder "$@"
