"""Does docs.py find an option in a document that the program does not have?"""
import os
import tempfile
import unittest

import docs

COMMANDS = {"plan": {"--ranks", "--output", "-o"}, "run": {"--steps"}}


class Docs(unittest.TestCase):
    def problems(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "page.md")
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            return [problem.split("page.md:")[1] for problem in
                    docs.document_problems(path, COMMANDS)]

    def test_known_options(self):
        self.assertEqual(self.problems("```\n$ temper plan --ranks 2 -o x | less --foo\n```\n"), [])
        self.assertEqual(self.problems("```sh\nbuild/temper run p.json --steps=3 --help\n```\n"), [])

    def test_unknown_option(self):
        self.assertEqual(self.problems("a\n```\ntemper plan --rank 2\n```\n"),
                         ["3: temper plan has no option --rank"])

    def test_unknown_option_on_a_continued_line(self):
        self.assertEqual(self.problems("```\ntemper plan --ranks 2 \\\n   --steps 3\n```\n"),
                         ["2: temper plan has no option --steps"])

    def test_unknown_command(self):
        self.assertEqual(self.problems("```\ntemper fly\n```\n"),
                         ["2: there is no command 'fly'"])

    def test_prose_is_not_read(self):
        self.assertEqual(self.problems("temper plan --nothing\n"), [])


if __name__ == "__main__":
    unittest.main()
