"""temper validate: what it reads, what it says, what it refuses, and that its figures agree."""
import csv
import json
import os
import pathlib
import re
import shutil
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

from harness import main, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = ROOT.parent / "shared" / "validation"
TABLES = ["korthikanti_tab5", "dgxc", "llm_foundry", "vtrain_single", "bigscience_a100",
          "torchtitan", "simumax_b200"]


def page_example():
    page = (ROOT / "docs" / "validate.md").read_text(encoding="utf-8")
    return re.search(r"^```csv\n(.*?)^```", page, re.MULTILINE | re.DOTALL).group(1)


class Validate(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="validate-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.rows = list(csv.reader(page_example().splitlines()))
        self.write("runs.csv", self.rows)

    def write(self, name, rows):
        with open(self.folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    def changed(self, **cells):
        """The first run of the example alone with some cells changed, as changed.csv."""
        rows = [list(row) for row in self.rows[:2]]
        for column, value in cells.items():
            rows[1][rows[0].index(column)] = value
        self.write("changed.csv", rows)
        return "changed.csv"

    def temper(self, *arguments):
        return run("validate", *arguments, folder=self.folder)

    def done(self, *arguments):
        result = self.temper(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def files(self, *arguments):
        return json.loads(self.done(*arguments, "--json"))["files"]

    def refused(self, code, words, *arguments):
        result = self.temper(*arguments)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        for word in words:
            self.assertIn(word, result.stderr)


class Figures(Validate):
    def test_the_example_of_the_page(self):
        (file,) = self.files("runs.csv", "--all")
        self.assertEqual((file["name"], file["rows"], file["skipped"]), ("runs", 4, 1))
        self.assertEqual(file["skipped_reasons"],
                         [{"reason": "column 'tp' is empty", "rows": 1, "first_line": 5}])
        runs = file["runs"]
        # 2048 sequences of 2048 tokens at 410 tokens/s on each of 64 devices
        self.assertAlmostEqual(runs[1]["measured_s"], 2048 * 2048 / (410 * 64), places=9)
        errors = [run["predicted_s"] / run["measured_s"] - 1 for run in runs[:3]]
        self.assertAlmostEqual(file["time_mape"], sum(map(abs, errors)) / 3, places=9)
        self.assertAlmostEqual(file["time_bias"], sum(errors) / 3, places=9)
        self.assertAlmostEqual(file["time_worst"], max(map(abs, errors)), places=9)
        worst = max(range(3), key=lambda index: abs(errors[index]))
        self.assertEqual(file["time_worst_line"], runs[worst]["line"])
        self.assertEqual((file["memory_runs"], file["memory_worst_line"]), (1, 4))
        self.assertAlmostEqual(runs[2]["measured_bytes"], 66.55 * 2 ** 30, delta=1)
        self.assertAlmostEqual(file["memory_mape"],
                               abs(runs[2]["predicted_bytes"] / runs[2]["measured_bytes"] - 1),
                               places=9)
        self.assertIsNone(runs[3]["predicted_s"])
        self.assertGreater(runs[0]["predicted_s"], 0)

    def test_text_says_the_same(self):
        (file,) = self.files("runs.csv")
        said = self.done("runs.csv")
        self.assertIn(f"{100 * file['time_mape']:.1f} %", said)
        self.assertIn(f"{100 * file['memory_mape']:.1f} %", said)
        self.assertIn("column 'tp' is empty", said)
        self.assertNotIn("line    2", said)
        self.assertIn("line    2", self.done("runs.csv", "--all"))

    def test_what_was_not_measured_is_null(self):
        (file,) = self.files(self.changed(mem_gib=""))
        for key in ("memory_mape", "memory_bias", "memory_worst", "memory_worst_line"):
            self.assertIsNone(file[key], key)
        self.write("none.csv", self.rows[:1])
        (file,) = self.files("none.csv")
        self.assertEqual(file["rows"], 0)
        for key in ("time_mape", "time_worst", "memory_mape", "oom_agree"):
            self.assertIsNone(file[key], key)

    def test_energy(self):
        """It has columns where it was measured, and only there."""
        header, row = self.rows[0], self.rows[1]
        self.write("joules.csv", [[*header, "iter_energy_j"], [*row, "5000"], [*row, ""]])
        (file,) = self.files("joules.csv", "--all")
        first, second = file["runs"]
        self.assertEqual((file["energy_runs"], file["energy_worst_line"]), (1, 2))
        error = first["predicted_j"] / first["measured_j"] - 1
        self.assertAlmostEqual(file["energy_bias"], error, places=9)
        self.assertAlmostEqual(file["energy_mape"], abs(error), places=9)
        self.assertEqual(first["predicted_j"], second["predicted_j"])
        self.assertIsNone(second["measured_j"])
        said = self.done("joules.csv")
        self.assertIn("energy", said)
        self.assertIn(f"{100 * file['energy_mape']:.1f} %", said)
        self.assertIn("5000 J", self.done("joules.csv", "--all").replace("5.00 kJ", "5000 J"))
        (file,) = self.files("runs.csv")
        self.assertEqual(file["energy_runs"], 0)
        self.assertIsNone(file["energy_mape"])
        self.assertNotIn("energy", self.done("runs.csv"))

    def test_out_of_memory(self):
        # 22e9 parameters alone on one device of 16 GB
        name = self.changed(gpu="V100-16GB", gpus="1", tp="1", dp="1", seqpar="0", zero="0",
                            precision="fp16", iter_time_s="", mem_gib="", mbs="4", gbs="4",
                            notes="Megatron-LM; OOM")
        (file,) = self.files(name)
        self.assertEqual((file["oom_rows"], file["oom_missed"], file["oom_refused"]), (1, 0, 0))
        self.assertEqual(file["oom_agree"], 1)

    def test_several_files_and_a_page(self):
        files = self.files("runs.csv", self.changed(iter_time_s="9"), "--html", "p.html")
        self.assertEqual([file["name"] for file in files], ["runs", "changed"])
        text = (self.folder / "p.html").read_text(encoding="utf-8")
        page = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
        dots = [dot for dot in page.iter("circle")]
        measured = sum(file["time_runs"] + file["memory_runs"] for file in files)
        self.assertEqual(len(dots), measured)
        self.assertTrue(all(dot.find("title").text for dot in dots))
        for tag in ("script", "link", "img", "iframe", "object"):
            self.assertEqual(list(page.iter(tag)), [])
        self.assertNotRegex(text, r"\b(nan|inf)\b|http")

    def test_hostile_names_break_no_page(self):
        name = self.changed(model="gpt<script>&\"'", gpu="A100\x1b[2J")
        self.done(name, "--html", "p.html", "--all")
        text = (self.folder / "p.html").read_text(encoding="utf-8")
        ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
        self.assertNotIn("<script>", text)
        self.assertNotIn("\x1b", self.done(name, "--all"))


class Refused(Validate):
    def test_files(self):
        self.refused(1, ["none.csv", "No such file"], "none.csv")
        (self.folder / "empty.csv").write_text("")
        self.refused(1, ["empty.csv", "empty"], "empty.csv")
        (self.folder / "nul.csv").write_bytes(b"a,b\n1,\0\n")
        self.refused(1, ["nul.csv", "line 2", "NUL"], "nul.csv")
        self.refused(1, ["changed.csv", "line 2", "column 'gpus'", "eight"],
                     self.changed(gpus="eight"))
        self.write("short.csv", [row[:-1] if i == 2 else row for i, row in enumerate(self.rows)])
        self.refused(1, ["short.csv", "line 3", "fields"], "short.csv")
        self.write("missing.csv", [row[1:] for row in self.rows])
        self.refused(1, ["missing.csv", "column 'source'", "missing"], "missing.csv")
        self.write("huge.csv", [*self.rows, ["x" * 100000] * len(self.rows[0])])
        self.refused(1, ["huge.csv", "line 6", "65536"], "huge.csv")

    def test_dos_line_ends(self):
        text = (self.folder / "runs.csv").read_text().replace("\n", "\r\n")
        (self.folder / "dos.csv").write_text(text, newline="")
        dos, unix = self.files("dos.csv", "runs.csv")
        self.assertEqual(dos["time_mape"], unix["time_mape"])

    def test_usage(self):
        self.refused(2, ["argument is missing"])
        self.refused(2, ["--fit", "--output"], "runs.csv", "--fit", "a100-80x8")
        self.refused(2, ["--fit", "--output"], "runs.csv", "-o", "c.json")
        self.refused(2, ["--fit", "--cluster"], "runs.csv", "--fit", "a100-80x8", "-o", "c.json",
                     "--cluster", "a100-80x8")
        self.refused(1, ["none.json"], "runs.csv", "--cluster", "none.json")
        self.refused(1, ["runs with a step time", "folds"], "runs.csv", "--fit", "a100-80x8", "-o",
                     "c.json")
        self.assertFalse((self.folder / "c.json").exists())


class Cluster(Validate):
    def test_runs_of_other_devices_are_skipped(self):
        (file,) = self.files("runs.csv", "--cluster", "v100-32x8")
        self.assertEqual(file["skipped"], 4)
        self.assertIn("is not the", json.dumps(file["skipped_reasons"]))
        self.write("a100.csv", self.rows[:3])
        (same,), (built_in,) = (self.files("runs.csv", "--cluster", "a100-80x64"),
                                self.files("a100.csv"))
        self.assertEqual((same["skipped"], same["time_runs"]), (2, 2))
        self.assertAlmostEqual(same["time_mape"], built_in["time_mape"], places=9)

    def test_fit(self):
        """Fitted to runs of one speed, the cluster file predicts them as the fit said."""
        header, row = self.rows[0], self.rows[1]
        rows = []
        for index, batch in enumerate((4, 8, 16, 32, 64, 128)):
            new = list(row)
            new[header.index("gbs")] = str(batch)
            new[header.index("iter_time_s")] = str(0.3 * batch)
            new[header.index("mbs")] = str(1 + index % 2)
            rows.append(new)
        self.write("many.csv", [header, *rows])
        said = json.loads(self.done("many.csv", "--fit", "a100-80x8", "-o", "c.json", "--folds",
                                    "2", "--json"))
        fit = said["fit"]
        self.assertEqual((fit["runs"], fit["files"], fit["folds"]), (6, 1, 2))
        self.assertLess(fit["error_after"], fit["error_before"])
        self.assertGreater(fit["error_held_out"], 0)
        (file,) = self.files("many.csv", "--cluster", "c.json")
        self.assertAlmostEqual(file["time_mape"], fit["error_after"], places=6)
        self.assertAlmostEqual(said["files"][0]["time_mape"], fit["error_after"], places=9)
        self.assertIn("fitted to 6 runs", (self.folder / "c.json").read_text())


@unittest.skipUnless(PUBLISHED.is_dir(), "the published tables are not there")
class Published(Validate):
    def test_all_are_read(self):
        files = self.files(*[PUBLISHED / f"{name}.csv" for name in TABLES])
        for name, file in zip(TABLES, files):
            with self.subTest(table=name):
                with open(PUBLISHED / f"{name}.csv", encoding="utf-8") as table:
                    self.assertEqual(file["rows"], len(list(csv.DictReader(table))))
                self.assertEqual(sum(reason["rows"] for reason in file["skipped_reasons"]),
                                 file["skipped"])
                self.assertLess(file["skipped"], file["rows"] // 2)
                self.assertGreater(file["time_runs"], 0)
                self.assertIsNotNone(file["time_mape"])

    def test_energy_of_published_runs(self):
        """Three models of five, in four series with two plans at full clock each."""
        (file,) = self.files(PUBLISHED / "perseus_iter_energy.csv")
        self.assertEqual((file["rows"], file["energy_runs"], file["time_runs"]), (348, 24, 24))
        self.assertLess(file["energy_mape"], 0.10)
        self.assertLess(file["time_mape"], 0.05)

    def test_other_tables_are_refused(self):
        for name in ("hardware", "perseus_stage_profile"):
            self.refused(1, [f"{name}.csv", "column", "missing"], PUBLISHED / f"{name}.csv")


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
