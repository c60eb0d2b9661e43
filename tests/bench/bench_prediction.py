#!/usr/bin/env python3
"""Predicted against measured: the planned run and pinned plans, on this machine.

usage: bench_prediction.py TEMPER [--large] [--rounds N] [--steps N] [--data FILE] [--store FILE]

Profiles the model, plans freely and with sets of pins that name every kind of split, runs every plan N times (3), the plans in turn,
and prints step time and peak memory, predicted and measured, with the error (predicted / measured - 1).
A shared machine changes its speed from minute to minute: the fastest of a plan's rounds counts, and the
slowest stands beside it, so that one sees how much the machine itself moved. Memory is of the round with
the largest error. The small model is the quick start's; --large takes GPT-2 124M at sequence 64. Targets:
time within 10 %, memory within 5 %.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

SMALL = ["--model", "gpt2", "--layers", "4", "--hidden", "128", "--heads", "4",
         "--seq-length", "64", "--vocab-size", "256"]
LARGE = ["--model", "gpt2", "--seq-length", "64"]
SMALL_PINS = [
    None,
    "dp=1,micro-batch=12,precision=fp32,recompute=none",
    "dp=2,micro-batch=6,precision=fp32,recompute=full",
    "dp=1,micro-batch=24,precision=bf16,recompute=selective",
    "dp=2,micro-batch=12,precision=bf16,recompute=none",
    "dp=1,micro-batch=3,precision=fp32,recompute=full",
    "tp=2,sp=off,micro-batch=24,precision=fp32,recompute=none",
    "tp=2,sp=on,micro-batch=6,precision=bf16,recompute=none",
    "tp=2,sp=on,micro-batch=12,precision=fp32,recompute=full",
    "pp=2,schedule=1f1b,micro-batch=3,precision=fp32,recompute=none",
    "pp=2,v=2,micro-batch=6,precision=bf16,recompute=none",
    "dp=2,zero=1,micro-batch=12,precision=fp32,recompute=none",
    "dp=2,zero=3,micro-batch=12,precision=bf16,recompute=none",
]
LARGE_PINS = [
    None,
    "dp=1,micro-batch=4,precision=fp32,recompute=none",
    "dp=2,micro-batch=2,precision=fp32,recompute=none",
    "dp=1,micro-batch=8,precision=bf16,recompute=full",
    "dp=2,micro-batch=4,precision=bf16,recompute=selective",
    "dp=1,micro-batch=2,precision=fp32,recompute=full",
    "tp=2,sp=on,micro-batch=4,precision=fp32,recompute=none",
    "tp=2,sp=off,micro-batch=8,precision=bf16,recompute=none",
    "pp=2,schedule=1f1b,micro-batch=1,precision=fp32,recompute=none",
    "dp=2,zero=3,micro-batch=4,precision=fp32,recompute=none",
]


def temper(binary, *arguments):
    """The command's JSON object; its warnings pass through."""
    done = subprocess.run([binary, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"temper {' '.join(arguments)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def text_file(folder):
    """The licence texts of base-files, which every Debian has."""
    path = os.path.join(folder, "licences.txt")
    with open(path, "wb") as out:
        for name in sorted(os.listdir("/usr/share/common-licenses")):
            with open(os.path.join("/usr/share/common-licenses", name), "rb") as part:
                out.write(part.read())
    return path


def make_plan(options, model, pins, folder, store, name):
    """The plan's file and what it predicts."""
    plan = os.path.join(folder, name)
    arguments = ["plan", *model, "--store", store, "--ranks", "2",
                 "--global-batch", str(options.global_batch), "-o", plan]
    if pins is not None:
        arguments += ["--pin", pins]
    temper(options.binary, *arguments)
    return plan


def run_plan(options, plan, data, store):
    temper(options.binary, "run", plan, "--data", data, "--steps", str(options.steps),
           "--store", store, "--eval-windows", "4")
    return temper(options.binary, "report", "--store", store)


def print_row(pins, reports):
    """One plan, all its rounds; returns the errors of time and memory."""
    reports.sort(key=lambda report: report["step_time_s"]["measured"])
    fastest, slowest = reports[0]["step_time_s"], reports[-1]["step_time_s"]
    memory = max((report["peak_bytes"] for report in reports), key=lambda m: abs(m["error"]))
    print(f"{pins or 'free':66} {1e3 * fastest['predicted']:6.1f} ms "
          f"{1e3 * fastest['measured']:6.1f} ms {100 * fastest['error']:5.1f} % "
          f"({1e3 * slowest['measured']:6.1f} ms) "
          f"{memory['predicted'] / 2**20:6.1f} MiB {memory['measured'] / 2**20:6.1f} MiB "
          f"{100 * memory['error']:5.1f} %", flush=True)
    return abs(fastest["error"]), abs(memory["error"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--global-batch", type=int)
    parser.add_argument("--data")
    parser.add_argument("--store")
    options = parser.parse_args()
    options.steps = options.steps or (8 if options.large else 100)
    options.global_batch = options.global_batch or (8 if options.large else 24)
    model, pin_sets = (LARGE, LARGE_PINS) if options.large else (SMALL, SMALL_PINS)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or text_file(folder)
        store = options.store or os.path.join(folder, "bench.db")
        batches = ["--micro-batches", "1,2,4,8"] if options.large else []
        if not os.path.exists(store):
            seconds = temper(options.binary, "profile", *model, *batches, "--store",
                             store)["seconds"]
            print(f"profiled in {seconds:.1f} s")
        plans = [make_plan(options, model, pins, folder, store, f"plan-{i}.json")
                 for i, pins in enumerate(pin_sets)]
        reports = [[] for _ in plans]
        for _ in range(options.rounds):
            for i, plan in enumerate(plans):
                reports[i].append(run_plan(options, plan, data, store))
        print(f"{'plan':66} {'time':>9} {'fastest':>9} {'error':>7} {'(slowest)':>11} "
              f"{'memory':>10} {'measured':>10} {'error':>7}")
        errors = [print_row(pins, reports[i]) for i, pins in enumerate(pin_sets)]
    print(f"worst error: time {100 * max(e[0] for e in errors):.1f} % (target 10 %), "
          f"memory {100 * max(e[1] for e in errors):.1f} % (target 5 %)")


if __name__ == "__main__":
    main()
