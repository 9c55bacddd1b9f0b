"""WebSocket (RFC 6455): an origin that echoes, and a client that counts round trips."""

import base64
import hashlib
import select
import socket
import sys
import time

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = base64.b64encode(bytes(range(16))).decode()
MASK = bytes([0x37, 0xFA, 0x21, 0x3D])
TEXT = b'{"type":"message","payload":{}}'  # 31 bytes; short frames have at most 125


def masked(payload, mask):
    """Masks or unmasks a short payload."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


REQUEST = bytes([0x81, 0x80 | len(TEXT)]) + MASK + masked(TEXT, MASK)
REPLY = bytes([0x81, len(TEXT)]) + TEXT
# What cobalance tells a page whose node was gone for a moment, as after `half`, which leaves nobody else any time.
NOTICE = b'\x81D{"payload":{"code":"APP_RUNNING","message":""},"type":"maintaining"}'


def tunnel(port):
    """A tunnel to the proxy on `port`, by a handshake."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        received = client.recv(4096)
        if not received:
            break
        head += received
    if not head.startswith(b"HTTP/1.1 101 "):
        raise RuntimeError(f"no tunnel: {head[:200]!r}")
    return client


def round_trip(client):
    """One message there and back."""
    client.sendall(REQUEST)
    if client.recv(len(REPLY), socket.MSG_WAITALL) != REPLY:
        raise RuntimeError("the echo is not what was sent")


def echo(port, connections, seconds):
    """On each tunnel one message after the other. Gives the times of all round trips, in seconds."""
    clients = {client.fileno(): client for client in (tunnel(port) for _ in range(connections))}
    poll, sent, times = select.epoll(), {}, []
    begin = now = time.perf_counter()
    for number, client in clients.items():
        poll.register(number, select.EPOLLIN)
        client.sendall(REQUEST)
        sent[number] = begin
    while now - begin < seconds:
        ready = poll.poll(10)
        if not ready:
            raise RuntimeError("no echo for 10 s")
        for number, _ in ready:
            received = clients[number].recv(256)
            if received == NOTICE:
                continue
            if received.replace(NOTICE, b"") != REPLY:
                raise RuntimeError(f"the echo is not what was sent: {received!r}")
            now = time.perf_counter()
            times.append(now - sent[number])
            sent[number] = now
            clients[number].sendall(REQUEST)
    poll.close()
    for client in clients.values():
        client.close()
    return times


def accept_head(head):
    """The answer to a handshake."""
    key = next(line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")
               if line.lower().startswith(b"sec-websocket-key:"))
    token = base64.b64encode(hashlib.sha1(key + GUID.encode()).digest())
    return (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + token + b"\r\n\r\n")


def take_frames(buffer):
    """The short frames that `buffer` holds whole, as replies; they are removed from it."""
    replies = b""
    while len(buffer) >= 6 and len(buffer) >= 6 + (buffer[1] & 0x7F):
        end = 6 + (buffer[1] & 0x7F)
        replies += bytes([buffer[0], end - 6]) + masked(bytes(buffer[6:end]), bytes(buffer[2:6]))
        del buffer[:end]
    return replies


def serve(port):
    """Answers handshakes and echoes short frames until it is ended."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll, clients = select.epoll(), {}
    poll.register(listener.fileno(), select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            if number == listener.fileno():
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = (client, bytearray(), [])
                poll.register(client.fileno(), select.EPOLLIN)
            elif not serve_one(*clients[number]):
                clients.pop(number)[0].close()


def serve_one(client, buffer, heads):
    """What came in from one client; `heads` holds its handshake once there was one. False: it ended."""
    try:
        received = client.recv(4096)
        buffer += received
        if not heads and b"\r\n\r\n" in buffer:
            head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
            buffer[:] = rest
            heads.append(head)
            client.sendall(accept_head(head))
        if heads:
            client.sendall(take_frames(buffer))
        return bool(received)
    except OSError:
        return False


if __name__ == "__main__" and sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
