"""Signals that ask a training to end, and readers of its output that go away."""
import json
import os
import pathlib
import signal
import subprocess
import time

from harness import (FOREVER, MODEL, MPIRUN, TEMPER, Test, end_process, environment, finish, main,
                     rank_pids, start, wait_for_line)

END_LIMIT_S = 10


class Interrupt(Test):
    def check_end(self, process, number, plan):
        process.send_signal(number)
        out, err, seconds = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertLess(seconds, END_LIMIT_S)
        self.assertEqual(err, "")
        self.assertIn(" interrupted: ", out)
        _, status, steps = self.runs()[-1]
        self.assertEqual(status, "interrupted")
        self.assertEqual(self.checkpoints("c"), [f"step-{steps:08d}"])
        self.assertEqual(list(self.losses("log.jsonl")), list(range(1, steps + 1)))
        self.train(plan, "--steps", steps + 2, "--load", "c", "--log", "more.jsonl",
                   "--eval-windows", "2")
        self.assertEqual(list(self.losses("more.jsonl")), [steps + 1, steps + 2])

    def test_one_rank(self):
        process = self.start_training("one.json", "--save", "c", "--log", "log.jsonl")
        self.check_end(process, signal.SIGINT, "one.json")

    def test_two_ranks(self):
        process = self.start_training("two.json", "--save", "c", "--log", "log.jsonl")
        self.check_end(process, signal.SIGINT, "two.json")

    def test_two_ranks_by_sigterm(self):
        process = self.start_training("two.json", "--save", "c", "--log", "log.jsonl")
        self.check_end(process, signal.SIGTERM, "two.json")

    def check_users_own_mpirun(self, number, *options):
        process = subprocess.Popen(
            [*MPIRUN, *options, "-np", "2", TEMPER, "run", "two.json", "--data", "text.txt",
             "--store", "t.db", "--steps", FOREVER, "--log-interval", "100000", "--eval-interval",
             "0", "--save", "c"],
            cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(end_process, process)
        wait_for_line(process, "step ")
        process.send_signal(number)
        finish(process)
        _, status, steps = self.runs()[-1]
        self.assertEqual(status, "interrupted")
        self.assertEqual(self.checkpoints("c"), [f"step-{steps:08d}"])

    def test_under_the_users_own_mpirun(self):
        self.check_users_own_mpirun(signal.SIGUSR1)

    def test_ctrl_c_under_the_users_own_mpirun(self):
        """By default mpirun kills its ranks two seconds after Ctrl-C, and reads no line meanwhile."""
        self.check_users_own_mpirun(signal.SIGINT, "--mca", "odls_base_sigkill_timeout", "5")

    def test_while_ranks_start(self):
        """Asked to end before the first step: no rank dies of it."""
        process = start("run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps",
                        FOREVER, "--save", "c", folder=self.folder)
        self.addCleanup(end_process, process)
        end_s = time.monotonic() + 30
        while len(rank_pids(process)) < 2 and time.monotonic() < end_s:
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, out + err)
        self.assertEqual(self.runs()[-1][1], "interrupted")

    def test_no_handler_runs_where_products_are_computed(self):
        """oneDNN's code keeps data below the stack pointer, where a handler would write."""
        process = self.start_training("one.json")
        requests = sum(1 << (number - 1) for number in (signal.SIGINT, signal.SIGTERM,
                                                        signal.SIGUSR1))
        waiting = 0
        for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status"):
            status = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
            self.assertEqual(int(status["SigCgt"], 16) & requests, 0)
            blocked = int(status["SigBlk"], 16) & requests
            self.assertIn(blocked, (0, requests))
            waiting += blocked == 0
        self.assertEqual(waiting, 1)

    def test_json_of_an_interrupted_run(self):
        process = start("run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps",
                        FOREVER, "--log", "log.jsonl", "--eval-interval", "0", "--json",
                        folder=self.folder)
        self.addCleanup(end_process, process)
        end_s = time.monotonic() + 30
        log = self.folder / "log.jsonl"
        while not (log.exists() and log.stat().st_size > 0) and time.monotonic() < end_s:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        told = json.loads(out)
        self.assertEqual(told["status"], "interrupted")
        self.assertIsNone(told["validation_loss"])


class LostReader(Test):
    """`temper run ... | head -1`"""

    def check(self, plan):
        read_end, write_end = os.pipe()
        process = start("run", plan, "--data", "text.txt", "--store", "t.db", "--steps", "500",
                        "--log-interval", "1", "--save", "c", "--eval-windows", "2",
                        folder=self.folder, stdout=write_end)
        self.addCleanup(end_process, process)
        os.close(write_end)
        os.read(read_end, 10)
        os.close(read_end)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 1)
        self.assertIn("standard output", err)
        self.assertEqual(self.runs()[-1][1:], ("done", 500))
        self.assertEqual(self.checkpoints("c")[-1], "step-00000500")

    def test_one_rank(self):
        self.check("one.json")

    def test_two_ranks(self):
        self.check("two.json")

    def test_profile(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = start("profile", *MODEL, "--store", "new.db", "--budget", "0.3", "--ranks", "1",
                        "--micro-batches", "1", "--precision", "fp32", "--threads", "1",
                        "--relative-error", "1", folder=self.folder, stdout=write_end)
        os.close(write_end)
        finish(process)
        self.done("plan", *MODEL, "--store", "new.db", "--global-batch", "2")


if __name__ == "__main__":
    main()
