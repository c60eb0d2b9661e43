"""temper plan --compare of two answers of temper plan --cluster ... --json."""
import copy
import json
import pathlib
import re
import shlex

from harness import Test, main

PLAN = ("plan", "--model", "llama-3-8b", "--seq-length", "4096", "--global-batch", "64",
        "--cluster", "h100x16")
DOCUMENTS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PHASES = ("forward", "backward", "tensor", "pipeline", "param_gather", "grad_reduce", "optimizer",
          "other")


class Compare(Test):
    def ask(self, name, *options):
        """The answer, also in a file."""
        answer = self.json(*PLAN, *options)
        (self.folder / name).write_text(json.dumps(answer))
        return answer

    def compare(self, a="a.json", b="b.json"):
        told = self.json("plan", "--compare", a, b)
        self.assertEqual((told["a"], told["b"]), (a, b))
        return told

    def totals(self, told):
        return {row["total"]: row for row in told["terms"] if row["term"] is None}

    def parts(self, told, total):
        return {row["term"]: row for row in told["terms"]
                if row["total"] == total and row["term"] is not None}


class Answer(Compare):
    def test_terms_add_up_to_the_answer(self):
        answer = self.ask("a.json")
        terms = answer["terms"]
        self.assertEqual(tuple(terms["phase_time_s"]), PHASES)
        for total, parts in (("time_s", "phase_time_s"), ("memory_bytes", "memory_term_bytes")):
            self.assertEqual(terms[total]["value"], answer[total])
            self.assertAlmostEqual(sum(part["value"] for part in terms[parts].values())
                                   / answer[total], 1, places=9)
        self.assertEqual(terms["energy_j"]["value"], answer["layouts"][0]["energy_j"])
        self.assertGreater(terms["time_s"]["deviation"], 0)
        self.assertEqual(terms["price"], {"value": None, "deviation": None, "provenance": "absent"})
        self.assertEqual((answer["format"], answer["seq_length"], answer["global_batch"],
                          answer["framework"], answer["arithmetic"], answer["pins"]),
                         ("temper-cluster-answer", 4096, 64, "megatron", "bf16", ""))
        self.assertEqual(answer["weights"], {"time": 1, "memory": 0, "energy": 0, "raw": False})


