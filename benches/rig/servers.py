"""The origins and the proxies, configured alike, each as `Server(name, child, port)`."""

import os
import subprocess
from collections import namedtuple
from pathlib import Path

from . import processes

Server = namedtuple("Server", "name child port")

HEALTH = "/api/__health_check"
LARGE = 1024 * 1024
IDLE = 128  # idle connections to one node, cobalance's default
AS_ROOT = "user root;" if os.geteuid() == 0 else ""


def start_origins(children, nginx, core, count=3):
    """
    `count` nodes in one nginx process: 1 KiB from memory, and 1 MiB from a file in the page cache.
    They give the keep-alive hint of a Node.js server.
    """
    ports = processes.free_ports(count)
    directory = children.directory
    (directory / "large").write_bytes(b"x" * LARGE)
    listen = "\n".join(f"        listen 127.0.0.1:{port};" for port in ports)
    configuration = directory / "origin.conf"
    configuration.write_text(f"""{nginx_head(directory, "origin")}
    keepalive_requests 100000000;
    keepalive_timeout 75s 5s;
    open_file_cache max=10;
    server {{
{listen}
        location = {HEALTH} {{ return 200 "ok"; }}
        location = /large {{ root {directory}; }}
        location / {{ return 200 "{"x" * 1024}"; }}
    }}
}}
""")
    children.start("origins", nginx_command(nginx, directory, "origin", configuration), core)
    for port in ports:
        processes.wait_for("the origins", lambda port=port: processes.answers(f"http://127.0.0.1:{port}{HEALTH}"))
    return ports


def nginx_head(directory, name):
    """What every nginx here begins with; the `http` block is left open."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"    {kind}_temp_path {directory}/{name}-{kind};" for kind in kinds)
    return f"""daemon off;
{AS_ROOT}
pid {directory}/{name}.pid;
worker_processes 1;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
{temporary}
    access_log off;
    default_type application/json;
    sendfile on;
    tcp_nopush on;"""


def nginx_command(nginx, directory, name, configuration):
    """The command line: its own prefix and error log, nothing of the machine's installation."""
    return [nginx, "-p", str(directory), "-c", str(configuration), "-e", str(directory / f"{name}-error.log")]


def start_nginx(children, binary, core, nodes):
    """nginx with keep-alive to the nodes and the forwarding fields that cobalance sets."""
    [port] = processes.free_ports(1)
    servers = "\n".join(f"        server 127.0.0.1:{node};" for node in nodes)
    configuration = children.directory / "nginx.conf"
    configuration.write_text(f"""{nginx_head(children.directory, "nginx")}
    upstream nodes {{
{servers}
        keepalive {IDLE * len(nodes)};
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://nodes;
            proxy_http_version 1.1;
            proxy_max_temp_file_size 0;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header Forwarded "for=$remote_addr;host=$http_host;proto=$scheme";
            proxy_set_header X-Request-Id $request_id;
            add_header X-Request-Id $request_id;
        }}
    }}
}}
""")
    command = nginx_command(binary, children.directory, "nginx", configuration)
    return Server("nginx", children.start("nginx", command, core), port)


def start_haproxy(children, binary, core, nodes):
    """HAProxy with one thread, checks as cobalance makes them, and the same fields."""
    [port] = processes.free_ports(1)
    servers = "\n".join(
        f"    server node{i} 127.0.0.1:{node} check inter 2s" for i, node in enumerate(nodes, 1))
    configuration = children.directory / "haproxy.cfg"
    configuration.write_text(f"""global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 2s
    timeout client 75s
    timeout server 600s
    http-reuse always
frontend public
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Real-IP %[src]
    http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=http
    http-request set-header X-Request-Id %[unique-id]
    http-response set-header X-Request-Id %[unique-id]
    default_backend nodes
backend nodes
    balance roundrobin
    option httpchk GET {HEALTH}
    http-check expect string ok
{servers}
""")
    child = children.start("haproxy", [binary, "-db", "-f", str(configuration)], core)
    return Server("haproxy", child, port)


def start_cobalance(children, binary, core, nodes):
    """cobalance with its defaults; one data thread, round robin and no access log, as the others."""
    port, admin = processes.free_ports(2)
    addresses = ", ".join(f'"127.0.0.1:{node}"' for node in nodes)
    configuration = children.directory / "cobalance.toml"
    configuration.write_text(f"""[server]
threads = 1

[[listener]]
bind = "127.0.0.1:{port}"

[upstream.nocobase]
balance = "round_robin"
nodes = [{addresses}]

[admin]
bind = "127.0.0.1:{admin}"

[access_log]
enabled = false
""")
    child = children.start("cobalance", [binary, "run", "--config", str(configuration)], core)
    return Server("cobalance", child, port)


START = {"nginx": start_nginx, "haproxy": start_haproxy, "cobalance": start_cobalance}
VERSION = {"nginx": "-v", "haproxy": "-v", "cobalance": "--version"}


def version(name, binary):
    """The first line that a binary says of itself."""
    told = subprocess.run([binary, VERSION[name]], capture_output=True, text=True, check=False)
    return (told.stdout + told.stderr).strip().splitlines()[0].split(" - ")[0]


def cobalance_binary(repository):
    """What cargo built for release, where cargo puts it."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", repository / "target"))
    return target / "release" / "cobalance"
