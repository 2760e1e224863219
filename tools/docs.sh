#!/usr/bin/env bash
# Build the documentation; warnings are errors.  Argument: the folder for the pages (default: a temporary one, removed).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
python=${ASR_KD_PYTHON:-$root/.venv/bin/python}
site=${1:-}
[ -n "$site" ] || { site=$(mktemp -d) && trap 'rm -rf "$site"' EXIT; }
# The variable silences an advertisement for another tool, which is printed at every build.
NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict -f "$root/docs/mkdocs/mkdocs.yml" -d "$(realpath "$site")"
echo "documentation: no warnings${1:+, in $site}"
