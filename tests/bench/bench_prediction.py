#!/usr/bin/env python3
"""Predicted against measured: the planned run and pinned plans, on this machine.

usage: bench_prediction.py TEMPER [--large] [--steps N] [--data FILE] [--store FILE]

Profiles the model, plans freely and with five sets of pins, runs each plan and prints step time and peak
memory, predicted and measured, with the error (predicted / measured - 1). The small model is the quick
start's; --large takes GPT-2 124M at sequence 64. Targets: time within 10 %, memory within 5 %.
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
]
LARGE_PINS = [
    None,
    "dp=1,micro-batch=4,precision=fp32,recompute=none",
    "dp=2,micro-batch=2,precision=fp32,recompute=none",
    "dp=1,micro-batch=8,precision=bf16,recompute=full",
    "dp=2,micro-batch=4,precision=bf16,recompute=selective",
    "dp=1,micro-batch=2,precision=fp32,recompute=full",
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


def one_plan(options, model, pins, folder, data, store):
    plan = os.path.join(folder, "plan.json")
    arguments = ["plan", *model, "--store", store, "--ranks", "2",
                 "--global-batch", str(options.global_batch), "-o", plan]
    if pins is not None:
        arguments += ["--pin", pins]
    temper(options.binary, *arguments)
    temper(options.binary, "run", plan, "--data", data, "--steps", str(options.steps),
           "--store", store, "--eval-windows", "4")
    return temper(options.binary, "report", "--store", store)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--global-batch", type=int)
    parser.add_argument("--data")
    parser.add_argument("--store")
    options = parser.parse_args()
    options.steps = options.steps or (12 if options.large else 150)
    options.global_batch = options.global_batch or (8 if options.large else 24)
    model, pin_sets = (LARGE, LARGE_PINS) if options.large else (SMALL, SMALL_PINS)
    worst_time = worst_memory = 0.0
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or text_file(folder)
        store = options.store or os.path.join(folder, "bench.db")
        batches = ["--micro-batches", "1,2,4,8"] if options.large else []
        if not os.path.exists(store):
            seconds = temper(options.binary, "profile", *model, *batches, "--store",
                             store)["seconds"]
            print(f"profiled in {seconds:.1f} s")
        print(f"{'plan':56} {'time':>9} {'measured':>9} {'error':>7} "
              f"{'memory':>9} {'measured':>9} {'error':>7}")
        for pins in pin_sets:
            report = one_plan(options, model, pins, folder, data, store)
            time_s, memory = report["step_time_s"], report["peak_bytes"]
            worst_time = max(worst_time, abs(time_s["error"]))
            worst_memory = max(worst_memory, abs(memory["error"]))
            print(f"{pins or 'free':56} "
                  f"{1e3 * time_s['predicted']:6.1f} ms {1e3 * time_s['measured']:6.1f} ms "
                  f"{100 * time_s['error']:5.1f} % "
                  f"{memory['predicted'] / 2**20:5.1f} MiB {memory['measured'] / 2**20:5.1f} MiB "
                  f"{100 * memory['error']:5.1f} %", flush=True)
    print(f"worst error: time {100 * worst_time:.1f} % (target 10 %), "
          f"memory {100 * worst_memory:.1f} % (target 5 %)")


if __name__ == "__main__":
    main()
