"""What temper prints where no figure depends on the machine, held against tests/cli/golden.

TEMPER_UPDATE_GOLDEN=1 writes the files anew; look at the difference before it is committed."""
import os
import pathlib
import re
import tempfile
import unittest

from harness import MODEL, main, run

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
BROKEN_CONFIG = '{"model_type": "gpt2", "n_layer": 2, "n_embd": "wide"}\n'
FOREIGN_CONFIG = '{"model_type": "t5", "num_hidden_layers": 2}\n'
CONTRADICTION = ('{"model_type": "llama", "hidden_size": 32, "num_attention_heads": 3, '
                 '"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 64, '
                 '"max_position_embeddings": 16, "rms_norm_eps": 1e-5}\n')

CASES = {
    "overview": [["--help"]],
    "help_model": [["model", "--help"]],
    "help_profile": [["profile", "--help"]],
    "help_plan": [["plan", "--help"]],
    "help_run": [["run", "--help"]],
    "help_report": [["report", "--help"]],
    "help_sample": [["sample", "--help"]],
    "help_validate": [["validate", "--help"]],
    "help_bench": [["bench", "--help"]],
    "model_gpt2": [["model", "--model", "gpt2"],
                   ["model", "--model", "gpt2", "--seq-length", "256", "--micro-batch", "4"]],
    "model_gpt2_json": [["model", *MODEL, "--json"]],
    "model_llama": [["model", "--model", "llama-3-8b"], ["model", "--model", "tinyllama-1.1b"]],
    "model_llama_json": [["model", "--model", "llama-3-8b", "--layers", "1", "--json"]],
    "errors_model": [["model"],
                     ["model", "--model", "gtp2"],
                     ["model", "--model", "broken.json"],
                     ["model", "--model", "torn.json"],
                     ["model", "--model", "empty.json"],
                     ["model", "--model", "foreign.json"],
                     ["model", "--model", "contradiction.json"],
                     ["model", "--model", "."],
                     ["model", "--model", "gpt2", "--heads", "5"],
                     ["model", "--model", "gpt2", "--seq-length", "2048"]],
    "errors_usage": [[],
                     ["modle"],
                     ["frobnicate"],
                     ["model", "--modle", "gpt2"],
                     ["model", "--model"],
                     ["model", "gpt2"],
                     ["model", "--model", "gpt2", "--layers", "two"],
                     ["model", "--model", "gpt2", "--layers", "0"],
                     ["model", "--json=yes", "--model", "gpt2"],
                     ["plan", *MODEL],
                     ["plan", *MODEL, "--global-batch", "4", "--memory-cap", "2 apples"],
                     ["plan", *MODEL, "--global-batch", "4", "--store", "none.db"],
                     ["profile", *MODEL, "--idle-watts", "10"],
                     ["profile", *MODEL, "--idle-watts", "30", "--active-watts", "10"],
                     ["profile", *MODEL, "--micro-batches", "4,2"],
                     ["profile", *MODEL, "--ranks", "1,x"],
                     ["profile", *MODEL, "--precision", "fp8"],
                     ["run"],
                     ["run", "plan.json"],
                     ["run", "a.json", "b.json"],
                     ["run", "plan.json", "--data", "x", "--load", "a", "--init-from", "b"],
                     ["run", "plan.json", "--data", "x", "--save-interval", "5"],
                     ["run", "plan.json", "--data", "x", "--lr", "1e30"],
                     ["run", "plan.json", "--data", "x", "--lr", "nan"],
                     ["run", "plan.json", "--data", "x", "--steps", "5", "--warmup", "6"],
                     ["run", "none.json", "--data", "x"],
                     ["report", "--store", "none.db"],
                     ["sample"],
                     ["sample", "--load", "none"]],
}


def transcript(commands, folder):
    """Each command with what it prints and returns."""
    parts = []
    for command in commands:
        result = run(*command, folder=folder)
        parts.append(f"$ {' '.join(['temper', *command])}\n{result.stdout}"
                     f"{re.sub('^', '! ', result.stderr, flags=re.MULTILINE).removesuffix('! ')}"
                     f"=> {result.returncode}\n")
    return "\n".join(parts)


class Golden(unittest.TestCase):
    maxDiff = None

    def test_transcripts(self):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            (folder / "broken.json").write_text(BROKEN_CONFIG)
            (folder / "torn.json").write_text(BROKEN_CONFIG[:20])
            (folder / "empty.json").write_text("")
            (folder / "foreign.json").write_text(FOREIGN_CONFIG)
            (folder / "contradiction.json").write_text(CONTRADICTION)
            for case, commands in CASES.items():
                with self.subTest(case):
                    self.compare(GOLDEN / f"{case}.txt", transcript(commands, folder))
        self.assertEqual(sorted(path.stem for path in GOLDEN.iterdir()), sorted(CASES))

    def compare(self, path, text):
        if os.environ.get("TEMPER_UPDATE_GOLDEN"):
            path.write_text(text)
        self.assertEqual(text, path.read_text() if path.exists() else "",
                         f"{path.name}: TEMPER_UPDATE_GOLDEN=1 accepts the new text")


if __name__ == "__main__":
    main()
