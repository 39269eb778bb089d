"""The messages between a launcher and a worker; shared/launcher.c has the same constants.

The launcher connects to SOCKET, of type SOCK_SEQPACKET, and sends one message of at most REQUEST_BYTES: MAGIC, the
launcher's tree, the plugin's name, then each string of its environment. A NUL ends each of them. The message brings
DESCRIPTORS: standard input, output and error, the working directory (O_PATH), and the writing end of a pipe.

A worker answers with one byte, TAKEN or DECLINED, within ANSWER_SECONDS. After that time the launcher shuts down its
receiving side: the worker's answer then fails with EPIPE, and the launcher executes the call. The worker starts the
call only after TAKEN was sent, so a call runs exactly once.

At the call's end the worker writes the exit status into the pipe, as one byte. The pipe's end without a byte means that
the worker died. Once the call is taken, SIGTERM to the launcher shuts down its sending side. The worker handles this,
and the end of the connection, like SIGTERM.
"""

from __future__ import annotations

DIRECTORY = "/run/pycni"  # root's, mode 0700
SOCKET = f"{DIRECTORY}/agent.sock"
CONTROL_SOCKET = f"{DIRECTORY}/control.sock"
FALLBACKS = f"{DIRECTORY}/fallbacks"  # a launcher that executes its call appends one byte if the file exists

MAGIC = b"pycni 1"
TAKEN = b"T"
DECLINED = b"D"
DESCRIPTORS = 5  # standard input, output and error, the working directory, the pipe for the exit status
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
