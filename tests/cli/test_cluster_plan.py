"""temper plan --cluster: the best layout on a cluster that is not at hand."""
import csv
import json
import xml.etree.ElementTree as xml

from harness import Test, main

PLAN = ("plan", "--model", "llama-3-8b", "--seq-length", "4096", "--global-batch", "64")


class ClusterPlan(Test):
    def test_best_layouts(self):
        answer = self.json(*PLAN, "--cluster", "h100x16", "--top", "5")
        self.assertEqual(answer["devices"], 16)
        self.assertTrue(answer["whole"])
        self.assertGreaterEqual(answer["considered"], answer["fitting"])
        self.assertEqual(len(answer["layouts"]), 5)
        for layout in answer["layouts"]:
            self.assertEqual(layout["data_parallel"] * layout["tensor_parallel"]
                             * layout["pipeline"] * layout["context_parallel"], 16)
            self.assertEqual(layout["data_parallel"] * layout["micro_batch"]
                             * layout["micro_batches"], 64)
            self.assertLess(layout["memory_bytes"], 80 * 2**30)
        times = [layout["time_s"] for layout in answer["layouts"]]
        self.assertEqual(times, sorted(times))
        self.assertAlmostEqual(answer["time_s"], times[0], delta=1e-9 * times[0])
        self.assertTrue(0.1 < answer["mfu"] < 0.8, answer["mfu"])

    def test_table(self):
        said = self.done(*PLAN, "--cluster", "h100x16").stdout
        for word in ("llama-3-8b", "dp", "tp", "forward", "memory of a device", "MFU",
                     "layouts priced"):
            self.assertIn(word, said)

    def test_less_memory_is_not_faster(self):
        free = self.json(*PLAN, "--cluster", "h100x16")
        capped = self.json(*PLAN, "--cluster", "h100x16", "--memory-cap",
                           f"{int(0.7 * free['memory_bytes'])}")
        self.assertGreaterEqual(capped["time_s"], free["time_s"])
        self.assertLessEqual(capped["memory_bytes"], 0.7 * free["memory_bytes"])

    def test_pins(self):
        layout = self.json(*PLAN, "--cluster", "h100x16", "--pin",
                           "tp=4,pp=2,recompute=full,zero=1,sp=on")["layouts"][0]
        self.assertEqual((layout["tensor_parallel"], layout["pipeline"], layout["zero_stage"]),
                         (4, 2, 1))
        self.assertEqual(layout["recompute"], "full")
        self.assertTrue(layout["sequence_parallel"])

    def test_front(self):
        front = self.json(*PLAN, "--cluster", "h100x16", "--pareto", "time,memory", "--csv",
                          "front.csv")["layouts"]
        best = self.json(*PLAN, "--cluster", "h100x16")
        self.assertAlmostEqual(front[0]["time_s"], best["time_s"], delta=1e-9)
        for one, other in zip(front, front[1:]):
            self.assertLess(one["time_s"], other["time_s"])
            self.assertGreater(one["memory_bytes"], other["memory_bytes"])
        lines = (self.folder / "front.csv").read_text().splitlines()
        self.assertEqual(len(lines), 1 + len(front))
        self.refused(2, ["time,speed"], *PLAN, "--cluster", "h100x16", "--pareto", "time,speed")

    def test_export(self):
        said = self.done(*PLAN, "--cluster", "h100x16", "--pin", "tp=4,pp=2,micro-batch=1",
                         "--export", "megatron").stdout
        for words in ("--tensor-model-parallel-size 4", "--pipeline-model-parallel-size 2",
                      "--micro-batch-size 1", "--global-batch-size 64"):
            self.assertIn(words, said)
        answer = self.json(*PLAN, "--cluster", "h100x16", "--export", "megatron")
        self.assertIn("export", answer)

    def test_price_and_carbon(self):
        answer = self.json(*PLAN, "--cluster", self.priced())
        hours = 16 * answer["time_s"] / 3600
        self.assertAlmostEqual(answer["price"], 3.6 * hours, delta=1e-6 * answer["price"])
        joules = answer["layouts"][0]["energy_j"]
        self.assertAlmostEqual(answer["carbon_g"], joules / 3.6e6 * 100,
                               delta=1e-6 * answer["carbon_g"])
        self.assertIsNone(self.json(*PLAN, "--cluster", "h100x16")["price"])

    def priced(self):
        (self.folder / "ours.json").write_text(json.dumps({
            "format": "temper-cluster", "version": 1, "name": "ours", "currency": "EUR",
            "carbon_g_kwh": 100, "carbon_date": "2026-01-01",
            "groups": [{"like": "h100", "nodes": 2, "device": {"price_hour": 3.6}}]}))
        return "ours.json"

    def test_front_of_cost_and_carbon(self):
        front = self.json(*PLAN, "--cluster", self.priced(), "--pareto", "memory,cost,carbon",
                          "--csv", "f.csv", "--svg", "f.svg")
        layouts = front["layouts"]
        self.assertEqual(front["axes"], ["memory", "cost", "carbon"])
        self.assertEqual(front["currency"], "EUR")
        self.assertGreater(len(layouts), 2)
        keys = ("memory_bytes", "price", "carbon_g")
        for one in layouts:
            self.assertAlmostEqual(one["price"], 3.6 * 16 * one["time_s"] / 3600, places=9)
            self.assertAlmostEqual(one["carbon_g"], one["energy_j"] / 3.6e6 * 100, places=9)
            for other in layouts:
                self.assertFalse(other is not one and
                                 all(other[key] <= one[key] for key in keys), (one, other))
        with open(self.folder / "f.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["price"]) for row in rows], [row["price"] for row in layouts])
        self.assertEqual([row["plan_only"].split() for row in rows],
                         [row["plan_only"] for row in layouts])
        drawing = xml.parse(self.folder / "f.svg").getroot()
        titles = [node for node in drawing.iter() if node.tag.endswith("}title")]
        self.assertEqual(len(titles), len(layouts))
        words = "".join(drawing.itertext())
        for word in ("price of a step (EUR)", "GiB", "leanest", "cheapest"):
            self.assertIn(word, words)
        self.refused(2, ["cost", "h100x16", "price"], *PLAN, "--cluster", "h100x16", "--pareto",
                     "time,cost")
        self.refused(2, ["carbon", "carbon_g_kwh"], *PLAN, "--cluster", "h100x16", "--pareto",
                     "time,carbon")

    def test_risk(self):
        """A smaller risk never has more memory, nor less time; what holds is within the cap."""
        cap, before_s = 30 * 2**30, 0
        for risk in ("0.5", "0.05", "0.001", "1e-6"):
            answer = self.json(*PLAN, "--cluster", "h100x16", "--memory-cap", str(cap), "--risk",
                               risk)
            self.assertEqual(answer["risk"], float(risk))
            self.assertLessEqual(answer["memory_bytes"], cap)
            self.assertGreaterEqual(answer["time_s"], before_s)
            before_s = answer["time_s"]
        usual = self.json(*PLAN, "--cluster", "h100x16", "--memory-cap", str(cap))
        self.assertEqual(usual["risk"], 0.05)
        for risk in ("0", "-1", "0.7", "x"):
            self.refused(2, ["--risk"], *PLAN, "--cluster", "h100x16", "--risk", risk)

    def test_executable(self):
        pinned = self.json(*PLAN, "--cluster", "h100x16", "--pin", "cp=2")["layouts"][0]
        self.assertEqual((pinned["context_parallel"], pinned["plan_only"]),
                         (2, ["context_parallel"]))
        self.assertIn("plan-only: context_parallel",
                      self.done(*PLAN, "--cluster", "h100x16", "--pin", "cp=2").stdout)
        free = self.json(*PLAN, "--cluster", "h100x16", "--top", "1000")
        answer = self.json(*PLAN, "--cluster", "h100x16", "--top", "1000", "--executable")
        self.assertTrue(any(layout["plan_only"] for layout in free["layouts"]))
        self.assertFalse(any(layout["plan_only"] for layout in answer["layouts"]))
        self.assertLess(answer["considered"], free["considered"])
        best = next(layout for layout in free["layouts"] if not layout["plan_only"])
        self.assertEqual(answer["time_s"], best["time_s"])
        for pin in ("cp=2", "offload=both"):
            self.refused(2, [pin.partition("=")[0], "plan-only"], *PLAN, "--cluster", "h100x16",
                         "--executable", "--pin", pin)
        self.refused(2, ["fp8", "plan-only"], *PLAN, "--cluster", "h100x16", "--executable",
                     "--arithmetic", "fp8")
        self.refused(1, ["experts"], "plan", "--model", "mixtral-8x7b", "--global-batch", "64",
                     "--cluster", "h100x16", "--executable")

    def test_pins_of_described_clusters(self):
        layout = self.json(*PLAN, "--cluster", "h100x16", "--pin",
                           "schedule=interleaved,pp=2,cp=2,zero=1")["layouts"][0]
        self.assertEqual((layout["schedule"], layout["pipeline"], layout["context_parallel"]),
                         ("interleaved", 2, 2))
        self.assertGreater(layout["virtual_stages"], 1)
        self.assertEqual(layout["shard"], layout["data_parallel"] * 2)
        for pin, words in (("ep=2", ["ep=2", "no experts"]), ("recompute:30-40=full",
                                                              ["30-40", "blocks 0 to 31"]),
                           ("zero:0-1=1", ["same split"]), ("recompute:mlp:0=full", ["block"]),
                           ("precision:0=fp32", ["arithmetic"]), ("threads=2", ["threads"])):
            self.refused(2, words, *PLAN, "--cluster", "h100x16", "--pin", pin)

    def test_refusals(self):
        self.refused(1, ["h100x1024"], *PLAN, "--cluster", "h1000x8")
        self.refused(2, ["all layers have the same"], *PLAN, "--cluster", "h100x8", "--pin",
                     "zero:mlp=2")
        self.refused(1, ["fp8", "a100-80"], *PLAN, "--cluster", "a100-80x8", "--arithmetic", "fp8")
        self.refused(3, ["no layout fits", "GiB"], "plan", "--model", "llama-3.1-405b",
                     "--global-batch", "8", "--cluster", "h100x8")


if __name__ == "__main__":
    main()
