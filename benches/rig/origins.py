"""The nodes behind the proxies, and what every nginx here begins with."""

import os
import sys
from pathlib import Path

from . import processes

HEALTH = "/api/__health_check"
KIB = 1024
# One connection record for each client and one for its node: room for half as many clients.
CONNECTIONS = 8192
AS_ROOT = "user root;" if os.geteuid() == 0 else ""


def start(children, nginx, core, count=3):
    """
    `count` nodes in one nginx process: 1 KiB from memory, 64 KiB and 1 MiB from files in the page
    cache, with the keep-alive hint of a Node.js server, and WebSocket echo behind it. Gives ports.
    """
    *ports, echo = processes.free_ports(count + 1)
    directory = children.directory
    (directory / "medium").write_bytes(b"x" * 64 * KIB)
    (directory / "large").write_bytes(b"x" * KIB * KIB)
    listen = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
    configuration = directory / "origin.conf"
    configuration.write_text(f"""{nginx_head(directory, "origin", 1)}
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 75s 5s;
    open_file_cache max=10;
    server {{
{listen}
        location = {HEALTH} {{ return 200 "ok"; }}
        location = /medium {{ root {directory}; }}
        location = /large {{ root {directory}; }}
        location = /ws {{
            proxy_pass http://127.0.0.1:{echo};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Sec-WebSocket-Key $http_sec_websocket_key;
            proxy_read_timeout 1h;
        }}
        location / {{ return 200 "{"x" * KIB}"; }}
    }}
}}
""")
    script = Path(__file__).with_name("websocket.py")
    children.start("echo", [sys.executable, str(script), "serve", str(echo)], core)
    children.start("origins", nginx_command(nginx, directory, "origin", configuration), core)
    processes.wait_for("the echo", lambda: processes.listens(echo))
    for port in ports:
        processes.wait_for("the origins", lambda port=port: processes.answers(f"http://127.0.0.1:{port}{HEALTH}"))
    return ports


def start_both_ends(children, binary, core, count=3):
    """The load generator that is its own `count` nodes. Gives it, the port where it takes orders, and theirs."""
    orders, *ports = processes.free_ports(count + 1)
    child = children.start("both_ends", [binary, str(orders), *map(str, ports)], core)
    processes.wait_for("the load generator", lambda: processes.answers(f"http://127.0.0.1:{ports[0]}{HEALTH}"))
    return child, orders, ports


def nginx_head(directory, name, workers):
    """The beginning of a configuration; the `http` block is left open."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"    {kind}_temp_path {directory}/{name}-{kind};" for kind in kinds)
    return f"""daemon off;
{AS_ROOT}
pid {directory}/{name}.pid;
worker_processes {workers};
worker_rlimit_nofile {processes.DESCRIPTORS};
events {{ worker_connections {CONNECTIONS}; }}
http {{
{temporary}
    default_type application/json;
    sendfile on;
    tcp_nopush on;"""


def nginx_command(nginx, directory, name, configuration):
    """The command line: its own prefix and error log, nothing of the machine's installation."""
    return [nginx, "-p", str(directory), "-c", str(configuration), "-e", str(directory / f"{name}-error.log")]
