"""`temper plan` beyond the one plan: fronts, the best few, explanations, comparisons."""
import csv
import json
import pathlib
import re
import shlex
import xml.etree.ElementTree as xml

from harness import MODEL, Test, main

DOCUMENTS = pathlib.Path(__file__).resolve().parents[2] / "docs"


class Answers(Test):
    def plan(self, *options):
        return ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--ranks", "2", *options)


class Front(Answers):
    def test_table_csv_svg_and_plans_agree(self):
        front = self.json(*self.plan("--pareto", "time,memory", "--points", "0", "--pin", "pp=1",
                                     "--csv", "f.csv", "--svg", "f.svg", "-o", "p.json"))
        points = front["points"]
        self.assertGreater(len(points), 1)
        self.assertFalse(front["thinned"] or front["hull_only"] or front["stopped"])
        times = [point["time_s"] for point in points]
        memories = [point["memory_p95_bytes"] for point in points]
        self.assertEqual(times, sorted(times))
        self.assertEqual(memories, sorted(memories, reverse=True))
        self.assertEqual(len(set(memories)), len(memories))
        with open(self.folder / "f.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["time_s"]) for row in rows], times)
        self.assertEqual([float(row["memory_p95_bytes"]) for row in rows], memories)
        self.assertEqual([float(row["memory_held_bytes"]) for row in rows], memories)
        self.assertEqual({row["energy_j"] for row in rows}, {""})  # not known here: absent, not 0
        drawing = xml.parse(self.folder / "f.svg").getroot()
        titles = [node for node in drawing.iter() if node.tag.endswith("}title")]
        self.assertEqual(len(titles), len(points))
        for index, point in enumerate(points):
            saved = json.loads((self.folder / f"p-{index + 1}.json").read_text())
            self.assertEqual(saved["prediction"], point["plan"]["prediction"])
        self.assertFalse((self.folder / "p.json").exists())

    def test_first_point_is_the_fastest_plan(self):
        front = self.json(*self.plan("--pareto", "memory,time", "--points", "3", "--pin", "pp=1"))
        best = self.json(*self.plan("--pin", "pp=1"))
        self.assertAlmostEqual(front["points"][0]["time_s"] / best["time_s"], 1, places=9)
        leanest = self.json(*self.plan("--pin", "pp=1", "--weights", "0,1,0"))
        self.assertLessEqual(front["points"][-1]["memory_bytes"],
                             leanest["memory_bytes"] * (1 + 1e-9))

    def test_table(self):
        said = self.done(*self.plan("--pareto", "time,memory", "--pin", "pp=1")).stdout
        self.assertIn("front of time and memory", said)
        self.assertIn("absent", said)
        self.assertNotIn("nan", said)

    def test_refusals(self):
        for axes in ("time", "time,time", "time,money", "", "time,", ",", "time,memory,energy,time"):
            with self.subTest(axes=axes):
                self.refused(2, ["--pareto"], *self.plan("--pareto", axes))
        self.refused(1, ["energy", "--idle-watts"], *self.plan("--pareto", "time,energy"))
        self.refused(2, ["--csv", "--pareto"], *self.plan("--csv", "f.csv"))
        self.refused(2, ["one at a time"], *self.plan("--pareto", "time,memory", "--top", "2"))
        self.refused(3, ["memory", "missing"],
                     *self.plan("--pareto", "time,memory", "--memory-cap", "1MiB"))
        self.refused(1, ["none/f.svg"], *self.plan("--pareto", "time,memory", "--pin", "pp=1",
                                                   "--svg", "none/f.svg"))


class Top(Answers):
    SHAPE = ("ranks", "data_parallel", "tensor_parallel", "pipeline", "schedule",
             "virtual_stages", "micro_batch", "threads")

    def test_plans_differ_and_worsen(self):
        best = self.json(*self.plan("--pin", "pp=1"))
        top = self.json(*self.plan("--pin", "pp=1", "--top", "4", "-o", "t.json"))
        values = [plan["objective"] for plan in top["plans"]]
        self.assertEqual(len(values), 4)
        self.assertEqual(values, sorted(values))
        self.assertAlmostEqual(values[0] / best["objective"], 1, places=9)
        shapes = {tuple(plan["plan"].get(key) for key in self.SHAPE) for plan in top["plans"]}
        self.assertEqual(len(shapes), 4)
        for number in range(1, 5):
            self.assertTrue((self.folder / f"t-{number}.json").exists())

    def test_fewer_than_asked_for(self):
        pins = ("--pin", "pp=1,dp=1,tp=1,micro-batch=2")
        top = self.json(*self.plan("--top", "5", *pins))
        self.assertEqual(len(top["plans"]), 1)
        self.assertTrue(top["all"])
        self.assertIn("no others", self.done(*self.plan("--top", "5", *pins)).stdout)


class Explain(Answers):
    def test_gains_are_those_of_pinned_searches(self):
        told = self.json(*self.plan("--pin", "pp=1", "--explain"))
        choices = {choice["choice"]: choice for choice in told["explanation"]["choices"]}
        self.assertEqual(choices["pipeline"]["state"], "pinned")
        compared = [choice for choice in choices.values() if choice["state"] == "compared"]
        self.assertTrue(compared)
        for choice in compared:
            self.assertGreaterEqual(choice["gain"], choice["least_gain"] - 1e-9)
        recompute = choices["recompute of mlp"]
        # Which two are the quickest is this machine's to say: the layer takes microseconds.
        self.assertNotEqual(recompute["value"], recompute["next_best"])
        self.assertLess({recompute["value"], recompute["next_best"]}, {"none", "selective", "full"})
        pinned = self.json(*self.plan("--pin", f"pp=1,recompute:mlp={recompute['next_best']}"))
        self.assertAlmostEqual(recompute["gain"], pinned["time_s"] / told["time_s"] - 1, places=9)

    def test_memory_cap_that_binds(self):
        lean = self.json(*self.plan("--pin", "pp=1,dp=1", "--weights", "0,1,0"))
        cap = str(int(lean["memory_bytes"] * 1.02 + 4 * 1024 ** 2))
        free = self.json(*self.plan("--pin", "pp=1,dp=1"))
        told = self.json(*self.plan("--pin", "pp=1,dp=1", "--memory-cap", cap, "--explain"))
        explanation = told["explanation"]
        self.assertTrue(explanation["has_cap"])
        uncapped = explanation["memory"][-1]
        self.assertIsNone(uncapped["cap_bytes"])
        self.assertAlmostEqual(uncapped["saving"], 1 - free["time_s"] / told["time_s"], places=9)
        self.assertEqual(explanation["cap_binds"], free["time_s"] < told["time_s"] * (1 - 1e-9))
        said = self.done(*self.plan("--pin", "pp=1,dp=1", "--memory-cap", cap, "--explain")).stdout
        self.assertIn("no cap at all", said)


class Ranges(Answers):
    def test_blocks_are_pinned_apart(self):
        free = self.json(*self.plan("--pin", "pp=1"))
        pinned = self.json(*self.plan("--pin", "pp=1,recompute=none,recompute:mlp:0=full", "-o",
                                      "r.json"))
        layers = [layer["recompute"] for layer in pinned["plan"]["layers"]]
        self.assertEqual(layers, ["none", "none", "full", "none"])
        self.assertGreaterEqual(pinned["time_s"], free["time_s"])
        self.done("run", "r.json", "--data", "text.txt", "--store", "t.db", "--steps", "1")

    def test_refusals(self):
        self.refused(2, ["recompute:0-3", "blocks 0 to 0"],
                     *self.plan("--pin", "recompute:0-3=full"))
        self.refused(2, ["pinned twice"],
                     *self.plan("--pin", "recompute:0=full,recompute:0=none"))
        for pin in ("cp=2", "ep=2", "shard=2", "offload=both", "arithmetic:0=fp8"):
            self.refused(2, [pin.split("=")[0].split(":")[0], "--cluster"],
                         *self.plan("--pin", pin))


class Risk(Answers):
    def test_smaller_never_has_more_memory(self):
        lean = self.json(*self.plan("--pin", "pp=1,dp=1", "--weights", "0,1,0"))
        cap = str(int(lean["memory_bytes"] * 1.5 + 16 * 1024 ** 2))
        before = float("inf")
        for risk in ("0.5", "0.05", "0.001"):
            told = self.json(*self.plan("--pin", "pp=1,dp=1", "--memory-cap", cap, "--risk", risk))
            self.assertEqual(told["risk"], float(risk))
            self.assertLessEqual(told["memory_bytes"], before)
            before = told["memory_bytes"]
        said = self.done(*self.plan("--pin", "pp=1", "--top", "2", "--risk", "0.01")).stdout
        self.assertIn("memory (p99)", said)


class Compare(Answers):
    def test_terms_add_up_and_choices_differ(self):
        told = self.json("plan", "--compare", "one.json", "two.json")
        one, two = (json.loads((self.folder / name).read_text())
                    for name in ("one.json", "two.json"))
        self.assertTrue(told["same_work"] and told["same_profile"])
        totals = {term["total"]: term for term in told["terms"] if term["term"] is None}
        for total in ("time", "memory of a rank"):
            parts = [term for term in told["terms"]
                     if term["total"] == total and term["term"] is not None]
            self.assertAlmostEqual(sum(part["difference"] for part in parts) /
                                   totals[total]["b"], totals[total]["difference"] /
                                   totals[total]["b"], places=9)
        self.assertEqual(totals["time"]["better"],
                         "b" if totals["time"]["difference"] < 0 else "a")
        self.assertIsNone(totals["energy of all ranks"]["a"])
        choices = {choice["choice"]: (choice["a"], choice["b"]) for choice in told["choices"]}
        self.assertEqual(choices["ranks"], ("1", "2"))
        self.assertEqual(choices["data parallel"], ("1", "2"))
        self.assertNotIn("pipeline", choices)
        self.assertNotIn("global batch", choices)
        self.assertEqual(one["global_batch"], two["global_batch"])

    def test_layers_by_runs(self):
        plan = json.loads((self.folder / "one.json").read_text())
        before = plan["layers"][2]["recompute"]
        plan["layers"][2]["recompute"] = "full" if before == "none" else "none"
        (self.folder / "other.json").write_text(json.dumps(plan))
        told = self.json("plan", "--compare", "one.json", "other.json")
        self.assertEqual(told["choices"], [])
        self.assertEqual([(run["kind"], run["first_layer"], run["last_layer"])
                          for run in told["layers"]], [("mlp", 2, 2)])
        self.assertEqual(told["layers"][0]["a"]["recompute"], before)
        said = self.done("plan", "--compare", "one.json", "other.json").stdout
        self.assertRegex(said, r"mlp +block 0 +A: ")
        self.assertIn("time: the same", said)

    def test_same_plan_and_no_store(self):
        (self.folder / "t.db").unlink()
        said = self.done("plan", "--compare", "one.json", "one.json").stdout
        self.assertIn("all have the same strategy", said)
        self.assertNotIn("choices that differ", said)

    def test_refusals(self):
        self.refused(2, ["two plan files", "found 1"], "plan", "--compare", "one.json")
        self.refused(2, ["--compare A.json B.json"], *self.plan("one.json"))
        self.refused(1, ["none.json"], "plan", "--compare", "one.json", "none.json")
        self.refused(2, ["one at a time"], "plan", "--compare", "--explain", "one.json", "two.json")


class Document(Answers):
    def test_every_command_of_the_page_works(self):
        """The page's commands, run on this test's small model."""
        commands = re.findall(r"^temper plan (.*)$", 
                              (DOCUMENTS / "plan-answers.md").read_text(encoding="utf-8"),
                              re.MULTILINE)
        self.assertGreaterEqual(len(commands), 4)
        for command in commands:
            words = shlex.split(command)
            with self.subTest(command=command):
                if "--compare" in words:
                    self.done("plan", *words)
                else:
                    self.done("plan", *words, *self.plan("--pin", "pp=1")[1:])

    def test_every_pin_of_the_page_holds(self):
        """The page's commands on a model of as many blocks; the profile is by kind of layer."""
        commands = re.findall(r"^temper plan (.*)$",
                              (DOCUMENTS / "pins.md").read_text(encoding="utf-8"), re.MULTILINE)
        self.assertEqual(len(commands), 2)
        plans = [self.json("plan", *shlex.split(command), *MODEL, "--layers", "12",
                           "--time-limit", "2")["plan"] for command in commands]
        blocks = [{(index - 1) // 2: layer for index, layer in enumerate(plan["layers"])
                   if index % 2 == 1} for plan in plans]  # of attention
        mlps = [layer for index, layer in enumerate(plans[1]["layers"]) if index % 2 == 0]
        self.assertEqual([block for block, layer in blocks[0].items()
                          if layer["recompute"] == "full"], [3, 4, 5])
        self.assertEqual(plans[0]["pipeline"], 1)
        self.assertEqual([blocks[1][0]["tensor_parallel"], blocks[1][1]["tensor_parallel"]], [2, 2])
        self.assertEqual([mlps[1 + block]["zero_stage"] for block in (2, 3, 4)], [1, 1, 1])


if __name__ == "__main__":
    main()
