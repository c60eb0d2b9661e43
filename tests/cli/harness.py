"""What the tests of the command line share: running temper, the world that they start from (a
profile, plans for one and two ranks, a text), and looking into what a run leaves behind.

TEMPER names the program, TEMPER_TEST_FOLDER a folder to work in."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import time
import unittest

TEMPER = os.path.abspath(os.environ["TEMPER"])
FOLDER = pathlib.Path(os.environ["TEMPER_TEST_FOLDER"]).resolve()
MODEL = ["--model", "gpt2", "--layers", "1", "--hidden", "32", "--heads", "2", "--seq-length", "16",
         "--vocab-size", "256", "--positions", "16"]
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none"]
if os.geteuid() == 0:
    MPIRUN.append("--allow-run-as-root")
PATIENCE_S = 60
FOREVER = "100000000"  # steps


def environment():
    """Ranks that share a core must not spin while they wait for each other."""
    return dict(os.environ, OMPI_MCA_mpi_yield_when_idle="1", OMP_WAIT_POLICY="passive",
                LC_ALL="C", COLUMNS="80")


def run(*arguments, folder=None, program=None, stdin=subprocess.DEVNULL):
    """temper with these arguments, to its end."""
    command = (program or [TEMPER]) + [str(argument) for argument in arguments]
    return subprocess.run(command, cwd=folder, env=environment(), stdin=stdin, text=True,
                          capture_output=True, timeout=PATIENCE_S, check=False, errors="replace")


def start(*arguments, folder, stdout=subprocess.PIPE):
    return subprocess.Popen([TEMPER] + [str(argument) for argument in arguments], cwd=folder,
                            env=environment(), stdin=subprocess.DEVNULL, stdout=stdout,
                            stderr=subprocess.PIPE, text=True, errors="replace")


def make_world(folder):
    """A store with a profile of one and two ranks, a plan for each, and a text."""
    text = "".join(f"{i} bottles of ink stand on shelf {i * i % 97}, said clerk {i * 7 % 13}.\n"
                   for i in range(600))
    (folder / "text.txt").write_text(text)
    for command in (
            ["profile", *MODEL, "--store", "t.db", "--budget", "1", "--micro-batches", "1,2",
             "--precision", "fp32", "--ranks", "1,2", "--threads", "1", "--relative-error", "0.5",
             "--json"],
            ["plan", *MODEL, "--store", "t.db", "--global-batch", "4", "-o", "one.json",
             "--pin", "dp=1"],
            ["plan", *MODEL, "--store", "t.db", "--global-batch", "4", "-o", "two.json",
             "--ranks", "2", "--pin", "dp=2,zero=0"]):
        result = run(*command, folder=folder)
        if result.returncode != 0:
            raise RuntimeError(f"temper {' '.join(command)}: {result.stderr}")
        (folder / f"{command[0]}.out").write_text(result.stdout)


def world():
    """The folder of the world, made once for this build of the program."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "world.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = str(os.stat(TEMPER).st_mtime_ns)
        made = FOLDER / "world"
        if not (made / "stamp").exists() or (made / "stamp").read_text() != stamp:
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            make_world(made)
            (made / "stamp").write_text(stamp)
    return made


class Test(unittest.TestCase):
    """A test with a copy of the world of its own, self.folder."""
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="work-", dir=FOLDER)
                                   if FOLDER.exists() else tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        shutil.copytree(world(), self.folder, dirs_exist_ok=True)

    def temper(self, *arguments, program=None):
        return run(*arguments, folder=self.folder, program=program)

    def done(self, *arguments, program=None):
        """temper, which must do its work."""
        result = self.temper(*arguments, program=program)
        self.assertEqual(result.returncode, 0, f"{arguments}: {result.stderr}")
        return result

    def json(self, *arguments, program=None):
        """What --json prints: exactly one object and nothing else."""
        value = json.loads(self.done(*arguments, "--json", program=program).stdout)
        self.assertIsInstance(value, dict)
        return value

    def refused(self, code, words, *arguments, program=None):
        """temper, which must end with this code and say each of these words in few lines."""
        result = self.temper(*arguments, program=program)
        self.assertEqual(result.returncode, code, f"{arguments}: {result.stdout}{result.stderr}")
        said = [line for line in result.stderr.splitlines() if "warning" not in line]
        self.assertLessEqual(len(said), 2, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr, f"{arguments}")
        return result

    def train(self, plan, *options, store="t.db"):
        return self.done("run", plan, "--data", "text.txt", "--store", store, *options)

    def start_training(self, plan, *options):
        """A training that would go on for ever, after its first step line."""
        process = start("run", plan, "--data", "text.txt", "--store", "t.db", "--steps", FOREVER,
                        "--log-interval", "50", *options, folder=self.folder)
        self.addCleanup(end_process, process)
        wait_for_line(process, "step ")
        return process

    def runs(self, store="t.db"):
        """id, status and steps of each run; the store must be whole."""
        with sqlite3.connect(self.folder / store) as database:
            whole = database.execute("PRAGMA integrity_check").fetchone()
            self.assertEqual(whole, ("ok",))
            rows = database.execute("SELECT id, status FROM run ORDER BY id").fetchall()
            counts = [database.execute("SELECT count(*) FROM step WHERE run_id = ?",
                                       (row[0],)).fetchone()[0] for row in rows]
        database.close()
        return [(row[0], row[1], count) for row, count in zip(rows, counts)]

    def losses(self, log):
        """step -> loss"""
        rows = [json.loads(line) for line in (self.folder / log).read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows if "loss" in row}

    def checkpoints(self, folder):
        path = self.folder / folder
        return sorted(os.listdir(path)) if path.exists() else []


def wait_for_line(process, beginning):
    end_s = time.monotonic() + PATIENCE_S
    for line in process.stdout:
        if line.startswith(beginning):
            return
        if time.monotonic() > end_s:
            break
    raise AssertionError(f"no line '{beginning}' came: {process.stderr.read()}")


def end_process(process):
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.communicate()


def finish(process, patience_s=PATIENCE_S):
    """stdout, stderr and the seconds that it took."""
    begin_s = time.monotonic()
    out, err = process.communicate(timeout=patience_s)
    return out, err, time.monotonic() - begin_s


def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        try:
            fields = pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if entry.isdigit() and int(fields[1]) == pid:
            found.append(int(entry))
    return sorted(found)


def rank_pids(process):
    """The ranks of a temper that started mpirun."""
    return [rank for launcher in children(process.pid) for rank in children(launcher)]


def tensors(path):
    """name -> (shape, bytes) of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + header_bytes])
    body = data[8 + header_bytes:]
    return {name: (tensor["shape"], body[slice(*tensor["data_offsets"])])
            for name, tensor in header.items() if name != "__metadata__"}


def main():
    unittest.main(verbosity=1)
