"""One training over two hosts: what runs there is what one device computes, a profile sees that the
link between them is slower than a host's memory, and a plan keeps the heavy traffic inside.

Skipped, with the reason, where the machine makes no network namespaces. With TEMPER_TEST_LARGE the
planned model is one whose layers are worth sharing between hosts while the link is fast."""
import collections
import json
import os
import pathlib
import signal
import statistics
import sys
import time
import unittest

from hosts import NAMES, Hosts, Refused, pids_in

TEMPER = os.path.abspath(os.environ["TEMPER"])
SKIPPED = 77
PATIENCE_S = 120
LOSS_TOLERANCE = 1e-5  # relative, of the first steps in fp32; docs/parity.md derives what it is

Split = collections.namedtuple("Split", "pipeline data tensor")

# Rates of the link as tc writes them, bytes a second in each direction.
RATES = {"1gbit": 125e6, "100mbit": 12.5e6}
SLOW = "100mbit"
# A transfer that fits the shaper's burst is free: less than this share of those looked at.
BURST_SHARE = 0.15

STEPS = 5
MICRO_BATCHES = {"one": 16, "three": 8}
HIDDEN, SEQ_LENGTH, BLOCKS = 128, 64, 2
PLANNED_HIDDEN = "512" if os.environ.get("TEMPER_TEST_LARGE") else "256"
PLANNED_MODEL = ["--model", "gpt2", "--layers", "1", "--hidden", PLANNED_HIDDEN, "--heads", "4",
                 "--seq-length", "128", "--vocab-size", "64", "--positions", "128"]
# Splits of four ranks, two on each host, by global batch: of one sequence nothing can be in flight
# and only a layer can be shared; of eight, replicas and pipelines have work as well.
SPLITS = {1: [Split(1, 1, 4), Split(2, 1, 2), Split(4, 1, 1)],
          8: [Split(1, 4, 1), Split(1, 2, 2), Split(1, 1, 4), Split(2, 2, 1), Split(2, 1, 2),
              Split(4, 1, 1)]}
# Of which every layer's collectives go over the link.
CROSSING = {1: Split(1, 1, 4), 8: Split(1, 4, 1)}

hosts = None


def make_plan(pipeline, data_parallel, tensor_parallel, micro_batches):
    kinds = ["embedding"] + ["attention", "mlp"] * BLOCKS + ["head"]
    return {
        "format": "temper-plan", "version": 2, "created_unix_ms": 0, "status": "predicted",
        "threads": 1, "global_batch": micro_batches * data_parallel, "micro_batch": 1,
        "micro_batches": micro_batches, "memory_cap_bytes": 0, "pins": "", "host": "",
        "model_hash": "", "profile_hash": "", "ranks": pipeline * data_parallel * tensor_parallel,
        "data_parallel": data_parallel, "pipeline": pipeline, "tensor_parallel": tensor_parallel,
        "virtual_stages": 1, "schedule": "1f1b",
        "model": {"name": "small", "family": "gpt2", "blocks": BLOCKS, "hidden": HIDDEN,
                  "heads": 4, "kv_heads": 4, "head_dim": HIDDEN // 4, "ffn": 4 * HIDDEN,
                  "vocab": 256, "norm_epsilon": 1e-5, "rope_theta": 0.0, "tied_head": True,
                  "positions": SEQ_LENGTH, "sliding_window": 0, "seq_length": SEQ_LENGTH},
        "objective": {"weight_time": 1, "weight_memory": 0, "weight_energy": 0, "raw": False,
                      "time_unit_s": 1, "memory_unit_bytes": 1, "energy_unit_j": 0, "value": 1,
                      "bound": 1, "gap": 0},
        "layers": [{"layer": i, "kind": kind, "recompute": "none", "precision": "fp32",
                    "zero_stage": 1 if data_parallel > 1 else 0,
                    "stage": i * pipeline // len(kinds), "tensor_parallel": tensor_parallel,
                    "sequence_parallel": tensor_parallel > 1}
                   for i, kind in enumerate(kinds)],
    }


def make_world(folder):
    text = "".join(f"{i} bottles of ink stand on shelf {i * i % 97}, said clerk {i * 7 % 13}.\n"
                   for i in range(600))
    (folder / "text.txt").write_text(text)
    for name, degrees in {"one": (1, 1, 1), "three": (2, 2, 2)}.items():
        plan = make_plan(*degrees, MICRO_BATCHES[name])
        (folder / f"{name}.json").write_text(json.dumps(plan))
    plan = make_plan(2, 2, 1, 2)
    (folder / "two.json").write_text(json.dumps(plan))


def finish(process):
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise AssertionError(f"exit code {process.returncode}: {out[-2000:]}{err[-4000:]}")
    return out, err


def done(*command, ranks_a_host):
    return finish(hosts.start(command, ranks_a_host))[0]


def read_log(name):
    rows = [json.loads(line) for line in (hosts.folder / name).read_text().splitlines()]
    return {row["step"]: row for row in rows if "loss" in row}


