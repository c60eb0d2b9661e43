"""Ranks killed with SIGKILL at random moments, while they start and while a checkpoint is written
included: the message names the rank (unless mpirun itself hangs, which Open MPI 4 can when a rank
dies as it connects), the others are gone within ten seconds, and the run goes on
from its newest whole checkpoint to the same bytes as a run that nobody disturbed.

Usage: sweep_kills.py [--kills N] [--seed N]. Runs of a few kills each follow one another until
there were N, under a sharded, a tensor-parallel, a pipeline and a plain plan in turn; every run is
compared with an undisturbed one of its plan. The seed is printed."""
import argparse
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import tempfile
import threading
import time

import harness

STEPS, SAVE_INTERVAL, KEEP = 3000, 60, 2
KILLS_A_RUN = 5
END_LIMIT_S = 10
DIED = re.compile(r"rank (?:(\d+) died of signal 9|died.*, and mpirun hung)")
PATIENCE_S = 60
PLANS = ("dp=2,zero=3", "tp=2", "pp=2", "dp=2")


class Failure(Exception):
    pass


def options(plan, folder):
    return ["run", plan, "--data", "text.txt", "--store", "t.db", "--steps", STEPS,
            "--eval-interval", "0", "--eval-windows", "2", "--log-interval", STEPS, "--trace-steps",
            "0", "--save", folder, "--save-interval", SAVE_INTERVAL, "--keep", KEEP, "--log",
            f"{folder}.jsonl"]


def content(path):
    """name -> hash of every file of a checkpoint."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(path.iterdir())}


class Reference:
    """The same training, which nobody disturbs."""

    def __init__(self, world, pins):
        self.plan = f"{pins}.json"
        folder = f"undisturbed-{pins}"
        for command in (["plan", *harness.MODEL, "--store", "t.db", "--global-batch", "4", "-o",
                         self.plan, "--ranks", "2", "--pin", pins], options(self.plan, folder)):
            begun_s = time.monotonic()
            done = harness.run(*command, folder=world)
            if done.returncode != 0:
                raise Failure(done.stderr)
        self.whole_s = time.monotonic() - begun_s
        self.wanted = content(world / folder / f"step-{STEPS:08d}")


class Disturbed:
    """One training whose ranks are killed."""

    def __init__(self, world, name, dice, reference):
        self.world, self.name, self.dice = world, name, dice
        self.reference = reference
        self.latest_s = reference.whole_s  # from the start of the ranks until a kill
        self.killed, self.slowest_s, self.while_saving = [], 0.0, 0
        self.process = harness.start(*options(reference.plan, name), "--max-restarts", "1000", folder=world)
        # Or a full pipe would stop them.
        self.said = {}
        self.readers = [threading.Thread(target=self.read, args=(key, stream)) for key, stream in
                        (("out", self.process.stdout), ("err", self.process.stderr))]
        for reader in self.readers:
            reader.start()

    def read(self, key, stream):
        self.said[key] = stream.read()

    def has_ended(self):
        return self.process.poll() is not None

    def wait_for(self, condition, what):
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end_s:
                raise Failure(f"{self.name}: {what} took longer than {PATIENCE_S} s")
            time.sleep(0.002)

    def wait_for_ranks(self):
        found = []

        def both_are_there():
            found[:] = harness.rank_pids(self.process)
            return len(found) == 2 or self.has_ended()
        self.wait_for(both_are_there, "starting the ranks")
        return found

    def wait_for_save(self):
        folder = self.world / self.name
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < 2 * self.latest_s and not self.has_ended():
            if folder.exists() and any(name.startswith(".tmp-") for name in os.listdir(folder)):
                return True
        return False

    def kill_one(self):
        """False: the run was over before."""
        ranks = self.wait_for_ranks()
        saving = self.dice.random() < 0.5
        time.sleep(self.dice.uniform(0, self.latest_s) * (0.3 if saving else 0.7))
        if saving:
            self.while_saving += self.wait_for_save()
            time.sleep(self.dice.uniform(0, 0.004))
        if self.has_ended() or len(ranks) < 2:
            return False
        which = self.dice.randrange(2)
        try:
            os.kill(ranks[which], signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.killed.append(which)
        killed_s = time.monotonic()
        self.wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in ranks),
                      "ending the other ranks")
        self.slowest_s = max(self.slowest_s, time.monotonic() - killed_s)
        return True

    def finish(self):
        self.wait_for(self.has_ended, "the rest of the training")
        for reader in self.readers:
            reader.join()

    def end(self):
        """Whatever became of it: nothing of it stays."""
        if not self.has_ended():
            self.process.kill()
            self.process.wait()
            for reader in self.readers:
                reader.join()

    def check(self):
        wanted = self.reference.wanted
        err = self.said["err"]
        if self.process.returncode != 0:
            raise Failure(f"{self.name}: exit code {self.process.returncode}: {err}")
        named = DIED.findall(err)
        wanted_names = [str(rank) if name else "" for rank, name in zip(self.killed, named)]
        # The last one may have done all its work before it was killed.
        if named != wanted_names or len(named) < len(self.killed) - 1:
            raise Failure(f"{self.name}: killed were {self.killed}, named {named}: {err}")
        if self.slowest_s > END_LIMIT_S:
            raise Failure(f"{self.name}: ranks lived on for {self.slowest_s:.1f} s")
        found = content(self.world / self.name / f"step-{STEPS:08d}")
        if found != wanted:
            raise Failure(f"{self.name}: the last checkpoint differs: {found}, not {wanted}")


def check_store(world, runs):
    with sqlite3.connect(world / "t.db") as database:
        rows = [row[0] for row in database.execute("SELECT status FROM run ORDER BY id")]
    if set(rows) - {"done", "failed"} or rows[-1] != "done" or rows.count("done") < runs:
        raise Failure(f"the store has runs {rows}")


def sweep(world, kills, seed):
    dice = random.Random(seed)
    begun_s = time.monotonic()
    references = {}
    done, saving, slowest_s, runs = 0, 0, 0.0, 0
    while done < kills:
        pins = PLANS[runs % len(PLANS)]
        if pins not in references:
            references[pins] = Reference(world, pins)
        run = Disturbed(world, f"run-{runs}", dice, references[pins])
        try:
            while len(run.killed) < min(KILLS_A_RUN, kills - done) and run.kill_one():
                pass
            run.finish()
        finally:
            run.end()
        run.check()
        runs += 1
        done += len(run.killed)
        saving += run.while_saving
        slowest_s = max(slowest_s, run.slowest_s)
    check_store(world, runs + len(references))
    print(f"{done} kills in {runs} runs, {saving} of them in a save, the slowest end took "
          f"{slowest_s:.1f} s; all together "
          f"{time.monotonic() - begun_s:.0f} s; every last checkpoint is the same")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    world = pathlib.Path(tempfile.mkdtemp(prefix="sweep-"))
    try:
        shutil.copytree(harness.world(), world, dirs_exist_ok=True)
        sweep(world, given.kills, given.seed)
    finally:
        shutil.rmtree(world, ignore_errors=True)


if __name__ == "__main__":
    main()
