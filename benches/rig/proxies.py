"""The proxies, configured alike, each started as `Server(name, child, port, log)`."""

import os
import subprocess
from collections import namedtuple
from pathlib import Path

from . import origins, others, processes

Server = namedtuple("Server", "name child port log")
# One instance to be: `log` is the file for its access log, `tls` a `Certificate`; or None.
Plan = namedtuple("Plan", "name binary directory port admin nodes threads log tls")
# Files: the chain, its key, and both in one, as HAProxy wants them.
Certificate = namedtuple("Certificate", "chain key both")

IDLE = 128  # idle connections to one node, cobalance's default
MANY = 100_000_000  # requests on one connection over TLS: h2load opens no other


def nginx(plan):
    """Keep-alive to the nodes, and the forwarding fields that cobalance sets."""
    servers = "\n".join(f"        server 127.0.0.1:{node};" for node in plan.nodes)
    fields = """proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header Forwarded "for=$remote_addr;host=$http_host;proto=$scheme";
            proxy_set_header X-Request-Id $request_id;"""
    tls = f"""ssl_certificate {plan.tls.chain};
        ssl_certificate_key {plan.tls.key};
        ssl_protocols TLSv1.3;
        keepalive_requests {MANY};""" if plan.tls else ""
    configuration = plan.directory / f"{plan.name}.conf"
    configuration.write_text(f"""{origins.nginx_head(plan.directory, plan.name, plan.threads)}
    access_log {f"{plan.log} combined" if plan.log else "off"};
    upstream nodes {{
{servers}
        keepalive {IDLE * len(plan.nodes)};
    }}
    server {{
        listen 127.0.0.1:{plan.port}{" ssl http2" if plan.tls else ""};
        {tls}
        client_max_body_size 0;
        proxy_http_version 1.1;
        proxy_max_temp_file_size 0;
        add_header X-Request-Id $request_id;
        location / {{
            proxy_pass http://nodes;
            proxy_set_header Connection "";
            {fields}
        }}
        location = /ws {{
            proxy_pass http://nodes;
            proxy_read_timeout 900s;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            {fields}
        }}
    }}
}}
""")
    return origins.nginx_command(plan.binary, plan.directory, plan.name, configuration), {}


def haproxy(plan):
    """Checks as cobalance makes them, and the same fields."""
    servers = "\n".join(
        f"    server node{i} 127.0.0.1:{node} check inter 2s" for i, node in enumerate(plan.nodes, 1))
    tls = f" ssl crt {plan.tls.both} alpn h2,http/1.1 ssl-min-ver TLSv1.3" if plan.tls else ""
    configuration = plan.directory / f"{plan.name}.cfg"
    configuration.write_text(f"""global
    nbthread {plan.threads}
    maxconn {origins.CONNECTIONS // 2}
    {"log stdout format raw local0 info" if plan.log else ""}
defaults
    mode http
    {"log global" if plan.log else ""}
    {"option httplog" if plan.log else ""}
    timeout connect 2s
    timeout client 75s
    timeout server 600s
    timeout tunnel 900s
    http-reuse always
frontend public
    bind 127.0.0.1:{plan.port}{tls}
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
    option httpchk GET {origins.HEALTH}
    http-check expect string ok
{servers}
""")
    return [plan.binary, "-db", "-f", str(configuration)], {}


def cobalance(plan):
    """Its defaults, but for the threads, round robin and the access log, as the others have them."""
    nodes = ", ".join(f'"127.0.0.1:{node}"' for node in plan.nodes)
    listener, certificate = "", ""
    if plan.tls:
        listener = f'certificates = ["bench"]\nmax_requests = {MANY}\n'
        certificate = f'[[certificate]]\nname = "bench"\nchain = "{plan.tls.chain}"\nkey = "{plan.tls.key}"\n'
    configuration = plan.directory / f"{plan.name}.toml"
    configuration.write_text(f"""[server]
threads = {plan.threads}

[[listener]]
bind = "127.0.0.1:{plan.port}"
{listener}
{certificate}
[upstream.nocobase]
balance = "round_robin"
nodes = [{nodes}]

[admin]
bind = "127.0.0.1:{plan.admin}"

[access_log]
{f'path = "{plan.log}"' if plan.log else "enabled = false"}
""")
    return [plan.binary, "run", "--config", str(configuration)], {}


# In the order of the tables; the last is the one that the others are compared with.
COMMAND = {"nginx": nginx, "haproxy": haproxy, "envoy": others.envoy, "caddy": others.caddy, "cobalance": cobalance}
FROM_DEBIAN = ["nginx", "haproxy"]
OVER_TLS = ["nginx", "haproxy", "cobalance"]  # Envoy and Caddy are compared without
VERSION = {"nginx": "-v", "haproxy": "-v", "envoy": "--version", "caddy": "version", "cobalance": "--version"}


def start(children, name, binary, core, nodes, label="", threads=1, logged=False, tls=None):
    """Starts one instance and waits until it answers; `label` tells it from others of its name."""
    port, admin = processes.free_ports(2)
    log = children.directory / f"{name}{label}-access.log" if logged else None
    plan = Plan(f"{name}{label}", binary, children.directory, port, admin, nodes, threads, log, tls)
    command, environment = COMMAND[name](plan)
    # HAProxy logs to stdout, as in a container: a file is nothing that it can open itself.
    child = children.start(plan.name, command, core, environment, output=log if name == "haproxy" else None)
    url = f"http{'s' if tls else ''}://127.0.0.1:{port}/api/posts:list"
    processes.wait_for(f"{plan.name} to answer", lambda: child.poll() is not None or processes.answers(url))
    if child.poll() is not None:
        raise RuntimeError(f"{plan.name} ended: {(children.directory / f'{plan.name}.out').read_text()[-2000:]}")
    return Server(name, child, port, log)


def version(name, binary):
    """The first line that a binary says of itself."""
    told = subprocess.run([binary, VERSION[name]], capture_output=True, text=True, check=False)
    line = (told.stdout + told.stderr).strip().splitlines()[0].split(" - ")[0].replace(binary, name).strip()
    return line if name in line.lower() else f"{name} {line}"


def cobalance_binary(repository):
    """What cargo built for release, where cargo puts it."""
    return release(repository) / "cobalance"


def tool(repository, name):
    """A load generator of ours, `rig/<name>.rs`, built now unless it is there."""
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet", "--example", name], cwd=repository, check=True)
    return release(repository) / "examples" / name


def certificate(directory):
    """A certificate of its own making, ECDSA P-256 as most are now. The key may be read: nginx drops root."""
    chain, key, both = (directory / name for name in ("chain.pem", "key.pem", "both.pem"))
    subprocess.run(
        [processes.program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(chain)], check=True, capture_output=True)
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    return Certificate(chain, key, both)


def release(repository):
    """Where cargo puts what it built for release."""
    return Path(os.environ.get("CARGO_TARGET_DIR", repository / "target")) / "release"
