"""A disk that fills up: the checkpoint, store, plan and page that were there stay good. Needs root
for a small file system of its own."""
import os
import shutil
import subprocess

from harness import MODEL, Test, main

SLACK_BYTES = 4096


class FullDisk(Test):
    def setUp(self):
        super().setUp()
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", self.disk],
                                 capture_output=True, text=True, check=False) \
            if os.geteuid() == 0 else None
        if mounted is None or mounted.returncode != 0:
            self.skipTest("mounting a small file system needs root")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], check=False)

    def fill(self, leave_bytes=SLACK_BYTES):
        with open(self.disk / "filler", "wb") as filler:
            room = os.statvfs(self.disk)
            filler.write(b"x" * max(0, room.f_bavail * room.f_frsize - leave_bytes))

    def empty(self):
        (self.disk / "filler").unlink()

    def test_save(self):
        for plan in ("one.json", "two.json"):
            with self.subTest(plan=plan):
                folder = f"disk/{plan}"
                self.train(plan, "--steps", "3", "--save", folder)
                self.fill()
                self.refused(1, [folder, "No space"], "run", plan, "--data", "text.txt", "--store",
                             "t.db", "--steps", "5", "--load", folder, "--save", folder)
                self.assertEqual(self.runs()[-1][1], "failed")
                self.empty()
                self.assertEqual(self.checkpoints(folder)[-1], "step-00000003")
                self.train(plan, "--steps", "5", "--load", folder, "--save", folder)

    def test_store_from_the_start(self):
        for plan in ("one.json", "two.json"):
            with self.subTest(plan=plan):
                store = f"disk/{plan}.db"
                shutil.copy(self.folder / "t.db", self.folder / store)
                self.train(plan, "--steps", "3", store=store)
                self.fill(0)
                self.refused(1, [store, "full"], "run", plan, "--data", "text.txt", "--store",
                             store, "--steps", "5")
                self.empty()
                self.assertEqual(self.runs(store)[0][1:], ("done", 3))
                self.train(plan, "--steps", "3", store=store)

    def test_store_on_the_way(self):
        for plan in ("one.json", "two.json"):
            with self.subTest(plan=plan):
                store = f"disk/{plan}.db"
                shutil.copy(self.folder / "t.db", self.folder / store)
                self.train(plan, "--steps", "3", store=store)
                self.fill(120 * 1024)
                self.refused(1, [store, "full"], "run", plan, "--data", "text.txt", "--store",
                             store, "--steps", "20000", "--log-interval", "5000")
                self.empty()
                runs = self.runs(store)
                self.assertEqual(runs[0][1:], ("done", 3))
                self.assertIn(runs[1][1], ("failed", "running"))
                self.done("report", "--store", store, "--run", "1")
                self.train(plan, "--steps", "3", store=store)

    def test_profile(self):
        profile = ("profile", *MODEL, "--store", "disk/p.db", "--budget", "0.3", "--ranks", "1",
                   "--micro-batches", "1", "--precision", "fp32", "--threads", "1",
                   "--relative-error", "1")
        self.done(*profile)
        self.fill(0)
        self.refused(1, ["disk/p.db", "full"], *profile)
        self.done("plan", *MODEL, "--store", "disk/p.db", "--global-batch", "2")
        self.empty()
        self.done(*profile)

    def test_plan_page_trace_and_log(self):
        plan = ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "-o", "disk/p.json")
        report = ("report", "--store", "t.db", "--html", "disk/r.html", "--chrome", "disk/c.json")
        self.done(*plan)
        self.train("one.json", "--steps", "20")
        self.done(*report)
        before = {name: (self.disk / name).read_bytes() for name in os.listdir(self.disk)}
        self.fill()
        self.refused(1, ["disk/p.json", "No space"], *plan)
        self.refused(1, ["disk/r.html", "No space"], *report)
        self.refused(1, ["disk/log.jsonl", "No space"], "run", "one.json", "--data", "text.txt",
                     "--store", "t.db", "--steps", "2000", "--log", "disk/log.jsonl")
        self.assertEqual(self.runs()[-1][1], "failed")
        for name, data in before.items():
            self.assertEqual((self.disk / name).read_bytes(), data, name)
        self.assertEqual(set(os.listdir(self.disk)) - set(before), {"filler", "log.jsonl"})


if __name__ == "__main__":
    main()
