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
        self.assertLessEqual(best["time_s"], front[0]["time_s"] + 1e-9)  # its blocks may differ
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
            front = self.json(*PLAN, "--cluster", "h100x16", "--memory-cap", str(cap), "--risk",
                              risk, "--pareto", "time,memory")
            self.assertEqual(front["risk"], float(risk))
            for layout in front["layouts"]:
                self.assertLessEqual(layout["memory_bytes"], cap)
            self.assertGreaterEqual(front["layouts"][0]["time_s"], before_s)
            before_s = front["layouts"][0]["time_s"]
        usual = self.json(*PLAN, "--cluster", "h100x16")
        self.assertEqual(usual["risk"], 0.05)
        for risk in ("0", "-1", "0.7", "x"):
            self.refused(2, ["--risk"], *PLAN, "--cluster", "h100x16", "--risk", risk)

    def test_executable(self):
        quick = ("--cluster", "h100x16", "--gap", "0.5")
        pinned = self.json(*PLAN, *quick, "--pin", "cp=2")["layouts"][0]
        self.assertEqual((pinned["context_parallel"], pinned["plan_only"]),
                         (2, ["context_parallel"]))
        self.assertIn("plan-only: context_parallel",
                      self.done(*PLAN, *quick, "--pin", "cp=2").stdout)
        free = self.json(*PLAN, "--cluster", "h100x16", "--pareto", "time,memory")
        front = self.json(*PLAN, "--cluster", "h100x16", "--pareto", "time,memory", "--executable")
        self.assertTrue(any(layout["plan_only"] for layout in free["layouts"]))
        self.assertFalse(any(layout["plan_only"] for layout in front["layouts"]))
        self.assertLess(front["considered"], free["considered"])
        for layout in free["layouts"]:  # for what the executor has its own front has a row, too
            most_bytes = layout["memory_bytes"] / (1 - front["memory_step"]) * (1 + 1e-9)
            near = [other["time_s"] for other in front["layouts"]
                    if other["memory_bytes"] <= most_bytes]
            if not layout["plan_only"]:
                self.assertLessEqual(min(near) * (1 - front["gap"]), layout["time_s"] * (1 + 1e-9))
        answer = self.json(*PLAN, *quick, "--top", "1000", "--executable")
        self.assertFalse(any(layout["plan_only"] for layout in answer["layouts"]))
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

    def test_attention_and_overlap(self):
        """Both can be pinned; --explain says what pinning says; neither is plan-only."""
        command = (*PLAN, "--cluster", "h100x8", "--raw-weights")
        answer = self.json(*command, "--explain")
        best = answer["layouts"][0]
        self.assertEqual((best["fused_attention"], best["overlap"]), (True, True))
        rows = {row["choice"]: row for row in answer["explanation"]["choices"]}
        for choice, pin in (("fused_attention", "fused-attention"), ("overlap", "overlap")):
            row = rows[choice]
            self.assertEqual((row["value"], row["next_best"]), ("on", "off"))
            pinned = self.json(*command, "--pin", f"{pin}=off")
            self.assertFalse(pinned["layouts"][0][choice])
            self.assertGreater(row["gain"], 0)
            self.assertAlmostEqual(pinned["objective"] / answer["objective"] - 1, row["gain"],
                                   delta=1e-6)
            said = self.done(*command, "--pin", f"{pin}=off", "--executable").stdout
            self.assertIn(" off ", said)
        rest = self.json(*command, "--executable", "--pin", "fused-attention=off")["layouts"]
        self.assertTrue(all(not row["fused_attention"] and not row["plan_only"] for row in rest))
        self.refused(2, ["cp=2", "fused"], *command, "--pin", "cp=2,fused-attention=off")
        self.refused(2, ["on nor off"], *command, "--pin", "overlap=no")

    def test_front_has_attention(self):
        self.json(*PLAN, "--cluster", "h100x8", "--pareto", "time,memory", "--pin",
                  "fused-attention=off", "--csv", "front.csv")
        with open(self.folder / "front.csv", newline="") as lines:
            rows = list(csv.DictReader(lines))
        self.assertTrue(rows)
        self.assertTrue(all((row["fused_attention"], row["overlap"]) == ("0", "1")
                            for row in rows))

    def test_pins_of_blocks(self):
        pins = "pp=2,tp=4,schedule=1f1b,recompute:0-3=full,recompute:9=full"
        rest = ",recompute:4-8=none,recompute:10-31=none"
        said = self.done(*PLAN, "--cluster", "h100x16", "--pin", pins + rest).stdout
        self.assertIn("recompute full 0-3, 9", said)
        self.assertIn("by block", said)
        self.refused(2, ["arithmetic:2-5=fp8", "--arithmetic"], *PLAN, "--cluster", "h100x16",
                     "--pin", "arithmetic:2-5=fp8")

    def test_arithmetic_is_a_choice(self):
        """The best over all names is the best over each storage alone, with one bound."""
        command = (*PLAN, "--cluster", "h100x16", "--raw-weights")

        def answer(names, *more):
            return self.json(*command, "--arithmetic", names, *more)

        alone = {names: answer(names) for names in ("fp32", "tf32", "bf16", "fp16", "bf16,fp8")}
        several = answer("fp32,fp8,tf32,bf16,fp16")
        self.assertAlmostEqual(several["objective"],
                               min(each["objective"] for each in alone.values()), delta=1e-9)
        self.assertLessEqual(several["bound"], min(each["objective"] for each in alone.values()))
        self.assertEqual(several["layouts"][0]["arithmetic"], "bf16")
        wide = answer("fp32,tf32")
        self.assertEqual(wide["objective"], alone["tf32"]["objective"])
        self.assertEqual(wide["shapes"], alone["tf32"]["shapes"])
        self.assertGreater(alone["fp32"]["objective"], wide["objective"])
        self.assertEqual({row["arithmetic"] for row in wide["layouts"]}, {"tf32"})
        said = self.done(*command, "--arithmetic", "tf32,bf16").stdout
        self.assertIn(" bf16 ", said)
        explained = answer("tf32,bf16", "--explain")["explanation"]["choices"]
        row = next(row for row in explained if row["choice"] == "arithmetic")
        self.assertEqual((row["value"], row["next_best"]), ("bf16", "tf32"))
        self.assertAlmostEqual(row["gain"],
                               alone["tf32"]["objective"] / alone["bf16"]["objective"] - 1,
                               delta=1e-6)

    def test_arithmetic_of_blocks(self):
        command = (*PLAN, "--cluster", "h100x16")
        mixed = self.json(*command, "--arithmetic", "fp32,tf32,bf16,fp8", "--pin",
                          "arithmetic:0-3=fp32")
        self.assertEqual(mixed["layouts"][0]["arithmetic"], "tf32")
        first = mixed["stages"][0]["arithmetic"][0]
        self.assertEqual(first, {"mode": "fp32", "blocks": 4})
        plain = self.json(*command, "--arithmetic", "tf32")
        self.assertGreater(mixed["time_s"], plain["time_s"])
        half = self.json(*command, "--arithmetic", "tf32,fp16,fp8", "--pin",
                         "arithmetic:0-1=fp16,arithmetic:30-31=fp8")
        self.assertEqual(half["layouts"][0]["arithmetic"], "fp16")
        self.refused(2, ["arithmetic:2-2=tf32", "no layout"], *command, "--arithmetic",
                     "tf32,bf16,fp8", "--pin", "arithmetic:0-1=fp8,arithmetic:2=tf32")
        for names, words in (("bf16,", "expected fp32"), ("bf17", "expected fp32"),
                             ("fp8,bf16,fp8", "twice")):
            self.refused(2, [words], *command, "--arithmetic", names)
        self.refused(1, ["bf16", "v100"], *PLAN, "--cluster", "v100x16", "--arithmetic", "fp16,bf16")
        self.refused(2, ["tf32", "plan-only"], *command, "--arithmetic", "bf16,tf32",
                     "--executable")

    def test_blocks_that_differ(self):
        """Where full recompute of every block is more than memory asks for."""
        command = ("plan", "--model", "llama-3-70b", "--seq-length", "8192", "--global-batch", "32",
                   "--cluster", "h100x16", "--pin", "offload=none,tp=8,pp=2")
        answer = self.json(*command)
        best, uniform = answer["layouts"][:2]
        self.assertEqual((best["recompute"], uniform["recompute"]), ("by block", "full"))
        self.assertLess(best["time_s"], uniform["time_s"])
        self.assertEqual(sum(stage["blocks"] for stage in answer["stages"]), 80)
        modes = {run["mode"] for stage in answer["stages"] for run in stage["recompute"]}
        self.assertEqual(modes, {"none", "full"})
        self.assertLessEqual(answer["bound"], answer["objective"])
        self.assertEqual(answer["optimal"], answer["gap"] == 0)
        said = self.done(*command).stdout
        for words in ("stage 0: blocks 0-", "gain over uniform", "the first layout is optimal"):
            self.assertIn(words, said)

    def test_unlike_devices(self):
        """Stages on slower devices get fewer blocks."""
        (self.folder / "mixed.json").write_text(json.dumps({
            "format": "temper-cluster", "version": 1, "name": "mixed",
            "groups": [{"like": "h100", "nodes": 1}, {"like": "a100-80", "nodes": 1}]}))
        answer = self.json(*PLAN, "--cluster", "mixed.json", "--pin", "pp=2,tp=8,v=1")
        blocks = {stage["group"]: stage["blocks"] for stage in answer["stages"]}
        self.assertEqual(sum(blocks.values()), 32)
        self.assertGreater(blocks[0], 1.3 * blocks[1])
        fast = self.json(*PLAN, "--cluster", "h100x16", "--pin", "pp=2,tp=8,v=1")["time_s"]
        slow = self.json(*PLAN, "--cluster", "a100-80x16", "--pin", "pp=2,tp=8,v=1")["time_s"]
        self.assertTrue(fast < answer["time_s"] < slow, (fast, answer["time_s"], slow))
        self.refused(2, ["--pareto"], *PLAN, "--cluster", "mixed.json", "--pareto", "time,memory")

    def test_explain(self):
        """What it says of a choice is what pinning the next best finds."""
        command = (*PLAN, "--cluster", "h100x8", "--raw-weights")
        answer = self.json(*command, "--explain")
        explanation = answer["explanation"]
        keys = {"tensor_parallel": "tp", "pipeline": "pp", "zero_stage": "zero"}
        rows = [row for row in explanation["choices"] if row["choice"] in keys and row["compared"]]
        self.assertGreater(len(rows), 1)
        for row in rows:
            self.assertGreaterEqual(row["gain"], row["least_gain"])
            self.assertGreaterEqual(row["least_gain"], -1e-9)
            pinned = self.json(*command, "--pin", f"{keys[row['choice']]}={row['next_best']}")
            self.assertAlmostEqual(pinned["objective"] / answer["objective"] - 1, row["gain"],
                                   delta=1e-6)
        savings = [row["saving"] for row in explanation["memory"] if row["fits"]]
        self.assertEqual(savings, sorted(savings))
        said = self.done(*command, "--explain").stdout
        for words in ("next best", "what memory is worth", "explained by"):
            self.assertIn(words, said)

    def test_refusals(self):
        self.refused(1, ["h100x1024"], *PLAN, "--cluster", "h1000x8")
        self.refused(2, ["all layers have the same"], *PLAN, "--cluster", "h100x8", "--pin",
                     "zero:mlp=2")
        self.refused(1, ["fp8", "a100-80"], *PLAN, "--cluster", "a100-80x8", "--arithmetic", "fp8")
        self.refused(3, ["no layout fits", "GiB more than", "on 64 devices some"], "plan", "--model", "llama-3.1-405b",
                     "--global-batch", "8", "--cluster", "h100x8")


if __name__ == "__main__":
    main()
