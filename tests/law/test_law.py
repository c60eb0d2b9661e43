"""Does law.py find what it is there to find? Each case plants a violation in a tree of its own."""
import os
import tempfile
import unittest

import law


class Law(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        for path in ("common/base/error.h", "common/ir/plan.h", "common/store/store.h",
                     "executor/ops/layer.h", "executor/comm/comm.h", "executor/trainer.h",
                     "costmodel/cost.h", "planner/planner.h", "profiler/profiler.h",
                     "traces/recorder.h", "cli/cli.h", "tests/ops/chain.h"):
            self.write(path, "\n")

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def found(self, path, text):
        self.write(path, text)
        return [(line, message) for where, line, message in law.violations(self.root)[0]
                if where == path]

    def assert_forbidden(self, path, text, line, words):
        found = self.found(path, text)
        self.assertEqual([number for number, _ in found], [line], f"{path}: {text!r}: {found}")
        self.assertIn(words, found[0][1])

    def assert_allowed(self, path, text):
        self.assertEqual(self.found(path, text), [])

    def test_clean_tree(self):
        self.assertEqual(law.violations(self.root)[0], [])

    def test_own_headers(self):
        for path, header in (
                ("common/base/a.c", "ir/plan.h"), ("common/ir/a.c", "store/store.h"),
                ("executor/ops/a.c", "store/store.h"), ("executor/ops/a.c", "executor/trainer.h"),
                ("executor/ops/a.c", "executor/comm/comm.h"), ("executor/comm/a.c", "ir/plan.h"),
                ("executor/comm/impls/a.c", "ir/plan.h"), ("executor/a.c", "planner/planner.h"),
                ("profiler/a.c", "executor/trainer.h"), ("costmodel/a.c", "profiler/profiler.h"),
                ("costmodel/a.c", "executor/ops/layer.h"), ("planner/a.c", "executor/comm/comm.h"),
                ("traces/a.c", "costmodel/cost.h"), ("executor/a.c", "cli/cli.h"),
                ("planner/a.c", "../cli/cli.h")):
            self.assert_forbidden(path, f'/* */\n#include "{header}"\n', 2, "may not include")
            os.remove(os.path.join(self.root, path))

    def test_own_headers_allowed(self):
        for path, header in (
                ("common/store/a.c", "ir/plan.h"), ("executor/a.c", "executor/ops/layer.h"),
                ("executor/comm/impls/a.c", "executor/comm/comm.h"), ("planner/a.c", "planner.h"),
                ("planner/b.c", "costmodel/cost.h"), ("cli/a.c", "planner/planner.h"),
                ("tests/planner/a.c", "executor/trainer.h"), ("tests/bench/a.c", "chain.h")):
            self.assert_allowed(path, f'#include "{header}"\n')

    def test_missing_header(self):
        self.assert_forbidden("planner/a.c", '#include "planner/gone.h"\n', 1, "no file")

    def test_third_party(self):
        for path, header in (
                ("planner/a.c", "mpi.h"), ("executor/a.c", "mpi.h"), ("executor/a.c", "glpk.h"),
                ("cli/a.c", "sqlite3.h"), ("common/ir/a.c", "jansson.h"), ("cli/a.c", "cmocka.h"),
                ("executor/a.c", "cblas.h"), ("profiler/a.c", "omp.h"), ("tests/ir/a.c", "mpi.h")):
            self.assert_forbidden(path, f"#include <{header}>\n", 1, "belongs to")
            os.remove(os.path.join(self.root, path))
        for path, header in (("planner/b.c", "glpk.h"), ("executor/comm/impls/b.c", "mpi.h"),
                             ("tests/ir/b.c", "cmocka.h"), ("tests/store/b.c", "sqlite3.h")):
            self.assert_allowed(path, f"#include <{header}>\n")

    def test_unknown_header(self):
        self.assert_forbidden("cli/a.c", "#  include <curl/curl.h>\n", 1, "known system header")

    def test_include_in_a_comment(self):
        self.assert_allowed("planner/a.c", "/*\n#include <mpi.h>\n*/\n// #include <mpi.h>\n")

    def test_function_length(self):
        def function(lines):
            return "int f(void)\n{\n" + "    f();\n" * (lines - 2) + "}\n"
        self.assert_allowed("planner/a.c", function(70) + function(70))
        self.assert_forbidden("planner/a.c", function(70) + function(71), 73, "71 lines")

    def test_table_is_no_function(self):
        self.assert_allowed("planner/a.c", "static int table[] = {\n" + "    1,\n" * 200 + "};\n")

    def test_printing_below_cli(self):
        for call in ('printf("x");', "exit(1);", "abort();", "_exit (1);", 'fputs("x", stderr);',
                     "fflush(stdout);", 'perror("x");'):
            self.assert_forbidden("planner/a.c", f"void f(void)\n{{\n    {call}\n}}\n", 3, "cli")
            os.remove(os.path.join(self.root, "planner/a.c"))
            self.assert_allowed("cli/a.c", f"{call}\n")

    def test_words_that_only_look_like_printing(self):
        self.assert_allowed("planner/a.c", '/* exit(1), stderr */\ncomm_abort(c, 1);\n'
                            'o->abort(o);\ntext_printf(t, "printf(%s) stdout", a);\n'
                            'snprintf(b, 2, "x");\n')

    def test_unbounded(self):
        self.assert_forbidden("cli/a.c", "strcpy(a, b);\n", 1, "no bound")

    def test_unknown_folder(self):
        self.assert_forbidden("misc/a.c", "\n", 1, "not in the law")


if __name__ == "__main__":
    unittest.main()
