"""Two hosts on one machine, `alpha` and `beta`: network namespaces joined by a veth pair, each with
its own host name, names that both resolve, and a stand-in for ssh by which Open MPI reaches them.

Everything is inside the namespaces and one folder, and is gone when the `with` ends; what a killed
predecessor left is removed first."""
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

NAMES = ("alpha", "beta")
ADDRESSES = dict(zip(NAMES, ("10.77.0.1", "10.77.0.2")))
LINK = "link0"
PREFIX = "temper-test-"
FOLDERS = "/tmp"  # a short path, for the sockets' sake

# Called as ssh is: a host, then a command for its shell.
AGENT = """#!/bin/sh
host=$1
shift
exec ip netns exec "{prefix}$host" unshare --uts sh -c '
    hostname "$1" && mount --bind {hosts} /etc/hosts && shift && exec sh -c "$*"' sh "$host" "$@"
"""


class Refused(Exception):
    """This machine makes no such hosts; the message says what it refused."""


def do(*command):
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{shlex.join(command)}: {error}") from error
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise Refused(f"{shlex.join(command)}: {said[-1] if said else result.returncode}")
    return result.stdout


def pids_in(namespace):
    try:
        return [int(pid) for pid in do("ip", "netns", "pids", namespace).split()]
    except Refused:
        return []


def remove_namespace(namespace):
    end_s = time.monotonic() + 5
    while (pids := pids_in(namespace)) and time.monotonic() < end_s:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    do("ip", "netns", "del", namespace)  # the veth pair goes with it


def is_leftover(name):
    """Of a test that was killed: its process is in the name."""
    made_by = re.match(PREFIX + r"(\d+)-", name)
    return made_by is not None and not pathlib.Path(f"/proc/{made_by[1]}").exists()


def remove_leftovers():
    for line in do("ip", "netns", "list").splitlines():
        if is_leftover(line):
            remove_namespace(line.split()[0])
    for name in filter(is_leftover, os.listdir(FOLDERS)):
        shutil.rmtree(pathlib.Path(FOLDERS, name), ignore_errors=True)


class Hosts:
    """`with Hosts() as hosts`; Refused where they cannot be made."""

    def __init__(self):
        self.prefix = f"{PREFIX}{os.getpid()}-"
        self.folder = None
        self.agent = None

    def __enter__(self):
        if os.geteuid() != 0:
            raise Refused("making network namespaces needs root")
        for tool in ("ip", "tc", "unshare", "mpirun"):
            if shutil.which(tool) is None:
                raise Refused(f"there is no {tool}")
        remove_leftovers()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=self.prefix, dir=FOLDERS))
        try:
            self.make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def make(self):
        alpha, beta = (self.prefix + name for name in NAMES)
        for name in NAMES:
            do("ip", "netns", "add", self.prefix + name)
        do("ip", "link", "add", LINK, "netns", alpha, "type", "veth", "peer", "name", LINK,
           "netns", beta)
        for name in NAMES:
            inside = ("ip", "-n", self.prefix + name)
            do(*inside, "address", "add", ADDRESSES[name] + "/24", "dev", LINK)
            do(*inside, "link", "set", "lo", "up")
            do(*inside, "link", "set", LINK, "up")
        names = self.folder / "hosts"
        names.write_text("127.0.0.1 localhost\n" +
                         "".join(f"{ADDRESSES[name]} {name}\n" for name in NAMES))
        self.agent = self.folder / "agent"
        self.agent.write_text(AGENT.format(prefix=self.prefix, hosts=names))
        self.agent.chmod(0o755)
        for name in NAMES:
            if do(str(self.agent), name, "uname -n").strip() != name:
                raise Refused(f"unshare --uts: the host name did not become {name}")
        self.shape("1gbit")
        self.shape(None)

    def remove(self):
        for name in NAMES:
            try:
                remove_namespace(self.prefix + name)
            except Refused:
                pass  # it was not made
        shutil.rmtree(self.folder, ignore_errors=True)

    def shape(self, rate):
        """What the link carries in each direction, such as "100mbit"; None: as fast as it can."""
        for name in NAMES:
            at = ("tc", "-n", self.prefix + name, "qdisc")
            if rate is not None:
                do(*at, "replace", "dev", LINK, "root", "tbf", "rate", rate, "burst", "64kb",
                   "latency", "100ms")
            elif "tbf" in do(*at, "show", "dev", LINK):
                do(*at, "del", "dev", LINK, "root")

    def link_bytes(self):
        """Carried so far, both directions together."""
        text = do(str(self.agent), "alpha", f"cat /proc/net/dev | grep {LINK}:")
        fields = text.split(":")[1].split()
        return int(fields[0]) + int(fields[8])

    def environment(self, ranks_a_host):
        """With which mpirun, and a temper that starts it, find both hosts: that takes the agent and
        the hosts file. Open MPI's files go into our folder; ranks that share a core must not
        spin."""
        hostfile = self.folder / f"hostfile{ranks_a_host}"
        hostfile.write_text("".join(f"{name} slots={ranks_a_host}\n" for name in NAMES))
        return dict(os.environ, LC_ALL="C", COLUMNS="80", OMP_WAIT_POLICY="passive",
                    OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                    OMPI_MCA_plm_rsh_agent=str(self.agent),
                    OMPI_MCA_orte_default_hostfile=str(hostfile),
                    OMPI_MCA_orte_tmpdir_base=str(self.folder),
                    OMPI_MCA_btl_vader_backing_directory=str(self.folder),
                    OMPI_MCA_hwloc_base_binding_policy="none", OMPI_MCA_mpi_yield_when_idle="1")

    def start(self, command, ranks_a_host):
        """On alpha, in the folder, which both hosts see."""
        text = f"cd {self.folder} && exec {shlex.join(str(word) for word in command)}"
        return subprocess.Popen([str(self.agent), "alpha", text], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                errors="replace", env=self.environment(ranks_a_host))
