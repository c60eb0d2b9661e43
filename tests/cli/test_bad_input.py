"""Wrong and broken input files of every kind: which exit code, what is said, what stays whole."""
import hashlib
import os
import shutil
import sqlite3
import struct

from harness import MODEL, Test, main, start

MAGIC_16_BIT = 20240520


def token_file(path, tokens, magic=MAGIC_16_BIT, version=1, count=None):
    header = struct.pack("<3i", magic, version, len(tokens) if count is None else count)
    path.write_bytes(header.ljust(1024, b"\0") + struct.pack(f"<{len(tokens)}H", *tokens))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Data(Test):
    def refused_data(self, name, *words, code=1):
        result = self.refused(code, [name, *words], "run", "one.json", "--data", name, "--store",
                              "t.db", "--steps", "50", "--save", "c")
        self.assertEqual(self.checkpoints("c"), [])
        return result

    def test_missing(self):
        self.refused_data("none.txt", "No such file")

    def test_folder(self):
        self.refused_data(".", "folder")

    def test_validation_data(self):
        (self.folder / "short.txt").write_text("too short")
        for name in ("none.txt", "short.txt"):
            self.refused(1, [name], "run", "one.json", "--data", "text.txt", "--validation-data",
                         name, "--store", "t.db", "--steps", "2")

    def test_empty_and_short(self):
        (self.folder / "empty.txt").write_text("")
        self.refused_data("empty.txt")
        (self.folder / "short.txt").write_text("sixteen bytes or so of text")
        self.refused_data("short.txt", "17")

    def test_token_files(self):
        token_file(self.folder / "good.bin", list(range(200)) * 5)
        self.done("run", "one.json", "--data", "good.bin", "--store", "t.db", "--steps", "2")
        token_file(self.folder / "magic.bin", [1] * 1000, magic=7)
        self.refused_data("magic.bin", "magic", str(MAGIC_16_BIT))
        token_file(self.folder / "version.bin", [1] * 1000, version=9)
        self.refused_data("version.bin", "version")
        token_file(self.folder / "torn.bin", [1] * 1000, count=1001)
        self.refused_data("torn.bin", "1001")
        (self.folder / "header.bin").write_bytes(b"\x88\xd8\x34\x01")
        self.refused_data("header.bin")
        token_file(self.folder / "big.bin", [300] * 1000)
        self.refused_data("big.bin", "300", "256")

    def test_token_outside_the_vocabulary_with_two_ranks(self):
        token_file(self.folder / "big.bin", [1] * 500 + [300] + [1] * 500)
        self.refused(1, ["big.bin", "300"], "run", "two.json", "--data", "big.bin", "--store",
                     "t.db", "--steps", "500")
        self.assertEqual(self.runs()[-1][1], "failed")

    def test_vocabulary_too_small_for_text(self):
        small = [*MODEL, "--vocab-size", "128"]
        self.done("profile", *small, "--store", "s.db", "--budget", "0.3", "--micro-batches", "1",
                  "--precision", "fp32", "--threads", "1", "--ranks", "1", "--relative-error", "1")
        self.done("plan", *small, "--store", "s.db", "--global-batch", "2", "-o", "small.json")
        self.refused(1, ["text.txt", "128", "256"], "run", "small.json", "--data", "text.txt",
                     "--store", "s.db", "--steps", "2")


