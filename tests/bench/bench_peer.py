#!/usr/bin/env python3
"""temper against PyTorch on this machine's CPU, side by side in one run.

usage: bench_peer.py TEMPER [--cases NAME,...] [--rounds N] [--work FOLDER] [--data FILE] [--json FILE] [--retune]
                     [--thorough]

Trains the same models in both: step time, tokens/s, peak memory of the process, start-up. PyTorch comes
from PyPI, into a virtual environment below --work (build/peer) that is made when it is missing; else a
python3 that has torch (Debian's python3-torch) is taken.

PyTorch gets its best setting: attention, memory and, where steps are short, threads are tried one after the
other, and what is fastest is kept (--work/tuned.json remembers it by version); compiled begins with eager's
best. --thorough also tries optimizers that are not fused, huge pages and the loss in chunks, which were never
faster, and tunes compiled from the beginning. temper runs what `temper plan` plans: of the precision only,
and where there is a target for memory, under a cap that is this share of what the leaner of
PyTorch's ways with fp32 weights, eager and compiled, took in the first round. The contestants take turns, every
one in a process of its own, --rounds times. A shared machine changes its speed from minute to minute: what
counts is the ratio of the fastest steps, and beside it stands that of the medians.

bf16 is held against autocast (fp32 weights, moments and gradients, as temper has them) and against `pure`,
where all of these are bf16 too: less work and memory, but updates below 1/256 of a weight are lost. temper
runs a second time with its gradients in bf16, too (--pin gradients=bf16), fp32 weights and moments as ever.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CHILD = os.path.join(HERE, "peer_torch.py")
CHILD_TIMEOUT_S = 1800
THREADS_TRIED_S = 0.2  # a longer step has work for all threads
CLEARLY = 0.99  # a setting replaces another when its step takes less than this share

GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257,
        "n_positions": 1024, "layer_norm_epsilon": 1e-5}
LLAMA = {"model_type": "llama", "num_hidden_layers": 12, "hidden_size": 768,
         "num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 2048,
         "vocab_size": 32000, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu"}
CHAR = {"model_type": "gpt2", "n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 256,
        "n_positions": 64, "layer_norm_epsilon": 1e-5}
BF16 = ("autocast", "pure")
NARROW = "gradients=bf16"

# pins: temper's; also: more of them, in a second plan; ways: PyTorch's; faster: target for PyTorch's step /
# temper's; leaner: for temper's memory / PyTorch's.
SHORT = {"config": GPT2, "batch": 4, "seq_length": 64, "steps": 6, "ranks": 1}
LONG = {"config": GPT2, "batch": 1, "seq_length": 1024, "steps": 3, "ranks": 1, "faster": 1.2,
        "leaner": 0.7}
RECIPE = {"config": CHAR, "batch": 12, "seq_length": 64, "steps": 100, "ranks": 2, "faster": 3.0}
CASES = {
    "gpt2-short-fp32": {**SHORT, "pins": "precision=fp32", "ways": ("fp32",), "faster": 1.0},
    "gpt2-short-bf16": {**SHORT, "pins": "precision=bf16", "also": NARROW, "ways": BF16, "faster": 1.2},
    "gpt2-long-fp32": {**LONG, "pins": "precision=fp32", "ways": ("fp32",)},
    "gpt2-long-bf16": {**LONG, "pins": "precision=bf16", "also": NARROW, "ways": BF16},
    "llama-long-fp32": {**LONG, "config": LLAMA, "pins": "precision=fp32", "ways": ("fp32",)},
    "llama-long-bf16": {**LONG, "config": LLAMA, "pins": "precision=bf16", "also": NARROW, "ways": BF16},
    "char-fp32": {**RECIPE, "pins": "precision=fp32", "ways": ("fp32",)},
    "char": {**RECIPE, "pins": None, "ways": ("fp32", *BF16)},
}
LIMIT_TARGET = 0.85
BF16_TARGET = 2.0  # temper's fp32 step / its bf16 step
START_TARGET_S = 2.0
START = "start-up"

MEMORY_VARIABLES = {
    "default": {},
    # glibc gives freed memory back late, so that the next step finds its pages
    "keep": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)},
    "huge": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
             "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1"},
}


def say(*words):
    print(*words, flush=True)


# ---- PyTorch ----------------------------------------------------------------------------------------

def has_torch(python):
    try:
        return subprocess.run([python, "-c", "import torch"], capture_output=True,
                              check=False).returncode == 0
    except OSError:
        return False


def find_peer(work):
    """A python that imports torch: of the virtual environment, which is made, or of the system."""
    folder = os.path.join(work, "venv")
    python = os.path.join(folder, "bin", "python")
    if has_torch(python):
        return python
    say(f"installing PyTorch into {folder}: a few GiB")
    log = os.path.join(work, "pip.log")
    with open(log, "w", encoding="utf-8") as out:
        for command in ([sys.executable, "-m", "venv", "--clear", folder],
                        [python, "-m", "pip", "install", "torch", "numpy"]):
            if subprocess.run(command, stdout=out, stderr=out, check=False).returncode != 0:
                break
    if has_torch(python):
        return python
    for python in (sys.executable, "/usr/bin/python3"):
        if has_torch(python):
            say(f"pip could not install torch ({log}): taking that of {python}")
            return python
    sys.exit(f"no PyTorch: pip could not install torch ({log} says why) and no python3 has it; "
             "apt-get install python3-torch would do")


class Peer:
    """Runs settings in processes of their own."""

    def __init__(self, python, work, data):
        self.python, self.work, self.data = python, work, data
        self.about = self.child("--about")

    def child(self, argument, variables=None):
        """The child's object; None, and why on standard error, when it fails."""
        cache = {"TORCHINDUCTOR_CACHE_DIR": os.path.join(self.work, "inductor")}
        try:
            done = subprocess.run([self.python, CHILD, argument], capture_output=True, text=True,
                                  check=False, timeout=CHILD_TIMEOUT_S,
                                  env={**os.environ, **cache, **(variables or {})})
        except subprocess.TimeoutExpired:
            return None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            print(f"  PyTorch, {argument}: {lines[-1]}", file=sys.stderr)
            return None
        return json.loads(done.stdout.splitlines()[-1])

    def run(self, case, setting, steps):
        """Times and memory of one process."""
        words = {**setting, "model": case["config"], "batch": case["batch"],
                 "seq_length": case["seq_length"], "data": self.data, "steps": steps}
        started_unix_s = time.time()
        got = self.child(json.dumps(words), MEMORY_VARIABLES[setting["memory"]])
        if got is not None:
            got["first_step_s"] = got["first_step_ended_unix_s"] - started_unix_s
        return got

    def choices(self, case):
        """What is tried, in this order; the first of each is the usual one."""
        attention = ["sdpa"] if self.about["sdpa"] else []
        if attention and "num_key_value_heads" in case["config"]:
            attention.append("repeat")
        return {
            "attention": [*attention, "plain"],
            "memory": list(MEMORY_VARIABLES),
            "loss": ["whole", "chunked"] if self.about["chunked"] else ["whole"],
            "optimizer": (["fused"] if self.about["fused"] else []) + ["foreach", "loop"],
            "threads": sorted({os.cpu_count(), 1}, reverse=True),
        }

    def tune(self, case, precision, is_compiled, begin, is_thorough):
        """The fastest setting, one choice after the other from `begin` on, and all that was tried; None: nothing
        worked."""
        choices = self.choices(case)
        best = {"precision": precision, "compile": is_compiled,
                **(begin or {name: values[0] for name, values in choices.items()})}
        if not is_thorough:
            choices = {"attention": choices["attention"], "memory": choices["memory"][:2],
                       "threads": choices["threads"]}
            if is_compiled:
                choices = {"attention": choices["attention"]}
        best_s, tried, steps = None, [], max(2, case["steps"] // 2)

        def measure(setting):
            got = self.run(case, setting, steps)
            if got is None:
                return float("inf")
            tried.append({"setting": setting, "step_s": min(got["step_s"]),
                          "peak_bytes": got["peak_bytes"]})
            return min(got["step_s"])

        best_s = measure(best)
        for name, values in choices.items():
            if name == "threads" and best_s > THREADS_TRIED_S and not is_thorough:
                continue
            for value in values:
                if value == best[name]:
                    continue
                seconds = measure({**best, name: value})
                if seconds < CLEARLY * best_s:
                    best, best_s = {**best, name: value}, seconds
        if not tried:
            return None
        say(f"  {label(best)}: {format_s(best_s)} of {len(tried)} settings")
        return {"setting": best, "tried": tried}


def label(setting):
    """`compiled autocast, attention plain, 2 threads`: what is not the usual is named."""
    words = ["compiled" if setting["compile"] else "eager", setting["precision"]]
    usual = {"attention": "sdpa", "memory": "default", "loss": "whole", "optimizer": "fused"}
    more = [f"{name} {setting[name]}" for name, value in usual.items() if setting[name] != value]
    return ", ".join([" ".join(words), *more, f"{setting['threads']} threads"])


def tuned_settings(peer, name, case, options):
    """The contestants of a case, from the file of what is known or by trying."""
    path = os.path.join(options.work, "tuned.json")
    known = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    settings = []
    for precision in case["ways"]:
        begin = None
        for is_compiled in (False, True) if peer.about["compile"] else (False,):
            key = f"{name}/{precision}/{'compiled' if is_compiled else 'eager'}/{peer.about['version']}"
            if options.retune or key not in known:
                known[key] = peer.tune(case, precision, is_compiled, begin, options.thorough)
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(known, file, indent=1)
            if known[key] is None:
                continue
            settings.append(known[key])
            if not options.thorough:
                begin = {name: value for name, value in known[key]["setting"].items()
                         if name not in ("precision", "compile")}
    return settings


# ---- temper -----------------------------------------------------------------------------------------

class Temper:
    def __init__(self, binary, work, data):
        self.binary, self.work, self.data = binary, work, data

    def call(self, *arguments):
        done = subprocess.run([self.binary, *arguments, "--json"], stdout=subprocess.PIPE,
                              check=False)
        if done.returncode != 0:
            sys.exit(f"temper {' '.join(arguments)}: exit code {done.returncode}")
        return json.loads(done.stdout)

    def model(self, case):
        """The options that name the case's model, whose config is written for that."""
        config = case["config"]
        blocks = config.get("n_layer") or config["num_hidden_layers"]
        path = os.path.join(self.work, f"{config['model_type']}-{blocks}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file, indent=1)
        return ["--model", path, "--seq-length", str(case["seq_length"])]

    def plan(self, name, case, cap_bytes=None, also=None):
        """The plan's file, from a profile that is not older than the program; `also`: pins besides the case's.
        A cap that no plan fits is left out."""
        model = self.model(case)
        kind = os.path.basename(model[1])[:-len(".json")]
        store = os.path.join(self.work, f"{kind}-{case['seq_length']}-{case['batch']}.db")
        if not os.path.exists(store) or os.path.getmtime(store) < os.path.getmtime(self.binary):
            fresh = store + ".new"  # whole or not there
            if os.path.exists(fresh):
                os.remove(fresh)
            fixed = ["--ranks", "1", "--micro-batches", str(case["batch"])]
            self.call("profile", *model, *(fixed if case["ranks"] == 1 else []), "--store", fresh)
            os.replace(fresh, store)
        plan = os.path.join(self.work, f"{name}{'-' + also if also else ''}-plan.json")
        pins = [pin for pin in (case["pins"], also) if pin]
        if case["ranks"] == 1:
            pins.append(f"dp=1,micro-batch={case['batch']}")
        wanted = ["plan", *model, "--store", store, "--ranks", str(case["ranks"]),
                  "--global-batch", str(case["batch"]), "-o", plan,
                  *(["--pin", ",".join(pins)] if pins else [])]
        cap = ["--memory-cap", f"{int(cap_bytes / 2**20)}MiB"] if cap_bytes else []
        if cap and subprocess.run([self.binary, *wanted, *cap], stdout=subprocess.DEVNULL,
                                  check=False).returncode == 0:
            return plan, store
        self.call(*wanted)
        return plan, store

    @staticmethod
    def describe(plan):
        """What was planned: `1 ranks x 2 threads, fp32, recompute none 18, selective 6`: of how many blocks'
        layers."""
        with open(plan, encoding="utf-8") as file:
            plan = json.load(file)
        layers = [layer for layer in plan["layers"] if layer["kind"] in ("attention", "mlp")]
        modes = [layer["recompute"] for layer in layers]
        words = [f"{plan['ranks']} ranks x {plan['threads']} threads",
                 " and ".join(sorted({layer["precision"] for layer in layers})),
                 "recompute " + ", ".join(f"{mode} {modes.count(mode)}" for mode in sorted(set(modes)))]
        if plan["gradient_reduction"] != "fp32":
            words.insert(2, f"gradients {plan['gradient_reduction']}")
        return ", ".join(words)

    def run(self, plan, store, steps):
        """Times of all steps but the first, and memory."""
        with tempfile.NamedTemporaryFile(suffix=".jsonl", dir=self.work) as log:
            told = self.call("run", plan, "--data", self.data, "--steps", str(steps + 1),
                             "--store", store, "--lr", "3e-4", "--beta2", "0.95",
                             "--eval-interval", "0", "--eval-windows", "1", "--log", log.name)
            rows = [json.loads(line) for line in log]
        rows = [row for row in rows if "step_time_s" in row]
        return {"step_s": [row["step_time_s"] for row in rows[1:]],
                "losses": [row["loss"] for row in rows], "peak_bytes": told["peak_bytes"]}

    def start(self, plan, store):
        """Seconds from exec to the end of the first step, less the step's own."""
        arguments = [self.binary, "run", plan, "--data", self.data, "--steps", "1", "--store",
                     store, "--eval-windows", "1"]
        started_s = time.monotonic()
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                step = re.match(r"step +1/1 .* ([0-9.]+) ms ", line)
                if step:
                    ended_s = time.monotonic()
                    process.stdout.read()
                    return ended_s - started_s - float(step[1]) / 1e3
        sys.exit(f"temper run {plan}: no line of a first step")


def limit_of(bench_step, temper, case):
    """What this moment's rates allow: bench_step's object."""
    precision = case["pins"].split("=")[1]
    done = subprocess.run(
        [bench_step, *temper.model(case), "--micro-batch", str(case["batch"]), "--precision",
         precision, "--threads", str(os.cpu_count()), "--steps", "2", "--json"],
        stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{bench_step}: exit code {done.returncode}")
    return json.loads(done.stdout)


# ---- side by side -----------------------------------------------------------------------------------

def format_s(seconds):
    return f"{seconds:.2f} s" if seconds >= 10 else f"{1e3 * seconds:.1f} ms"


def check_work(name, case, temper, peer):
    """Both have the same parameters and the same matrix products, or nothing is compared."""
    ours = temper.call("model", *temper.model(case), "--micro-batch", str(case["batch"]))
    words = {"model": case["config"], "batch": case["batch"], "seq_length": case["seq_length"],
             "count": True}
    theirs = peer.child(json.dumps(words))
    flops = sum(layer["forward_flops"] for layer in ours["layers"])
    if theirs is None or ours["parameters"] != theirs["parameters"] or \
            abs(flops / theirs["forward_flops"] - 1) > 1e-6:
        sys.exit(f"{name}: not the same work: {ours['parameters']} parameters and {flops:g} FLOPs "
                 f"forward, PyTorch {theirs}")
    return {"parameters": ours["parameters"], "step_flops": 3 * flops}


def falls(rows):
    return all(row["losses"][-1] < row["losses"][0] for row in rows)


def summary(rows):
    """Of all rounds of one contestant."""
    seconds = [s for row in rows for s in row["step_s"]]
    return {"fastest_s": min(seconds), "median_s": statistics.median(seconds),
            "peak_bytes": max(row["peak_bytes"] for row in rows), "loss_falls": falls(rows)}


def memory_cap(case, contestants, theirs):
    """Where memory has a target: that share of what PyTorch's leaner way with fp32 weights has just taken."""
    peaks = [rows[0]["peak_bytes"] for rows, contestant in zip(theirs, contestants)
             if rows and contestant["setting"]["precision"] != "pure"]
    return case["leaner"] * min(peaks) if "leaner" in case and peaks else None


def compare(name, case, temper, peer, options):
    """One case; the object for --json."""
    say(f"{name}: batch {case['batch']} of {case['seq_length']} tokens")
    work = check_work(name, case, temper, peer)
    contestants = tuned_settings(peer, name, case, options)
    ways = [None, case["also"]] if "also" in case else [None]
    has_limit = case["ranks"] == 1
    plans, limits, ours, theirs = [], [], [[] for _ in ways], [[] for _ in contestants]
    for _ in range(options.rounds):
        if has_limit:
            limits.append(limit_of(options.bench_step, temper, case))
        for rows, contestant in zip(theirs, contestants):
            got = peer.run(case, contestant["setting"], case["steps"])
            if got is not None:
                rows.append(got)
        plans = plans or [temper.plan(name, case, memory_cap(case, contestants, theirs), way)
                          for way in ways]
        for rows, (plan, store) in zip(ours, plans):
            rows.append(temper.run(plan, store, case["steps"]))
    told = [{**summary(rows), "plan": Temper.describe(plan)} for rows, (plan, _) in zip(ours, plans)]
    result = {"case": name, **work, "tokens": case["batch"] * case["seq_length"], "temper": told[0],
              "also": told[1:], "peers": []}
    for rows, contestant in zip(theirs, contestants):
        if rows:
            result["peers"].append({**summary(rows), "import_bytes": rows[0]["import_bytes"],
                                    **contestant})
    if limits:
        best = min(limits, key=lambda limit: limit["limit_s"])
        result["limit"] = {**best, "share": best["limit_s"] / result["temper"]["fastest_s"]}
    tell_case(case, result)
    return result


def tell_row(who, row, result, ratio=None):
    tokens_s = result["tokens"] / row["fastest_s"]
    say(f"  {who:64} {format_s(row['fastest_s']):>10} {format_s(row['median_s']):>10} "
        f"{tokens_s:10.0f} {row['peak_bytes'] / 2**20:8.0f} MiB"
        + (f" {ratio:6.2f}x" if ratio else "")
        + ("" if row["loss_falls"] else "  THE LOSS DOES NOT FALL"))


def tell_case(case, result):
    ours = result["temper"]
    say(f"  {result['parameters']} parameters, {result['step_flops'] * 1e-9:.1f} GFLOP a step")
    say(f"  {'':64} {'fastest':>10} {'median':>10} {'tokens/s':>10} {'memory':>12} {'temper is':>7}")
    tell_row("temper, " + ours["plan"], ours, result)
    for row in result["also"]:
        tell_row("temper, " + row["plan"], row, result, row["fastest_s"] / ours["fastest_s"])
    for row in result["peers"]:
        tell_row("PyTorch " + label(row["setting"]), row, result,
                 row["fastest_s"] / ours["fastest_s"])
    if not result["peers"]:
        return
    best = min(result["peers"], key=lambda row: row["fastest_s"])
    same_work = [row for row in result["peers"] if row["setting"]["precision"] != "pure"] or [best]
    alike = min(same_work, key=lambda row: row["fastest_s"])
    lean_bytes = min(row["peak_bytes"] for row in same_work)
    result["faster_alike"] = alike["fastest_s"] / ours["fastest_s"]
    result["faster"] = best["fastest_s"] / ours["fastest_s"]
    result["faster_median"] = best["median_s"] / ours["median_s"]
    result["memory_share"] = ours["peak_bytes"] / lean_bytes
    say(f"  PyTorch's best step / temper's: {result['faster']:.2f}, of medians "
        f"{result['faster_median']:.2f} (target {case['faster']:.1f}); of its best with fp32 weights "
        f"{result['faster_alike']:.2f}")
    for row in result["also"]:
        row["faster"] = best["fastest_s"] / row["fastest_s"]
        row["faster_alike"] = alike["fastest_s"] / row["fastest_s"]
        row["memory_share"] = row["peak_bytes"] / lean_bytes
        say(f"  the same for temper with {case['also']}: {row['faster']:.2f}; {row['faster_alike']:.2f}; its memory "
            f"{row['memory_share']:.2f}")
    target = f" (target {case['leaner']:.2f})" if "leaner" in case else ""
    say(f"  temper's memory / that of PyTorch's leaner with fp32 weights: {result['memory_share']:.2f}{target}; "
        f"{best['import_bytes'] / 2**20:.0f} MiB of PyTorch's are there after its import")
    tried = [row for peer in result["peers"] for row in peer["tried"]]
    leanest = min(tried, key=lambda row: row["peak_bytes"])
    result["leanest"] = leanest
    say(f"  PyTorch's leanest: {leanest['peak_bytes'] / 2**20:.0f} MiB at "
        f"{format_s(leanest['step_s'])} ({label(leanest['setting'])})")
    if "limit" in result:
        limit = result["limit"]
        say(f"  limit {format_s(limit['limit_s'])} (products {limit['matmul_flops'] * 1e-9:.0f} "
            f"GFLOP/s, copy {limit['copy_bytes_per_s'] * 1e-9:.1f} GB/s): temper's step reaches "
            f"{100 * limit['share']:.0f} %")


def compare_start(temper, peer, options):
    """Start-up with GPT-2 124M: from exec to the first step, less what a step takes."""
    case = CASES["gpt2-short-fp32"]
    plan, store = temper.plan("gpt2-short-fp32", case)
    setting = {name: values[0] for name, values in peer.choices(case).items()}
    setting.update(precision="fp32", compile=False)
    ours, theirs = [], []
    for _ in range(options.rounds):
        ours.append(temper.start(plan, store))
        got = peer.run(case, setting, 2)
        if got is not None:
            theirs.append(got["first_step_s"] - min(got["step_s"]))
    say(f"{START}: temper {min(ours):.2f} s (median {statistics.median(ours):.2f} s, target "
        f"{START_TARGET_S:.1f} s)" + (f", PyTorch eager {min(theirs):.2f} s" if theirs else ""))
    return {"case": START, "temper_s": ours, "peer_s": theirs}


def tell_targets(results):
    """The two that compare cases or rates."""
    by_name = {result["case"]: result for result in results}
    short, half = by_name.get("gpt2-short-fp32"), by_name.get("gpt2-short-bf16")
    if short:
        say(f"gpt2-short-fp32 reaches {100 * short['limit']['share']:.0f} % of its limit (target "
            f"{100 * LIMIT_TARGET:.0f} %)")
    if short and half:
        ratio = short["temper"]["fastest_s"] / half["temper"]["fastest_s"]
        say(f"temper's bf16 step is {ratio:.2f} times as fast as its fp32 step (target "
            f"{BF16_TARGET:.1f})")


def text_file(folder):
    """The licence texts of base-files, which every Debian has."""
    path = os.path.join(folder, "licences.txt")
    with open(path, "wb") as out:
        for name in sorted(os.listdir("/usr/share/common-licenses")):
            with open(os.path.join("/usr/share/common-licenses", name), "rb") as part:
                out.write(part.read())
    return path


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", metavar="TEMPER")
    parser.add_argument("--cases", default=",".join([*CASES, START]))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", default=os.path.join(ROOT, "build", "peer"))
    parser.add_argument("--data")
    parser.add_argument("--json")
    parser.add_argument("--retune", action="store_true")
    parser.add_argument("--thorough", action="store_true")
    options = parser.parse_args()
    options.names = options.cases.split(",")
    for name in options.names:
        if name not in CASES and name != START:
            parser.error(f"--cases {name}: known are {', '.join([*CASES, START])}")
    options.bench_step = os.path.join(os.path.dirname(os.path.abspath(options.binary)), "..",
                                      "tests", "bench", "bench_step")
    return options


def main():
    options = parse_options()
    os.makedirs(options.work, exist_ok=True)
    data = options.data or text_file(options.work)
    peer = Peer(find_peer(options.work), options.work, data)
    if peer.about is None:
        sys.exit("PyTorch does not start")
    temper = Temper(options.binary, options.work, data)
    say(f"PyTorch {peer.about['version']} ({peer.about['isa']}), {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} before")
    results = []
    for name in options.names:
        if name == START:
            results.append(compare_start(temper, peer, options))
        else:
            results.append(compare(name, CASES[name], temper, peer, options))
    tell_targets(results)
    say(f"load {os.getloadavg()[0]:.1f} after")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"peer": peer.about, "cases": results}, file, indent=1)


if __name__ == "__main__":
    main()
