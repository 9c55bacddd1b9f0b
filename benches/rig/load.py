"""The workloads, and what one measurement of one gives."""

import json
import os
import socket
import subprocess
from collections import namedtuple

from . import processes, websocket

# `send` is one of the functions below; `kind` is one of `KINDS`.
Workload = namedtuple("Workload", "name title send connections path script kind", defaults=("", "", "plain"))
# Instances of each proxy: as it is, with an access log, and in front of the nodes of `both_ends.rs`.
KINDS = ("plain", "logged", "paced")
# What all measurements share; `rate` is half of what nginx reached before the first round, `orders` the
# port where `both_ends.rs` takes its own.
Rig = namedtuple("Rig", "wrk directory proxy_core load_cores orders seconds rate")
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


def run_wrk(rig, workload, port):
    """As many requests as there are answers."""
    path = rig.directory / f"{workload.name}.lua"
    path.write_text(workload.script + TELL)
    command = [
        rig.wrk, "-t1", f"-c{workload.connections}", f"-d{rig.seconds}s", "--timeout", "10s", "-s", str(path),
        f"http://127.0.0.1:{port}{workload.path}",
    ]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=rig.seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, rig.load_cores),
    ).stdout
    return json.loads(told[told.rindex("RESULT ") + len("RESULT "):])


def run_paced(rig, workload, port):
    """At the rate of `rig`, at moments that do not depend on how fast answers come."""
    with socket.create_connection(("127.0.0.1", rig.orders), timeout=rig.seconds + 60) as orders:
        orders.sendall(f"{port} {rig.rate:.1f} {rig.seconds} {workload.connections}\n".encode())
        return json.loads(orders.makefile().readline())


def run_echo(rig, workload, port):
    """WebSocket messages there and back."""
    times = sorted(websocket.echo(port, workload.connections, rig.seconds))
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
]
SATURATING = WORKLOADS[1]


def measure(rig, workload, server):
    """One run of `workload` against `server`."""
    before = cpu_times(rig, server)
    result = workload.send(rig, workload, server.port)
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
