#!/usr/bin/env python3
"""Regret: is the plan that temper chooses the fastest there is?

usage: bench_regret.py TEMPER [--models A,B] [--ranks 1,2,4] [--plans N] [--steps N] [--rounds N] [--csv FILE]

For each model and number of ranks: profiles, plans freely, then plans and runs a coarse grid of pinned
plans (degrees, ZeRO, sequence parallelism, micro-batch, recompute, precision, threads: --plans of them,
taken evenly from all that are feasible). The fastest five of the grid and the free plan are then run again
in turn, --rounds times, so that slow phases of a shared machine meet all alike. The fastest round of each
counts.

    regret = time of the free plan / time of the fastest plan - 1        target: at most 5 %

Every run's figures go to --csv.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile

MODELS = {
    "gpt2-small": ["--model", "gpt2", "--layers", "4", "--hidden", "128", "--heads", "4",
                   "--seq-length", "64", "--vocab-size", "256"],
    "gpt2-wide": ["--model", "gpt2", "--layers", "2", "--hidden", "512", "--heads", "8",
                  "--seq-length", "64", "--vocab-size", "1024"],
    "llama-small": ["--model", "tinyllama-1.1b", "--layers", "6", "--hidden", "192", "--heads", "6",
                    "--kv-heads", "2", "--ffn", "512", "--seq-length", "128",
                    "--vocab-size", "512"],
}
GLOBAL_BATCH = 24


def temper(binary, *arguments, may_fail=False):
    """The command's JSON object; None when it fails and may."""
    done = subprocess.run([binary, *arguments, "--json"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    if may_fail:
        return None
    sys.exit(f"temper {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")


def text_file(folder):
    """The licence texts of base-files, which every Debian has."""
    path = os.path.join(folder, "licences.txt")
    with open(path, "wb") as out:
        for name in sorted(os.listdir("/usr/share/common-licenses")):
            with open(os.path.join("/usr/share/common-licenses", name), "rb") as part:
                out.write(part.read())
    return path


def meshes(ranks):
    """(dp, tp, pp, sequence parallel, ZeRO) that use all of `ranks`."""
    for dp, tp, pp in itertools.product((1, 2, 4), repeat=3):
        if dp * tp * pp != ranks:
            continue
        for sp in ("off", "on") if tp > 1 else ("off",):
            for zero in (0, 1, 3) if dp > 1 else (0,):
                yield dp, tp, pp, sp, zero


def grid(ranks, threads):
    """Pins, from the cross product of a coarse choice in each dimension."""
    for mesh, micro_batch, recompute, precision, used in itertools.product(
            meshes(ranks), (2, 4, 6, 12, 24), ("none", "full"), ("fp32", "bf16"), threads):
        dp, tp, pp, sp, zero = mesh
        yield (f"dp={dp},tp={tp},pp={pp},sp={sp},zero={zero},micro-batch={micro_batch},"
               f"recompute={recompute},precision={precision},threads={used}")


def spread(rows, count):
    """`count` of the rows, evenly."""
    if len(rows) <= count:
        return rows
    return [rows[i * len(rows) // count] for i in range(count)]


class Bench:
    def __init__(self, options, folder, writer):
        self.options, self.folder, self.writer = options, folder, writer
        self.data = text_file(folder)

    def plan(self, model, ranks, store, pins, name):
        path = os.path.join(self.folder, name)
        arguments = ["plan", *MODELS[model], "--store", store, "--ranks", str(ranks),
                     "--global-batch", str(GLOBAL_BATCH), "-o", path]
        result = temper(self.options.binary, *arguments, *(["--pin", pins] if pins else []),
                        may_fail=pins is not None)
        return None if result is None else (path, result["time_s"], result["plan"])

    def run(self, plan, store):
        done = temper(self.options.binary, "run", plan, "--data", self.data, "--steps",
                      str(self.options.steps), "--store", store, "--eval-windows", "1",
                      "--no-trace", may_fail=True)
        return None if done is None else done["step_time_s"]

    def cell(self, model, ranks):
        store = os.path.join(self.folder, f"{model}-{ranks}.db")
        runs = os.path.join(self.folder, "runs.db")
        seconds = temper(self.options.binary, "profile", *MODELS[model], "--ranks",
                         ",".join(str(r) for r in (1, 2, 4) if r <= ranks), "--store",
                         store)["seconds"]
        free = self.plan(model, ranks, store, None, "free.json")
        feasible = []
        for used in [r for r in (1, 2, 4) if r <= ranks]:
            for pins in grid(used, (1, 2) if used == 1 else (1,)):
                feasible.append((used, pins))
        tried, times = 0, {}
        for i, (used, pins) in enumerate(spread(feasible, self.options.plans)):
            made = self.plan(model, used, store, pins, f"grid-{i}.json")
            step_s = self.run(made[0], runs) if made else None
            if step_s is None:
                continue
            tried += 1
            times[pins] = (step_s, made)
            self.writer.writerow([model, ranks, pins, made[1], step_s])
        best = sorted(times, key=lambda pins: times[pins][0])[:5]
        entries = {"free": free, **{pins: times[pins][1] for pins in best}}
        fastest = {name: float("inf") for name in entries}
        for _ in range(self.options.rounds):
            for name, made in entries.items():
                fastest[name] = min(fastest[name], self.run(made[0], runs))
        winner = min(fastest, key=fastest.get)
        plan = free[2]
        shape = (f"dp={plan['data_parallel']} tp={plan['tensor_parallel']} pp={plan['pipeline']} "
                 f"mb={plan['micro_batch']} threads={plan['threads']}")
        regret = fastest["free"] / min(fastest.values()) - 1
        print(f"{model:12} R={ranks} profiled {seconds:5.1f} s, {tried:3d} plans; free [{shape}] "
              f"predicted {1e3 * free[1]:7.2f} ms, took {1e3 * fastest['free']:7.2f} ms; best "
              f"{1e3 * min(fastest.values()):7.2f} ms [{winner}]; regret {100 * regret:4.1f} %",
              flush=True)
        return regret, tried


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--plans", type=int, default=44)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", default=os.devnull)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, open(options.csv, "w", newline="",
                                                       encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["model", "ranks", "pins", "predicted_s", "measured_s"])
        bench = Bench(options, folder, writer)
        cells = [bench.cell(model, int(ranks)) for model in options.models.split(",")
                 for ranks in options.ranks.split(",")]
    print(f"worst regret {100 * max(cell[0] for cell in cells):.1f} % (target 5 %), "
          f"fewest plans {min(cell[1] for cell in cells)} (target 40)")


if __name__ == "__main__":
    main()
