"""Ranks that hang: they are named after --timeout, and everything ends or starts again. What a rank
that spins looks like is told by a made-up mpirun, which also says things that are not for us."""
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import time

from harness import (MPIRUN, TEMPER, FOREVER, Test, children, end_process, environment, finish,
                     main, rank_pids, wait_for_line)

END_LIMIT_S = 10
TIMEOUT_S = 3
MARK = "\x1e"
DASHES = "-" * 74


class Hang(Test):
    def stop_rank(self, which, *options):
        process = self.start_training("two.json", "--timeout", TIMEOUT_S, *options)
        ranks = rank_pids(process)
        os.kill(ranks[which], signal.SIGSTOP)
        return process, ranks

    def check_stopped_rank(self, which):
        process, ranks = self.stop_rank(which, "--save", "c", "--save-interval", "0")
        _, err, seconds = finish(process)
        self.assertEqual(process.returncode, 1, err)
        self.assertLess(seconds, TIMEOUT_S + END_LIMIT_S)
        self.assertGreater(seconds, TIMEOUT_S - 1)
        self.assertRegex(err, rf"^temper run: rank {which} has not been heard of for {TIMEOUT_S} s, "
                              r"last at step \d+: it is stopped")
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertFalse([pid for pid in ranks if pathlib.Path(f"/proc/{pid}").exists()])
        self.assertEqual(self.runs()[-1][1], "failed")

    def test_first_rank_stopped(self):
        self.check_stopped_rank(0)

    def test_second_rank_stopped(self):
        self.check_stopped_rank(1)

    def test_a_stopped_rank_is_restarted(self):
        process, _ = self.stop_rank(1, "--save", "c", "--save-interval", "100", "--max-restarts",
                                    "1")
        wait_for_line(process, "gpt2")  # the head of the second start
        wait_for_line(process, "step ")
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("rank 1 has not been heard of", err)
        self.assertIn("restart 1 of 1", err)
        self.assertEqual([row[1] for row in self.runs()], ["failed", "interrupted"])

    def test_the_only_rank_stopped(self):
        process = self.start_training("one.json", "--save", "c", "--save-interval", "0",
                                      "--max-restarts", "1", "--timeout", TIMEOUT_S)
        os.kill(children(process.pid)[0], signal.SIGSTOP)
        wait_for_line(process, "gpt2")
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("rank 0 has not been heard of", err)

    def test_an_mpirun_that_hangs_as_a_rank_dies(self):
        process = self.start_training("two.json", "--save", "c", "--save-interval", "0",
                                      "--timeout", "0")
        ranks = rank_pids(process)
        os.kill(children(process.pid)[0], signal.SIGSTOP)
        os.kill(ranks[0], signal.SIGKILL)
        _, err, seconds = finish(process)
        self.assertEqual(process.returncode, 1, err)
        self.assertLess(seconds, END_LIMIT_S)
        self.assertRegex(err, r"^temper run: a rank died, and mpirun hung; all ranks were ended; ")
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertFalse([pid for pid in ranks if pathlib.Path(f"/proc/{pid}").exists()])
        self.assertEqual(self.runs()[-1][1], "failed")

    def test_no_timeout(self):
        process, ranks = self.stop_rank(1, "--timeout", "0")
        time.sleep(TIMEOUT_S + 2)
        self.assertIsNone(process.poll())
        os.kill(ranks[1], signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(err, "")

    def test_a_launcher_that_was_stopped_blames_nobody(self):
        process = self.start_training("two.json", "--timeout", TIMEOUT_S)
        process.send_signal(signal.SIGSTOP)
        time.sleep(TIMEOUT_S + 2)
        process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(err, "")

    def test_under_the_users_own_mpirun(self):
        """Nobody ends the ranks there, but the first one says what it waits in."""
        process = subprocess.Popen(
            [*MPIRUN, "-np", "2", TEMPER, "run", "two.json", "--data", "text.txt", "--store",
             "t.db", "--steps", FOREVER, "--log-interval", "50", "--timeout", str(TIMEOUT_S)],
            cwd=self.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True)
        self.addCleanup(end_process, process)
        wait_for_line(process, "step ")
        rank = children(process.pid)[1]
        os.kill(rank, signal.SIGSTOP)
        time.sleep(TIMEOUT_S + 2.5)
        os.kill(rank, signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        _, err, _ = finish(process)
        self.assertRegex(err, rf"warning: rank 0 has waited in all-reduce for {TIMEOUT_S} s at step")
        self.assertEqual(err.count("has waited"), 1, err)
        self.assertNotIn(MARK, err)

    def test_too_short_a_timeout(self):
        self.refused(2, ["--timeout", "3"], "run", "two.json", "--data", "text.txt", "--timeout",
                     "2")


class MadeUp(Test):
    """temper with an mpirun that is a script of ours."""

    def with_mpirun(self, script, *options):
        folder = self.folder / "bin"
        folder.mkdir()
        path = folder / "mpirun"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        program = [shutil.which("env"), f"PATH={folder}:{os.environ['PATH']}", TEMPER]
        return self.temper("run", "two.json", "--data", "text.txt", "--store", "t.db", *options,
                           program=program)

    @staticmethod
    def signs(first, second, interval_s=1):
        """For a minute."""
        return (f"i=0; while [ $i -lt {60 / interval_s:.0f} ]; do\n"
                f"printf '{MARK}{first}\\n{MARK}{second}\\n' >&2\n"
                f"sleep {interval_s}; i=$((i+1)); done\n")

    def test_a_rank_that_spins(self):
        begin_s = time.monotonic()
        result = self.with_mpirun(
            self.signs("pulse 0 12 700 5000 all-reduce 0", "pulse 1 12 690 0 - 0"), "--timeout",
            TIMEOUT_S)
        self.assertLess(time.monotonic() - begin_s, TIMEOUT_S + END_LIMIT_S)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^temper run: rank 1 has worked on step 12 for [345] s "
                                        r"without getting on while 1 rank waits for it in "
                                        r"all-reduce; all ranks were ended; nothing was saved")

    def test_signs_without_a_pause(self):
        """As of hundreds of ranks: they are judged all the same."""
        begin_s = time.monotonic()
        result = self.with_mpirun(
            self.signs("pulse 0 12 700 5000 all-reduce 0", "pulse 1 12 690 0 - 0", 0.02),
            "--timeout", TIMEOUT_S)
        self.assertLess(time.monotonic() - begin_s, TIMEOUT_S + END_LIMIT_S)
        self.assertIn("rank 1 has worked on step 12", result.stderr)

    def test_an_mpirun_that_does_not_end(self):
        begin_s = time.monotonic()
        result = self.with_mpirun(
            "trap '' TERM\n" + self.signs("pulse 0 1 1 9 receive 0", "pulse 1 1 1 9 receive 0"),
            "--timeout", TIMEOUT_S)
        self.assertLess(time.monotonic() - begin_s, TIMEOUT_S + END_LIMIT_S)
        self.assertIn("each waits for another (rank 0 in receive, rank 1 in receive)",
                      result.stderr)

    def test_signs_are_taken_out_wherever_they_stand(self):
        result = self.with_mpirun(
            f"printf 'half a {MARK}pulse 0 1 1 0 - 0\\nline\\n{MARK}anything\\nend' >&2; exit 1")
        self.assertEqual(result.stderr, "half a line\nend")

    def test_banners_of_mpirun(self):
        """The one that names a rank is told in our words; one that we do not know is passed on."""
        known = f"{DASHES}\nmpirun noticed that process rank 1 with PID 0 on node x exited on " \
                f"signal 11 (Segmentation fault).\n{DASHES}\n"
        unknown = f"{DASHES}\nSomething is wrong with the network.\n{DASHES}\n"
        known += "mpirun: Forwarding signal 10 to job\n"
        dashes = "---\n--- a line of ours\nmpirun: For another\nmp\n-- no end"
        result = self.with_mpirun(f"cat >&2 <<'END'\n{unknown}{known}{dashes}\nEND\nexit 139\n")
        self.assertTrue(result.stderr.startswith(unknown + dashes), result.stderr)
        self.assertRegex(result.stderr, r"temper run: rank 1 died of signal 11 \(Segmentation "
                                        r"fault\); nothing was saved")
        self.assertNotIn("noticed", result.stderr)

    def test_a_banner_without_its_end(self):
        result = self.with_mpirun(f"printf '%s\\n%s' {DASHES} 'cut off' >&2; exit 1")
        self.assertEqual(result.stderr, f"{DASHES}\ncut off")


if __name__ == "__main__":
    main()
