"""`temper bench ops`: every layer against the machine's rates."""
import re
from pathlib import Path

from harness import MODEL, Test, main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bench.md"
QUICK = ("--threads", "1", "--budget", "0.5", "--micro-batches", "2", "--precision", "fp32")


class Bench(Test):
    def test_every_pass_is_held_against_its_limit(self):
        answer = self.json("bench", "ops", *MODEL, *QUICK)
        self.assertGreater(answer["matmul_flops"]["fp32"], 0)
        self.assertGreater(answer["copy_bytes_s"], 0)
        seen = set()
        for op in answer["ops"]:
            seen.add((op["layer"], op["pass"], op["attention"]))
            product_s = op["flops"] / answer["matmul_flops"]["fp32"]
            memory_s = op["bytes"] / answer["copy_bytes_s"]
            self.assertAlmostEqual(op["limit_s"], max(product_s, memory_s), delta=1e-12)
            self.assertEqual(op["limit"], "memory" if memory_s > product_s else "compute")
            self.assertAlmostEqual(op["reached"], op["limit_s"] / op["seconds"], delta=1e-9)
        for layer in ("attention", "mlp"):
            for name in ("forward", "backward"):
                self.assertIn((layer, name, "plain"), seen)
        self.assertIn(("attention", "backward", "tiled"), seen)
        self.assertIn(("head", "both", "plain"), seen)
        self.assertIn(("embedding", "optimizer", "plain"), seen)

    def test_the_page_names_every_key(self):
        answer = self.json("bench", "ops", *MODEL, *QUICK)
        named = set(re.findall(r"`([a-z_]+)`", PAGE.read_text()))
        self.assertLessEqual(set(answer), named)
        for op in answer["ops"]:
            self.assertLessEqual(set(op), named)

    def test_the_table_has_units_and_rates(self):
        text = self.done("bench", "ops", *MODEL, *QUICK).stdout
        self.assertRegex(text, r"matrix product, fp32: \d+\.\d GFLOP/s")
        self.assertRegex(text, r"copy: \d+\.\d GB/s")
        self.assertRegex(text, r"mlp +forward +fp32 +none +2 .* %")

    def test_wrong_use(self):
        self.refused(2, ["'kernels'", "'ops'"], "bench", "kernels", *MODEL)
        self.refused(2, ["--precision", "fp64"], "bench", "ops", *MODEL, "--precision", "fp64")
        self.refused(2, ["--model"], "bench", "ops")


if __name__ == "__main__":
    main()
