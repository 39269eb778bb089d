"""Read and change iptables tables, each with one process: iptables-save and iptables-restore."""

from __future__ import annotations

import posix

from shared import signals
from shared.cni.errors import InternalError, TryAgainLater, UnsupportedField
from shared.cni.execute import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Lines = dict[str, list[str]]  # by the tables' names

SECONDS = 30  # to wait for the lock; the whole process may take ten more
TRIES = 5
OUTPUT_LIMIT = 64 << 20  # bytes: a node's nat table can have tens of thousands of rules
COMMANDS = {4: "iptables", 6: "ip6tables"}
LOCKED = 4  # exit status RESOURCE_PROBLEM of iptables(8): another process held the lock


class NoIptables(UnsupportedField):
    """The program is not in PATH."""


class Refused(InternalError):
    """iptables-restore failed; nothing has changed."""


class Tables:
    """Tables of one family, IPv4 or IPv6, in one variant; if it is empty, in the installed one."""

    def __init__(self, version: int, variant: str, *names: str) -> None:
        self.version = version
        self.names = names
        self._shown = f"table{'s' if len(names) > 1 else ''} {' and '.join(names)}"
        words = [f"{COMMANDS[version]}-{variant}", COMMANDS[version]] if variant else [COMMANDS[version]]
        self._save, self._restore = (_found([f"{word}-{verb}" for word in words]) for verb in ("save", "restore"))

    def lines(self) -> Lines:
        """Return the lines of iptables-save by table: chains as `:NAME …`, rules as `-A CHAIN …`."""
        only = (
            ["-t", *self.names] if len(self.names) == 1 else []
        )  # iptables-save accepts one name, or prints all tables
        # warnings from stderr would interrupt a line of stdout
        status, output = _run([self._save, *only], b"", with_stderr=False)
        if status:
            raise InternalError(f"{self._save} failed on {self._shown}")
        found: Lines = {name: [] for name in self.names}
        here: list[str] = []
        for line in output.decode(errors="replace").splitlines():
            if line.startswith("*"):
                here = found.get(line[1:], [])
            here.append(line)
        return found

    def change(self, commands: Callable[[Lines], Lines], known: Lines | None = None) -> None:
        """Run the commands that `commands` returns for the tables' lines; retry with new lines if refused.

        `known` are the lines for the first try. Each table's commands run all or not at all. Another program's change
        in between can be the reason for a refusal. Raise Refused, TryAgainLater.
        """
        for tries_left in reversed(range(TRIES)):
            wanted = commands(known or self.lines())
            known = None
            if not any(wanted.values()):
                return
            try:
                self._commit(wanted)
            except Refused:
                if not tries_left:
                    raise
            else:
                return

    def try_out(self, commands: Lines) -> None:
        """Have iptables-restore check commands. Change nothing. Raise Refused, TryAgainLater."""
        if any(commands.values()):
            self._commit(commands, "--test")

    def _commit(self, commands: Lines, *options: str) -> None:
        script = "".join(
            "\n".join([f"*{name}", *commands[name], "COMMIT", ""]) for name in self.names if commands.get(name)
        )
        argv = [self._restore, "--noflush", "-w", str(SECONDS), *options]
        status, output = _run(argv, script.encode(), with_stderr=True)
        if status >> 8 == LOCKED:
            raise TryAgainLater(f"{self._restore} did not get its lock in {SECONDS} seconds", _shown(output))
        if status:
            raise Refused(f"{self._restore} failed on {self._shown}", _shown(output))


class Table:
    """A single table, with the methods of Tables."""

    def __init__(self, version: int, variant: str, name: str) -> None:
        self.version = version
        self.name = name
        self._tables = Tables(version, variant, name)

    def lines(self) -> list[str]:
        """Return the table's lines as Tables.lines does."""
        return self._tables.lines()[self.name]

    def change(self, commands: Callable[[list[str]], list[str]], known: list[str] | None = None) -> None:
        """Change the table as Tables.change does."""
        self._tables.change(
            lambda found: {self.name: commands(found[self.name])}, {self.name: known} if known else None
        )

    def try_out(self, commands: list[str]) -> None:
        """Check commands as Tables.try_out does."""
        self._tables.try_out({self.name: commands})


def _run(argv: list[str], stdin: bytes, *, with_stderr: bool) -> tuple[int, bytes]:
    environment = {b"PATH": posix.environ.get(b"PATH", b""), b"LC_ALL": b"C"}
    try:
        return run(argv, stdin, environment, seconds=SECONDS + 10, limit=OUTPUT_LIMIT, with_stderr=with_stderr)
    except signals.DeadlineExpired:
        raise TryAgainLater(f"{argv[0]} did not end within {SECONDS + 10} seconds") from None


def _shown(output: bytes) -> str:
    return " ".join(output.decode(errors="replace").split())


def _found(names: list[str]) -> str:
    """Return the path of the first of these programs in PATH's absolute directories."""
    directories = posix.environ.get(b"PATH", b"").decode(errors="surrogateescape").split(":")
    for name in names:
        for directory in directories:
            path = f"{directory}/{name}"
            if directory.startswith("/") and posix.access(path, posix.X_OK):
                return path
    raise NoIptables(f"{names[-1]} is not in PATH")