class Choices(Compare):
    def test_terms_choices_and_winner(self):
        a, b = self.ask("a.json"), self.ask("b.json", "--pin", "tp=4")
        told = self.compare()
        self.assertTrue(told["same_model"] and told["same_aim"] and told["same_work"]
                        and told["same_cluster"])
        self.assertEqual((told["notes"], told["basis_tokens"]), ([], None))
        totals = self.totals(told)
        self.assertEqual(totals["time"]["difference"], b["time_s"] - a["time_s"])
        for total in ("time", "memory of a device"):
            parts = self.parts(told, total)
            self.assertAlmostEqual(sum(part["difference"] for part in parts.values())
                                   / totals[total]["b"],
                                   totals[total]["difference"] / totals[total]["b"], places=9)
        for phase, row in self.parts(told, "time").items():
            self.assertEqual((row["a"], row["b"]),
                             tuple(one["terms"]["phase_time_s"][phase]["value"] for one in (a, b)))
        choices = {row["choice"]: (row["a"], row["b"]) for row in told["choices"]}
        self.assertEqual(choices["pins"], ("", "tp=4"))
        first, second = a["layouts"][0], b["layouts"][0]
        for key in ("data_parallel", "tensor_parallel", "pipeline", "micro_batches", "schedule"):
            words = key.replace("micro_batches", "micro-batches").replace("_", " ")
            self.assertEqual(words in choices, first[key] != second[key], key)
            if words in choices:
                self.assertEqual(choices[words], (str(first[key]), str(second[key])))
        self.assertLess(a["time_s"], b["time_s"])
        self.assertEqual((told["winner"], told["winner_by"]), ("a", "time"))
        self.assertEqual((totals["time"]["better"], totals["throughput"]["better"]), ("a", "a"))
        gains = {phase: row["difference"] for phase, row in self.parts(told, "time").items()}
        self.assertEqual(totals["time"]["decides"], max(gains, key=gains.get))

    def test_turned_round(self):
        self.ask("a.json")
        self.ask("b.json", "--pin", "tp=4")
        one, other = self.compare(), self.compare("b.json", "a.json")
        self.assertEqual((one["winner"], other["winner"]), ("a", "b"))
        for x, y in zip(one["terms"], other["terms"]):
            self.assertEqual((x["total"], x["term"], x["a"], x["b"]),
                             (y["total"], y["term"], y["b"], y["a"]))
            if x["term"] is None:
                self.assertEqual(x["decides"], y["decides"])

    def test_text(self):
        self.ask("a.json")
        self.ask("b.json", "--pin", "tp=4")
        said = self.done("plan", "--compare", "a.json", "b.json").stdout
        totals = self.totals(self.compare())
        self.assertRegex(said, r"tensor parallel +\d+ +4\n")
        self.assertRegex(said, r"\ntime: A takes .* less \(.* of B's\)\n  gained  "
                         + totals["time"]["decides"])
        self.assertRegex(said, r"tensor +[+-]\d.*\(tensor parallel \d+ / 4")
        self.assertIn("A wins: ", said)
        self.assertIn(f"which both minimise; {totals['time']['decides']} decides", said)
        self.assertRegex(said, r"(pays with|also has) [0-9.]+ % (more|less) memory of a device")
        self.assertNotIn("nan", said)

    def test_same_answer(self):
        self.ask("a.json")
        told = self.compare("a.json", "a.json")
        self.assertEqual((told["choices"], told["winner"]), ([], None))
        self.assertEqual({row["difference"] for row in told["terms"]
                          if row["difference"] is not None}, {0})
        said = self.done("plan", "--compare", "a.json", "a.json").stdout
        self.assertIn("no choice differs", said)
        self.assertIn("no winner: time, which both minimise, is the same", said)

    def test_stages(self):
        self.ask("a.json")
        told = self.compare("a.json", "a.json")
        self.assertEqual((told["stages_a"], told["stages_b"]), (None, None))
        staged = self.ask("b.json", "--pin", "recompute:0-3=full")
        told = self.compare()
        self.assertIsNone(told["stages_a"])
        self.assertEqual(told["stages_b"]["stages"], staged["stages"])
        said = self.done("plan", "--compare", "a.json", "b.json").stdout
        self.assertIn("stages of A\nall blocks do the same", said)
        self.assertRegex(said, r"stages of B\nstage.*recompute full 0-3")


