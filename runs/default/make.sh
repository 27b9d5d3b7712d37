#!/usr/bin/env bash
# The one command that made this run, from the repository's root and with the corpora in ../shared/data:
#     bash runs/default/make.sh runs/NEW
# Trains (took about three hours on 2 CPU cores, half of them with AMX), calibrates on dev, scores dev and test once, and writes the model card.
set -euo pipefail
run="${1:?name a new run folder, e.g. runs/mine}"
data=../shared/data

[ -d ../whisper-tiny.en ] || python ../shared/tools/fetch_whisper.py tiny.en ../whisper-tiny.en
[ -f ../teacher/transcripts.jsonl ] || python -m harmonifuse_core.prepare teacher \
    --whisper ../whisper-tiny.en --manifest $data/librispeech.jsonl --split unlabelled --output ../teacher
# words, words and emotion (which does not reach the encoder), and words again in two legs; shares chosen on dev
configs=harmonifuse_core/configs
python -m harmonifuse_core.train --config $configs/stages/words.yaml --run "$run-words" --resume
python -m harmonifuse_core.train --config $configs/default.yaml --run "$run-both" --resume
again=(python -m harmonifuse_core.train --config $configs/stages/words.yaml training.precision=float32 --resume)
"${again[@]}" --run "$run-again-start" training.seed=3 training.steps=400
"${again[@]}" --run "$run-again" --init "$run-again-start" training.seed=4 training.steps=850
python -m harmonifuse_core.average --run "$run-both" "$run-words=0.3864" "$run-again=0.2273" --pretrained-share 0.12 \
    --own 'heads|lm\.speech_token|gate\.(logits|ffn|standardise)' --output "$run-mean"
# no emotion has reached the encoder, so speakers left out of this fit show what it is worth (the gate knows them, though);
# weights, shrinkage and strength chosen on such folds and RAVDESS dev
python -m harmonifuse_core.discriminant --run "$run-mean" --output "$run" --samples 10000 --shrinkage 0.2 --strength 6 \
    --add $configs/corpora/read_speech.yaml --folds 5 \
    --weights ravdess=0.87,nemo=0.09,urdu=0.03,librispeech=0.008,speechocean762=0.008

nemo_labels=anger=angry,happiness=happy,sadness=sad,fear=fearful
python -m harmonifuse_core.calibrate --run "$run" --manifest $data/ravdess.jsonl --split dev

score() { python -m harmonifuse_core.evaluate --run "$run" --save "$@"; }
score speechocean762-dev --manifest $data/speechocean762.jsonl --split dev
score ravdess-dev --manifest $data/ravdess.jsonl --split dev
score librispeech-test-other-50 --manifest $data/librispeech.jsonl --split test
score speechocean762-test --manifest $data/speechocean762.jsonl --split test
score speechocean762-test-adults --manifest $data/speechocean762.jsonl --split test --where 'age>=18'
score speechocean762-test-children --manifest $data/speechocean762.jsonl --split test --where 'age<18'
score ravdess-test --manifest $data/ravdess.jsonl --split test --tasks ser
score nemo-test --manifest $data/nemo.jsonl --speakers nemo-EB0,nemo-WR0 --ids '_(7[6-9]|8[0-9]|90)$' \
    --label-map $nemo_labels --tasks ser
score urdu-test --manifest $data/urdu.jsonl --tasks ser \
    --speakers urdu-SM2,urdu-SM3,urdu-SF1,urdu-SF6,urdu-SM20,urdu-SF9,urdu-SM22,urdu-SM24

# speakers that the model never heard: RAVDESS actors 17 to 20, two of nEMO, one or more utterances of 88 of speechocean762
unseen=(--manifest $data/ravdess.jsonl --split dev --manifest $data/ravdess.jsonl --split test
    --manifest $data/speechocean762.jsonl --split test --ids '7$')
python -m harmonifuse_core.analyse --run "$run" "${unseen[@]}" --skip ravdess:asr
python -m probes.run --run "$run" --name unseen "${unseen[@]}" \
    --manifest $data/nemo.jsonl --speakers nemo-EB0,nemo-WR0 --ids '_(7[6-9]|8[0-9]|90)$' --label-map $nemo_labels \
    --targets emotion,words,gender,age,pitch,energy,duration --umap
python -m probes.run --run "$run" --name erasure --manifest $data/ravdess.jsonl --split dev \
    --manifest $data/ravdess.jsonl --split test --targets emotion --states encoder --probes linear --no-random \
    --erase emotion --erase-limit 64
python -m probes.joined --run "$run" --probes unseen --routing asr=speechocean762-test,ser=ravdess-test
python -m harmonifuse_core.card --run "$run"
