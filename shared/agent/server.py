"""Run the call server: keep workers, count their calls, answer on the control socket, supervise the duties.

It has one thread and serves no call itself. Nothing needs it: a launcher that finds no worker executes its call.

SIGTERM ends it when the calls in progress have ended. SIGHUP replaces it by the installed release, which inherits its
sockets and children, so that no call is refused.
"""

from __future__ import annotations

import gc
import posix
import select
import sys
from time import monotonic, time

from shared.agent import notify, place, protocol, settings, warm_up
from shared.agent.callers import Rights
from shared.agent.control import Control
from shared.agent.counts import Counts
from shared.agent.crew import BUSY, IDLE, Crew
from shared.agent.duties import Duties
from shared.agent.pages import Pages
from shared.agent.worker import Worker
from shared.cni import suite
from shared.cni.fastjson import dumps, loads
from shared.signals import native as signal
from shared.sockets import native as socket
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

HANDED = b"PYCNI_AGENT_HANDOVER"  # the variable by which an agent hands its sockets and children to the next
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
BUSY_SECONDS = 60.0  # at the end, the agent waits so long for calls in progress
READ_BYTES = 1 << 16
OPERATOR_ROOMS = ("agent", "build", "cli", "cluster", "runtime")  # of `shared`, which calls have no use for


def main(tree: str, plugins: dict[str, str]) -> NoReturn:
    """Run the agent of the installation in `tree`; `plugins` are the modules of its executables.

    The running script is the file that an upgrade executes, and it is in the directory of the executables.
    """
    suite.plugins, suite.tree = plugins, tree
    if len(sys.argv) > 1:
        posix._exit(_answer_argument(sys.argv[1]))
    status = 1
    try:
        program = sys.argv[0] if sys.argv[0].startswith("/") else f"{posix.getcwd()}/{sys.argv[0]}"
        _prepare_process()
        _load_all(tree)
        server = Server(program, loads(posix.environ.pop(HANDED, b"{}")))
        server.run()
        status = 0
    except (place.Unusable, ValueError, OSError) as error:
        complain(f"agent: {error}")
    posix._exit(status)


def _answer_argument(argument: str) -> int:
    """Print the release, or the usage. Return the exit status."""
    if argument != "version":
        complain(f"agent: unknown argument {argument}; it takes none, or `version`, and runs until SIGTERM")
        return 2
    posix.write(1, f"{_release()}\n".encode())
    return 0


def _release() -> str:
    """Return the release, which the tree's name has before its digest."""
    name = suite.tree.rpartition("/")[2]
    return name.rpartition("-")[0] or name


def _prepare_process() -> None:
    """Set up descriptors 0 to 2 and the working directory."""
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, 0)
    posix.dup2(null, 1)
    try:
        posix.fstat(2)
    except OSError:
        posix.dup2(null, 2)
    if null > 2:
        posix.close(null)
    posix.chdir("/")
    posix.umask(0o022)
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)  # `run` handles them; SIGHUP would end it before


def _load_all(tree: str) -> None:
    """Import all modules that calls can need, so that no worker has to."""
    rooms = [f"shared/{room}" for room in _subdirectories(f"{tree}/shared") if room not in OPERATOR_ROOMS]
    for room in (*rooms, "plugins", "ipam", *(f"ipam/{one}" for one in _subdirectories(f"{tree}/ipam"))):
        for entry in sorted(posix.listdir(f"{tree}/{room}")):
            name, dot, ending = entry.partition(".")
            if dot and ending == "py":
                module = f"{room.replace('/', '.')}.{name}".removesuffix(".__init__")
                __import__(module)


def _subdirectories(path: str) -> list[str]:
    with posix.scandir(path) as entries:
        return sorted(one.name for one in entries if one.is_dir() and not one.name.startswith(("_", ".")))


