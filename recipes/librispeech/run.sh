#!/usr/bin/env bash
# The main job: a corpus in, the paper's Table 1 out.
#
#   bash recipes/librispeech/run.sh                      the embedded corpus, no download, about 8 minutes on 2 cores
#                                                        that are fast in bfloat16, 24 on others
#   bash recipes/librispeech/run.sh --conf so762 --corpus-dir DIR --train PART --dev PART --test PART
#   bash recipes/librispeech/run.sh --conf so762 --study ten_teachers     a study on top of it (studies/README.md)
#
# --help lists the options.  Every stage keeps a completion mark with the fingerprint of its inputs: the same command
# run again skips what is finished, rebuilds what is outdated, and resumes where it was killed.
set -euo pipefail
command="bash recipes/librispeech/run.sh${*:+$(printf ' %q' "$@")}"
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

conf=embedded exp="" stage=0 stop_stage=99 teachers=3 seeds=1 corpus=() train=() dev=() test=() also=() lm_text=() lang=() studies=() scheduler=""
usage() {
  cat <<EOT
Usage: bash recipes/librispeech/run.sh [options]
  --conf NAME|FILE     configuration: a name in recipes/librispeech/conf, or a YAML file (default: $conf)
  --exp DIR            folder of the experiment (default: recipes/librispeech/exp/CONF)
  --teachers N         networks in the ensemble, which differ by seed (default: $teachers)
  --seeds N            seeds of every other trained network (default: $seeds)
  --stage N            first stage to run (default: $stage)
  --stop-stage N       last stage to run (default: all)
  --lm-text FILE       more text for the language model, .txt or .txt.gz; may be repeated
  --lexicon FILE, --arpa FILE  a pronunciation lexicon and a language model of your own (docs/corpora.md)
  --scheduler ADDRESS  a Dask scheduler, as tcp://HOST:8786, whose workers see the same folders and do the jobs
  --study NAME|FILE    instead, run a study on an experiment whose stages 1 to 5 are finished: a name in
                       recipes/librispeech/studies, a YAML file, or all; may be repeated
 Corpus, handed to python -m asr_kd.corpora (its --help explains):
  --corpus NAME        embedded (default), mini_librispeech, train-clean-100, librispeech
  --train, --dev, --test PART[:i/n]  a corpus of your own: folders of audio, Kaldi data, Lhotse manifests, tables; each
                       may be repeated (docs/how-to-corpus.md)
  --corpus-dir DIR     folder in which these parts are
  --also PART          one more test set, decoded by one network of each kind; may be repeated
  --channel N, --unknown-speakers skip|recording, --audio-dir DIR, --path-column NAME, --text-column NAME,
  --speaker-column NAME: as there
Stages: 0 set-up, 1 corpus, 2 features, 3 language, 4 senones, 5 graph, 6 networks on hard targets (the teachers
        among them), 7 soft targets, 8 students, 9 frame accuracy and decoding, 10 bundles, scores and report
EOT
}
need() { [ "$1" -ge 2 ] || { echo "run.sh: error: $2 needs a value (see --help)" >&2; exit 2; }; }
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --conf | --exp | --scheduler | --stage | --stop-stage | --teachers | --seeds)
      need $# "$1"; name=${1#--}; printf -v "${name//-/_}" %s "$2"; shift 2 ;;
    --lexicon | --arpa) need $# "$1"; lang+=("$1" "$2"); shift 2 ;;
    --lm-text) need $# "$1"; lm_text+=("$2"); shift 2 ;;
    --also) need $# "$1"; also+=("$2"); shift 2 ;;
    --study) need $# "$1"; studies+=("$2"); shift 2 ;;
    --train) need $# "$1"; train+=("$2"); shift 2 ;;
    --dev) need $# "$1"; dev+=("$2"); shift 2 ;;
    --test) need $# "$1"; test+=("$2"); shift 2 ;;
    --corpus | --corpus-dir | --channel | --unknown-speakers | --audio-dir | --path-column | --text-column | --speaker-column)
      need $# "$1"; corpus+=("$1" "$2"); shift 2 ;;
    *) echo "run.sh: error: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
done

. "$recipe/../common.sh"
conf=$(configuration "$conf")
exp=$(realpath -m "${exp:-$recipe/exp/$(basename "$conf" .yaml)}") # the workers of a cluster run in other folders

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
  local number=$1
  [ "$number" -ge "$stage" ] && [ "$number" -le "$stop_stage" ] || return 0
  run_stage "stage $number: ${3/#-/${2#study.}}" "${@:2}"
}
# numbers N: 0 1 … N-1
numbers() { seq 0 $(($1 - 1)); }

data=(--features "$exp/features" --cuts "$exp/gmm")
student=("${data[@]}" --seeds $(numbers "$seeds") --soft-targets "$exp/soft_targets")
hard=("${data[@]}" --seeds $(numbers "$seeds"))
ensemble=($(numbers "$teachers" | sed "s|^|$exp/teachers/seed-|"))
systems=(--exp "$exp" --systems "$recipe/conf/systems.yaml"
  --variables teachers="$teachers" seeds="$seeds" decoded=$((seeds > 3 ? seeds : 3)))

call 1 corpora corpora "${corpus[@]}" ${train:+--train "${train[@]}"} ${dev:+--dev "${dev[@]}"} \
  ${test:+--test "${test[@]}"} ${also:+--also "${also[@]}"} --out "$exp/data"
call 2 features features --data "$exp/data" --out "$exp/features"
[ ! -f "$exp/data/lm_text.txt" ] || lm_text+=("$exp/data/lm_text.txt") # the embedded corpus brings its own text
call 3 lang lang --data "$exp/data" ${lm_text:+--lm-text "${lm_text[@]}"} "${lang[@]}" --out "$exp/lang"
call 4 hmm hmm --features "$exp/features" --lang "$exp/lang" --out "$exp/gmm"
[ ! -f "$exp/data/truth_train.jsonl.gz" ] || # the embedded corpus knows the true time of every phone
  call 4 hmm.boundaries boundaries --cuts "$exp/gmm" --truth "$exp/data" --out "$exp/boundaries"
call 5 hmm.graph graph --lang "$exp/lang" --gmm "$exp/gmm" --out "$exp/graph"
# Networks on hard targets are trained side by side, then those on soft targets: no core is left without work.
call 6 train teachers "${data[@]}" --seeds $(numbers "$teachers") --out "$exp/teachers" \
  --and --config "$conf:quarter_hard" "${hard[@]}" --out "$exp/quarter_hard"
call 7 soft_targets soft_targets --models "${ensemble[@]}" --features "$exp/features" \
  --cuts "$exp/gmm/cuts_train.jsonl.gz" --out "$exp/soft_targets"
call 8 train student "${student[@]}" --out "$exp/student" \
  --and --config "$conf:quarter_student" "${student[@]}" --out "$exp/quarter_student"
call 9 study.measure - "${systems[@]}" --conf "$conf"
for name in student quarter_student; do
  call 10 bundle bundle --model "$exp/$name/seed-0" --graph "$exp/graph" --features "$exp/features" \
    --tuned "$exp/tuned/tuned.json" --out "$exp/bundle/$name"
done
call 10 score score "${systems[@]}" --out "$exp/score"
call 10 report report "${systems[@]}" --command "$command" --out "$exp/report"
[ ! -f "$exp/bundle/quarter_student/decode.json" ] || # the line with which a recording becomes words
  printf '\nto recognise a recording: %s -m asr_kd.runtime %s FILE\n' "$python" "$exp/bundle/quarter_student"
