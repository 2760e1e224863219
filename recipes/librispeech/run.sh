#!/usr/bin/env bash
# The main job: a corpus in, the paper's Table 1 out.
#
#   bash recipes/librispeech/run.sh                      the embedded corpus, no download, about 8 minutes on 2 cores
#   bash recipes/librispeech/run.sh --conf so762 --corpus-dir DIR --train PART --dev PART --test PART
#   bash recipes/librispeech/run.sh --conf so762 --study ten_teachers     a study of that (studies/README.md)
#
# --help lists the options.  Every stage keeps a completion mark with the fingerprint of its inputs: the same
# command run again skips what is done, redoes what changed, and goes on where it was killed.
set -euo pipefail
command="bash recipes/librispeech/run.sh${*:+$(printf ' %q' "$@")}"
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

conf=embedded exp="" stage=0 stop_stage=99 teachers=3 seeds=1 corpus=() also=() lm_text=() studies=() scheduler=""
usage() {
  cat <<EOF
Usage: bash recipes/librispeech/run.sh [options]
  --conf NAME|FILE     configuration: a name in recipes/librispeech/conf or a YAML file (default: $conf)
  --exp DIR            where everything is written (default: recipes/librispeech/exp/CONF)
  --teachers N         networks in the ensemble, which differ by seed (default: $teachers)
  --seeds N            seeds of every other trained model (default: $seeds)
  --stage N            first stage to run (default: $stage)
  --stop-stage N       last stage to run (default: all)
  --lm-text FILE       more text for the language model, .txt or .txt.gz; may be repeated
  --scheduler ADDRESS  a Dask scheduler, as tcp://HOST:8786, whose workers see the same folders: they do what fans out
  --study NAME|FILE    instead, a study of an experiment whose stages 1 to 5 are done: a name in
                       recipes/librispeech/studies, a YAML file, or all; may be repeated
 Corpus, handed to python -m asr_kd.corpora (its --help explains):
  --corpus NAME        embedded (default), mini_librispeech, train-clean-100, librispeech
  --corpus-dir DIR     any tree in LibriSpeech layout, with --train, --dev, --test PART[:i/n]
  --also DIR/PART      one more test set, decoded by one network of each kind; may be repeated
Stages: 0 set-up, 1 corpus, 2 features, 3 language, 4 senones, 5 graph, 6 networks on hard targets (teachers
        among them), 7 soft targets, 8 students, 9 decoding, 10 report
EOF
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --conf | --exp | --scheduler | --stage | --stop-stage | --teachers | --seeds)
      [ $# -ge 2 ] || { echo "run.sh: error: $1 needs a value (see --help)" >&2; exit 2; }
      name=${1#--}; printf -v "${name//-/_}" %s "$2"; shift 2 ;;
    --lm-text | --also | --study | --corpus | --corpus-dir | --train | --dev | --test)
      [ $# -ge 2 ] || { echo "run.sh: error: $1 needs a value (see --help)" >&2; exit 2; }
      case $1 in
        --lm-text) lm_text+=("$2") ;;
        --also) also+=("$2") ;;
        --study) studies+=("$2") ;;
        *) corpus+=("$1" "$2") ;;
      esac
      shift 2 ;;
    *) echo "run.sh: error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

. "$recipe/../common.sh"
conf=$(configuration "$conf")
exp=$(realpath -m "${exp:-$recipe/exp/$(basename "$conf" .yaml)}") # a cluster's workers stand elsewhere