def run_command(plan, log, steps=STEPS):
    return [TEMPER, "run", plan, "--data", "text.txt", "--store", "runs.db", "--steps", steps,
            "--log", log, "--eval-interval", "0", "--eval-windows", "1", "--no-trace"]


class World(unittest.TestCase):
    maxDiff = None

    def assert_same_losses(self, log, expected):
        losses = {step: row["loss"] for step, row in read_log(log).items()}
        self.assertEqual(sorted(losses), sorted(expected))
        for step, loss in losses.items():
            self.assertLessEqual(abs(loss - expected[step]), LOSS_TOLERANCE * expected[step],
                                 f"{log}, step {step}: {loss}, one device {expected[step]}")


class Launching(World):
    def places(self, *options):
        """rank -> (host, ranks of its host)"""
        script = "echo $OMPI_COMM_WORLD_RANK $(uname -n) $OMPI_COMM_WORLD_LOCAL_SIZE"
        out = done("mpirun", "-np", 4, *options, "sh", "-c", script, ranks_a_host=2)
        return {int(rank): (host, int(count))
                for rank, host, count in (line.split() for line in out.splitlines())}

    def test_hosts_are_filled_in_order(self):
        self.assertEqual(self.places(), {0: ("alpha", 2), 1: ("alpha", 2), 2: ("beta", 2),
                                         3: ("beta", 2)})

    def test_hosts_in_turn(self):
        self.assertEqual(self.places("--map-by", "node"),
                         {0: ("alpha", 2), 1: ("beta", 2), 2: ("alpha", 2), 3: ("beta", 2)})


class Running(World):
    """tp x pp x dp = 2 x 2 x 2: with hosts filled in order each is a pipeline stage; with hosts in
    turn every pair of tensor-parallel ranks is split between them."""

    @classmethod
    def setUpClass(cls):
        done(*run_command("one.json", "one.jsonl"), ranks_a_host=1)
        cls.expected = {step: row["loss"] for step, row in read_log("one.jsonl").items()}

    def train(self, rate, name, *launcher):
        """Bytes over the link; the losses are one device's."""
        log = f"{rate}-{name.replace(' ', '-')}.jsonl"
        hosts.shape(rate)
        before = hosts.link_bytes()
        done(*launcher, *run_command("three.json", log), ranks_a_host=4)
        carried = hosts.link_bytes() - before
        self.assert_same_losses(log, self.expected)
        steps_s = [row["step_time_s"] for row in read_log(log).values()]
        print(f"run, link {rate or 'unshaped'}, {name}: {carried / 1e6:.1f} MB, "
              f"{statistics.median(steps_s) * 1e3:.0f} ms a step", flush=True)
        # Each replica's residual stream goes over once a micro-batch, and its gradient back.
        stream_bytes = SEQ_LENGTH * HIDDEN * 4
        self.assertGreater(carried, STEPS * MICRO_BATCHES["three"] * 2 * 2 * stream_bytes)
        if rate is not None:  # as much in each direction, most of it in steps
            self.assertGreater(sum(steps_s), 0.7 * carried / 2 / RATES[rate])
        return carried

    def test_full_speed_started_by_temper(self):
        self.train(None, "hosts filled")

    def test_slow_link_under_mpirun(self):
        mpirun = ["mpirun", "-np", 8]
        filled_bytes = self.train(SLOW, "hosts filled", *mpirun)
        turn_bytes = self.train(SLOW, "hosts in turn", *mpirun, "--map-by", "node")
        self.assertGreater(turn_bytes, 5 * filled_bytes)


class Dying(World):
    STEPS = 200  # a second of them is left when the rank is killed

    def train(self, log, *options):
        return run_command("two.json", log, self.STEPS) + list(options)

    def test_a_rank_of_the_other_host_dies(self):
        hosts.shape(None)
        done(*self.train("whole.jsonl"), ranks_a_host=2)
        process = hosts.start(self.train("died.jsonl", "--save", "saved", "--save-interval", "50",
                                         "--max-restarts", "1"), 2)
        wait_for_step(process, 60)
        os.kill(max(ranks_on("beta")), signal.SIGKILL)
        _, err = finish(process)
        self.assertRegex(err, r"rank [23] died of signal 9 .*; restart 1 of 1 continues after step "
                              r"\d+, from saved/step-")
        whole, died = read_log("whole.jsonl"), read_log("died.jsonl")
        self.assertEqual({step: row["loss"] for step, row in died.items()},
                         {step: row["loss"] for step, row in whole.items()})


def wait_for_step(process, step):
    for line in process.stdout:
        words = line.split()
        if words[:1] == ["step"] and int(words[1].split("/")[0]) >= step:
            return


def ranks_on(name):
    return [pid for pid in pids_in(hosts.prefix + name)
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "temper"]


