"""Pretend hosts: namespaces in which plugins may do anything; the kernel removes all of it at their end.

A host has its own network, mount, process and host-name namespaces. Empty tmpfs cover the state directories of a
CNI runtime and its plugins. sysfs and proc show *its* links and processes, and `lo` is up. The machine's own
network and files are never touched, so many hosts may live at the same time.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

TREE = str(Path(__file__).resolve().parents[1])
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STATE_DIRECTORIES = ("var/lib/cni", "run/cni")
TURNS = "/run/cni/.pycni/attachments/lock"  # each call leaves it
ADMIN_FLAGS = {"UP", "LOOPBACK", "BROADCAST", "MULTICAST", "POINTOPOINT", "NOARP", "PROMISC", "ALLMULTI"}
ROUTE_KEYS = ("type", "dst", "gateway", "via", "dev", "table", "protocol", "scope", "prefsrc", "metric", "metrics")
CLONE_NEWPID = 0x20000000  # linux/sched.h
LINE_SECONDS = 60.0  # for a line that a test waits for
# Time limits are multiplied by this on a machine slower than those that they were chosen on.
PATIENCE = float(os.environ.get("TEST_PATIENCE") or 1)

# The first process of the host. It reads its process id as the machine sees it, before the new proc hides that, and
# then waits for the end of its standard input: the host ends with the test process, however that ends, together with all
# processes in it. Directories that the machine lacks are made on an overlay, never on the machine itself; the overlay's
# own files lie in a first tmpfs on /run, which the second one covers. The kernel copies ip_forward from the machine
# into a new namespace, hence the explicit 0. The first process ignores SIGCHLD, so that ended orphans vanish, as init lets
# them.
FIRST_PROCESS = """
set -e
read -r pid rest </proc/self/stat
mount -t tmpfs -o mode=755 tmpfs /run
directories="/etc/cni /var/lib/cni /var/lib/pycni"
for directory in $directories; do
    parent=${directory%/*}
    if [ ! -d "$directory" ]; then
        if [ ! -d "/run$parent" ]; then
            mkdir -p "/run$parent/upper" "/run$parent/work"
            mount -t overlay -o "lowerdir=$parent,upperdir=/run$parent/upper,workdir=/run$parent/work" overlay "$parent"
        fi
        mkdir "$directory"
    fi
done
for directory in $directories; do
    mount -t tmpfs -o mode=755 tmpfs "$directory"
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t sysfs sysfs /sys
mount -t proc proc /proc
echo pretend >/proc/sys/kernel/hostname
echo 0 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
echo "$pid"
exec env --ignore-signal=CHLD cat
"""


class Silent(AssertionError):
    """A program did not print the line that a test waits for in time."""


def read_line(process: subprocess.Popen[Any], *, seconds: float = LINE_SECONDS) -> bytes:
    """Read a line of a program's output, empty at its end; raise Silent after `seconds`, times PATIENCE.

    Nothing else may read the output before or in between: a select does not see bytes in a buffer.
    """
    assert process.stdout is not None
    descriptor, found, deadline = process.stdout.fileno(), b"", time.monotonic() + seconds * PATIENCE
    while not found.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise Silent(f"{process.args!r} said {found!r} and no more within {seconds:.0f} seconds")
        byte = os.read(descriptor, 1)
        if not byte:
            break
        found += byte
    return found


def until(condition: Callable[[], bool], act: Callable[[], object] = lambda: None, *, seconds: float = 30) -> None:
    """Wait until a condition holds, and repeat an act before each look; fail after `seconds`, times PATIENCE."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        act()
        if condition():
            return
        assert time.monotonic() < deadline, f"not so after {seconds:.0f} seconds"
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    """A plugin's exit status, standard output and standard error."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Return standard output, which must be one JSON document."""
        return json.loads(self.stdout)

    @property
    def code(self) -> int | None:
        """Return the CNI error code, or None if the answer is not an error object."""
        try:
            document = self.json
        except ValueError:
            return None
        code = document.get("code") if isinstance(document, dict) else None
        return code if isinstance(code, int) else None


class PretendHost:
    """A host in namespaces of its own; a context manager. `cni` looks for plugins in `bin_dir` by default.

    `first` is the command of its first process.
    """

    def __init__(self, bin_dir: str | Path = "", *, first: Sequence[str] = ("/bin/sh", "-c", FIRST_PROCESS)) -> None:
        self.bin_dir = str(bin_dir)
        self._first = subprocess.Popen(
            [
                find_program("unshare"),
                *("--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"),
                *first,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH},
        )
        self.first_pid = read_line(self._first).decode().strip()
        if not self.first_pid:
            _, stderr = self._first.communicate()
            raise RuntimeError(f"no pretend host (root and namespaces are needed): {stderr.decode()}")
        self._enter = [find_program("nsenter"), "--target", self.first_pid, "--mount", "--net", "--uts", "--"]
        self._process_namespace = os.open(f"/proc/{self.first_pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._started: list[subprocess.Popen[bytes]] = []
        self.root = Path(f"/proc/{self.first_pid}/root")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the host: its first process ends with its input, and the kernel ends and removes all else with it.

        The kernel lets a first process go only after all others have been waited for, so this kills the processes that
        `popen` started.
        """
        if self._process_namespace < 0:
            return
        os.close(self._process_namespace)
        self._process_namespace = -1
        for process in self._started:
            process.kill()
            process.wait()
        self._first.communicate()
        for process in self._started:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def run(
        self,
        *argv: str,
        input: str | bytes = "",  # noqa: A002 - named as in subprocess.run
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; `env` is its whole environment.

        Raise RuntimeError with the command's output if it fails and `check` is set. Raise subprocess.TimeoutExpired
        after `timeout` seconds, times PATIENCE.
        """
        with self.popen(*argv, env=env) as process:
            try:
                out, err = process.communicate(input.encode() if isinstance(input, str) else input, timeout * PATIENCE)
            except BaseException:
                process.kill()
                raise
        self._started.remove(process)
        done = subprocess.CompletedProcess(argv, process.returncode, _text(out), _text(err))
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Start a command inside; its pid and its signals are the command's own, with no process in between."""
        with _children_in(self._process_namespace):
            process = subprocess.Popen(
                [*self._enter, *argv],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": PATH} if env is None else dict(env),
            )
        self._started.append(process)
        return process

    def python(self, script: str, *args: str, timeout: float = 60) -> str:
        """Return the output of a Python script that runs inside, in this tree and this environment."""
        env = {"PATH": PATH, "PYTHONPATH": TREE}
        return self.run(sys.executable, "-c", script, *args, env=env, timeout=timeout).stdout

    def netns(self, name: str) -> str:
        """Create a pod's network namespace as a runtime does, with `lo` down; return its path."""
        self.run("ip", "netns", "add", name)
        return f"/run/netns/{name}"

    def drop_netns(self, name: str) -> None:
        """Delete a network namespace made by `netns`."""
        self.run("ip", "netns", "del", name)

    def ip(self, *args: str, netns: str | None = None) -> list[dict[str, Any]]:
        """Return the parsed output of `ip -j -d`, without entries that a filter emptied; `netns` is a pod's name."""
        where = () if netns is None else ("-n", netns)
        out = self.run("ip", "-j", "-d", *where, *args).stdout
        return [entry for entry in json.loads(out) if entry] if out.strip() else []

    def cni(
        self,
        plugin: str,
        command: str,
        config: Mapping[str, Any] | str | bytes,
        *,
        netns: str = "",
        container_id: str = "c1",
        ifname: str = "eth0",
        args: str = "",
        bin_dir: str | None = None,
        path: str | None = None,
        env: Mapping[str, str | None] = {},
        timeout: float = 60,
        prefix: Sequence[str] = (),
    ) -> Answer:
        """Execute a plugin as a runtime does.

        `env` overrides or adds variables, a None removes one. `path` is CNI_PATH, by default the plugin's own
        directory. `prefix` is a command to put in front of the executable, such as strace.
        """
        directory = self.bin_dir if bin_dir is None else bin_dir
        variables: dict[str, str | None] = {
            "PATH": PATH,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container_id,
            "CNI_NETNS": netns,
            "CNI_IFNAME": ifname,
            "CNI_ARGS": args,
            "CNI_PATH": directory if path is None else path,
            **env,
        }
        done = self.run(
            *prefix,
            f"{directory}/{plugin}",
            input=config if isinstance(config, str | bytes) else json.dumps(config),
            env={name: value for name, value in variables.items() if value is not None},
            check=False,
            timeout=timeout,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def snapshot(self, netns: Iterable[str] = ()) -> dict[str, Any]:
        """Return the state of the host, of the named pods and of the state files, comparable with ==.

        Values that the kernel changes by itself are left out: carrier, the IPv6 link-local address and its routes, the
        local table, index numbers and lifetimes.
        """
        return {
            "host": self._network(None),
            "pods": {name: self._network(name) for name in netns},
            "files": {
                path: text
                for d in STATE_DIRECTORIES
                for name, text in _files(self.root / d)
                if (path := f"/{d}/{name}") != TURNS
            },
        }

    def _network(self, netns: str | None) -> dict[str, Any]:
        links = self.ip("address", "show", netns=netns)
        every = ("route", "show", "table", "all")
        routes = self.ip("-4", *every, netns=netns) + self.ip("-6", *every, netns=netns)
        return {
            "links": {
                link["ifname"]: {
                    "kind": link.get("linkinfo", {}).get("info_kind"),
                    "master": link.get("master"),
                    "flags": sorted(ADMIN_FLAGS.intersection(link["flags"])),
                    "mtu": link["mtu"],
                }
                for link in links
            },
            "addresses": sorted(
                f"{link['ifname']} {address['local']}/{address['prefixlen']} {address['scope']}"
                for link in links
                for address in link["addr_info"]
                if not address["local"].startswith("fe80:")
            ),
            "routes": sorted(
                " ".join(f"{key} {route[key]}" for key in ROUTE_KEYS if key in route)
                for route in routes
                if route.get("table") != "local" and not route["dst"].startswith(("fe80:", "ff00:"))
            ),
        }


def run_installer(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Install this tree into `bin` and `lib` of a directory of the machine, from a host where no systemd runs."""
    directories = ("--bin-dir", f"{directory}/bin", "--lib-dir", f"{directory}/lib")
    with PretendHost() as host:
        return host.run(f"{TREE}/install.sh", *directories, *options, check=False, timeout=60)


def find_program(name: str) -> str:
    """Return the absolute path of a program, so that it is found with any environment of the command inside."""
    path = shutil.which(name, path=PATH)
    if path is None:
        raise RuntimeError(f"{name} is missing (Debian package util-linux)")
    return path


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the path below `directory` and the content of each file, or its kind if it is no regular file."""
    for folder, directories, names in os.walk(directory):
        for name in sorted(directories + names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                yield str(path.relative_to(directory)), _text(path.read_bytes())
            elif not stat.S_ISDIR(mode):
                yield str(path.relative_to(directory)), f"<{stat.filemode(mode)[0]}>"


@contextmanager
def _children_in(process_namespace: int) -> Iterator[None]:
    """Let children that this thread starts be born in that process namespace; the thread itself stays."""
    own = os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(process_namespace)
        try:
            yield
        finally:
            _setns(own)
    finally:
        os.close(own)


def _setns(descriptor: int) -> None:
    # os.setns exists from Python 3.12 only.
    if _libc.setns(descriptor, CLONE_NEWPID):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


_libc = ctypes.CDLL(None, use_errno=True)
