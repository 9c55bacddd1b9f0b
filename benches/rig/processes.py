"""Children on chosen cores, and what the kernel says they used. Linux only."""

import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
DESCRIPTORS = 16384

Memory = namedtuple("Memory", "resident once")

ANY_CERTIFICATE = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname = False
ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE


class Children:
    """Processes that end with us, each by its own process id."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.started = []

    def start(self, name, command, core, environment=None, output=None):
        """Starts `command` pinned to the set of cores `core`; what it says goes to `<name>.out`."""
        with open(output or self.directory / f"{name}.out", "ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, core),
            )
        self.started.append(child)
        return child

    def stop(self, *children):
        """Ends these, or all: SIGTERM, because nginx's workers outlive a killed master; then SIGKILL."""
        ending = list(children or reversed(self.started))
        for child in ending:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for child in ending:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self.started.remove(child)


def allow_descriptors():
    """Thousands of connections need as many descriptors; children inherit the limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS) if hard > 0 else DESCRIPTORS, hard))


def free_ports(count):
    """Loopback ports that were free a moment ago; all are held at once, so none repeats."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def listens(port):
    """Does something accept connections there?"""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        return True
    except OSError:
        return False


def answers(url):
    """Does a GET of `url` give 200?"""
    try:
        with urllib.request.urlopen(url, timeout=2, context=ANY_CERTIFICATE) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for(what, condition, limit=20.0):
    """Asks `condition` until it holds; raises after `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {limit:.0f} s in vain for {what}")
        time.sleep(0.02)


def family(pid):
    """`pid` and all its descendants."""
    found = [pid]
    for member in found:
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                found += map(int, Path(f"/proc/{member}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def hurried(*pids):
    """
    Meanwhile all threads of these and their descendants run as soon as they can, whatever else the machine
    does: a tail latency on a busy machine is otherwise the length of others' time slices. Says whether that
    is allowed.
    """
    tasks = [int(task) for pid in pids for member in family(pid) for task in os.listdir(f"/proc/{member}/task")]
    try:
        for task in tasks:
            os.sched_setscheduler(task, os.SCHED_FIFO, os.sched_param(1))
        yield True
    except PermissionError:
        yield False
    finally:
        for task in tasks:
            try:
                os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))
            except ProcessLookupError:
                continue


def cpu_seconds(pid):
    """User and system time of `pid` and its descendants, with that of children they have reaped."""
    user = system = 0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return user * TICK, system * TICK


def thread_seconds(pid):
    """`{name: seconds}` that each thread of `pid` has run."""
    times = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        times[name] = times.get(name, 0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return times


def memory(pid):
    """
    Bytes of `pid` and its descendants: resident as `ps` adds them up, and with each page counted
    once. Anonymous pages are shared among them only; of files, the largest part stands for all,
    because other programs here may have mapped the same ones.
    """
    resident = anonymous = files = 0
    for member in family(pid):
        try:
            rollup = kib_fields(Path(f"/proc/{member}/smaps_rollup").read_text())
            status = kib_fields(Path(f"/proc/{member}/status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        resident += rollup["Rss"]
        anonymous += rollup["Pss_Anon"] + rollup["Pss_Shmem"]
        files = max(files, status["RssFile"])
    return Memory(resident * 1024, (anonymous + files) * 1024)


def connections_by_poller(pid, port):
    """
    How many connections to `port` each epoll instance of `pid` watches; those with none are left
    out. Where each thread has its own instance, that is how many connections each has.
    """
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == "01" and int(local.rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{rest[5]}]")
    files = {entry.name: os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    sets = set()  # because an instance may have two descriptors
    for poller in (name for name, target in files.items() if target == "anon_inode:[eventpoll]"):
        lines = Path(f"/proc/{pid}/fdinfo/{poller}").read_text().splitlines()
        watched = [line.split()[1] for line in lines if line.startswith("tfd:")]
        sets.add(frozenset(name for name in watched if files.get(name) in inodes))
    return [len(watched) for watched in sets if watched]


def kib_fields(text):
    """The lines `Name: number kB`, by name."""
    lines = (line.split() for line in text.splitlines())
    return {words[0][:-1]: int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def settled_memory(pid, limit=5.0):
    """`memory` once it has stayed the same, to 64 KiB, for half a second."""
    end = time.monotonic() + limit
    before, now = None, memory(pid)
    while time.monotonic() < end and (before is None or abs(now.resident - before.resident) > 65536):
        time.sleep(0.5)
        before, now = now, memory(pid)
    return now


def busy_seconds(cores):
    """Seconds that these cores were not idle, since the machine started, stolen time included."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, values[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks * TICK


def processor():
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def program(name, given=None, package=None):
    """The path of a program: as given, else from the path, else installed from Debian's `package`."""
    if given:
        if not Path(given).is_file():
            sys.exit(f"no {name} at {given}")
        return str(Path(given).resolve())
    if not shutil.which(name):
        install(package or name)
    return shutil.which(name) or sys.exit(f"{name} is missing")


def install(package):
    """`RUNLEVEL=1` keeps the package's service from being started."""
    if os.geteuid() != 0:
        sys.exit(f"install the Debian package {package} first")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        subprocess.run(["apt-get", *arguments], env=environment, check=True, stdout=sys.stderr)
