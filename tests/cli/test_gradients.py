"""Gradients in bf16: asked for by a pin, told wherever a plan is, and trained with."""
import json

from harness import MODEL, Test, main

PLAN = ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--ranks", "2")
PINS = "dp=2,zero=0,micro-batch=1,recompute=none,precision=bf16"


class Gradients(Test):
    def measure_bf16(self):
        measured = self.temper("profile", *MODEL, "--store", "t.db", "--budget", "0.5", "--ranks", "2",
                               "--threads", "1", "--micro-batches", "1", "--precision", "bf16")
        if measured.returncode != 0:
            self.assertIn("bf16", measured.stderr)
            self.skipTest("no products in bf16 here")

    def plan(self, name, pins):
        self.done(*PLAN, "--pin", pins, "-o", name)
        return json.loads((self.folder / name).read_text())

    def test_only_where_pinned(self):
        self.assertEqual(self.plan("p.json", "dp=2")["gradient_reduction"], "fp32")
        self.assertEqual(self.plan("p.json", "dp=2,gradients=fp32")["gradient_reduction"], "fp32")
        narrow = self.plan("p.json", "dp=2,gradients=bf16")
        self.assertEqual((narrow["version"], narrow["gradient_reduction"]), (3, "bf16"))
        self.refused(2, ["gradients=bf16", "layers in bf16"], *PLAN, "--pin",
                     "gradients=bf16,precision=fp32")
        self.refused(2, ["gradients", "fp16"], *PLAN, "--pin", "gradients=fp16")
        self.refused(2, ["gradients", "--cluster"], "plan", "--model", "llama-3-8b",
                     "--global-batch", "64", "--cluster", "h100x16", "--pin", "gradients=bf16")

    def test_less_memory_another_time(self):
        self.measure_bf16()
        wide, narrow = self.plan("a.json", PINS), self.plan("b.json", PINS + ",gradients=bf16")
        terms = [plan["prediction"]["memory_term_bytes"] for plan in (wide, narrow)]
        for term in terms[0]:
            less = terms[1][term]["value"] / max(terms[0][term]["value"], 1)
            if term == "gradients":  # all but the vectors' and the positions' halved
                self.assertGreater(less, 0.5)
                self.assertLess(less, 0.75)
            else:
                self.assertEqual(terms[0][term], terms[1][term])
        phases = [plan["prediction"]["phase_time_s"] for plan in (wide, narrow)]
        self.assertEqual(phases[0]["backward"], phases[1]["backward"])
        self.assertNotEqual(phases[0]["grad_reduce"]["value"], phases[1]["grad_reduce"]["value"])
        told = self.done("plan", "--compare", "a.json", "b.json").stdout
        self.assertRegex(told, r"gradients +fp32 +bf16")

    def test_trains_like_fp32(self):
        self.measure_bf16()
        losses = {}
        for name, pins in (("fp32", PINS), ("bf16", PINS + ",gradients=bf16")):
            text = self.done(*PLAN, "--pin", pins, "-o", "p.json").stdout
            self.assertEqual("gradients of layers in bf16 are kept and sent in bf16" in text, name == "bf16")
            self.train("p.json", "--steps", "8", "--log", f"{name}.jsonl")
            losses[name] = self.losses(f"{name}.jsonl")
            told = self.done("report", "--store", "t.db", "--html", "r.html").stdout
            page = (self.folder / "r.html").read_text()
            self.assertEqual("bf16, of layers in bf16" in told, name == "bf16")
            self.assertEqual("Gradients of bf16 layers in" in page, name == "bf16")
            summary = self.json("report", "--store", "t.db")
            self.assertEqual(summary["gradient_reduction"], name)
        self.assertEqual(losses["fp32"][1], losses["bf16"][1])
        self.assertNotEqual(losses["fp32"], losses["bf16"])
        for step, loss in losses["fp32"].items():
            self.assertAlmostEqual(losses["bf16"][step] / loss, 1, delta=1e-4)


if __name__ == "__main__":
    main()
