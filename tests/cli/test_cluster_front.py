"""temper plan --cluster --pareto: the front of layouts, those whose blocks differ included."""
import csv
import json
import signal
import subprocess
import time
import xml.etree.ElementTree as xml

from harness import Test, main, start

SMALL = ("plan", "--model", "llama-3-8b", "--seq-length", "4096", "--global-batch", "64")
LARGE = ("plan", "--model", "gpt3-175b", "--global-batch", "1536", "--cluster", "a100-80x1024",
         "--pareto", "time,memory")


class ClusterFront(Test):
    def front(self, *more):
        return self.json(*SMALL, "--cluster", "h100x16", "--pareto", *more)

    def test_blocks_that_differ(self):
        """They stand between uniform layouts, each with its stages; capped there, the search finds
        none that is quicker by more than the gap."""
        front = self.front("time,memory", "--csv", "f.csv")
        layouts = front["layouts"]
        unlike = [layout for layout in layouts if not layout["uniform"]]
        self.assertTrue(front["whole"])
        self.assertTrue(unlike and len(unlike) < len(layouts))
        for one, other in zip(layouts, layouts[1:]):
            self.assertLess(one["time_s"], other["time_s"])
            self.assertGreater(one["memory_bytes"], other["memory_bytes"])
        for layout in layouts:
            self.assertEqual("stages" in layout, not layout["uniform"])
            self.assertTrue(0 <= layout["gap"] < 0.2, layout)
        for layout in unlike:
            self.assertEqual(len(layout["stages"]), layout["pipeline"])
            self.assertEqual(sum(stage["blocks"] for stage in layout["stages"]), 32)
        with open(self.folder / "f.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["uniform"] == "1" for row in rows],
                         [layout["uniform"] for layout in layouts])
        self.assertEqual([float(row["gap"]) for row in rows],
                         [layout["gap"] for layout in layouts])
        row = unlike[len(unlike) // 2]
        # the cap is held by a quantile, which the row's own memory is below
        capped = self.json(*SMALL, "--cluster", "h100x16", "--risk", "0.5", "--memory-cap",
                           str(int(row["memory_bytes"])))
        self.assertGreaterEqual(capped["bound"] / capped["objective"] * capped["time_s"],
                                (1 - row["gap"]) * row["time_s"] * (1 - 1e-6))

    def test_uniform_alone_is_no_better(self):
        """What all layouts leave undominated is at every memory as quick as what uniform ones do."""
        both = self.front("time,memory")["layouts"]
        uniform = [layout for layout in both if layout["uniform"]]
        for layout in uniform:
            quickest = min(other["time_s"] for other in both
                           if other["memory_bytes"] <= layout["memory_bytes"])
            self.assertEqual(quickest, layout["time_s"])
        wanted = max((layout for layout in both if not layout["uniform"]),
                     key=lambda layout: layout["memory_bytes"])
        slower = [layout["time_s"] for layout in uniform
                  if layout["memory_bytes"] <= wanted["memory_bytes"]]
        self.assertLess(wanted["time_s"], min(slower, default=float("inf")))

    def test_points(self):
        """More of them are nearer to each other, and none that fewer found is beaten by much."""
        few, many = (self.front("time,memory", "--points", points) for points in ("2", "64"))
        self.assertGreater(few["memory_step"], many["memory_step"])
        self.assertLess(few["searches"], many["searches"])
        self.assertGreaterEqual(many["empty_below_bytes"], few["empty_below_bytes"])
        for one in many["layouts"]:
            most_bytes = one["memory_bytes"] / (1 - few["memory_step"]) * (1 + 1e-9)
            near = [other["time_s"] for other in few["layouts"]
                    if other["memory_bytes"] <= most_bytes]
            self.assertLessEqual(min(near) * (1 - few["gap"]), one["time_s"] * (1 + 1e-9))

    def test_energy(self):
        front = self.front("time,energy,memory", "--points", "4", "--svg", "f.svg")
        self.assertTrue(front["hull_only"])
        self.assertEqual(front["axes"], ["time", "memory", "energy"])
        keys = ("time_s", "memory_bytes", "energy_j")
        for one in front["layouts"]:
            for other in front["layouts"]:
                self.assertFalse(other is not one and
                                 all(other[key] <= one[key] for key in keys), (one, other))
        words = "".join(xml.parse(self.folder / "f.svg").getroot().itertext())
        for word in ("blocks differ", "uniform", "least energy", "leanest"):
            self.assertIn(word, words)
        alone = self.front("time,energy")
        self.assertIsNone(alone["memory_step"])
        self.assertIsNone(alone["empty_below_bytes"])

    def test_words(self):
        said = self.done(*SMALL, "--cluster", "h100x16", "--pareto", "time,memory", "--gap",
                         "0.01").stdout
        for words in ("gap %", "whose blocks differ", "no layout of at most this memory",
                      "true front", "no layout needs less than", "searches", "more memory"):
            self.assertIn(words, said)
        self.assertNotIn("hull", said)
        said = self.done(*SMALL, "--cluster", "h100x16", "--pareto", "time,energy").stdout
        self.assertIn("convex hull", said)
        self.assertNotIn("of at most this memory", said)

    def test_pinned_blocks(self):
        """No uniform layout is left, and all that is found has the pins."""
        front = self.front("time,memory", "--pin", "recompute:0-3=full,tp=4,offload=none")
        self.assertEqual(front["considered"], 0)
        self.assertTrue(front["layouts"])
        for layout in front["layouts"]:
            self.assertFalse(layout["uniform"])
            self.assertEqual(layout["stages"][0]["recompute"][0]["mode"], "full")
        self.refused(3, ["GiB"], *SMALL, "--cluster", "h100x16", "--pareto", "time,memory",
                     "--memory-cap", "1GiB")

    def test_unlike_devices(self):
        """Memory is not one thing there; time and energy are."""
        (self.folder / "mixed.json").write_text(json.dumps({
            "format": "temper-cluster", "version": 1, "name": "mixed",
            "groups": [{"like": "h100", "nodes": 1}, {"like": "a100-80", "nodes": 1}]}))
        command = (*SMALL, "--cluster", "mixed.json", "--pin", "tp=8", "--pareto")
        self.refused(2, ["--pareto", "memory", "groups"], *command, "time,memory")
        front = self.json(*command, "time,energy", "--svg", "f.svg")
        self.assertTrue(front["layouts"])
        self.assertIn("blocks differ", (self.folder / "f.svg").read_text())

    def test_stopped(self):
        """What was found so far, and that it is not all."""
        front = self.json(*LARGE, "--time-limit", "0.5", "--points", "1000")
        self.assertFalse(front["whole"])
        self.assertIsNone(front["empty_below_bytes"])
        self.assertTrue(front["layouts"])
        running = start(*LARGE, "--points", "100000", folder=self.folder, stdout=subprocess.PIPE)
        time.sleep(1.5)
        running.send_signal(signal.SIGINT)
        said, complaints = running.communicate(timeout=60)
        self.assertEqual(running.returncode, 0, complaints)
        for words in ("so far", "stopped"):
            self.assertIn(words, said)
        self.assertNotIn("for every layout", said)


if __name__ == "__main__":
    main()
