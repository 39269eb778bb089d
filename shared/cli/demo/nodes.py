"""Create the nodes of the demonstration: hosts in namespaces of their own on two links with a router between them.

The router's namespace is that of the calling process. `serve` is the program of a node: it hides the directories that
agents and plugins write to, and waits. Other programs enter its namespaces.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli import throwaway
from shared.cli.throwaway import Failure, execute, expect

if TYPE_CHECKING:
    from typing import Self

HIDDEN = (Path("/run"), Path("/var/lib/cni"), Path("/var/lib/pycni"), Path("/etc/cni"))
# The disk of a node, over a boot. Directories may be links inside, so that only programs of the node find them.
SAVE = """
for directory in etc/cni var/lib/cni var/lib/pycni; do
    mkdir -p "/run/disk/$directory"
    cp -a "/$directory/." "/run/disk/$directory/"
done
"""
RESTORE = (
    "cp -a /run/disk/etc/cni/. /etc/cni/; for one in cni pycni; do cp -a /run/disk/var/lib/$one/. /var/lib/$one/; done"
)
READY = "ready"
LOG_CHARACTERS = 2000
END_SECONDS = 10.0
# The router's own addresses are the nodes' gateways. Without forwarding between pods it knows the nodes alone.
ROUTER = """
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
for number in 1 2; do
    ip link add link$number address 02:00:00:00:ff:0$number type bridge
    ip address add 10.$number.0.254/24 dev link$number
    ip address add fd0$number::254/64 dev link$number nodad
    ip link set link$number up
done
"""
JOIN = """
ip link add {name} type veth peer name eth0 netns {pid}
ip link set {name} master link{link} up
"""
ATTACH = """
echo {name} >/proc/sys/kernel/hostname
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
ip link set lo up
ip address add 10.{link}.0.{number}/24 dev eth0
ip address add fd0{link}::{number}/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 10.{link}.0.254
ip route add default via fd0{link}::254
"""


class Node:
    """A node on link 1 or 2, and the programs on it. A context manager: `close` ends them."""

    def __init__(self, script: str, name: str, link: int, number: int) -> None:
        self.name = name
        self._log = Path(f"/run/{name}.log")
        self._programs: list[subprocess.Popen[bytes]] = []
        self._first = subprocess.Popen(
            throwaway.command(script, "--node"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert self._first.stdout is not None  # noqa: S101  (for the type checker)
            expect(self._first.stdout.readline().strip() == READY, f"{name} cannot be created")
            children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()
            expect(len(children) == 1, f"{name} has no first process")
            self.pid = children[0]
            shell(JOIN.format(name=name, pid=self.pid, link=link))
            self.run("sh", "-euc", ATTACH.format(name=name, link=link, number=number))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the node: the kernel ends its programs with the first one, and removes its links."""
        self._first.kill()  # the first process dies with it
        programs: list[subprocess.Popen[Any]] = [*self._programs, self._first]
        for program in programs:
            program.wait()
            for pipe in (program.stdin, program.stdout):
                if pipe is not None:
                    pipe.close()

    @property
    def root(self) -> Path:
        """Return the node's directory tree as this process sees it."""
        return Path(f"/proc/{self.pid}/root")

    def save(self, directory: Path) -> None:
        """Copy the node's disk into a directory."""
        self.run("sh", "-euc", SAVE)
        shutil.copytree(self.root / "run/disk", directory, symlinks=True)

    def restore(self, directory: Path) -> None:
        """Have the disk of a former node."""
        shutil.copytree(directory, self.root / "run/disk", symlinks=True)
        self.run("sh", "-euc", RESTORE)

    def inside(self, *argv: str) -> list[str]:
        """Return the command line that runs a command on the node."""
        return ["nsenter", "--target", self.pid, "--mount", "--net", "--uts", "--pid", "--", *argv]

    def run(self, *argv: str, variables: Sequence[str] = ()) -> str:
        """Run a command on the node. Return its output. Raise Failure with its message."""
        done = subprocess.run(self.inside("env", *variables, *argv), capture_output=True, text=True, check=False)
        expect(done.returncode == 0, f"{self.name}: {' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, *argv: str) -> None:
        """Start a program that runs until the node ends. Its output is the node's log."""
        with self._log.open("ab") as log:
            self._programs.append(subprocess.Popen(self.inside(*argv), stdin=subprocess.PIPE, stdout=log, stderr=log))

    def log(self) -> str:
        """Return the end of the log."""
        return self._log.read_text(errors="replace")[-LOG_CHARACTERS:] if self._log.exists() else ""

    def write(self, path: str, text: str) -> None:
        """Write a file of the node."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def serve() -> int:
    """Be the first process of a node: hide the machine's state, and wait for the end of stdin."""
    for directory in HIDDEN:
        throwaway.hide(directory)
    throwaway.mount("sysfs", "/sys", "sysfs")
    print(READY, flush=True)
    sys.stdin.read()
    return 0


def prepare_router() -> None:
    """Make this namespace the router between the nodes' links."""
    shell(ROUTER)


def shell(script: str) -> None:
    """Run a shell script. Raise Failure with its message."""
    execute("sh", "-euc", script)


class Etcd:
    """One member of etcd on the router. Its data is kept while it does not run."""

    def __init__(self, program: str, directory: Path, address: str) -> None:
        self._program, self._directory = program, directory
        self.url = f"http://{address}:2379"
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it accepts connections. Raise Failure with its log if it does not."""
        log = self._directory / "log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [self._program, "--data-dir", str(self._directory / "data"), "--listen-client-urls", self.url,
                 "--advertise-client-urls", self.url, "--listen-peer-urls", "http://127.0.0.1:2380"],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), socket.create_connection((self._address, 2379), 1):
                return
            time.sleep(0.02)
        raise Failure(f"etcd does not start: {log.read_text(errors='replace')[-LOG_CHARACTERS:].strip()}")

    def kill(self) -> None:
        """Kill it, as a power failure does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
