"""Run servers in the pretend host's network namespaces and ask them by real sockets.

Reads {"servers": [[netns, protocol, port, name]], "probes": [[netns, protocol, address, port, own port]]} from stdin.
Prints for each probe [name of the server, address of the sender as the server saw it], or else the error.
A netns is a path, empty for the host's own; an own port of 0 is any. With "silence" the wait for an answer is short.

Kernels often have no sockets for SCTP, so the script builds its packets: an INIT chunk, and an INIT ACK as the answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
import threading
from typing import Any

CLONE_NEWNET = 0x40000000  # linux/sched.h
PATIENCE = 20.0  # seconds for an answer that must come
SILENCE = 1.5  # seconds until none is taken for an answer
SCTP = 132
INIT, INIT_ACK = 1, 2
libc = ctypes.CDLL(None, use_errno=True)
home = os.open("/proc/self/ns/net", os.O_RDONLY)


def enter(netns: str) -> None:
    descriptor = os.open(netns, os.O_RDONLY) if netns else home
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), netns)
    if netns:
        os.close(descriptor)


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def sctp_packet(source: int, destination: int, tag: int, chunk: int, text: bytes) -> bytes:
    """Return a packet with one INIT or INIT ACK chunk; its host name parameter carries a text."""
    parameter = struct.pack("!HH", 11, 4 + len(text)) + text + bytes(-len(text) % 4)
    body = struct.pack("!IIHHI", 7, 65536, 1, 1, 1) + parameter
    chunk_bytes = struct.pack("!BBH", chunk, 0, 4 + len(body)) + body
    head = struct.pack("!HHI", source, destination, tag)
    checksum = struct.pack("<I", crc32c(head + bytes(4) + chunk_bytes))
    return head + checksum + chunk_bytes


def sctp_read(family: int, data: bytes) -> tuple[int, int, int, str] | None:
    """Return ports of source and destination, kind of chunk and text of a packet from a raw socket."""
    if family == socket.AF_INET:  # its raw sockets deliver the IP header as well
        data = data[(data[0] & 15) * 4 :]
    if len(data) < 32:
        return None
    source, destination = struct.unpack_from("!HH", data)
    length = struct.unpack_from("!H", data, 34)[0] - 4 if len(data) > 36 else 0
    return source, destination, data[12], data[36 : 36 + length].decode(errors="replace")


def seen(address: Any) -> str:
    return str(address[0]).removeprefix("::ffff:")


def serve(server: list[Any]) -> None:
    netns, protocol, port, name = server
    enter(netns)
    families = [socket.AF_INET, socket.AF_INET6]
    if protocol == "tcp":
        both = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=accept, args=(both, name), daemon=True).start()
    elif protocol == "udp":
        for family in families:
            one = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(("", port))
            threading.Thread(target=echo, args=(one, name), daemon=True).start()
    else:
        for family in families:
            raw = socket.socket(family, socket.SOCK_RAW, SCTP)
            threading.Thread(target=acknowledge, args=(raw, family, port, name), daemon=True).start()


def accept(server: socket.socket, name: str) -> None:
    while True:
        connection, address = server.accept()
        with connection:
            connection.sendall(json.dumps([name, seen(address)]).encode())


def echo(server: socket.socket, name: str) -> None:
    while True:
        _, address = server.recvfrom(2048)
        server.sendto(json.dumps([name, seen(address)]).encode(), address)


def acknowledge(raw: socket.socket, family: int, port: int, name: str) -> None:
    while True:
        data, address = raw.recvfrom(2048)
        packet = sctp_read(family, data)
        if packet and packet[1:3] == (port, INIT):
            text = json.dumps([name, seen(address)]).encode()
            raw.sendto(sctp_packet(port, packet[0], 7, INIT_ACK, text), (address[0], 0))


def probe(patience: float, netns: str, protocol: str, address: str, port: int, own: int) -> Any:
    enter(netns)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_RAW}[protocol]
    with socket.socket(family, kind, SCTP if protocol == "sctp" else 0) as client:
        client.settimeout(patience)
        if own:
            client.bind(("", own))
        try:
            if protocol == "sctp":
                return init(client, family, address, port)
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"?")
            data = client.recv(2048)
        except TimeoutError:
            return "silence"
        except OSError as error:
            return type(error).__name__ if type(error) is not OSError else os.strerror(error.errno or 0)
    return json.loads(data)


def init(client: socket.socket, family: int, address: str, port: int) -> Any:
    own = 40000 + os.getpid() % 20000
    client.sendto(sctp_packet(own, port, 0, INIT, b"?"), (address, 0))
    while True:
        data, sender = client.recvfrom(2048)
        packet = sctp_read(family, data)
        # localhost's raw sockets receive their own packets as well
        if packet and packet[:3] == (port, own, INIT_ACK) and sender[0] == address:
            return json.loads(packet[3])


def main() -> None:
    job = json.load(sys.stdin)
    for server in job["servers"]:
        serve(server)
    patience = SILENCE if job["silence"] else PATIENCE
    json.dump([probe(patience, *one) for one in job["probes"]], sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # the servers' threads wait for ever


if __name__ == "__main__":
    main()
