"""Memory of proxies that have nothing to do."""

import socket
from collections import namedtuple

from . import origins, processes, proxies, websocket

COUNT = 2000  # connections or tunnels held
WARM = 20  # opened before, so that what is made once is not counted

# `hold` opens one and gives its socket; None is the instance itself, just started.
Measure = namedtuple("Measure", "name title hold threads tls", defaults=(False,))


def hold_connection(port):
    """A connection that has had one answer."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    ask(client)
    return client


def hold_tls(port):
    """The same over TLS."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    client = processes.ANY_CERTIFICATE.wrap_socket(plain, server_hostname="localhost")
    ask(client)
    return client


def ask(client):
    """One request and its answer of a kibibyte."""
    client.sendall(b"GET /api/posts:list HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < origins.KIB:
        received = client.recv(4096)
        if not received:
            raise RuntimeError("the connection has ended")
        answer += received
    head = answer.partition(b"\r\n\r\n")[0].lower()
    if not head.startswith(b"http/1.1 200 ") or b"content-length: 1024" not in head:
        raise RuntimeError(f"not 200 with a length: {head!r}")


def hold_tunnel(port):
    """A tunnel that has carried one message each way."""
    client = websocket.tunnel(port)
    websocket.round_trip(client)
    return client


MEASURES = [
    Measure("tunnels", "an idle WebSocket tunnel, KiB", hold_tunnel, 1),
    Measure("connections", "an idle keep-alive connection, KiB", hold_connection, 1),
    Measure("tls-connections", "an idle keep-alive connection over TLS, KiB", hold_tls, 1, True),
    Measure("start", "an instance, two threads, three nodes, MiB", None, 2),
]


def measure(children, given, name, binary, cores, nodes, certificate):
    """`Memory` of one instance in MiB, or of each connection it holds in KiB."""
    tls = certificate if given.tls else None
    server = proxies.start(children, name, binary, cores, nodes, "-idle", threads=given.threads, tls=tls)
    clients = []
    try:
        if not given.hold:
            now = processes.settled_memory(server.child.pid)
            return processes.Memory(*(value / 2**20 for value in now))
        clients += [given.hold(server.port) for _ in range(WARM)]
        before = processes.settled_memory(server.child.pid)
        clients += [given.hold(server.port) for _ in range(COUNT)]
        after = processes.settled_memory(server.child.pid)
        return processes.Memory(*((b - a) / COUNT / 1024 for a, b in zip(before, after)))
    finally:
        for client in clients:
            client.close()
        children.stop(server.child)
