"""The duties process on a pretend host, without the call server: the test is its stdin."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pretend import PATH, PATIENCE, PretendHost, until
from tests.system.pod_network import CNITOOL

SETTINGS = "/etc/cni/pycni-agent.json"
METRICS = "run/pycni/metrics.sock"


class Duties:
    """`cnitool agent run`; its stderr goes to a file."""

    def __init__(self, host: PretendHost, *command: str, **settings: Any) -> None:
        self.host = host
        host.run("tee", SETTINGS, input=json.dumps(settings))
        self.log = host.root / "run/duties.log"
        environment = {"PATH": PATH, "CNI_PATH": host.bin_dir}
        with self.log.open("ab") as log:
            self.process = host.popen(*(command or (*CNITOOL, "agent", "run")), env=environment, stderr=log)

    def said(self) -> list[str]:
        """Return the lines of the log."""
        return self.log.read_text().splitlines()

    def await_line(self, *words: str) -> None:
        """Wait for a line with all of these words."""
        until(lambda: any(all(word in line for word in words) for line in self.said()), self.require)

    def require(self) -> None:
        """Fail if the process has ended."""
        assert self.process.poll() is None, self.said()

    def record(self, **values: Any) -> None:
        """Send a call's record, as the call server does."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(values).encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> int:
        """Close stdin, as an agent that ends; return the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60 * PATIENCE)

    def metrics(self) -> dict[str, float]:
        """Return the values that Prometheus would read, by name and labels; wait for the socket."""
        connection = Local(self.host.root / METRICS)
        until(lambda: is_open(connection), self.require)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert answer.status == 200, text
        return parsed(text)


def is_open(connection: Local) -> bool:
    """Return True if a server accepts the connection."""
    try:
        connection.connect()
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return False
    return True


def parsed(text: str) -> dict[str, float]:
    """Return the values of Prometheus's text format."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


class Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60 * PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60 * PATIENCE)
        self.sock.connect(str(self.path))


def only(values: Mapping[str, float], start: str) -> dict[str, float]:
    """Return the values of names that begin so, without the moments of creation."""
    return {name: value for name, value in values.items() if name.startswith(start) and "_created" not in name}
