"""A resumed run equals the uninterrupted one bit for bit; what a checkpoint is good for."""
import json
import shutil

from harness import MODEL, Test, main, tensors


class Resume(Test):
    def content(self, checkpoint):
        """name -> (shape, bytes) of all tensors, in whatever files they are."""
        found = {}
        for path in sorted((self.folder / checkpoint).glob("*.safetensors")):
            there = tensors(path)
            self.assertFalse(found.keys() & there.keys(), path)
            found.update(there)
        return found

    def assert_same_checkpoint(self, one, other):
        self.assertEqual(self.content(one), self.content(other))

    def split_plan(self, name, degrees, **strategy):
        """one.json, split; `degrees`: replicas, ranks of a layer, stages."""
        plan = json.loads((self.folder / "one.json").read_text())
        replicas, ways, stages = degrees
        plan.update(ranks=replicas * ways * stages, data_parallel=replicas, tensor_parallel=ways,
                    pipeline=stages, virtual_stages=1, schedule="1f1b", micro_batch=1,
                    micro_batches=plan["global_batch"] // replicas, prediction=None)
        for index, layer in enumerate(plan["layers"]):
            layer.update(stage=index * stages // len(plan["layers"]), tensor_parallel=ways,
                         **strategy)
        (self.folder / name).write_text(json.dumps(plan))

    def check_resume(self, plan):
        fast = ("--eval-windows", "4", "--steps", "12")
        self.train(plan, *fast, "--save", "whole", "--save-interval", "5", "--keep", "9", "--log",
                   "whole.jsonl")
        self.assertEqual(self.checkpoints("whole"),
                         ["step-00000005", "step-00000010", "step-00000012"])
        shutil.copytree(self.folder / "whole" / "step-00000005",
                        self.folder / "part" / "step-00000005")
        self.train(plan, *fast, "--load", "part", "--save", "part", "--log", "part.jsonl")
        self.assert_same_checkpoint("whole/step-00000012", "part/step-00000012")
        whole, part = self.losses("whole.jsonl"), self.losses("part.jsonl")
        self.assertEqual(part, {step: whole[step] for step in range(6, 13)})

    def test_one_rank(self):
        self.check_resume("one.json")

    def test_two_ranks(self):
        self.check_resume("two.json")

    def test_under_another_plan(self):
        fast = ("--eval-windows", "4", "--steps", "8")
        self.train("one.json", *fast, "--save", "c", "--save-interval", "4", "--log", "one.jsonl")
        self.train("two.json", *fast, "--load", "c/step-00000004", "--log", "two.jsonl")
        whole, part = self.losses("one.jsonl"), self.losses("two.jsonl")
        self.assertEqual(list(part), [5, 6, 7, 8])
        for step, loss in part.items():
            self.assertAlmostEqual(loss, whole[step], delta=1e-4)

    def test_under_one_plan_after_the_other(self):
        self.split_plan("split.json", (1, 2, 2))
        self.split_plan("zero.json", (2, 1, 1), zero_stage=3)
        self.split_plan("tokens.json", (1, 2, 1), sequence_parallel=True, zero_stage=1)
        # A constant learning rate: its schedule would know of --steps, which differs.
        fast = ("--eval-windows", "4", "--warmup", "0", "--lr", "1e-3", "--min-lr", "1e-3")
        options = (*fast, "--save", "c", "--save-interval", "2", "--keep", "9")
        self.train("one.json", *fast, "--steps", "10", "--log", "whole.jsonl")
        whole = self.losses("whole.jsonl")
        self.train("one.json", *options, "--steps", "2")
        for steps, plan in enumerate(("split", "zero", "tokens", "one"), start=1):
            end, log = str(2 * steps + 2), f"{plan}.jsonl"
            self.train(f"{plan}.json", *options, "--steps", end, "--load", "c", "--log", log)
            part = self.losses(log)
            self.assertEqual(list(part), [2 * steps + 1, 2 * steps + 2])
            for step, loss in part.items():
                self.assertAlmostEqual(loss, whole[step], delta=1e-4)
        index = json.loads((self.folder / "c" / "step-00000004" /
                            "model.safetensors.index.json").read_text())
        self.assertEqual(len(set(index["weight_map"].values())), 4)
        self.assertEqual(self.content("c/step-00000004").keys(),
                         self.content("c/step-00000010").keys())

    def test_a_torn_file_of_any_rank_is_passed_over(self):
        self.split_plan("split.json", (1, 2, 2))
        self.train("split.json", "--steps", "4", "--eval-windows", "4", "--save", "c",
                   "--save-interval", "2")
        for path in sorted((self.folder / "c" / "step-00000004").iterdir()):
            whole = path.read_bytes()
            path.write_bytes(whole[:-1])
            result = self.train("one.json", "--steps", "3", "--eval-windows", "4", "--load", "c",
                                "--log", "torn.jsonl")
            self.assertIn(path.name, result.stderr)
            self.assertEqual(list(self.losses("torn.jsonl")), [3])
            (self.folder / "torn.jsonl").unlink()
            path.write_bytes(whole)

    def test_repeated_run_is_the_same(self):
        for folder in ("a", "b"):
            self.train("two.json", "--steps", "6", "--eval-windows", "4", "--save", folder)
        self.assert_same_checkpoint("a/step-00000006", "b/step-00000006")

    def test_seed_matters(self):
        for seed in ("1", "2"):
            self.train("one.json", "--steps", "2", "--eval-windows", "4", "--seed", seed, "--log",
                       f"{seed}.jsonl")
        self.assertNotEqual(self.losses("1.jsonl"), self.losses("2.jsonl"))

    def test_nothing_left_to_do(self):
        self.train("one.json", "--steps", "3", "--save", "c")
        result = self.temper("run", "one.json", "--data", "text.txt", "--store", "t.db", "--steps",
                             "3", "--load", "c")
        self.assertIn("3", result.stdout + result.stderr)
        self.assertNotIn("nan", (result.stdout + result.stderr).lower())
        self.assertEqual(self.checkpoints("c")[-1], "step-00000003")

    def test_keep(self):
        self.train("one.json", "--steps", "6", "--save", "c", "--save-interval", "1", "--keep", "2")
        self.assertEqual(self.checkpoints("c"), ["step-00000005", "step-00000006"])

    def test_initial_weights(self):
        self.train("one.json", "--steps", "3", "--save", "c", "--log", "a.jsonl")
        self.train("one.json", "--steps", "1", "--init-from", "c/step-00000003", "--log", "b.jsonl")
        self.assertLess(self.losses("b.jsonl")[1], self.losses("a.jsonl")[1])

    def test_sample(self):
        self.train("one.json", "--steps", "3", "--save", "c")
        text = ["sample", "--load", "c", "--tokens", "20", "--prompt", "clerk"]
        first = self.json(*text, "--seed", "7")
        self.assertEqual(len(first["tokens"]), 20)
        self.assertEqual(first, self.json(*text, "--seed", "7"))
        self.assertNotEqual(first["tokens"], self.json(*text, "--seed", "8")["tokens"])
        self.assertTrue(self.done(*text).stdout.startswith("clerk"))
        cold = [self.json(*text, "--temperature", "0", "--seed", seed) for seed in ("1", "2")]
        self.assertEqual(cold[0]["tokens"], cold[1]["tokens"])

    def test_llama_goes_the_same_way(self):
        model = ["--model", "tinyllama-1.1b", *MODEL[2:], "--kv-heads", "1", "--ffn", "48"]
        self.done("profile", *model, "--store", "l.db", "--budget", "0.3", "--micro-batches", "1",
                  "--precision", "fp32", "--threads", "1", "--ranks", "1", "--relative-error", "1")
        self.done("plan", *model, "--store", "l.db", "--global-batch", "2", "-o", "l.json")
        told = json.loads(self.train("l.json", "--steps", "20", "--json", "--log", "l.jsonl",
                                     store="l.db").stdout)
        self.assertEqual(told["steps"], 20)
        losses = self.losses("l.jsonl")
        self.assertLess(losses[20], losses[1])


if __name__ == "__main__":
    main()