class Store(Test):
    def each_command(self):
        yield "plan", *MODEL, "--global-batch", "4", "-o", "new.json"
        yield "run", "one.json", "--data", "text.txt", "--steps", "2"
        yield ("report",)

    def refused_store(self, name, *words):
        before = digest(self.folder / name)
        for command in self.each_command():
            self.refused(1, [name, *words], *command, "--store", name)
        self.refused(1, [name, *words], "profile", *MODEL, "--ranks", "1", "--budget", "0.1",
                     "--micro-batches", "1", "--threads", "1", "--store", name)
        self.assertEqual(digest(self.folder / name), before, f"{name} was changed")
        self.assertFalse((self.folder / "new.json").exists())

    def test_text_file(self):
        self.refused_store("text.txt", "not a temper store")

    def test_another_programs_database(self):
        with sqlite3.connect(self.folder / "other.db") as database:
            database.execute("CREATE TABLE guests (name TEXT)")
        database.close()
        self.refused_store("other.db", "another program")

    def test_newer_version(self):
        with sqlite3.connect(self.folder / "t.db") as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        self.refused_store("t.db", "99", "newer")

    def test_truncated(self):
        data = (self.folder / "t.db").read_bytes()
        (self.folder / "t.db").write_bytes(data[:len(data) // 2 // 4096 * 4096])
        self.refused_store("t.db")

    def test_missing(self):
        self.refused(1, ["none.db", "temper profile"], "plan", *MODEL, "--global-batch", "4",
                     "--store", "none.db")
        self.refused(1, ["none.db"], "report", "--store", "none.db")
        self.assertFalse((self.folder / "none.db").exists())

    def test_no_run_to_report(self):
        self.refused(1, ["t.db", "run"], "report", "--store", "t.db")
        self.train("one.json", "--steps", "2")
        self.refused(1, ["99"], "report", "--store", "t.db", "--run", "99")


class Checkpoint(Test):
    def saved(self):
        self.train("one.json", "--steps", "4", "--save", "c", "--save-interval", "2")
        return self.folder / "c" / "step-00000004"

    def load(self, path):
        return ("run", "one.json", "--data", "text.txt", "--store", "t.db", "--steps", "6",
                "--eval-windows", "2", "--load", path)

    def test_missing(self):
        for plan in ("one.json", "two.json"):
            self.refused(1, ["nowhere"], "run", plan, "--data", "text.txt", "--store", "t.db",
                         "--load", "nowhere")
        self.refused(1, ["checkpoint"], *self.load("."))
        self.refused(1, ["nowhere"], "sample", "--load", "nowhere")

    def test_each_file_torn(self):
        whole = self.saved()
        for name in ("model.safetensors", "optimizer.safetensors", "state.json", "config.json"):
            for damage in ("truncated", "flipped", "gone"):
                with self.subTest(file=name, damage=damage):
                    shutil.rmtree(self.folder / "d", ignore_errors=True)
                    shutil.copytree(self.folder / "c", self.folder / "d")
                    self.damage(self.folder / "d" / whole.name / name, damage)
                    self.refused(1, [f"d/{whole.name}", name], *self.load(f"d/{whole.name}"))
                    result = self.done(*self.load("d"))
                    self.assertIn("warning", result.stderr)
                    self.assertIn(name, result.stderr)
                    self.assertIn("step      3/6", result.stdout)

    @staticmethod
    def damage(path, how):
        data = bytearray(path.read_bytes())
        if how == "gone":
            path.unlink()
            return
        if how == "truncated":
            del data[len(data) // 2:]
        else:
            data[len(data) // 2] ^= 4
        path.write_bytes(data)

    def test_of_another_model(self):
        self.saved()
        other = [*MODEL, "--hidden", "16"]
        self.done("profile", *other, "--store", "o.db", "--budget", "0.3", "--micro-batches", "1",
                  "--precision", "fp32", "--threads", "1", "--ranks", "1", "--relative-error", "1")
        self.done("plan", *other, "--store", "o.db", "--global-batch", "2", "-o", "other.json")
        self.refused(1, ["hidden", "32", "16"], "run", "other.json", "--data", "text.txt",
                     "--store", "o.db", "--load", "c", "--steps", "9")
        self.refused(1, ["c/step-00000004"], "run", "other.json", "--data", "text.txt", "--store",
                     "o.db", "--init-from", "c/step-00000004", "--steps", "9")

    def test_nothing_left_to_do(self):
        for plan in ("one.json", "two.json"):
            self.train(plan, "--steps", "3", "--save", "c", "--keep", "9")
            self.refused(2, ["--steps 3", "done 3"], "run", plan, "--data", "text.txt", "--store",
                         "t.db", "--steps", "3", "--load", "c")

    def test_a_refused_resume_keeps_the_log(self):
        self.train("one.json", "--steps", "3", "--log", "log.jsonl")
        before = digest(self.folder / "log.jsonl")
        self.refused(1, ["nowhere"], "run", "one.json", "--data", "text.txt", "--store", "t.db",
                     "--load", "nowhere", "--log", "log.jsonl")
        self.assertEqual(digest(self.folder / "log.jsonl"), before)


class Outputs(Test):
    def test_places_that_cannot_be_written(self):
        plan = ("plan", *MODEL, "--store", "t.db", "--global-batch", "4", "-o")
        self.refused(1, ["/nowhere/p.json"], *plan, "/nowhere/p.json")
        self.refused(1, ["folder"], *plan, ".")
        self.train("one.json", "--steps", "2")
        self.refused(1, ["/nowhere/r.html"], "report", "--store", "t.db", "--html",
                     "/nowhere/r.html")
        self.refused(1, ["/nowhere/c.json"], "report", "--store", "t.db", "--chrome",
                     "/nowhere/c.json")

    def test_run_refuses_before_the_first_step(self):
        for plan in ("one.json", "two.json"):
            for option, path in (("--log", "/nowhere/l"), ("--save", "/proc/nowhere"),
                                 ("--save", "text.txt"), ("--store", "/nowhere/t.db")):
                with self.subTest(plan=plan, option=option, path=path):
                    stores = [] if option == "--store" else ["--store", "t.db"]
                    result = self.refused(1, [path], "run", plan, "--data", "text.txt", "--steps",
                                          "2", *stores, option, path)
                    self.assertNotIn("step", result.stdout)

    def test_dev_full(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            for command in (("model", *MODEL), ("model", *MODEL, "--json"),
                            ("plan", *MODEL, "--store", "t.db", "--global-batch", "4")):
                process = start(*command, folder=self.folder, stdout=full)
                _, err = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 1, command)
                self.assertIn("standard output", err)

    def test_chrome_goes_to_a_device(self):
        self.train("one.json", "--steps", "2")
        self.done("report", "--store", "t.db", "--html", "/dev/null", "--chrome", "/dev/null")
        self.assertFalse(os.path.isfile("/dev/null"))


class NotFinite(Test):
    def test_skipped_counted_stopped(self):
        for plan in ("one.json", "two.json"):
            with self.subTest(plan=plan):
                wild = ("run", plan, "--data", "text.txt", "--store", "t.db", "--steps", "60",
                        "--lr", "1000", "--clip", "0", "--warmup", "0", "--weight-decay", "1000",
                        "--log-interval", "1", "--log", "log.jsonl")
                result = self.temper(*wild, "--skip-limit", "3")
                self.assertEqual(result.returncode, 1, result.stdout)
                self.assertIn("not finite", result.stderr)
                self.assertIn("3 steps in a row", result.stderr)
                self.assertIn("--lr", result.stderr)
                self.assertEqual(result.stdout.count("skipped"), 3)
                self.assertNotIn("-nan", result.stdout + result.stderr)
                self.assertEqual(self.runs()[-1][1], "failed")
                losses = self.losses("log.jsonl")
                self.assertIsNone(losses[max(losses)])
                with sqlite3.connect(self.folder / "t.db") as database:
                    skipped = database.execute("SELECT skipped_steps FROM run ORDER BY id DESC")
                    self.assertEqual(skipped.fetchone()[0], 3)
                report = self.temper("report", "--store", "t.db")
                self.assertEqual(report.returncode, 0, report.stderr)


if __name__ == "__main__":
    main()