def _read_settings(handed: dict[str, Any]) -> settings.Settings:
    """Return the file's settings; during an upgrade those of the agent before if the file is invalid."""
    try:
        return settings.read()
    except ValueError as error:
        if not handed:
            raise
        complain(f"agent: {error}; the settings stay as they were")
        return settings.parse(handed.get("settings", {}))


class Server:
    """The agent's state."""

    def __init__(self, program: str, handed: dict[str, Any]) -> None:
        """Take over the sockets and children of the agent before, or begin. Raise Unusable, ValueError, OSError."""
        self.program = program
        self.settings = _read_settings(handed)
        if handed:
            self.lock = handed["lock"]
            self.listener, control = (
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, handed[name]) for name in ("agent", "control")
            )
            self.reports, self.reporting = handed["reports"]
        else:
            place.prepare()
            self.lock = place.lock()
            place.sweep()
            self.listener, control = place.listen(protocol.SOCKET), place.listen(protocol.CONTROL_SOCKET)
            place.begin_count()
            self.reports, self.reporting = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        for descriptor in self._inherited(control):
            posix.set_inheritable(descriptor, False)
        counts = {"since": round(time(), 3), "calls": {}, "reasons": {}, **handed.get("counts", {})}
        self.counts = Counts(**counts)
        self.control = Control(control, self._document)
        strangers = {process: BUSY if is_busy else IDLE for process, is_busy in handed.get("workers", ())}
        self.crew = Crew(self.settings.workers, self._make_worker, strangers)
        self.duties = Duties(
            f"{program.rpartition('/')[0]}/cnitool",
            is_wanted=self.settings.has_duties,
            predecessor=handed.get("duties", 0),
        )
        self.rights = Rights("self")
        self.rest = b""  # a report that has not been read to its end
        self.stops_at = 0.0  # on the monotonic clock; 0: not stopping
        self.has_to_stop = self.has_to_upgrade = False
        self.waking, self.wakeup = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)

    def _inherited(self, control: socket.socket) -> tuple[int, ...]:
        return self.lock, self.listener.fileno(), control.fileno(), self.reports, self.reporting

    def run(self) -> None:
        """Serve until SIGTERM."""
        warm_up.play_all()
        gc.collect()
        gc.freeze()
        gc.enable()  # for the server alone
        self.pages = Pages()
        signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # an agent that hands over blocks signals
        self._reap()  # what ended during a hand-over
        self.crew.fill()
        notify.send("READY=1")
        while not self.stops_at or (self._waits() and monotonic() < self.stops_at):
            self._turn()

    def _waits(self) -> bool:
        """Return True if a child has to end before the agent can."""
        # Idle ones are dismissed. One that stays has taken a call, though its report may not have been read.
        return bool(self.crew.workers or self.crew.strangers or self.duties.process)

    def _turn(self) -> None:
        """Wait for something to happen, and see to it."""
        waiting = select.poll()
        for descriptor in (self.waking, self.reports, *([] if self.stops_at else self.control.descriptors())):
            waiting.register(descriptor, select.POLLIN)
        for descriptor, _ in waiting.poll(self._milliseconds()):
            if descriptor == self.waking:
                posix.read(self.waking, READ_BYTES)
                self._reap()
            elif descriptor == self.reports:
                self._read_reports()
            else:
                self.control.handle(descriptor)
        self.control.drop_late()
        if self.has_to_stop and not self.stops_at:
            self._stop()
        if not self.stops_at:
            self.control.is_accepting = not self.has_to_upgrade
            if self.has_to_upgrade and not self.control.clients:
                self._hand_over()
            is_due = self.crew.is_due()
            if is_due:
                self.crew.fill()
            if is_due or not self.crew.is_serving():  # a call beside the duties' work would be slower
                self.duties.tell()
            self.duties.start_if_due()

    def _milliseconds(self) -> float | None:
        """Return the time to the next thing to do by itself; None if there is none."""
        moments = [self.control.deadline(), self.stops_at or None]
        if not self.stops_at:
            moments += [self.crew.deadline(), self.duties.deadline()]
        known = [one for one in moments if one is not None]
        return max((min(known) - monotonic()) * 1000, 0) + 1 if known else None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self.has_to_stop = True
        elif number == signal.SIGHUP:
            self.has_to_upgrade = True

    def _stop(self) -> None:
        """Accept no further call, and end idle workers; `run` waits for busy ones."""
        self.stops_at = monotonic() + BUSY_SECONDS
        notify.send("STOPPING=1")
        place.clear()
        self.listener.close()
        self.crew.wanted = 0
        self.crew.dismiss()
        self.crew.dismiss(self.crew.strangers)
        self.duties.stop()

    def _reap(self) -> None:
        """Note the children that have ended."""
        while True:
            try:
                process, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process == self.duties.process:
                self.duties.note_end(status)
            else:
                self.crew.note_end(process)

    def _read_reports(self) -> None:
        """Read the reports of workers: `ready`, `taken`, `declined` and `done`, each a line with the process id."""
        while True:
            try:
                *lines, self.rest = (self.rest + posix.read(self.reports, READ_BYTES)).split(b"\n")
            except BlockingIOError:
                return
            for line in lines:
                self._note(*line.split(b" ", 2))

    def _note(self, kind: bytes, process: bytes, text: bytes) -> None:
        """Note a worker's report."""
        if kind == b"ready":
            self.crew.note_ready(int(process))
        elif kind == b"taken":
            self.crew.note_taken(int(process))
        elif kind == b"declined":
            self.counts.add_declined(text.decode())
        elif kind == b"done":
            self.counts.add_call(loads(text))
            self.duties.note_call(text)

    def _make_worker(self) -> Worker:
        """Return the worker that this process, just forked, becomes. Close all that is the server's alone."""
        control = (self.control.listener.fileno(), *self.control.clients)
        for descriptor in (self.reports, self.waking, self.wakeup, self.lock, *control):
            posix.close(descriptor)
        self.duties.close_pipe()
        return Worker(self.listener, self.reporting, self.rights, self.pages)

    def _document(self) -> bytes:
        return self.counts.document(
            release=_release(), tree=suite.tree, pid=posix.getpid(),
            workers={"idle": self.crew.count(IDLE), "busy": self.crew.count(BUSY)},
            fallbacks=place.count_fallbacks(),
            duties={"pid": self.duties.process or None, "restarts": self.duties.restarts},
        )  # fmt: skip

    def _hand_over(self) -> None:
        """Become the installed release. Go on as before if its file cannot be executed.

        Signals wait until the next release handles them. The idle workers stay until its own are ready.
        """
        self.has_to_upgrade = False
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        if self.has_to_stop:  # it came last
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            return
        notify.send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * 1_000_000)}")
        self._read_reports()
        self.duties.stop()
        control = self.control.listener
        handed = {
            "lock": self.lock, "agent": self.listener.fileno(), "control": control.fileno(),
            "reports": [self.reports, self.reporting], "duties": self.duties.process,
            "workers": [[process, state == BUSY] for process, state in
                        (*self.crew.workers.items(), *self.crew.strangers.items())],
            "counts": self.counts.handed(),
            "settings": {name: getattr(self.settings, name) for name in settings.Settings.fields},
        }  # fmt: skip
        for descriptor in self._inherited(control):
            posix.set_inheritable(descriptor, True)
        try:
            posix.execve(self.program, [self.program], {**posix.environ, HANDED: dumps(handed, "").encode()})
        except OSError as error:
            complain(f"agent: {self.program} cannot be executed, the agent goes on as before: {error.strerror}")
        for descriptor in self._inherited(control):
            posix.set_inheritable(descriptor, False)
        self.duties.is_wanted = self.settings.has_duties
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        notify.send("READY=1")
