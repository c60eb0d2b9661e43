"""Types of models that are planned on a described cluster but not executed: experts, biases of q, k
and v, encoders."""
import json

from harness import Test, main

# model, parameters by hand (tests/ir/test_model.c), what the executor lacks
TYPES = (("mixtral-8x7b", 46702792704, "experts"),
         ("qwen2.5-7b", 7615616512, "biases"),
         ("bert-base-uncased", 109514298, "bidirectional"))


class ModelTypes(Test):
    def test_model(self):
        for name, parameters, _ in TYPES:
            self.assertEqual(self.json("model", "--model", name)["parameters"], parameters)
            self.assertIn(f"{parameters:,}", self.done("model", "--model", name).stdout)
        mixtral = self.json("model", "--model", "mixtral-8x7b")
        self.assertEqual(mixtral["active_parameters"], 12879925248)
        self.assertEqual(sum(layer["parameters"] for layer in mixtral["layers"]),
                         mixtral["parameters"])
        self.assertIn("8 experts", self.done("model", "--model", "mixtral-8x7b").stdout)

    def test_plan_on_a_cluster(self):
        for name, _, _ in TYPES:
            best = self.json("plan", "--model", name, "--seq-length", "512", "--global-batch", "32",
                             "--cluster", "h100x16", "--pin", "micro-batch=1")
            self.assertGreater(best["fitting"], 0, name)

    def test_experts_are_shared_out(self):
        plan = ("plan", "--model", "mixtral-8x7b", "--seq-length", "4096", "--global-batch", "64",
                "--cluster", "h100x64", "--pin", "pp=4,micro-batch=1")
        best = self.json(*plan)["layouts"][0]
        self.assertGreater(best["expert_parallel"], 1)
        self.assertEqual(8 % best["expert_parallel"], 0)
        self.assertIn(" ep ", self.done(*plan).stdout)
        said = self.done(*plan, "--export", "megatron").stdout
        self.assertIn("--num-experts 8", said)
        self.assertIn(f"--expert-model-parallel-size {best['expert_parallel']}", said)

    def test_a_config_with_dense_blocks_between(self):
        (self.folder / "config.json").write_text(json.dumps({
            "model_type": "qwen2_moe", "hidden_size": 1024, "intermediate_size": 4096,
            "num_attention_heads": 16, "num_hidden_layers": 8, "vocab_size": 32000,
            "max_position_embeddings": 4096, "num_experts": 16, "num_experts_per_tok": 4,
            "moe_intermediate_size": 512, "shared_expert_intermediate_size": 1024,
            "decoder_sparse_step": 2}))
        layers = self.json("model", "--model", "config.json")["layers"]
        self.assertEqual([layer["block"] for layer in layers if "experts" in layer], [1, 3, 5, 7])
        best = self.json("plan", "--model", "config.json", "--global-batch", "16", "--cluster",
                         "h100x8", "--pin", "micro-batch=1")
        self.assertGreater(best["fitting"], 0)

    def test_the_executor_refuses_them(self):
        for name, _, lacks in TYPES:
            self.refused(1, [name, lacks, "temper plan --cluster"], "profile", "--model", name)
            self.refused(1, [name, lacks, "temper plan --cluster"], "plan", "--model", name,
                         "--ranks", "2", "--global-batch", "8", "--store", "t.db")


if __name__ == "__main__":
    main()
