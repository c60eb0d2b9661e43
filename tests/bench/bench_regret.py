#!/usr/bin/env python3
"""Regret: is the plan that temper chooses the fastest there is?

usage: bench_regret.py TEMPER [--models A,B] [--ranks 1,2,4] [--plans N] [--steps N] [--rounds N] [--csv FILE]

For each model and number of ranks: profiles, plans freely, then plans and runs pinned plans of a coarse
grid (degrees, ZeRO, sequence parallelism, micro-batch, recompute, precision), in a fixed random order until
--plans of them ran. A shared machine changes its speed from minute to minute, so the fastest five of the
grid are then compared with the free plan in pairs, one after the other, --rounds times, and of each pair
the ratio counts:

    regret = the most of any of them, median(time of the free plan / its time) - 1       target: at most 5 %

A plan of the grid that is the free plan itself has none. Every run's figures go to --csv.
"""

import argparse
import csv
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

MODELS = {
    "gpt2-small": ["--model", "gpt2", "--layers", "4", "--hidden", "128", "--heads", "4",
                   "--seq-length", "64", "--vocab-size", "256"],
    "gpt2-wide": ["--model", "gpt2", "--layers", "2", "--hidden", "384", "--heads", "6",
                  "--seq-length", "32", "--vocab-size", "512"],
    "llama-small": ["--model", "tinyllama-1.1b", "--layers", "3", "--hidden", "192", "--heads", "6",
                    "--kv-heads", "2", "--ffn", "512", "--seq-length", "64",
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


def grid(ranks):
    """Pins, from the cross product of a coarse choice in each dimension."""
    threads = 2 if ranks == 1 else 1  # as profiled
    for mesh, micro_batch, recompute, precision in itertools.product(
            meshes(ranks), (1, 2, 3, 4, 6, 8, 12, 24), ("none", "selective", "full"),
            ("fp32", "bf16")):
        dp, tp, pp, sp, zero = mesh
        yield (f"dp={dp},tp={tp},pp={pp},sp={sp},zero={zero},micro-batch={micro_batch},"
               f"recompute={recompute},precision={precision},threads={threads}")


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

    @staticmethod
    def work(path):
        """What a plan makes the ranks do."""
        with open(path, encoding="utf-8") as plan:
            plan = json.load(plan)
        return {key: plan[key] for key in ("ranks", "data_parallel", "tensor_parallel", "pipeline",
                                           "virtual_stages", "schedule", "threads", "micro_batch",
                                           "layers")}

    def cell(self, model, ranks):
        store = os.path.join(self.folder, f"{model}-{ranks}.db")
        runs = os.path.join(self.folder, "runs.db")
        seconds = temper(self.options.binary, "profile", *MODELS[model], "--ranks",
                         ",".join(str(r) for r in (1, 2, 4) if r <= ranks), "--store",
                         store)["seconds"]
        free = self.plan(model, ranks, store, None, "free.json")
        grids = [(used, pins) for used in (1, 2, 4) if used <= ranks for pins in grid(used)]
        random.Random(1).shuffle(grids)
        times = {}
        for i, (used, pins) in enumerate(grids):
            if len(times) == self.options.plans:
                break
            made = self.plan(model, used, store, pins, f"grid-{i}.json")
            step_s = self.run(made[0], runs) if made else None
            if step_s is not None:
                times[pins] = (step_s, made)
                self.writer.writerow([model, ranks, pins, made[1], step_s])
        regret, winner, pairs = self.compare(free, times, runs)
        plan = free[2]
        shape = (f"dp={plan['data_parallel']} tp={plan['tensor_parallel']} pp={plan['pipeline']} "
                 f"mb={plan['micro_batch']} threads={plan['threads']}")
        fastest = [1e3 * min(pair[i] for pair in pairs) for i in (0, 1)]
        print(f"{model:12} R={ranks} profiled {seconds:5.1f} s, {len(times):3d} plans; free [{shape}] "
              f"predicted {1e3 * free[1]:7.2f} ms, took {fastest[0]:7.2f} ms; best "
              f"{fastest[1]:7.2f} ms [{winner}]; regret {100 * regret:4.1f} %", flush=True)
        return regret, len(times)

    def compare(self, free, times, runs):
        """The free plan against the five fastest of the grid, each pair side by side."""
        compared = []
        for pins in sorted(times, key=lambda pins: times[pins][0])[:5]:
            if self.work(times[pins][1][0]) == self.work(free[0]):
                step_s = self.run(free[0], runs)
                compared.append((0.0, pins, [(step_s, step_s)]))
                continue
            pairs = [(self.run(free[0], runs), self.run(times[pins][1][0], runs))
                     for _ in range(self.options.rounds)]
            ratio = statistics.median(one / other for one, other in pairs)
            compared.append((max(0.0, ratio - 1), pins, pairs))
        return max(compared, key=lambda row: row[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--plans", type=int, default=44)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
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
