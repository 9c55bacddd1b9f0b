"""The workloads, and what one measurement of one gives."""

import json
import os
import re
import socket
import subprocess
from collections import namedtuple

from . import processes, websocket

# `send` is one of the functions below; `kind` is one of `KINDS`.
Workload = namedtuple("Workload", "name title send connections path script kind", defaults=("", "", "plain"))
# Instances of each proxy: as it is, with an access log, in front of the nodes of `both_ends.rs`, over TLS.
KINDS = ("plain", "logged", "paced", "tls")
# What all measurements share; `programs` are those that load by name, `ends` is the process of
# `both_ends.rs` and `orders` the port where it takes its own; `rate` is half of what nginx reached before
# the first round.
Rig = namedtuple("Rig", "programs directory proxy_core load_cores ends orders seconds rate")
# Times a request in µs; `foreign` is the share of what the cores did that was none of ours; `lost`
# counts access log lines.
Sample = namedtuple("Sample", "user system rate p50 p99 p999 resident errors foreign lost")

LIST = "/api/posts:list"
POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 4096)\nwrk.headers["Content-Type"] = "application/json"'
CLOSE = 'wrk.headers["Connection"] = "close"'
TELL = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"seconds":%f,"p50":%d,"p99":%d,"p999":%d,"errors":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def run_wrk(rig, workload, server):
    """As many requests as there are answers."""
    path = rig.directory / f"{workload.name}.lua"
    path.write_text(workload.script + TELL)
    told = output(rig, [
        rig.programs["wrk"], "-t1", f"-c{workload.connections}", f"-d{rig.seconds}s", "--timeout", "10s",
        "-s", str(path), f"http{'s' if workload.kind == 'tls' else ''}://127.0.0.1:{server.port}{workload.path}"])
    return json.loads(told[told.rindex("RESULT ") + len("RESULT "):])


def run_paced(rig, workload, server):
    """At the rate of `rig`, at moments that do not depend on how fast answers come."""
    with (processes.hurried(rig.ends, server.child.pid),
          socket.create_connection(("127.0.0.1", rig.orders), timeout=rig.seconds + 60) as orders):
        orders.sendall(f"{server.port} {rig.rate:.1f} {rig.seconds} {workload.connections}\n".encode())
        return json.loads(orders.makefile().readline())


def run_handshakes(rig, workload, server):
    """A connection, a handshake and a request each; `script` says whether earlier sessions go on."""
    told = json.loads(output(rig, [
        rig.programs["handshakes"], str(server.port), str(rig.seconds), str(workload.connections), workload.script]))
    # The first of each thread cannot come back to anything.
    if told.pop("otherwise") > workload.connections + told["requests"] // 100:
        raise RuntimeError(f"{server.name} does not shake hands as asked: {workload.script}")
    return told


def run_h2(rig, workload, server):
    """HTTP/2: `script` says how many streams each connection has."""
    log = rig.directory / "h2load.log"
    log.unlink(missing_ok=True)
    told = output(rig, [
        rig.programs["h2load"], "-t1", f"-c{workload.connections}", f"-m{workload.script}", f"-D{rig.seconds}",
        f"--log-file={log}", f"https://127.0.0.1:{server.port}{workload.path}"])
    if "Application protocol: h2" not in told:
        raise RuntimeError(f"{server.name} does not speak HTTP/2")
    rows = [line.split() for line in log.read_text().splitlines()]
    times = sorted(int(took) for _, status, took in rows if status == "200") or [0]
    at = {name: times[int(share * (len(times) - 1))] for name, share in SHARES.items()}
    failed = sum(map(int, re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", told).groups()))
    return {"requests": len(times), "seconds": rig.seconds, "errors": failed, **at}


def speaks_h2(rig, server):
    """Whether a proxy chooses HTTP/2 of what a client offers."""
    return "Application protocol: h2" in output(rig, [
        rig.programs["h2load"], "-n1", "-c1", f"https://127.0.0.1:{server.port}{LIST}"])


def output(rig, command):
    """What a program on the load's cores says."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True, timeout=rig.seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, rig.load_cores),
    ).stdout


def run_echo(rig, workload, server):
    """WebSocket messages there and back."""
    times = sorted(websocket.echo(server.port, workload.connections, rig.seconds))
    at = {name: times[int(share * (len(times) - 1))] * 1e6 for name, share in SHARES.items()}
    return {"requests": len(times), "seconds": rig.seconds, "errors": 0, **at}


SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}

WORKLOADS = [
    Workload("get-1", "GET 1 KiB, 1 connection", run_wrk, 1, LIST),
    Workload("get-64", "GET 1 KiB, 64 connections", run_wrk, 64, LIST),
    Workload("get-512", "GET 1 KiB, 512 connections", run_wrk, 512, LIST),
    Workload("logged", "GET 1 KiB, 64 connections, access log", run_wrk, 64, LIST, kind="logged"),
    Workload("connect", "GET 1 KiB, a connection each", run_wrk, 64, LIST, CLOSE),
    Workload("post-4k", "POST 4 KiB, 64 connections", run_wrk, 64, "/api/posts:create", POST),
    Workload("get-64k", "GET 64 KiB, 64 connections", run_wrk, 64, "/medium"),
    Workload("get-1m", "GET 1 MiB, 16 connections", run_wrk, 16, "/large"),
    Workload("half", "GET 1 KiB at half of nginx's rate", run_paced, 512, LIST, kind="paced"),
    Workload("echo", "WebSocket echo, 64 tunnels", run_echo, 64),
    Workload("tls-64", "TLS, GET 1 KiB, 64 connections", run_wrk, 64, LIST, kind="tls"),
    Workload("tls-full", "TLS, a handshake each", run_handshakes, 6, LIST, "full", "tls"),
    Workload("tls-resumed", "TLS, a resumed handshake each", run_handshakes, 6, LIST, "resumed", "tls"),
    Workload("h2-100", "HTTP/2 over TLS, GET 1 KiB, 100 streams", run_h2, 1, LIST, "100", "tls"),
]
SATURATING = WORKLOADS[1]


def measure(rig, workload, server):
    """One run of `workload` against `server`."""
    before = cpu_times(rig, server)
    result = workload.send(rig, workload, server)
    user, system, ours, busy = (now - then for now, then in zip(cpu_times(rig, server), before))
    requests = max(1, result["requests"])
    return Sample(
        user=user / requests * 1e6, system=system / requests * 1e6, rate=result["requests"] / result["seconds"],
        p50=result["p50"], p99=result["p99"], p999=result["p999"],
        resident=processes.memory(server.child.pid).resident, errors=result["errors"],
        foreign=max(0.0, busy - ours) / max(busy, 1e-9),
        lost=lost_lines(server, result["requests"]) if server.log else 0,
    )


def cpu_times(rig, server):
    """Seconds so far: the proxy's user and system time, all of ours, all of the machine's."""
    user, system = processes.cpu_seconds(server.child.pid)
    cores = rig.load_cores | {rig.proxy_core}
    return user, system, sum(processes.cpu_seconds(os.getpid())), processes.busy_seconds(cores)


def lost_lines(server, requests):
    """How many requests have no line in the access log, which is emptied for the next run."""
    lines = 0
    try:
        processes.wait_for("the log", lambda: count_lines(server.log) >= requests, limit=3)
    except RuntimeError:
        lines = count_lines(server.log)
        return requests - lines
    finally:
        os.truncate(server.log, 0)
    return 0


def count_lines(path):
    """Line ends of a file."""
    with open(path, "rb") as log:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
