"""Check that the networks that use dhcp have its daemon."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

from shared.cli.doctor.configuration import launched_tree
from shared.cli.doctor.findings import Finding, error
from shared.cli.doctor.node import Node
from shared.dhcp import channel

ANSWER_SECONDS = 5.0
KEY = "daemonSocketPath"
START = "./install.sh --with-tools --dhcp  # or `dhcp daemon`, or the agent's duty dhcp"


def daemon(node: Node) -> Iterator[Finding]:
    """Report a network whose dhcp daemon does not answer. Pass over another suite's plugin, which has its own."""
    if not any(launched_tree(directory / "dhcp") for directory in node.bin_dirs):
        return
    for network in node.networks:
        for _, section in network.ipam:
            if section.get("type") == "dhcp" and (reason := _missing(path := _socket_path(section.get(KEY)))):
                what = f"uses dhcp, but its daemon does not answer at {path}: {reason}; no pod gets an address"
                yield error(network.path, what, START)


def _socket_path(given: object) -> str:
    return given if given and isinstance(given, str) else channel.SOCKET_PATH


def _missing(path: str) -> str:
    """Return the reason if no daemon of this suite answers at a socket, otherwise an empty text."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(path)
            connection.sendall(b'{"op": "status"}\n')
            return "" if "result" in json.loads(connection.recv(1024)) else "another answer"
    except OSError as reason:
        return reason.strerror or str(reason)
    except (ValueError, TypeError):
        return "the program there is not the daemon of this suite"
