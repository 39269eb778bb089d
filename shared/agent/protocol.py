"""The messages between a launcher and a worker, as shared/launcher.c has them.

The launcher connects to SOCKET, of type SOCK_SEQPACKET. There are four messages:

1. launcher: the request: MAGIC, the launcher's tree, the plugin's name, and its environment; each string with its NUL
2. worker: TAKEN or DECLINED, within ANSWER_SECONDS
3. launcher: GO, with DESCRIPTORS: standard input, output and error, and the working directory (O_PATH)
4. worker: the exit status, one byte

The worker begins the call when it has GO. So the launcher alone decides who does the call, by sending GO, and a call
runs exactly once. From then on SIGTERM to the launcher shuts down its sending side. The worker handles this, and the
end of the connection, like SIGTERM. A connection that ends without a status means that the worker died.
"""

from __future__ import annotations

DIRECTORY = "/run/pycni"  # root's, mode 0700
SOCKET = f"{DIRECTORY}/agent.sock"
CONTROL_SOCKET = f"{DIRECTORY}/control.sock"
FALLBACKS = f"{DIRECTORY}/fallbacks"  # a launcher that executes its call appends one byte if the file exists

MAGIC = b"pycni 1"
TAKEN = b"T"
DECLINED = b"D"
GO = b"G"
DESCRIPTORS = 4  # standard input, output and error, the working directory
ANSWER_SECONDS = 0.2  # the launcher waits this long for TAKEN
REQUEST_BYTES = 1 << 18  # more than a socket's default send buffer holds

CONTROL_BYTES = 4096  # of a message to the control socket, whose content is not read


class Malformed(ValueError):
    """A message is not a request of this protocol."""


class Request:
    """A launcher's request: tree, plugin and environment."""

    __slots__ = ("environment", "plugin", "tree")

    def __init__(self, message: bytes) -> None:
        """Read a message. Raise Malformed.

        As in an interpreter's start, the first string of a name counts, and strings without "=" are ignored.
        """
        magic, *strings = message.split(b"\0")
        if magic != MAGIC or len(strings) < 3 or strings.pop():
            raise Malformed("another version of the protocol")
        self.tree, self.plugin, *variables = strings
        self.environment: dict[bytes, bytes] = {}
        for variable in variables:
            name, equals, value = variable.partition(b"=")
            if equals and name:
                self.environment.setdefault(name, value)
