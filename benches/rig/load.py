"""What is sent, by wrk, and what one measurement of it gives."""

import json
import subprocess
import os
from collections import namedtuple

from . import processes

Workload = namedtuple("Workload", "name title connections path script")

POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 4096)\nwrk.headers["Content-Type"] = "application/json"'
CLOSE = 'wrk.headers["Connection"] = "close"'
TELL = """
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests":%d,"microseconds":%d,"bytes":%d,"p50":%d,"p99":%d,"errors":%d}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""

WORKLOADS = [
    Workload("get-1", "GET 1 KiB, 1 connection", 1, "/api/posts:list", ""),
    Workload("get-64", "GET 1 KiB, 64 connections", 64, "/api/posts:list", ""),
    Workload("get-512", "GET 1 KiB, 512 connections", 512, "/api/posts:list", ""),
    Workload("connect", "GET 1 KiB, a connection each", 64, "/api/posts:list", CLOSE),
    Workload("post-4k", "POST 4 KiB, 64 connections", 64, "/api/posts:create", POST),
    Workload("large", "GET 1 MiB, 16 connections", 16, "/large", ""),
]

Sample = namedtuple("Sample", "user system rate p50 p99 resident errors foreign")


def measure(wrk, workload, server, seconds, directory, load_cores, proxy_core):
    """
    One run of wrk against `server`. Times are microseconds of the proxy's CPU for each request;
    `foreign` is the share of what the proxy's core did meanwhile that was not the proxy.
    """
    script = directory / f"{workload.name}.lua"
    script.write_text(workload.script + TELL)
    command = [
        wrk, "-t1", f"-c{workload.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script),
        f"http://127.0.0.1:{server.port}{workload.path}",
    ]
    user, system = processes.cpu_seconds(server.child.pid)
    busy = processes.core_busy(proxy_core)
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 60,
        preexec_fn=lambda: os.sched_setaffinity(0, load_cores),
    ).stdout
    busy = processes.core_busy(proxy_core) - busy
    after = processes.cpu_seconds(server.child.pid)
    user, system = after[0] - user, after[1] - system
    result = json.loads(told[told.rindex("RESULT ") + len("RESULT "):])
    requests = max(1, result["requests"])
    return Sample(
        user=user / requests * 1e6, system=system / requests * 1e6,
        rate=result["requests"] / result["microseconds"] * 1e6, p50=result["p50"], p99=result["p99"],
        resident=processes.resident(server.child.pid), errors=result["errors"],
        foreign=max(0.0, busy - user - system) / max(busy, 1e-9),
    )