class Unlike(Compare):
    """What is said first, and what is compared then."""

    def test_batches(self):
        a, b = self.ask("a.json"), self.ask("b.json", "--global-batch", "128")
        told = self.compare()
        self.assertEqual((told["basis_tokens"], told["same_work"]), (1e6, False))
        self.assertIn("262144 tokens, one of B 524288", told["notes"][0])
        totals = self.totals(told)
        for side, answer, batch in (("a", a, 64), ("b", b, 128)):
            tokens = 4096 * batch
            self.assertAlmostEqual(totals["time"][side], answer["time_s"] * 1e6 / tokens, places=9)
            self.assertAlmostEqual(totals["throughput"][side] * answer["time_s"] / tokens, 1)
            self.assertEqual(totals["memory of a device"][side], answer["memory_bytes"])
        self.assertEqual(told["winner"], totals["throughput"]["better"])
        self.assertIn("predicted, 1 M tokens",
                      self.done("plan", "--compare", "a.json", "b.json").stdout)

    def test_models(self):
        self.ask("a.json")
        self.ask("b.json", "--model", "mistral-7b")
        told = self.compare()
        self.assertIn("A trains llama-3-8b, B mistral-7b", told["notes"][0])
        self.assertEqual((told["same_model"], told["winner"]), (False, None))
        self.assertIn("no winner: the models",
                      self.done("plan", "--compare", "a.json", "b.json").stdout)
        self.ask("b.json", "--layers", "16")
        self.assertIn("both are named llama-3-8b", self.compare()["notes"][0])

    def test_clusters(self):
        self.ask("a.json")
        self.ask("b.json", "--cluster", "h200x8")
        told = self.compare()
        self.assertIn("A is on h100x16 (16 devices), B on h200x8 (8)", told["notes"][0])
        self.assertEqual((told["same_cluster"], told["same_work"]), (False, True))
        totals = self.totals(told)
        self.assertAlmostEqual(totals["throughput of a device"]["a"] * 16 /
                               totals["throughput"]["a"], 1)
        self.assertAlmostEqual(totals["throughput of a device"]["b"] * 8 /
                               totals["throughput"]["b"], 1)

    def priced(self, currency):
        (self.folder / "ours.json").write_text(json.dumps({
            "format": "temper-cluster", "version": 1, "name": "ours", "currency": currency,
            "carbon_g_kwh": 100, "carbon_date": "2026-01-01",
            "groups": [{"like": "h100", "nodes": 2, "device": {"price_hour": 3.6}}]}))
        return "ours.json"

    def test_prices(self):
        a = self.ask("a.json", "--cluster", self.priced("EUR"))
        b = self.ask("b.json", "--cluster", "ours.json", "--pin", "tp=4")
        self.assertEqual(a["currency"], "EUR")
        totals = self.totals(self.compare())
        self.assertEqual(totals["price (EUR)"]["difference"], b["price"] - a["price"])
        self.assertEqual(totals["carbon (g CO2e)"]["a"], a["carbon_g"])
        self.ask("b.json", "--cluster", self.priced("USD"))
        told = self.compare()
        self.assertIn("both are named ours", told["notes"][0])
        self.assertIn("in EUR and in USD", told["notes"][1])
        self.assertFalse([row for row in told["terms"] if row["total"].startswith("price")])

    def test_aims(self):
        self.ask("a.json")
        self.ask("b.json", "--weights", "0,1,0")
        told = self.compare()
        self.assertIn("A minimises time, B memory", told["notes"][0])
        self.assertEqual((told["same_aim"], told["winner"]), (False, None))
        self.assertIn("no winner: the aims",
                      self.done("plan", "--compare", "a.json", "b.json").stdout)

    def test_objective_of_several_weights(self):
        a = self.ask("a.json", "--weights", "1,0.5,0")
        b = self.ask("b.json", "--weights", "1,0.5,0", "--pin", "tp=1,pp=1")
        told = self.compare()
        self.assertEqual(told["winner_by"], "objective")
        units = {key: min(a["units"][key], b["units"][key]) for key in a["units"]}
        for side, answer in (("a", a), ("b", b)):
            self.assertAlmostEqual(self.totals(told)["objective"][side],
                                   answer["time_s"] / units["time_s"] +
                                   0.5 * answer["memory_bytes"] / units["memory_bytes"], places=9)
        self.assertEqual(told["winner"], "a")


