"""temper plan --cluster: the best layout on a cluster that is not at hand."""
import json

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
        (self.folder / "ours.json").write_text(json.dumps({
            "format": "temper-cluster", "version": 1, "name": "ours", "currency": "EUR",
            "carbon_g_kwh": 100, "carbon_date": "2026-01-01",
            "groups": [{"like": "h100", "nodes": 2, "device": {"price_hour": 3.6}}]}))
        answer = self.json(*PLAN, "--cluster", "ours.json")
        hours = 16 * answer["time_s"] / 3600
        self.assertAlmostEqual(answer["price"], 3.6 * hours, delta=1e-6 * answer["price"])
        joules = answer["layouts"][0]["energy_j"]
        self.assertAlmostEqual(answer["carbon_g"], joules / 3.6e6 * 100,
                               delta=1e-6 * answer["carbon_g"])
        self.assertIsNone(self.json(*PLAN, "--cluster", "h100x16")["price"])

    def test_refusals(self):
        self.refused(1, ["h100x1024"], *PLAN, "--cluster", "h1000x8")
        self.refused(2, ["all layers have the same"], *PLAN, "--cluster", "h100x8", "--pin",
                     "zero:mlp=2")
        self.refused(1, ["fp8", "a100-80"], *PLAN, "--cluster", "a100-80x8", "--arithmetic", "fp8")
        self.refused(3, ["no layout fits", "GiB"], "plan", "--model", "llama-3.1-405b",
                     "--global-batch", "8", "--cluster", "h100x8")


if __name__ == "__main__":
    main()