class Planning(World):
    """Two ranks on each host: neighbours share one, ranks two apart do not."""

    def profile(self, rate):
        hosts.shape(rate)
        begin_s = time.monotonic()
        out = done("mpirun", "-np", 4, TEMPER, "profile", *PLANNED_MODEL, "--store",
                   store_of(rate), "--budget", "3", "--micro-batches", "1", "--precision",
                   "fp32", "--threads", "1", "--relative-error", "0.2", "--json", ranks_a_host=2)
        links = {}
        for row in json.loads(out)["links"]:
            links[row["link"], row["group"], row["apart"]] = row
        shown = ", ".join(f"{apart} apart {row['bytes_per_s'] / 1e6:.1f} MB/s ({row['on']})"
                          for (kind, _, apart), row in links.items() if kind == "point-to-point")
        print(f"profile, link {rate or 'unshaped'}, {time.monotonic() - begin_s:.0f} s: {shown}",
              flush=True)
        return links

    def check_tiers(self, rate, links):
        near = links["point-to-point", 2, 1]
        self.assertEqual(near["on"], "same host")
        for apart, pairs in ((2, 2), (3, 1)):
            far = links["point-to-point", 2, apart]
            self.assertEqual(far["on"], "between hosts")
            self.assertGreaterEqual(near["bytes_per_s"], 3 * far["bytes_per_s"])
            share = far["bytes_per_s"] * pairs / RATES[rate]
            self.assertLess(share, 1 + BURST_SHARE, f"{apart} apart")
            self.assertGreater(share, 0.1, f"{apart} apart")
        for kind in ("all-reduce", "all-gather", "reduce-scatter"):
            inside, across = links[kind, 2, 1], links[kind, 4, 1]
            self.assertEqual((inside["on"], across["on"]), ("same host", "between hosts"))
            self.assertGreaterEqual(inside["bytes_per_s"], 3 * across["bytes_per_s"], kind)

    def plan(self, rate, global_batch, split=None):
        """What temper plan --json prints of the best plan, or of the best with this split."""
        pins = [] if split is None else ["--pin", "pp={},dp={},tp={}".format(*split)]
        return json.loads(done(TEMPER, "plan", *PLANNED_MODEL, "--store", store_of(rate),
                               "--ranks", "4", "--global-batch", global_batch, "--json", *pins,
                               ranks_a_host=2))

    def compare(self, rate, global_batch):
        """The chosen plan, and how many times longer the crossing split takes."""
        chosen = self.plan(rate, global_batch)
        plan, time_s = chosen["plan"], chosen["time_s"]
        times_s = {split: self.plan(rate, global_batch, split)["time_s"]
                   for split in SPLITS[global_batch]}
        degrees = Split(plan["pipeline"], plan["data_parallel"], plan["tensor_parallel"])
        print(f"plan, link {rate or 'unshaped'}, global batch {global_batch}: "
              f"{name_of(degrees)}, {1e3 * time_s:.1f} ms, between hosts: "
              f"{' and '.join(sorted(crossing(plan))) or 'pipeline only'}; pinned " +
              ", ".join(f"{name_of(split)} {1e3 * value:.1f} ms"
                        for split, value in times_s.items()), flush=True)
        self.assertLessEqual(time_s, min(times_s.values()) * (1 + 1e-9))
        return plan, times_s[CROSSING[global_batch]] / time_s

    def test_plans_by_link(self):
        self.profile(None)
        shares = {batch: self.compare(None, batch)[1] for batch in SPLITS}
        self.check_tiers("1gbit", self.profile("1gbit"))
        for batch in SPLITS:
            self.compare("1gbit", batch)
        self.check_tiers(SLOW, self.profile(SLOW))
        for batch, share in shares.items():
            plan, slow_share = self.compare(SLOW, batch)
            self.assertEqual(crossing(plan), set())
            self.assertGreater(slow_share, 1.5)
            self.assertGreater(slow_share, share)


def name_of(split):
    return "pp x dp x tp = {}x{}x{}".format(*split)


def store_of(rate):
    return f"profile-{rate}.db"


def crossing(plan):
    """Which kinds of group of any layer have ranks on both hosts: {"tensor", "data"}."""
    stage_ranks = plan["data_parallel"] * plan["tensor_parallel"]
    found = set()
    for layer in plan["layers"]:
        first = layer["stage"] % plan["pipeline"] * stage_ranks
        ways = layer["tensor_parallel"]
        groups = {"tensor": [range(first + place, first + place + ways)
                             for place in range(0, stage_ranks, ways)],
                  "data": [range(first + place, first + stage_ranks, ways)
                           for place in range(ways)]}
        for kind, ranks_of in groups.items():
            if any(len({rank // 2 for rank in ranks}) > 1 for ranks in ranks_of):
                found.add(kind)
    return found


def end(*_):
    """As Ctrl-C does: unittest takes any other exception for a failed test and goes on."""
    raise KeyboardInterrupt


def main():
    global hosts
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        with Hosts() as hosts:
            make_world(hosts.folder)
            unittest.main(verbosity=2)
    except Refused as refusal:
        print(f"skipped: two hosts cannot be made here: {refusal}")
        sys.exit(SKIPPED)


main()
