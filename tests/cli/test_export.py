"""Plans handed over: what is written, what is lost and whether its price is the predicted one."""
import json
import re

from harness import MODEL, Test, main

PLAN = ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--ranks", "2")
# Every choice of a plan of two ranks but the ZeRO stages.
PINS = "dp=2,micro-batch=1,threads=1,recompute=none,precision=fp32"


class Export(Test):
    def plan(self, pins, *options):
        """A plan file with these pins, and its predicted seconds."""
        told = self.json(*PLAN, "--pin", pins, "-o", "p.json", *options)
        return told["time_s"]

    def edit(self, change):
        plan = json.loads((self.folder / "p.json").read_text())
        change(plan)
        (self.folder / "p.json").write_text(json.dumps(plan))

    def export(self, target, *options):
        told = self.json("plan", "p.json", "--store", "t.db", "--export", target, *options)
        return told["export"]

    def test_to_a_file(self):
        said = self.done(*PLAN, "--pin", PINS + ",zero=0", "--export", "megatron=m.args")
        self.assertIn("export to megatron: it runs the plan as it is", said.stdout)
        self.assertIn("written to m.args", said.stdout)
        lines = (self.folder / "m.args").read_text().splitlines()
        for line in ("--num-layers 1", "--hidden-size 32", "--seq-length 16",
                     "--global-batch-size 4", "--micro-batch-size 1", "--overlap-grad-reduce"):
            self.assertIn(line, lines)
        self.assertNotIn("--use-distributed-optimizer", lines)
        self.assertNotIn("--bf16", lines)

    def test_to_the_terminal(self):
        said = self.done(*PLAN, "--pin", PINS + ",zero=0", "--export", "nemo")
        self.assertIn("\nmodel.num_layers=1\n", said.stdout)
        self.assertIn("note: ", said.stdout)

    def test_json(self):
        told = self.json(*PLAN, "--pin", PINS + ",zero=2", "--export", "deepspeed=ds.json")
        export = told["export"]
        self.assertEqual((export["target"], export["file"]), ("deepspeed", "ds.json"))
        self.assertEqual((export["losses"], export["time_share"]), ([], 0.0))
        self.assertEqual((self.folder / "ds.json").read_text(), export["text"])
        config = json.loads(export["text"])
        self.assertEqual(config["train_batch_size"], 4)
        self.assertEqual(config["train_micro_batch_size_per_gpu"], 1)
        self.assertEqual(config["gradient_accumulation_steps"], 2)
        self.assertEqual(config["zero_optimization"]["stage"], 2)
        self.assertTrue(any("hidden 32" in note for note in export["notes"]))

    def test_gradients_in_bf16(self):
        """No layer is measured in bf16: a note says that gradients are in fp32."""
        self.plan(PINS.replace(",precision=fp32", ",zero=0,gradients=bf16"))
        deepspeed = self.export("deepspeed=ds.json")
        self.assertNotIn("communication", deepspeed["text"])
        self.assertTrue(any("none of its layers is in bf16" in note
                            for note in deepspeed["notes"]))
        megatron = self.export("megatron=m.args")
        self.assertNotIn("--grad-reduce-in-bf16", megatron["text"])
        self.assertTrue(any("--grad-reduce-in-bf16 goes with --bf16" in note
                            for note in megatron["notes"]))
        self.plan(PINS + ",zero=0")
        self.assertNotIn("communication", self.export("deepspeed=ds.json")["text"])

    def test_price_of_a_loss(self):
        """ZeRO 1 in one layer, 0 in the others: one for all is predicted as pinned for all."""
        mixed_s = self.plan(PINS + ",zero=0,zero:attention=1")
        alike_s = {stage: self.plan(f"{PINS},zero={stage}") for stage in (0, 1)}
        self.plan(PINS + ",zero=0,zero:attention=1")
        export = self.export("megatron")
        (loss,) = export["losses"]
        self.assertEqual(loss["field"], "zero_stage")
        stage = int(re.search(r"ZeRO stage (\d)", loss["runs"]).group(1))
        self.assertEqual(alike_s[stage], min(alike_s.values()))
        self.assertAlmostEqual(loss["time_share"], (alike_s[stage] - mixed_s) / mixed_s, places=9)
        self.assertAlmostEqual(export["time_share"], loss["time_share"], places=9)
        self.assertEqual(loss["layers"], {0: 1, 1: 3}[stage])

    def test_what_does_not_fit(self):
        """No recompute mode that NeMo has for all layers gets below this cap."""
        def change(plan):
            plan["memory_cap_bytes"] = 1024 ** 2
            plan["layers"][1]["recompute"] = "full"
        self.plan(PINS + ",zero=0")
        self.edit(change)
        self.refused(3, ["nemo", "recompute", "missing", "--memory-cap"], "plan", "p.json",
                     "--store", "t.db", "--export", "nemo=n.txt")
        self.assertFalse((self.folder / "n.txt").exists())

    def test_without_a_store(self):
        self.plan(PINS + ",zero=0,zero:attention=1")
        result = self.temper("plan", "p.json", "--store", "none.db", "--export", "megatron",
                             "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("none.db", result.stderr)
        export = json.loads(result.stdout)["export"]
        self.assertIsNone(export["time_share"])
        self.assertIsNone(export["losses"][0]["time_share"])
        # the leanest where nothing can be predicted
        self.assertIn("--use-distributed-optimizer\n", export["text"])
        self.assertFalse((self.folder / "none.db").exists())

    def test_refusals(self):
        self.refused(2, ["--export", "'megatrom'", "megatron, deepspeed, torchtitan, nemo"],
                     *PLAN, "--export", "megatrom=x")
        self.refused(2, ["--export", "no file"], *PLAN, "--export", "nemo=")
        self.refused(1, ["torchtitan", "gpt2"], *PLAN, "--export", "torchtitan=t.toml")
        self.assertFalse((self.folder / "t.toml").exists())
        self.refused(1, ["none.json"], "plan", "none.json", "--export", "nemo")
        self.refused(1, ["no/such"], *PLAN, "--pin", PINS, "--export", "nemo=no/such/file")


CLUSTER = ("plan", "--model", "llama-3-8b", "--seq-length", "8192", "--global-batch", "64",
           "--cluster", "h100x16", "--pin", "pp=4,dp=2,tp=2,micro-batch=1,v=1,zero=1,sp=on")


class ExportOfLayouts(Test):
    """Llama-3-8B on 16 devices is quickest with fewer blocks on the first and the last stage."""

    def test_as_planned(self):
        answer = self.json(*CLUSTER, "--export", "megatron")
        blocks = [stage["blocks"] for stage in answer["stages"]]
        self.assertEqual(sum(blocks), 32)
        self.assertNotEqual(len(set(blocks)), 1)
        export = answer["export"]
        self.assertEqual((export["losses"], export["time_share"]), ([], 0))
        lines = export["text"].splitlines()
        self.assertIn(f"--decoder-first-pipeline-num-layers {blocks[0]}", lines)
        self.assertIn(f"--decoder-last-pipeline-num-layers {blocks[-1]}", lines)

    def test_price_of_equal_stages(self):
        """What NeMo runs instead is a uniform layout: its price is that of the list's."""
        answer = self.json(*CLUSTER, "--top", "1000", "--export", "nemo")
        (uniform,) = [row for row in answer["layouts"][1:]
                      if row["recompute"] == "none" and row["schedule"] == "1f1b"
                      and row["shard"] == 2 and row["offload"] in ("none", None)]
        (loss,) = answer["export"]["losses"]
        self.assertEqual(loss["field"], "stage")
        self.assertGreater(loss["time_share"], 0)
        self.assertAlmostEqual(answer["time_s"] * (1 + loss["time_share"]), uniform["time_s"],
                               places=9)
        self.assertAlmostEqual(loss["memory_bytes"],
                               uniform["memory_bytes"] - answer["memory_bytes"], delta=1)
        self.assertIn("model.optim.name=mcore_distributed_optim\n", answer["export"]["text"])

    def test_another_software(self):
        """torchtitan has no ZeRO 1: its FSDP is another layout, with a price."""
        said = self.done(*CLUSTER, "--export", "torchtitan=t.toml").stdout
        self.assertIn("zero_stage: ZeRO stage 2 of fsdp instead of the plan's", said)
        self.assertIn("data_parallel_shard_degree = 2\n", (self.folder / "t.toml").read_text())

    def test_more_is_recomputed_to_fit(self):
        planned = self.json(*CLUSTER, "--export", "nemo")
        cap = planned["memory_bytes"] * 1.03
        export = self.json(*CLUSTER, "--memory-cap", f"{int(cap)}", "--export", "nemo")["export"]
        self.assertEqual([loss["field"] for loss in export["losses"]], ["stage", "recompute"])
        self.assertGreater(export["losses"][1]["time_share"], 0)
        self.assertLess(export["losses"][1]["memory_bytes"], 0)

    def test_what_does_not_fit(self):
        """Megatron-LM's weights and gradients are whole on every device, where ZeRO 3 had parts."""
        plan = ("plan", "--model", "llama-3-8b", "--seq-length", "8192", "--global-batch", "64",
                "--cluster", "h100x16", "--framework", "fsdp", "--pin",
                "pp=1,tp=1,cp=1,zero=3,shard=16,recompute=full,micro-batch=1")
        needed = self.json(*plan)["memory_bytes"]
        self.refused(3, ["megatron", "missing", "--memory-cap"], *plan,
                     "--memory-cap", f"{int(needed * 1.1)}", "--export", "megatron=m.args")
        self.assertFalse((self.folder / "m.args").exists())


if __name__ == "__main__":
    main()