class Refusals(Compare):
    def broken(self, *words):
        self.refused(1, ["b.json", *words], "plan", "--compare", "a.json", "b.json")

    def test_kinds(self):
        self.ask("a.json")
        self.refused(1, ["one.json is a plan file", "a.json is the answer", "of one kind"],
                     "plan", "--compare", "one.json", "a.json")
        (self.folder / "b.json").write_text("")
        self.broken("empty", "no layout")
        (self.folder / "b.json").write_text(json.dumps(self.json(*PLAN, "--pareto", "time,memory")))
        self.broken("front of --pareto")
        (self.folder / "b.json").write_text((self.folder / "plan.out").read_text())
        self.broken("expected" if not self.is_json("plan.out") else "-o")
        (self.folder / "b.json").write_text(json.dumps(
            self.json("plan", "--store", "t.db", "--global-batch", "4", "--model",
                      "gpt2", "--layers", "1", "--hidden", "32", "--heads", "2", "--seq-length",
                      "16", "--vocab-size", "256", "--positions", "16")))
        self.broken("-o")
        (self.folder / "b.json").write_text("[1]")
        self.broken("not a JSON object")
        (self.folder / "b.json").write_text("{}")
        self.broken("format", "plan file")

    def is_json(self, name):
        return (self.folder / name).read_text().startswith("{")

    def test_keys(self):
        answer = self.ask("a.json")
        stages = int(answer["layouts"][0]["pipeline"])
        cases = (
            ("version", lambda b: b.update(version=9)),
            ("key 'format'", lambda b: b.update(format="temper-cluster")),
            ("key 'format'", lambda b: b.pop("format")),
            ("key 'layouts'", lambda b: b.update(layouts=[])),
            ("key 'layouts'", lambda b: b.pop("layouts")),
            ("layouts[0].schedule", lambda b: b["layouts"][0].update(schedule="2f2b")),
            ("layouts[0].tensor_parallel", lambda b: b["layouts"][0].update(tensor_parallel=0)),
            ("layouts[0].sequence_parallel", lambda b: b["layouts"][0].pop("sequence_parallel")),
            ("key 'terms'", lambda b: b.pop("terms")),
            ("terms.phase_time_s.tensor", lambda b: b["terms"]["phase_time_s"].pop("tensor")),
            ("terms.time_s", lambda b: b["terms"]["time_s"].update(value=1000)),
            ("terms.memory_bytes", lambda b: b["terms"].update(memory_bytes={
                "value": None, "deviation": None, "provenance": "absent"})),
            ("global_batch", lambda b: b.update(global_batch=0)),
            ("weights", lambda b: b["weights"].update(time=0)),
            ("key 'stages'", lambda b: b.update(stages=[])),
            ("stages[0].first_block", lambda b: b.update(stages=[
                {"group": 0, "first_block": 1, "blocks": 1}] * stages)),
            ("stages[0].blocks", lambda b: b.update(stages=[
                {"group": 0, "first_block": 0, "blocks": 10 ** 15}] * stages)),
            ("stages[0].recompute", lambda b: b.update(stages=[
                {"group": 0, "first_block": i, "blocks": 1, "recompute": []}
                for i in range(stages)])),
        )
        for word, change in cases:
            with self.subTest(word=word):
                broken = copy.deepcopy(answer)
                change(broken)
                (self.folder / "b.json").write_text(json.dumps(broken))
                self.broken(word)


class Document(Compare):
    def test_commands_of_the_page(self):
        page = (DOCUMENTS / "cluster-plan.md").read_text(encoding="utf-8")
        section = page[page.index("## Two answers side by side"):]
        commands = re.findall(r"^ +temper (plan .*)$", section, re.MULTILINE)
        self.assertEqual(len(commands), 3)
        for command in commands:
            words = shlex.split(command)
            if ">" in words:
                said = self.done(*words[:words.index(">")]).stdout
                (self.folder / words[-1]).write_text(said)
            else:
                self.assertIn(" wins: ", self.done(*words).stdout)

    def test_keys_of_the_pages(self):
        """Every key of an answer and of a comparison stands in the pages."""
        pages = [(DOCUMENTS / name).read_text(encoding="utf-8")
                 for name in ("cluster-plan.md", "plan-answers.md")]
        answer = self.ask("a.json")
        for key in (*answer, *answer["terms"], *answer["weights"]):
            self.assertIn(f"`{key}`", pages[0])
        told = self.compare("a.json", "a.json")
        for key in (*told, *told["terms"][0]):
            self.assertIn(f"`{key}`", "".join(pages))
        plans = self.compare("one.json", "two.json")
        for key in (*plans, *plans["choices"][0]):
            self.assertIn(f"`{key}`", pages[1])


if __name__ == "__main__":
    main()
