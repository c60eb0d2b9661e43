#!/bin/sh
# nanoGPT's CPU recipe through temper: 4 layers, width 128, 4 heads, context 64, batch 12, 2000 steps,
# tinyshakespeare by character, lr 1e-3 with warm-up 100 and cosine to 1e-4, AdamW 0.9/0.99, decay 0.1,
# clip 1, no dropout. nanoGPT reports a validation loss of 1.88; the target is at most 1.90 in at most
# 120 s on 2 cores.
#
# usage: bench_learning.sh TEMPER TINYSHAKESPEARE
set -eu
temper=$1
data=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
model="--model gpt2 --layers 4 --hidden 128 --heads 4 --seq-length 64 --positions 64 --vocab-size 256"
# shellcheck disable=SC2086 # the model's options are words
"$temper" profile $model --store "$folder/t.db" >"$folder/profile.txt"
tail -n 1 "$folder/profile.txt"
# shellcheck disable=SC2086
"$temper" plan $model --store "$folder/t.db" --ranks 2 --global-batch 12 -o "$folder/plan.json"
start=$(date +%s)
"$temper" run "$folder/plan.json" --data "$data" --steps 2000 --lr 1e-3 --min-lr 1e-4 --warmup 100 \
    --beta2 0.99 --weight-decay 0.1 --clip 1 --eval-interval 500 --eval-windows 0 \
    --log-interval 250 --store "$folder/t.db"
echo "training and its evaluations took $(($(date +%s) - start)) s"
