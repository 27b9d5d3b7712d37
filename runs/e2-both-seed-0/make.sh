#!/usr/bin/env bash
# What alpha of a study's cell says: system `both` of study E2, seeds 0 to 2, with the weights kept, scored and analysed.
# From the repository's root, with the corpora in ../shared/data:
#     bash runs/e2-both-seed-0/make.sh FOLDER
# The weights (77 MB a seed) are not committed: FOLDER/e2-both-seed-N holds them, runs/e2-both-seed-N all the rest.
set -euo pipefail
out="${1:?name a folder for the study and its models, e.g. scratch}"
data=../shared/data
emotions=(--manifest $data/ravdess.jsonl
    --speakers ravdess-13,ravdess-14,ravdess-15,ravdess-16,ravdess-17,ravdess-18,ravdess-19,ravdess-20
    --ids '[0-9][0-9]-01-01-[0-9]+$')  # actors that the cell never heard; one sentence, first repetition
words=(--manifest $data/speechocean762.jsonl --split test --ids '[0-3]7$')

[ -d ../whisper-tiny.en ] || python ../shared/tools/fetch_whisper.py tiny.en ../whisper-tiny.en
python -m harmonifuse_core.study harmonifuse_core/configs/studies/e2.yaml --systems both --keep-models --output "$out/study"
for seed in 0 1 2; do
    cp -r "$out/study/models/both.seed-$seed" "$out/e2-both-seed-$seed"
    cp "$out/study/environment.json" "$out/e2-both-seed-$seed"
    sed -i "s/^title: Study base/title: Study E2, both fusions, seed $seed/" "$out/e2-both-seed-$seed/config.yaml"
    python -m harmonifuse_core.evaluate --run "$out/e2-both-seed-$seed" --save ravdess-actors-13-20 --tasks ser "${emotions[@]}"
    python -m harmonifuse_core.evaluate --run "$out/e2-both-seed-$seed" --save speechocean762-test "${words[@]}"
done
for seed in 1 2 0; do
    only=faithfulness,divergence,input_dependence,signatures others=(--compare "$out/e2-both-seed-1" --compare "$out/e2-both-seed-2")
    [ $seed = 0 ] || { only=faithfulness,divergence; others=(); }
    python -m harmonifuse_core.analyse --run "$out/e2-both-seed-$seed" "${emotions[@]}" "${words[@]}" --skip ravdess:asr \
        --only $only "${others[@]}"
    python -m harmonifuse_core.card --run "$out/e2-both-seed-$seed"
done
