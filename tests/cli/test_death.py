"""Ranks and whole runs that are killed: what is said, how soon, and what is still there."""
import json
import os
import pathlib
import shutil
import signal
import time

from harness import MODEL, PATIENCE_S, Test, finish, main, rank_pids, start

END_LIMIT_S = 10


def is_alive(pid):
    """Does the process still work? A dead one that nobody has waited for does not."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Death(Test):
    def earlier_run(self, plan):
        self.train(plan, "--steps", "4", "--save", "c", "--save-interval", "2")

    def check_what_is_left(self, plan, status):
        runs = self.runs()
        self.assertEqual(runs[0][1:], ("done", 4))
        self.assertEqual(runs[1][1], status)
        self.assertGreater(runs[1][2], 0)
        leftovers = [name for name in self.checkpoints("c") if not name.startswith("step-")]
        newest = int(max(name for name in self.checkpoints("c") if name.startswith("step-"))[5:])
        self.assertGreater(newest, 4)
        self.done("report", "--store", "t.db", "--run", "1")
        self.train(plan, "--steps", newest + 2, "--load", "c", "--save", "c", "--log", "more.jsonl",
                   "--eval-windows", "2")
        self.assertEqual(max(self.losses("more.jsonl")), newest + 2)
        self.assertEqual(self.runs()[2][1], "done")
        self.assertFalse(set(leftovers) & set(self.checkpoints("c")), "leftovers are still there")

    def wait_for_something_kept(self):
        """Until the second run has steps in the store and a checkpoint of its own."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            steps = [name for name in self.checkpoints("c") if name.startswith("step-")]
            if max(steps) > "step-00000004" and self.runs()[-1][2] > 0:
                return
            time.sleep(0.05)
        self.fail(f"nothing kept after {PATIENCE_S} s of training")

    def check_killed_rank(self, which):
        self.earlier_run("two.json")
        process = self.start_training("two.json", "--load", "c", "--save", "c", "--save-interval",
                                      "200")
        self.wait_for_something_kept()
        os.kill(rank_pids(process)[which], signal.SIGKILL)
        _, err, seconds = finish(process)
        self.assertEqual(process.returncode, 1)
        self.assertLess(seconds, END_LIMIT_S)
        self.assertIn(f"rank {which} died of signal 9 (Killed), last heard of at step", err)
        self.assertIn("--load", err)
        # Open MPI may tell of reads from the dead rank's memory.
        said = [line for line in err.splitlines() if "] Read -1, expected" not in line]
        self.assertEqual(len(said), 1, err)
        self.check_what_is_left("two.json", "failed")

    def test_first_rank_killed(self):
        self.check_killed_rank(0)

    def test_second_rank_killed(self):
        self.check_killed_rank(1)

    def test_launcher_killed(self):
        """kill -9 of the temper that started the ranks: they end, and in order."""
        process = self.start_training("two.json", "--save", "c")
        ranks = rank_pids(process)
        self.assertEqual(len(ranks), 2)
        process.kill()
        end_s = time.monotonic() + END_LIMIT_S
        while any(map(is_alive, ranks)) and time.monotonic() < end_s:
            time.sleep(0.05)
        self.assertFalse([pid for pid in ranks if is_alive(pid)])
        self.runs()

    def test_one_rank_killed(self):
        self.earlier_run("one.json")
        process = self.start_training("one.json", "--load", "c", "--save", "c", "--save-interval",
                                      "200")
        self.wait_for_something_kept()
        process.kill()
        finish(process)
        # Nobody was there to note it.
        self.check_what_is_left("one.json", "running")

    def test_killed_at_any_moment(self):
        """The store and the newest checkpoint are whole whenever the end comes."""
        self.earlier_run("one.json")
        for delay_ms in (0, 7, 31, 83, 150):
            process = self.start_training("one.json", "--load", "c", "--save", "c",
                                          "--save-interval", "1")
            time.sleep(delay_ms / 1000)
            process.kill()
            finish(process)
            self.runs()
            self.assertTrue(self.done("sample", "--load", "c", "--tokens", "1").stdout)

    def test_profile_killed(self):
        before = self.chosen_plan()
        process = start("profile", *MODEL, "--store", "t.db", "--budget", "20", "--ranks", "1",
                        folder=self.folder)
        time.sleep(0.5)
        process.kill()
        finish(process)
        self.runs()
        self.assertEqual(self.chosen_plan(), before)

    def chosen_plan(self):
        """The layers of a plan with one choice only: what was profiled may change its figures."""
        self.done("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--pin",
                  "dp=1,micro-batch=1,recompute=none,precision=fp32", "-o", "chosen.json")
        return json.loads((self.folder / "chosen.json").read_text())["layers"]

    def test_no_mpirun(self):
        """Without Open MPI's launcher a plan for one rank still runs; one for two says why not."""
        empty = self.folder / "bin"
        empty.mkdir()
        program = [shutil.which("env"), f"PATH={empty}", os.environ["TEMPER"]]
        self.refused(1, ["mpirun", "install"], "run", "two.json", "--data", "text.txt", "--store",
                     "t.db", "--steps", "2", program=program)
        self.done("run", "one.json", "--data", "text.txt", "--store", "t.db", "--steps", "2",
                  program=program)


if __name__ == "__main__":
    main()
