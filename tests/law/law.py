"""The law of the source tree, read from the sources: who may include whom, where a third-party
header may appear, how long a function may be, and what is never called below cli/.

Usage: law.py SOURCE_ROOT; prints every violation as FILE:LINE: what, and exits 1 when there is one.
The law in words is in docs/ARCHITECTURE.md."""
import os
import re
import sys

COMMON = ["common/base", "common/ir", "common/store"]

# A folder's files may include headers of these folders, and of their own.
MAY_INCLUDE = {
    "common/base": [],
    "common/ir": ["common/base"],
    "common/store": ["common/base", "common/ir"],
    "executor/ops": ["common/base", "common/ir"],
    "executor/comm": ["common/base"],
    "executor": ["executor/ops", "executor/comm"] + COMMON,
    "profiler": ["executor/ops", "executor/comm"] + COMMON,
    "costmodel": COMMON,
    "planner": ["costmodel"] + COMMON,
    "traces": COMMON,
}
MAY_INCLUDE["cli"] = list(MAY_INCLUDE)
MAY_INCLUDE["tests"] = list(MAY_INCLUDE)

# A third-party header's one folder. A test folder may also include what the folder it tests may.
THIRD_PARTY = {
    "jansson.h": "common/base",
    "xxhash.h": "common/base",
    "sqlite3.h": "common/store",
    "cblas.h": "executor/ops",
    "omp.h": "executor/ops",
    "oneapi/dnnl/dnnl.h": "executor/ops",
    "mpi.h": "executor/comm",
    "hwloc.h": "executor/comm",
    "glpk.h": "planner",
    "cmocka.h": "tests",
}

# The C library, POSIX and Linux: open to all.
SYSTEM = set("""
assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h limits.h locale.h malloc.h math.h setjmp.h
signal.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h
string.h threads.h time.h wchar.h
dirent.h dlfcn.h fcntl.h glob.h grp.h libgen.h poll.h pthread.h pwd.h sched.h strings.h unistd.h
sys/file.h sys/ioctl.h sys/mman.h sys/mount.h sys/prctl.h sys/resource.h sys/socket.h sys/stat.h
sys/statvfs.h sys/syscall.h sys/sysinfo.h sys/time.h sys/types.h sys/uio.h sys/un.h sys/utsname.h sys/wait.h
cpuid.h immintrin.h
""".split())

FUNCTION_LINES_MAX = 70

NEVER_BELOW_CLI = re.compile(
    r"(?<!->)(?<!\.)\b(?:(?P<ends>exit|_exit|_Exit|quick_exit|abort)\s*\("
    r"|(?P<prints>printf|vprintf|puts|putchar|perror)\s*\(|(?P<stream>stdout|stderr)\b)")
UNBOUNDED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|alloca)\s*\(")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)
# Comments, string and character literals: what no rule about code may look into.
NOT_CODE = re.compile(
    r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)


def blank_out(text, pattern):
    """`text` with all matches replaced by blanks, line breaks kept."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def folder_of(path):
    """The law's folder that a path belongs to, or None; impls/ belongs to its parent."""
    parts = os.path.dirname(path).split("/")
    for depth in range(len(parts), 0, -1):
        folder = "/".join(parts[:depth])
        if folder in MAY_INCLUDE:
            return folder
    return None


def resolve(root, path, header):
    """A quoted header's path from the root, or None when no such file is there."""
    for base in (os.path.dirname(path), "", "common"):
        candidate = os.path.normpath(os.path.join(base, header))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    # A test includes the headers of the test folder that its library lives in.
    if path.startswith("tests/"):
        for folder in sorted(os.listdir(os.path.join(root, "tests"))):
            if os.path.isfile(os.path.join(root, "tests", folder, header)):
                return f"tests/{folder}/{header}"
    return None


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def tested_folder(path):
    """tests/ops/x.c tests executor/ops."""
    name = path.split("/")[1]
    return next((folder for folder in MAY_INCLUDE if folder.split("/")[-1] == name), None)


def check_own_header(root, path, folder, header):
    target = resolve(root, path, header)
    if target is None:
        return f'"{header}" is no file of this tree'
    owner = folder_of(target)
    if owner is None or (owner != folder and owner not in MAY_INCLUDE[folder]):
        allowed = ", ".join(MAY_INCLUDE[folder]) or "nothing else of ours"
        return f'{folder} may not include "{header}" of {owner}; it may include {allowed}'
    return None


def check_system_header(path, folder, header):
    if header in SYSTEM:
        return None
    owner = THIRD_PARTY.get(header)
    if owner is None:
        return f"<{header}> is neither a known system header nor a third-party one of law.py"
    if folder == owner or (folder == "tests" and tested_folder(path) == owner):
        return None
    return f"<{header}> belongs to {owner} alone"


def check_includes(root, path, folder, text):
    without_comments = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
    text = blank_out(text, without_comments)
    for match in INCLUDE.finditer(text):
        own, system = match.groups()
        problem = (check_own_header(root, path, folder, own) if own
                   else check_system_header(path, folder, system))
        if problem:
            yield line_of(text, match.start()), problem


def check_functions(code):
    """Functions begin and end with a brace in the first column, as .clang-format has it."""
    start = None
    for number, line in enumerate(code.split("\n"), 1):
        if line.rstrip() == "{":
            start = number
        elif line.startswith("}") and start is not None:
            lines = number - start + 1
            if lines > FUNCTION_LINES_MAX:
                yield start, f"a function of {lines} lines; at most {FUNCTION_LINES_MAX}"
            start = None


def check_calls(folder, code):
    if folder not in ("cli", "tests"):
        for match in NEVER_BELOW_CLI.finditer(code):
            word = match.group("ends") or match.group("prints") or match.group("stream")
            what = "ends the process" if match.group("ends") else "prints"
            yield line_of(code, match.start()), f"'{word}' {what}, which is for cli alone"
    for match in UNBOUNDED.finditer(code):
        yield line_of(code, match.start()), f"'{match.group(1)}' has no bound: use a bounded one"


def sources(root):
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders
                            if not f.startswith(".") and not re.match(r"build($|-)", f))
        for name in sorted(files):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(directory, name), root).replace(os.sep, "/")


def violations(root):
    """All violations under `root` as (path, line, message), and the number of files read."""
    found, count = [], 0
    for path in sources(root):
        count += 1
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        folder = folder_of(path)
        if folder is None:
            found.append((path, 1, "this folder is not in the law"))
            continue
        code = blank_out(text, NOT_CODE)
        for line, message in (*check_includes(root, path, folder, text), *check_functions(code),
                              *check_calls(folder, code)):
            found.append((path, line, message))
    return found, count


def main():
    found, count = violations(sys.argv[1])
    for path, line, message in found:
        print(f"{path}:{line}: {message}")
    print(f"{count} files, {len(found)} violations")
    return 1 if found or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
