"""Serve one call for a launcher, in a process that was forked before the call came.

No state crosses into a call: the worker takes environment, working directory, umask and descriptors from the launcher,
and ends after the call. A connection that it declines, or that asks for nothing, changes nothing in it.
"""

from __future__ import annotations

import fcntl
import posix
import select
from time import monotonic

from shared import handover, libc, signals, sockets, steps
from shared.agent import callers, protocol
from shared.cni import plugin, suite
from shared.cni.call import NEEDS
from shared.cni.fastjson import dumps
from shared.net.messages import timeval
from shared.signals import native as signal
from shared.sockets import native as socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from shared.agent.callers import Rights
    from shared.agent.pages import Pages

REQUEST_SECONDS = 1  # a caller that sends nothing for so long is dropped
REST_MILLISECONDS = 20  # without a call
DISMISSAL = signal.SIGUSR1  # ends a worker, unless a call is in progress
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SO_RCVTIMEO_NEW = 66  # asm-generic/socket.h
UNREADABLE = "a message of another form"


class Dropped(Exception):
    """The connection is of no use: the caller has left, or sent nothing."""


class Worker:
    """A forked process that waits for a call."""

    def __init__(self, listener: socket.socket, reports: int, rights: Rights, pages: Pages) -> None:
        self.listener = listener
        self.reports = reports
        self.rights = rights
        self.pages = pages
        self.buffer = bytearray(protocol.REQUEST_BYTES)
        self.is_dismissed = False

    def report(self, kind: str, text: str = "") -> None:
        """Tell the server. Ignore errors: a full pipe must not delay a call, and the server may have ended."""
        try:
            posix.write(self.reports, f"{kind} {posix.getpid()} {text}\n".encode(errors="replace"))
        except OSError:
            return

    def obey(self, server: int) -> None:
        """Let the server dismiss this worker, and end with the server; not while a call is in progress."""
        signal.signal(DISMISSAL, signal.SIG_DFL)
        libc.call("prctl", PR_SET_PDEATHSIG, DISMISSAL, 0, 0, 0)
        if posix.getppid() != server:
            posix._exit(0)

    def _note_dismissal(self, _number: int, _frame: FrameType | None) -> None:
        self.is_dismissed = True

    def prepare(self, number: int) -> None:
        """Make ready for a call, unless one comes soon: it would wait for this, and so would those beside it."""
        waiting = select.poll()
        waiting.register(self.listener.fileno(), select.POLLIN)
        if not waiting.poll(REST_MILLISECONDS):
            self.pages.copy(number)

    def run(self) -> NoReturn:
        """Wait for calls, decline those that this worker cannot serve, serve one."""
        while True:
            connection = sockets.accept(self.listener)
            began = monotonic()
            received: list[int] = []
            try:
                request, umask = self._admit(connection, received)
                self._take(connection, received)
                self._serve(connection, request, received, umask, began)
            except callers.Refused as refusal:
                _send(connection, protocol.DECLINED)
                self.report("declined", str(refusal))
            except Dropped:
                pass
            for one in received:
                posix.close(one)
            connection.close()
            signal.signal(DISMISSAL, signal.SIG_DFL)
            if self.is_dismissed:
                posix._exit(0)

    def _admit(self, connection: socket.socket, received: list[int]) -> tuple[protocol.Request, int]:
        """Read a request that this worker can serve, and return it with the caller's umask. Raise Refused, Dropped."""
        limit = timeval(REQUEST_SECONDS, is_64_bit=socket.SO_RCVTIMEO == SO_RCVTIMEO_NEW)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        message = self._receive(connection, received)
        if received:  # they travel with GO, and not before
            raise callers.Refused(UNREADABLE)
        try:
            request = protocol.Request(message)
        except protocol.Malformed:
            raise callers.Refused(UNREADABLE) from None
        if request.tree.decode(errors="replace") != suite.tree:
            raise callers.Refused("another release")
        if request.plugin.decode(errors="replace") not in suite.plugins:
            raise callers.Refused("unknown plugin")
        if any(one in message for one in callers.CALLERS_OWN):
            raise callers.Refused("a variable names a file of the caller")
        return request, callers.examine(connection, self.rights).umask

    def _receive(self, connection: socket.socket, received: list[int]) -> bytes:
        """Return the caller's next message, and add its descriptors to `received`. Raise Refused, Dropped."""
        try:
            length, parts, flags, _ = connection.recvmsg_into(
                [self.buffer], socket.CMSG_LEN(4 * protocol.DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:  # EAGAIN: nothing came in time; ECONNRESET
            raise Dropped from None
        came: list[int] = []
        for level, kind, data in parts:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                came += memoryview(data[: len(data) // 4 * 4]).cast("i")
        received += came
        if not length:
            raise Dropped
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise callers.Refused(UNREADABLE)
        return bytes(memoryview(self.buffer)[:length])

    def _take(self, connection: socket.socket, received: list[int]) -> None:
        """Take the call, unless the caller has given up: raise Dropped. From now on this worker cannot be dismissed."""
        signal.signal(DISMISSAL, self._note_dismissal)
        if not _send(connection, protocol.TAKEN):  # the caller executes the call
            raise Dropped
        try:
            message = self._receive_go(connection, received)
        except callers.Refused:  # nothing but an exit status may be sent after TAKEN
            raise Dropped from None
        if message != protocol.GO or len(received) != protocol.DESCRIPTORS:
            raise Dropped
        self.report("taken")
        self.listener.close()

    def _receive_go(self, connection: socket.socket, received: list[int]) -> bytes:
        """Return the caller's message after TAKEN. Raise Refused, Dropped.

        If it does not come in time, shut down first, then look again: it has come by then, or can never be sent.
        """
        try:
            return self._receive(connection, received)
        except Dropped:
            try:
                connection.shutdown(socket.SHUT_RD)
            except OSError:  # ENOTCONN: the caller has left
                raise Dropped from None
            return self._receive(connection, received)

    def _serve(
        self, connection: socket.socket, request: protocol.Request, received: list[int], umask: int, began: float
    ) -> NoReturn:
        """Serve the call, send its exit status, and end."""
        steps.begun[:] = [(steps.START, began)]
        _follow(connection)
        for standard, descriptor in enumerate(received[:3]):
            posix.dup2(descriptor, standard)
        posix.fchdir(received[3])
        for descriptor in received:
            posix.close(descriptor)
        posix.umask(umask)
        posix.environ.clear()
        posix.environ.update(request.environment)
        handover.is_executable = True
        name = request.plugin.decode()
        code = plugin.serve(suite.plugins[name])
        # When the launcher ends, nothing may be in use: the caller's pipes and directory, the pod's namespace, locks.
        handover.close_others(connection.fileno(), self.reports)
        posix.chdir("/")
        _send(connection, b"\1" if code else b"\0")
        verb = request.environment.get(b"CNI_COMMAND", b"").decode(errors="replace")
        seconds = round(monotonic() - began, 6)
        record = {"plugin": name, "verb": verb if verb in NEEDS else "", "code": code, "seconds": seconds}
        self.report("done", dumps(record, ""))
        self.pages.note()
        posix._exit(0)


def _send(connection: socket.socket, answer: bytes) -> bool:
    """Send to the caller. Return False if it has left."""
    try:
        connection.send(answer, socket.MSG_DONTWAIT)
    except OSError:  # EPIPE, ECONNRESET
        return False
    return True


def _follow(connection: socket.socket) -> None:
    """Make the end of the connection, or of the caller's sending side, SIGTERM to this process."""
    signals.install()
    descriptor = connection.fileno()
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, posix.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, posix.O_RDWR | fcntl.FASYNC)
    try:
        connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return
    except OSError:  # ECONNRESET
        pass
    posix.kill(posix.getpid(), signal.SIGTERM)  # it came before
