#!/usr/bin/env python3
"""Published layouts against temper's own, both predicted by the same model of the same cluster.

usage: bench_quality.py TEMPER [VALIDATION_FOLDER]

For ten published runs (Megatron-LM on A100, NeMo on H100): the predicted step time of the layout that was
run, of the best layout that temper finds for the same model, devices, global batch and arithmetic, and what
differs. Both are taken with fused attention and overlapped communication, so that the published layout is
judged as it would run today. Reads the tables of ../shared/validation.
"""

import csv
import json
import os
import subprocess
import sys

CLUSTERS = {"A100-80GB": "a100-80", "H100-SXM-80GB": "h100"}
RUNS = [("korthikanti_tab5", range(8)), ("dgxc", (0, 4, 18, 22, 33, 36))]
WANTED = 10
KEYS = ("data_parallel", "tensor_parallel", "pipeline", "context_parallel", "virtual_stages",
        "sequence_parallel", "zero_stage", "micro_batch", "recompute")


def plan(temper, row, pins=None):
    """The best layout's JSON, or the message of the refusal."""
    base = "llama-3-70b" if row["kv_heads"] != row["heads"] else "gpt3-175b"
    sizes = [("layers", "layers"), ("hidden", "hidden"), ("heads", "heads"),
             ("kv-heads", "kv_heads"), ("ffn", "ffn"), ("seq-length", "seq")]
    arguments = [temper, "plan", "--model", base, "--cluster",
                 f"{CLUSTERS[row['gpu']]}x{row['gpus']}", "--global-batch", row["gbs"],
                 "--arithmetic", row["precision"], "--top", "2", "--json"]
    for option, column in sizes:
        arguments += [f"--{option}", row[column]]
    if row["vocab"]:
        arguments += ["--vocab-size", row["vocab"]]
    arguments += ["--positions", row["seq"]]
    done = subprocess.run(arguments + (["--pin", pins] if pins else []), capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        return None, done.stderr.strip()
    answer = json.loads(done.stdout)
    layouts = answer["layouts"]
    if pins:  # as published: all blocks do the same, in even stages
        layouts = [layout for layout in layouts if layout["uniform"]]
    return layouts[0], ""


def published_pins(row):
    zero = row["zero"] or "1"
    return (f"dp={row['dp']},tp={row['tp']},pp={row['pp']},v={row['vp'] or 1},"
            f"sp={'on' if row['seqpar'] == '1' and row['tp'] != '1' else 'off'},zero={zero},"
            f"schedule={'interleaved' if int(row['vp'] or 1) > 1 else '1f1b'},offload=none,"
            f"micro-batch={row['mbs']},recompute={row['recompute']}")


def words(layout):
    return (f"dp {layout['data_parallel']} tp {layout['tensor_parallel']} pp {layout['pipeline']} "
            f"cp {layout['context_parallel']} v {layout['virtual_stages']} "
            f"mb {layout['micro_batch']} zero {layout['zero_stage']} {layout['recompute']}")


def main():
    temper = sys.argv[1]
    folder = sys.argv[2] if len(sys.argv) > 2 else os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared", "validation")
    shown = 0
    print(f"{'run':34} {'published':>10} {'temper':>10} {'faster':>8}  layouts")
    for name, wanted in RUNS:
        with open(os.path.join(folder, f"{name}.csv"), encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
        for index in wanted:
            row = rows[index]
            if shown == WANTED or not row["seq"]:
                continue
            was, why = plan(temper, row, published_pins(row))
            best, none = plan(temper, row)
            label = f"{row['model']}, {row['gpus']} x {CLUSTERS[row['gpu']]}, batch {row['gbs']}"
            if was is None or best is None:
                print(f"{label:34} {why or none}")
                continue
            shown += 1
            print(f"{label:34} {was['time_s']:8.2f} s {best['time_s']:8.2f} s "
                  f"{100 * (1 - best['time_s'] / was['time_s']):6.1f} %  "
                  f"{words(was)} -> {words(best)}", flush=True)


if __name__ == "__main__":
    main()
