"""An agent that follows a script for each connection, good or hostile.

A script is a list of steps:

- `request` and `go` receive the launcher's messages
- `["send", TEXT, TIMES]` and `["status", NUMBER]` send messages, `descriptors` sends one with open files
- `["write", TEXT]` writes to the call's standard output, `["read"]` reads its standard input
- `end` waits until the launcher is gone or has passed on a signal
- `["quiet", SECONDS]` notes if nothing came from the launcher meanwhile; `deaf` refuses its messages
- `["sleep", SECONDS]` waits; `hold` leaves the connection open until the program's end

As a program it takes a JSON document: {"calls": [SCRIPT, …], "full": true for a full queue, "user": NUMBER}. It prints
a line when it listens, and a record for each connection.
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import socket
import sys
import time
from typing import Any

SOCKET = "/run/pycni/agent.sock"
END_SECONDS = 20.0
RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def listen(backlog: int = 8) -> socket.socket:
    """Listen at the agent's place."""
    os.makedirs(os.path.dirname(SOCKET), 0o700, exist_ok=True)
    if os.path.lexists(SOCKET):
        os.unlink(SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(SOCKET)
    listener.listen(backlog)
    return listener


def fill(listener: socket.socket) -> list[socket.socket]:
    """Fill the queue of connections."""
    held: list[socket.socket] = []
    while True:
        held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        try:
            held[-1].connect(listener.getsockname())
        except BlockingIOError:
            return held


class Worker:
    """The worker's end of one connection; `record` tells the story."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.descriptors: list[int] = []
        self.record: dict[str, Any] = {"request": None, "begun": False, "ended": False, "error": "", "sent": []}

    def follow(self, script: list[Any]) -> dict[str, Any]:
        """Take the steps up to the first that fails; close the connection unless the last one is `hold`."""
        try:
            for step in script:
                name, *values = [step] if isinstance(step, str) else step
                getattr(self, f"do_{name}")(*values)
        except OSError as error:
            self.record["error"] = os.strerror(error.errno or 0)
        if "hold" not in script:
            self.close()
        return self.record

    def close(self) -> None:
        """Close the connection and the call's descriptors."""
        self.connection.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def _receive(self) -> bytes:
        if not select.select([self.connection], [], [], END_SECONDS)[0]:
            raise TimeoutError(errno.ETIMEDOUT, "")
        data, ancillary, flags, _ = self.connection.recvmsg(1 << 20, socket.CMSG_SPACE(64))
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        for level, kind, content in ancillary:
            assert (level, kind) == RIGHTS
            self.descriptors += array.array("i", content)
        return data

    def do_request(self) -> None:
        data = self._receive()
        assert not self.descriptors, "descriptors travel with GO"
        self.record["request"] = data.decode("latin-1")

    def do_go(self) -> None:
        data = self._receive()
        self.record["begun"] = data == b"G" and len(self.descriptors) == 4
        if self.record["begun"]:
            links = [f"/proc/self/fd/{descriptor}" for descriptor in self.descriptors]
            self.record["directory"] = os.readlink(links[3])
            with open(f"/proc/self/fdinfo/{self.descriptors[3]}") as file:
                self.record["flags"] = int(file.read().split("flags:")[1].split()[0], 8)
        else:
            raise ConnectionAbortedError(errno.ECONNABORTED, "")

    def do_send(self, text: str, times: int = 1) -> None:
        for _ in range(times):
            self.connection.send(text.encode("latin-1"), socket.MSG_DONTWAIT)
            self.record["sent"].append(text[:1])

    def do_descriptors(self) -> None:
        files = array.array("i", [os.open("/", os.O_RDONLY) for _ in range(20)])
        self.connection.sendmsg([b"T"], [(*RIGHTS, files)])
        self.record["sent"].append("T")

    def do_status(self, number: int) -> None:
        self.do_send(chr(number))

    def do_write(self, text: str) -> None:
        os.write(self.descriptors[1], text.encode())

    def do_read(self) -> None:
        self.record["input"] = os.read(self.descriptors[0], 4096).decode()

    def do_end(self) -> None:
        assert self._receive() == b""
        self.record["ended"] = True

    def do_sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def do_quiet(self, seconds: float) -> None:
        self.record["quiet"] = not select.select([self.connection], [], [], seconds)[0]

    def do_deaf(self) -> None:
        self.connection.shutdown(socket.SHUT_RD)

    def do_hold(self) -> None:
        pass


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Follow the scripts, then wait for the end of standard input."""
    orders = json.loads(sys.argv[1])
    if orders.get("user"):
        os.makedirs(os.path.dirname(SOCKET), exist_ok=True)
        os.chown(os.path.dirname(SOCKET), orders["user"], -1)
        os.setuid(orders["user"])
    listener = listen(orders.get("backlog", 8))
    held: list[Any] = fill(listener) if orders.get("full") else []
    say("listening")
    for script in orders["calls"]:
        held.append(Worker(listener.accept()[0]))
        say(json.dumps(held[-1].follow(script)))
    sys.stdin.read()


if __name__ == "__main__":
    main()