[ "${studies[*]}" != all ] || studies=("$recipe"/studies/*.yaml)
for study in "${studies[@]}"; do
  file=$study
  [ -f "$file" ] || file=$recipe/studies/$study.yaml
  [ -f "$file" ] || { echo "run.sh: error: there is no study $study in $recipe/studies" >&2; exit 2; }
  "$python" -m asr_kd.study --study "$file" --conf "$conf" --exp "$exp" --scheduler "$scheduler" --command "$command"
done
[ ${#studies[@]} -eq 0 ] || exit 0

# call NUMBER MODULE SECTION FLAGS…: one Python stage, if its number is asked for.
call() {
  local number=$1 section=$3
  shift
  [ "$number" -ge "$stage" ] && [ "$number" -le "$stop_stage" ] || return 0
  run_stage "stage $number: $section" "$@"
}
# seeds_of FOLDER N: FOLDER/seed-0 … FOLDER/seed-(N-1)
seeds_of() { local n; for ((n = 0; n < $2; n++)); do echo "$1/seed-$n"; done; }

call 1 corpora corpora "${corpus[@]}" ${also:+--also "${also[@]}"} --out "$exp/data"
call 2 features features --data "$exp/data" --out "$exp/features"
[ ! -f "$exp/data/lm_text.txt" ] || lm_text+=("$exp/data/lm_text.txt") # the embedded corpus brings its own
call 3 lang lang --data "$exp/data" ${lm_text:+--lm-text "${lm_text[@]}"} --out "$exp/lang"
call 4 hmm hmm --features "$exp/features" --lang "$exp/lang" --out "$exp/gmm"
# The embedded corpus knows where every phone truly is: how far off is the alignment?
[ ! -f "$exp/data/truth_train.jsonl.gz" ] ||
  call 4 hmm.boundaries boundaries --cuts "$exp/gmm" --truth "$exp/data" --out "$exp/boundaries"
call 5 hmm.graph graph --lang "$exp/lang" --gmm "$exp/gmm" --out "$exp/graph"

data=(--features "$exp/features" --cuts "$exp/gmm")
model=("${data[@]}" --seeds $(seq 0 $((seeds - 1))))
mapfile -t teacher_folders < <(seeds_of "$exp/teachers" "$teachers")
# Networks on hard targets in one go, then those on soft ones, the longest first: no core is left without one.
call 6 train teachers "${data[@]}" --seeds $(seq 0 $((teachers - 1))) --out "$exp/teachers" \
  --and --config "$conf:quarter_hard" "${model[@]}" --out "$exp/quarter_hard"
call 7 soft_targets soft_targets --models "${teacher_folders[@]}" --features "$exp/features" \
  --cuts "$exp/gmm/cuts_train.jsonl.gz" --out "$exp/soft_targets"
call 8 train student "${model[@]}" --soft-targets "$exp/soft_targets" --out "$exp/student" \
  --and --config "$conf:quarter_student" "${model[@]}" --soft-targets "$exp/soft_targets" --out "$exp/quarter_student"

# Decoding.  Acoustic scale and word insertion penalty are tuned on dev for the GMM and for the baseline network,
# and every other network takes the baseline's: what differs then is the networks, not the luck of their tuning.
[ "$stop_stage" -ge 9 ] || exit 0
mapfile -t tests < <("$python" - "$exp/data/summary.json" <<'EOF'
import json, sys
print(*(split for split in json.load(open(sys.argv[1])) if split not in ("train", "dev")), sep="\n")
EOF
)
decodings=() # in one go: search processes stay open from one network to the next
decode() { # NAME TUNED-FROM MODEL…
  local name=$1 tuned=$2
  shift 2
  local how=(--tune-on dev)
  [ "$tuned" = - ] || how=(--tuned "$exp/decode/$tuned/tuned.json")
  local splits=("${tests[@]}")
  [[ $name != *-[1-9]* ]] || splits=(test) # further test sets: one network of each kind
  decodings+=(${decodings:+--and --config "$conf:decode"} --model "$@" --graph "$exp/graph" --features "$exp/features"
    --splits "${splits[@]}" "${how[@]}" --out "$exp/decode/$name")
}
decode gmm - "$exp/gmm"
decode teachers-0 - "$exp/teachers/seed-0"
decode ensemble teachers-0 "${teacher_folders[@]}"
systems=("ensemble=$(IFS=,; echo "${teacher_folders[*]}")") # for the frame accuracies: NAME=MODEL[,MODEL…]
for name in teachers student quarter_hard quarter_student; do
  count=$seeds
  [ $name != teachers ] || count=$teachers
  for ((seed = 0; seed < count; seed++)); do
    systems+=("$name-$seed=$exp/$name/seed-$seed")
    # Of many teachers as many are decoded as the students have seeds, three at least.
    if [ $name-$seed = teachers-0 ] || [ $seed -ge $((seeds > 3 ? seeds : 3)) ]; then continue; fi
    decode "$name-$seed" teachers-0 "$exp/$name/seed-$seed"
  done
done
call 9 decode decode "${decodings[@]}"
call 9 accuracy accuracy --systems "${systems[@]}" "${data[@]}" --splits dev "${tests[@]}" --out "$exp/accuracy"

call 10 report report --exp "$exp" --systems "$recipe/conf/systems.yaml" --command "$command" --out "$exp/report"
