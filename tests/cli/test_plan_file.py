"""Plans that cannot be, plan files that are not what they say, plans under wrong launchers."""
import hashlib
import json
import os

from harness import MODEL, MPIRUN, TEMPER, Test, main


class Search(Test):
    def plan(self, *options):
        return ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", *options)

    def test_memory_cap_too_small(self):
        self.done(*self.plan("-o", "p.json"))
        before = (self.folder / "p.json").read_bytes()
        cap = self.plan("--memory-cap", "1MiB", "-o", "p.json")
        said = self.refused(3, ["memory", "cap", "missing", "MiB", "raise --memory-cap to"], *cap)
        self.assertEqual(said.stdout, "")
        result = self.temper(*cap, "--json")
        self.assertEqual(result.returncode, 3)
        told = json.loads(result.stdout)
        self.assertEqual(told["status"], "infeasible")
        self.assertIn("cap", told["constraint"])
        self.assertGreater(told["missing_bytes"], 0)
        self.assertEqual(told["leanest_bytes"] - told["missing_bytes"], 1024 ** 2)
        for key in ("objective", "bound", "gap", "plan", "time_s", "memory_bytes", "energy_j"):
            self.assertIsNone(told[key], key)
        self.assertEqual((self.folder / "p.json").read_bytes(), before)
        relaxed = told["relaxation"].split("--memory-cap to ")[1].split()[0]
        self.done(*self.plan("--memory-cap", relaxed))

    def test_batch_that_does_not_divide(self):
        self.refused(3, ["global batch of 3", "relaxation"], *self.plan("--global-batch", "3",
                                                                        "--pin", "micro-batch=2"))

    def test_more_ranks_pinned_than_allowed(self):
        self.refused(3, ["dp=8", "--ranks 8"], *self.plan("--pin", "dp=8"))

    def test_bad_pins_and_weights(self):
        for pin in ("microbatch=2", "recompute=some", "precision=fp8", "micro-batch=0", "dp=x",
                    "recompute:tail=full", "micro-batch", "", "dp=1,dp=2", "recompute:head=full",
                    "recompute:embedding=selective", "precision:embedding=bf16"):
            with self.subTest(pin=pin):
                self.refused(2, ["pin"], *self.plan("--pin", pin))
        for weights in ("1,0", "a,b,c", "-1,0,0", "0,0,0", "1,0,0,0", "nan,0,0", "inf,0,0", ""):
            with self.subTest(weights=weights):
                self.refused(2, ["--weights"], *self.plan("--weights", weights))

    def test_energy_weight_without_energy(self):
        self.refused(1, ["energy", "--idle-watts"], *self.plan("--weights", "0,0,1"))

    def test_not_profiled(self):
        self.refused(1, ["profile", "h64"], *self.plan("--hidden", "64"))
        self.refused(1, ["elsewhere"], *self.plan("--host", "elsewhere"))


class PlanFile(Test):
    def run_plan(self, name):
        return "run", name, "--data", "text.txt", "--store", "t.db", "--steps", "2"

    def edited(self, change, source="one.json"):
        plan = json.loads((self.folder / source).read_text())
        change(plan)
        (self.folder / "bad.json").write_text(json.dumps(plan))
        return self.run_plan("bad.json")

    def test_missing_torn_and_other_files(self):
        self.refused(1, ["none.json", "No such file"], *self.run_plan("none.json"))
        self.refused(1, ["text.txt", "JSON"], *self.run_plan("text.txt"))
        self.refused(1, ["."], *self.run_plan("."))
        whole = (self.folder / "one.json").read_bytes()
        for share in (0, 1, 2, 3):
            (self.folder / "bad.json").write_bytes(whole[:len(whole) * share // 4])
            self.refused(1, ["bad.json"], *self.run_plan("bad.json"))
        (self.folder / "bad.json").write_text('{"some": "thing"}')
        self.refused(1, ["bad.json"], *self.run_plan("bad.json"))

    def test_newer_format(self):
        self.refused(1, ["bad.json", "version", "4"], *self.edited(lambda p: p.update(version=4)))

    def test_edited(self):
        changes = {
            "model": lambda p: p["model"].update(hidden=64, ffn=256, head_dim=32),
            "global_batch": lambda p: p.update(global_batch=8),
            "micro_batch": lambda p: p.update(micro_batch=3),
            "ranks": lambda p: p.update(ranks=2),
            "threads": lambda p: p.update(threads=0),
            "layers": lambda p: p["layers"].pop(),
            "kind": lambda p: p["layers"][1].update(kind="mlp"),
            "recompute": lambda p: p["layers"][3].update(recompute="full"),
            "precision": lambda p: p["layers"][0].update(precision="fp4"),
            "tensor_parallel": lambda p: p["layers"][1].update(tensor_parallel=2),
            "surprise": lambda p: p.update(surprise=1),
        }
        for word, change in changes.items():
            with self.subTest(change=word):
                self.refused(1, ["bad.json", word], *self.edited(change))
        self.assertEqual(self.runs(), [])

    def test_wrong_rank_count(self):
        for plan, ranks in (("two.json", 3), ("one.json", 2), ("two.json", 1)):
            with self.subTest(plan=plan, ranks=ranks):
                result = self.temper(*self.run_plan(plan),
                                     program=[*MPIRUN, "--quiet", "-np", str(ranks), TEMPER])
                self.assertEqual(result.returncode, 1)
                self.assertEqual(result.stderr.count(f"{plan}: key 'ranks'"), 1, result.stderr)
                self.assertIn(f"but {ranks} w", result.stderr)
        self.assertEqual(self.runs(), [])

    def test_more_ranks_than_cores_are_warned_of(self):
        def widen(plan):
            plan["threads"] = os.cpu_count()
        result = self.temper(*self.edited(widen, "two.json"))
        self.assertIn(f"warning: 2 ranks x {os.cpu_count()} threads", result.stderr)

    def test_profiles_stay_as_they_are(self):
        before = hashlib.sha256((self.folder / "t.db").read_bytes()).hexdigest()
        self.done("plan", *MODEL, "--store", "t.db", "--global-batch", "4")
        self.assertEqual(hashlib.sha256((self.folder / "t.db").read_bytes()).hexdigest(), before)


if __name__ == "__main__":
    main()
