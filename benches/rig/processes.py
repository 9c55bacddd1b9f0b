"""Children on chosen cores, and what the kernel says they used. Linux only."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Children:
    """Processes that end with us, each by its own process id."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.started = []

    def start(self, name, command, core):
        """Starts `command` pinned to the set of cores `core`; its output goes to `<name>.log`."""
        log = open(self.directory / f"{name}.log", "ab")
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
        log.close()
        self.started.append((name, child))
        return child

    def stop(self):
        """SIGTERM, because the workers of nginx would outlive a killed master; then SIGKILL."""
        for _, child in reversed(self.started):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        for _, child in reversed(self.started):
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def free_ports(count):
    """Loopback ports that were free a moment ago; all are held at once, so none repeats."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


def answers(url):
    """Does a GET of `url` give 200?"""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
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


def resident(pid):
    """Resident bytes of `pid` and its descendants; pages that they share count once for each."""
    total = 0
    for member in family(pid):
        try:
            total += int(Path(f"/proc/{member}/statm").read_text().split()[1]) * PAGE
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def core_busy(core):
    """Seconds that a core was not idle, since the machine started, stolen time included."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) * TICK
    raise RuntimeError(f"no core {core} in /proc/stat")


def program(name, given=None):
    """The path of a program: as given, else from the path, else installed from Debian."""
    if given:
        if not Path(given).is_file():
            sys.exit(f"no {name} at {given}")
        return str(Path(given).resolve())
    if not shutil.which(name):
        install(name)
    return shutil.which(name) or sys.exit(f"{name} is missing")


def install(package):
    """`RUNLEVEL=1` keeps the package's service from being started."""
    if os.geteuid() != 0:
        sys.exit(f"install the Debian package {package} first")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        subprocess.run(["apt-get", *arguments], env=environment, check=True, stdout=sys.stderr)
