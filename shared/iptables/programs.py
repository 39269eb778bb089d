"""iptables-save and iptables-restore: a table read and changed, each with one process."""

from __future__ import annotations

import posix

from shared import signals
from shared.cni.errors import InternalError, TryAgainLater, UnsupportedField
from shared.cni.execute import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30  # for another's lock, and a little more for the whole
TRIES = 5
OUTPUT_LIMIT = 64 << 20  # bytes: a node's nat table can have tens of thousands of rules
COMMANDS = {4: "iptables", 6: "ip6tables"}
LOCKED = 4  # exit status RESOURCE_PROBLEM of iptables(8): the lock was not to be had


class NoIptables(UnsupportedField):
    """There is no such program in PATH."""


class Refused(InternalError):
    """iptables-restore did not do it; nothing has changed."""


class Table:
    """A table of one family, IPv4 or IPv6, in one of the variants; of whichever is installed where that is empty."""

    def __init__(self, version: int, variant: str, name: str) -> None:
        self.version = version
        self.name = name
        words = [f"{COMMANDS[version]}-{variant}", COMMANDS[version]] if variant else [COMMANDS[version]]
        self._save, self._restore = (_found([f"{word}-{verb}" for word in words]) for verb in ("save", "restore"))

    def lines(self) -> list[str]:
        """What iptables-save prints of it: chains as `:NAME …` and rules as `-A CHAIN …`."""
        # its warnings on stderr would stand in the middle of a line
        status, output = _run([self._save, "-t", self.name], b"", with_stderr=False)
        if status:
            raise InternalError(f"{self._save} failed on table {self.name}")
        return output.decode(errors="replace").splitlines()

    def change(self, commands: Callable[[list[str]], list[str]]) -> None:
        """Has the commands done that are needed given the table's lines, all of them or none; asked anew if refused.

        Another one's change in between can be the reason. Raises Refused, TryAgainLater.
        """
        for tries_left in reversed(range(TRIES)):
            wanted = commands(self.lines())
            if not wanted:
                return
            try:
                self._commit(wanted)
            except Refused:
                if not tries_left:
                    raise
            else:
                return

    def _commit(self, commands: list[str]) -> None:
        script = "\n".join([f"*{self.name}", *commands, "COMMIT", ""])
        status, output = _run([self._restore, "--noflush", "-w", str(SECONDS)], script.encode(), with_stderr=True)
        if status >> 8 == LOCKED:
            raise TryAgainLater(f"{self._restore} did not get its lock in {SECONDS} seconds", _shown(output))
        if status:
            raise Refused(f"{self._restore} failed on table {self.name}", _shown(output))


def _run(argv: list[str], stdin: bytes, *, with_stderr: bool) -> tuple[int, bytes]:
    environment = {b"PATH": posix.environ.get(b"PATH", b""), b"LC_ALL": b"C"}
    try:
        return run(argv, stdin, environment, seconds=SECONDS + 10, limit=OUTPUT_LIMIT, with_stderr=with_stderr)
    except signals.DeadlineExpired:
        raise TryAgainLater(f"{argv[0]} did not end within {SECONDS + 10} seconds") from None


def _shown(output: bytes) -> str:
    return " ".join(output.decode(errors="replace").split())


def _found(names: list[str]) -> str:
    """The first of these programs that is in one of PATH's absolute directories."""
    directories = posix.environ.get(b"PATH", b"").decode(errors="surrogateescape").split(":")
    for name in names:
        for directory in directories:
            path = f"{directory}/{name}"
            if directory.startswith("/") and posix.access(path, posix.X_OK):
                return path
    raise NoIptables(f"{names[-1]} is not in PATH")
