"""Do the words agree with the program? Every option that --help lists is in the man page, the man
pages have no roff errors, and every `temper ...` line in a fenced block of the documents uses
commands and options that exist.

Usage: docs.py TEMPER SOURCE_ROOT MAN_FOLDER"""
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys

OPTION_ROW = re.compile(r"^ +(?:(-\w), |)(--[a-z][a-z0-9-]*)", re.MULTILINE)
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
FREE_OPTIONS = {"--help", "-h", "--man"}


def output_of(*command):
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60,
                            stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}: {result.stderr}")
    return result.stdout


def commands_of(temper):
    """{command: its options} as --help has them."""
    overview = output_of(temper, "--help")
    listed = overview.split("Commands:\n")[1].split("\n\n")[0]
    commands = {}
    for name in re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE):
        rows = OPTION_ROW.findall(output_of(temper, name, "--help"))
        commands[name] = {option for row in rows for option in row if option}
    return commands


def man_page_problems(temper, commands, folder):
    for command, options in commands.items():
        page = re.sub(r"\\f[BIR]", "", output_of(temper, command, "--man")).replace("\\-", "-")
        for option in sorted(options):
            if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", page):
                yield f"temper-{command}.1: option {option} of --help is missing"
    pages = [os.path.join(folder, "temper.1")]
    pages += [os.path.join(folder, f"temper-{command}.1") for command in commands]
    for page in pages:
        if not os.path.isfile(page):
            yield f"{page}: this man page was not built"
        elif shutil.which("man"):
            result = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], check=False,
                                    capture_output=True, text=True, timeout=60,
                                    env={**os.environ, "MANPAGER": "cat", "LC_ALL": "C.UTF-8"})
            if result.stderr:
                yield f"{page}: {result.stderr.strip()}"


def command_lines(text):
    """(line number, words) of every `temper ...` in a fenced block, up to a pipe."""
    for fence in FENCE.finditer(text):
        first = text.count("\n", 0, fence.start(1)) + 1
        lines = fence.group(1).split("\n")
        index = 0
        while index < len(lines):
            number, line = first + index, lines[index]
            while line.endswith("\\") and index + 1 < len(lines):
                index += 1
                line = line[:-1] + lines[index]
            index += 1
            line = re.sub(r"^\$ ", "", line.strip())
            if re.match(r"(?:\S*/)?temper [a-z]", line):
                yield number, shlex.split(re.split(r"[|>]|&&", line)[0], comments=True)


def document_problems(path, commands):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for line, words in command_lines(text):
        where = f"{path}:{line}"
        if words[1] not in commands:
            yield f"{where}: there is no command '{words[1]}'"
            continue
        for word in words[2:]:
            option = word.split("=")[0]
            is_option = re.match(r"--[a-z]|-[a-z]$", option)
            if is_option and option not in commands[words[1]] | FREE_OPTIONS:
                yield f"{where}: temper {words[1]} has no option {option}"


def main():
    temper, root, man_folder = sys.argv[1:4]
    commands = commands_of(temper)
    problems = list(man_page_problems(temper, commands, man_folder))
    for path in [os.path.join(root, "README.md")] + sorted(glob.glob(f"{root}/docs/*.md")):
        problems += document_problems(path, commands)
    for problem in problems:
        print(problem)
    print(f"{len(commands)} commands, {len(problems)} problems")
    return 1 if problems or not commands else 0


if __name__ == "__main__":
    sys.exit(main())
