# Sourced by every recipe's run.sh after its flags are read: set-up, and what the recipes share.
# shellcheck shell=bash
begun=$SECONDS
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
python=${ASR_KD_PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# configuration NAME|FILE: a YAML file, or a file of the recipe's conf folder by its name.
configuration() {
  local file=$1
  [ -f "$file" ] || file=$recipe/conf/$1.yaml
  [ -f "$file" ] || { echo "run.sh: error: there is no configuration $file" >&2; exit 2; }
  echo "$file"
}

# Stages that send their jobs to a Dask cluster when the recipe is given --scheduler.
clustered=" accuracy corpora decode features hmm soft_targets specialists.classify specialists.targets specialists.train \
study.measure train "
scheduler=${scheduler:-}

# run_stage TITLE MODULE SECTION FLAGS…: one Python stage, with its section of the configuration (- for none).
run_stage() {
  local title=$1 module=$2 section=$3
  shift 3
  printf '\n== %s (%d s so far)\n' "$title" $((SECONDS - begun))
  [[ -z $scheduler || $clustered != *" $module "* ]] || set -- --scheduler "$scheduler" "$@"
  [ "$section" = - ] || set -- --config "$conf:$section" "$@"
  "$python" -m "asr_kd.$module" "$@"
}
