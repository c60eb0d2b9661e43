"""Profile, plan, run, report, sample with one and two ranks: do the commands fit together, does
--json keep its promise, does the plan leave the training as it was?"""
import json
import math
import sqlite3
import xml.etree.ElementTree

from harness import MODEL, MPIRUN, TEMPER, Test, finish, main, start

RUN_KEYS = {"steps", "final_loss", "validation_loss", "step_time_s", "peak_bytes", "tokens_per_s"}
PLAN_KEYS = {"status", "objective", "bound", "gap", "time_s", "memory_bytes", "energy_j",
             "energy_provenance", "plan"}
LAYERS = ["embedding", "attention", "mlp", "head"]


class Loop(Test):
    def check_run_object(self, told, steps):
        self.assertLessEqual(RUN_KEYS, set(told))
        self.assertEqual(told["steps"], steps)
        for key in RUN_KEYS:
            self.assertTrue(math.isfinite(told[key]) and told[key] > 0, key)

    def test_model_json(self):
        told = self.json("model", *MODEL)
        self.assertEqual([layer["kind"] for layer in told["layers"]], LAYERS)
        # 256 x 32 tokens, 16 x 32 positions, 12 h^2 + 13 h of a block, 2 h of the last norm
        parameters = 256 * 32 + 16 * 32 + 12 * 32 * 32 + 13 * 32 + 2 * 32
        self.assertEqual(told["parameters"], parameters)
        self.assertEqual(sum(layer["parameters"] for layer in told["layers"]), parameters)
        activations = told["layers"][0]["activation_bytes"]
        self.assertIsNone(activations["fp32"]["full"])
        self.assertIsNone(activations["bf16"]["none"])

    def test_profile_json(self):
        told = json.loads((self.folder / "profile.out").read_text())
        self.assertEqual(told["store"], "t.db")
        self.assertEqual({row["ranks"] for row in told["measurements"]}, {1, 2})
        for row in told["measurements"]:
            self.assertEqual(row["mean"] is None, row["provenance"] == "absent", row)
        by_the_user = self.json("profile", *MODEL, "--store", "new.db", "--budget", "0.3",
                                "--micro-batches", "1", "--precision", "fp32", "--threads", "1",
                                "--relative-error", "1", program=[*MPIRUN, "-np", "2", TEMPER])
        self.assertEqual({row["ranks"] for row in by_the_user["measurements"]}, {2})

    def test_plan_json(self):
        told = self.json("plan", *MODEL, "--store", "t.db", "--ranks", "2", "--global-batch", "4",
                         "-o", "new.json")
        self.assertLessEqual(PLAN_KEYS, set(told))
        # measured prices may make a pipeline the best, which is not always proven
        self.assertIn(told["status"], ("optimal", "gap"))
        self.assertLess(told["gap"], 0.25)
        self.assertEqual(told["plan"], json.loads((self.folder / "new.json").read_text()))
        self.assertIsNone(told["energy_j"])
        self.assertEqual(told["energy_provenance"], "absent")
        self.assertGreater(told["time_s"], 0)

    def test_plan_is_only_predicted_when_all_is_pinned(self):
        table = self.done("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--pin",
                          "dp=1,threads=1,micro-batch=2,recompute=full,precision=fp32").stdout
        self.assertIn("predicted", table)
        self.assertIn("memory of a rank", table)

    def test_whole_loop(self):
        for ranks, plan in ((1, "one.json"), (2, "two.json")):
            with self.subTest(ranks=ranks):
                told = json.loads(self.train(plan, "--steps", "40", "--json", "--log", "log.jsonl",
                                             "--eval-windows", "20").stdout)
                self.check_run_object(told, 40)
                losses = self.losses("log.jsonl")
                self.assertEqual(list(losses), list(range(1, 41)))
                self.assertLess(losses[40], losses[1] - 0.5)
                self.assertEqual(told["final_loss"], losses[40])
                self.check_report(told["run"])

    def check_report(self, run):
        report = self.json("report", "--store", "t.db", "--html", "r.html", "--chrome", "c.json")
        self.assertLessEqual(RUN_KEYS, set(report))
        self.assertEqual(report["run"], run)
        for key in ("step_time_s", "peak_bytes", "tokens_per_s"):
            self.assertLessEqual({"predicted", "measured", "error"}, set(report[key]), key)
        page = (self.folder / "r.html").read_text()
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))
        self.assertIn("<svg", page)
        for part in page.split("<svg")[1:]:
            xml.etree.ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")
        trace = json.loads((self.folder / "c.json").read_text())
        self.assertTrue(trace["traceEvents"] if isinstance(trace, dict) else trace)
        self.assertIn("Total", self.done("report", "--store", "t.db").stdout)

    def test_under_the_users_own_mpirun(self):
        told = self.json("run", "two.json", "--data", "text.txt", "--store", "t.db", "--steps", "5",
                         program=[*MPIRUN, "-np", "2", TEMPER])
        self.check_run_object(told, 5)

    def test_the_plan_does_not_change_the_training(self):
        losses = []
        for name, pins in (("a", "dp=1,micro-batch=1,recompute=full"),
                           ("b", "dp=1,micro-batch=2,recompute=none"),
                           ("c", "dp=2,micro-batch=1"), ("d", "dp=2,micro-batch=2")):
            self.done("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "--ranks", "2",
                      "--pin", pins, "-o", f"{name}.json")
            self.train(f"{name}.json", "--steps", "12", "--log", "log.jsonl", "--eval-windows", "4")
            losses.append(self.losses("log.jsonl"))
        for other in losses[1:]:
            self.assertEqual(set(other), set(losses[0]))
            for step, loss in other.items():
                self.assertAlmostEqual(loss, losses[0][step], delta=1e-4, msg=f"step {step}")

    def test_two_runs_share_a_store(self):
        both = [start("run", "one.json", "--data", "text.txt", "--store", "t.db", "--steps", "2000",
                      "--eval-interval", "100", "--eval-windows", "1", folder=self.folder)
                for _ in range(2)]
        for process in both:
            _, err, _ = finish(process)
            self.assertEqual(process.returncode, 0, err)
        self.assertEqual([run[1:] for run in self.runs()], [("done", 2000)] * 2)

    def test_run_and_log_are_documented_numbers(self):
        self.train("one.json", "--steps", "4", "--log", "log.jsonl", "--eval-interval", "2")
        rows = [json.loads(line) for line in (self.folder / "log.jsonl").read_text().splitlines()]
        self.assertEqual([row["step"] for row in rows if "validation_loss" in row], [2, 4])
        steps = [row for row in rows if "loss" in row]
        for row in steps:
            self.assertLessEqual({"step", "loss", "gradient_norm", "learning_rate", "step_time_s",
                                  "tokens_per_s", "matmul_share", "peak_bytes", "skipped",
                                  "energy_j", "energy_provenance"}, set(row))
        with sqlite3.connect(self.folder / "t.db") as database:
            stored = [row[0] for row in database.execute("SELECT loss FROM step ORDER BY step")]
        self.assertEqual(stored, [row["loss"] for row in steps])

    def test_energy_is_modelled_from_given_watts(self):
        self.done("profile", *MODEL, "--store", "w.db", "--budget", "0.5", "--micro-batches", "1",
                  "--precision", "fp32", "--threads", "1", "--ranks", "1", "--relative-error",
                  "0.9", "--idle-watts", "10", "--active-watts", "30")
        told = self.json("plan", *MODEL, "--store", "w.db", "--global-batch", "2", "--weights",
                         "0,0,1", "-o", "w.json")
        self.assertIn(told["energy_provenance"], ("modelled", "measured"))
        self.assertGreater(told["energy_j"], 0)
        run = json.loads(self.train("w.json", "--steps", "5", "--json", store="w.db").stdout)
        self.assertGreater(run["energy_j"], 0)


if __name__ == "__main__":
    main()
