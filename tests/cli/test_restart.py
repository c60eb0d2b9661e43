"""--max-restarts: ranks that die are started again, and the run ends as if they had not."""
import json
import os
import shutil
import signal
import time

from harness import MPIRUN, TEMPER, Test, children, finish, main, rank_pids, start, wait_for_line

STEPS = 2500


class Restart(Test):
    def options(self, plan, *options):
        return ["run", plan, "--data", "text.txt", "--store", "t.db", "--steps", str(STEPS),
                "--eval-interval", "0", "--eval-windows", "2", "--log-interval", "100", *options]

    def start(self, plan, *options):
        process = start(*self.options(plan, *options), folder=self.folder)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def content(self, folder, step=STEPS):
        path = self.folder / folder / f"step-{step:08d}"
        return {file.name: file.read_bytes() for file in path.iterdir()}

    def ranks(self, process, plan):
        return rank_pids(process) if plan == "two.json" else children(process.pid)

    def wait_for_checkpoint(self, folder, count=1):
        end_s = time.monotonic() + 30
        while len([name for name in self.checkpoints(folder) if name[0] == "s"]) < count:
            self.assertLess(time.monotonic(), end_s)
            time.sleep(0.01)

    def check_same_end(self, plan, which):
        self.done(*self.options(plan, "--save", "whole"))
        process = self.start(plan, "--save", "c", "--save-interval", "300", "--max-restarts", "3",
                             "--log", "log.jsonl")
        self.wait_for_checkpoint("c")
        os.kill(self.ranks(process, plan)[which], signal.SIGKILL)
        out, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        # Open MPI may tell of reads from the dead rank's memory.
        said = [line for line in err.splitlines() if "] Read -1, expected" not in line]
        self.assertEqual(len(said), 1, err)
        self.assertRegex(said[0], rf"^temper: warning: rank {which} died of signal 9 \(Killed\).*; "
                              r"restart 1 of 3 continues after step \d+, from c/step-\d+$")
        self.assertEqual(self.content("c"), self.content("whole"))
        self.assertEqual([row[1] for row in self.runs()], ["done", "failed", "done"])
        self.assertIn(f"run 3 done: {STEPS} steps", out)
        losses = self.losses("log.jsonl")
        self.assertEqual(list(losses), list(range(1, STEPS + 1)))

    def test_two_ranks(self):
        self.check_same_end("two.json", 1)

    def test_one_rank(self):
        self.check_same_end("one.json", 0)

    def test_restarts_are_counted(self):
        process = self.start("two.json", "--save", "c", "--save-interval", "300", "--max-restarts",
                             "1")
        for _ in range(2):
            wait_for_line(process, "gpt2")  # the head of a start
            wait_for_line(process, "step ")
            os.kill(rank_pids(process)[0], signal.SIGKILL)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 1)
        warning, error = [line for line in err.splitlines() if "] Read -1" not in line]
        self.assertIn("restart 1 of 1", warning)
        self.assertRegex(error, r"^temper run: rank 0 died of signal 9 .*--load")
        self.assertEqual([row[1] for row in self.runs()], ["failed", "failed"])

    def test_before_the_first_checkpoint(self):
        process = self.start("two.json", "--save", "c", "--save-interval", "0", "--max-restarts",
                             "1", "--json")
        while len(rank_pids(process)) < 2:
            time.sleep(0.01)
        time.sleep(0.6)
        os.kill(rank_pids(process)[1], signal.SIGKILL)
        out, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("restart 1 of 1 begins anew: c holds no whole checkpoint", err)
        self.assertEqual(json.loads(out)["steps"], STEPS)

    def test_from_where_the_run_began(self):
        self.done("run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps", "20",
                  "--save", "before", "--eval-windows", "2")
        self.done(*self.options("two.json", "--load", "before", "--save", "whole"))
        process = self.start("two.json", "--load", "before", "--save", "c", "--save-interval", "0",
                             "--max-restarts", "1")
        wait_for_line(process, "step ")
        os.kill(rank_pids(process)[1], signal.SIGKILL)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("restart 1 of 1 begins from before again", err)
        self.assertEqual(self.content("c"), self.content("whole"))

    def test_a_torn_checkpoint_is_passed_over(self):
        process = self.start("two.json", "--save", "c", "--save-interval", "500", "--keep", "9",
                             "--max-restarts", "1")
        self.wait_for_checkpoint("c", 2)
        older, newer = [name for name in self.checkpoints("c") if name[0] == "s"][-2:]
        weights = sorted((self.folder / "c" / newer).glob("model*.safetensors"))[0]
        with open(weights, "r+b") as file:
            file.seek(-5, os.SEEK_END)
            file.write(b"torn!")
        os.kill(rank_pids(process)[1], signal.SIGKILL)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn(f"continues after step {int(older[5:])}, from c/{older}", err)
        self.assertRegex(err, rf"warning: checkpoint 'c/{newer}' is not whole and is passed over: "
                              r".*model-0000[0-9]-of-00002.safetensors")

    def test_a_failure_is_not_a_death(self):
        """It would only fail again."""
        self.refused(1, ["not finite"], "run", "two.json", "--data", "text.txt",
                     "--store", "t.db", "--steps", "50", "--lr", "1e3", "--min-lr", "1e3",
                     "--warmup", "0", "--clip", "0", "--skip-limit", "1", "--save", "c",
                     "--max-restarts", "3")
        self.assertEqual(len(self.runs()), 1)

    def test_asked_to_end(self):
        process = self.start("two.json", "--save", "c", "--max-restarts", "3")
        wait_for_line(process, "step ")
        ranks = rank_pids(process)
        os.kill(ranks[1], signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertNotIn("restart", err)
        self.assertEqual(len(self.runs()), 1)

    def test_everything_was_done_when_it_died(self):
        """Only how it went is left to say."""
        self.done(*self.options("two.json", "--save", "c"))
        environment = ["env", "TEMPER_LAUNCHED=1", "TEMPER_RESTART=1", "TEMPER_RESUME=1", TEMPER]
        told = self.json(*self.options("one.json", "--save", "c", "--max-restarts", "1"),
                         program=environment)
        self.assertEqual(told["steps"], STEPS)
        self.assertIsNotNone(told["validation_loss"])

    def test_another_runs_checkpoints(self):
        """A restart would take them for its own."""
        self.done("run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps", "4",
                  "--save", "c", "--eval-windows", "2")
        run = ["run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps", "6",
               "--eval-windows", "2", "--save", "c", "--max-restarts", "1"]
        self.refused(2, ["step-00000004", "--load c"], *run)
        shutil.copytree(self.folder / "c", self.folder / "d")
        self.refused(2, ["step-00000004"], *run, "--load", "d")
        self.done(*run, "--load", "c")

    def test_needs_a_folder(self):
        self.refused(2, ["--max-restarts", "--save"], "run", "two.json", "--data", "text.txt",
                     "--max-restarts", "1")

    def test_under_the_users_own_mpirun(self):
        result = self.temper("run", "two.json", "--data", "text.txt", "--save", "c",
                             "--max-restarts", "1", program=[*MPIRUN, "-np", "2", TEMPER])
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("--max-restarts: mpirun or srun started", result.stderr)


if __name__ == "__main__":
    main()
