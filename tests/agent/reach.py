"""Servers in pods, and packets from and to them, each by one process for any number of pods.

`serve PORT NETNS…` accepts connections in each namespace. It prints "ready" when all sockets listen.

`ask SECONDS NETNS ADDRESS PORT…` prints the indexes of the answered questions. NETNS "-" is the script's own.

Sockets keep the namespace in which they were made, so one thread enters one after the other.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import sys
import time

CLONE_NEWNET = 0x40000000  # linux/sched.h
libc = ctypes.CDLL(None, use_errno=True)
home = os.open("/proc/self/ns/net", os.O_RDONLY)


def enter(netns: str) -> None:
    descriptor = home if netns == "-" else os.open(netns, os.O_RDONLY)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), netns)
    if descriptor != home:
        os.close(descriptor)


def serve(port: int, places: list[str]) -> None:
    waiting = selectors.DefaultSelector()
    for place in places:
        enter(place)
        made = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
        waiting.register(made, selectors.EVENT_READ)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in waiting.select():
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.accept()[0].close()


def ask(seconds: float, questions: list[tuple[str, str, int]]) -> list[int]:
    """Return the indexes of the addresses that accept a connection."""
    waiting = selectors.DefaultSelector()
    answered = []
    for number, (place, address, port) in enumerate(questions):
        enter(place)
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setblocking(False)
        try:
            made.connect((address, port))
        except BlockingIOError:
            waiting.register(made, selectors.EVENT_WRITE, number)
        except OSError:
            made.close()
    deadline = time.monotonic() + seconds
    while waiting.get_map() and time.monotonic() < deadline:
        for key, _ in waiting.select(max(deadline - time.monotonic(), 0)):
            assert isinstance(key.fileobj, socket.socket)
            waiting.unregister(key.fileobj)
            if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                answered.append(int(key.data))
            key.fileobj.close()
    return sorted(answered)


if __name__ == "__main__":
    verb, first, *rest = sys.argv[1:]
    if verb == "serve":
        serve(int(first), rest)
    elif verb == "ask":
        triples = zip(rest[::3], rest[1::3], map(int, rest[2::3]), strict=True)
        sys.stdout.write(" ".join(map(str, ask(float(first), list(triples)))))
