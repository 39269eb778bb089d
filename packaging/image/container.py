"""Run one command of the container image: install, agent, token, probe, or uninstall.

The host's directories are mounted at their own paths. The container shares the host's processes and network, so that
/proc/1 is the host's first process. Without a command it installs, then runs the agent.
"""

from __future__ import annotations

import fcntl
import json
import os
import posix
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from shared import libc  # noqa: E402 - the image has the suite beside this file

BIN_DIR = os.environ.get("PYCNI_BIN_DIR", "/opt/cni/bin")
LIB_DIR = os.environ.get("PYCNI_LIB_DIR", "/opt/cni/lib/pycni")
GIVEN = Path("/etc/pycni")  # the ConfigMap
SECRETS = Path("/var/run/secrets/pycni")  # a projected volume or a Secret: token, certificates
CONFIGURATION = Path("/etc/cni")
PRIVATE = CONFIGURATION / "pycni"
AGENT_SETTINGS = CONFIGURATION / "pycni-agent.json"
RECORD = PRIVATE / ".container-files"  # a line for each file that this program wrote
HOST = Path("/proc/1/root")
AGENT_LOCK = Path("/run/pycni/lock")
CONTROL = "/run/pycni/control.sock"  # by the image's link to the host's /run/pycni
PROBE_SECONDS = 3.0
ANSWER_BYTES = 1 << 20
SECRETS_SECONDS = 10.0  # between two looks at them
VARIABLE = re.compile(r"(//)?\$\{(\w*)\}")
HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CLONE_NEWNS = 0x20000  # linux/sched.h
HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failed(Exception):
    """A command cannot be done; the message names the object and the reason."""


def say(text: str) -> None:
    """Write a line to the container's log."""
    sys.stderr.write(f"pycni: {text}\n")


# -- configuration files


def fill(text: str, name: str, variables: Mapping[str, str]) -> str:
    """Replace each ${VARIABLE}. An IPv6 address gets brackets if it follows two slashes, as in a URL.

    Raise Failed, which names file and variable, if a variable is not set or is empty.
    """

    def value_of(found: re.Match[str]) -> str:
        slashes, variable = found[1] or "", found[2]
        value = variables.get(variable, "")
        if not value:
            raise Failed(f"{name}: ${{{variable}}} is not set in the container's environment")
        return f"{slashes}[{value}]" if slashes and ":" in value else slashes + value

    return VARIABLE.sub(value_of, text)


def _files(directory: Path) -> list[Path]:
    """Return the files of a mounted ConfigMap or Secret. They are links; the volume's own names begin with two dots."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if not path.name.startswith(".") and path.is_file())


def read_given(variables: Mapping[str, str]) -> dict[Path, bytes]:
    """Return the files to write, by path. Raise Failed for text that cannot be filled in, or JSON that is none.

    The agent's settings are the union of all files pycni-agent*.json.
    """
    wanted, settings = {}, {}
    for path in _files(GIVEN):
        try:
            text = fill(path.read_text(), str(path), variables)
            document = json.loads(text) if path.suffix in (".json", ".conflist") else None
        except (OSError, ValueError) as error:
            raise Failed(f"{path}: {error}") from None
        if re.fullmatch(r"pycni-agent.*\.json", path.name):
            if not isinstance(document, dict):
                raise Failed(f"{path}: an object is expected")
            settings.update(document)
            wanted[AGENT_SETTINGS] = f"{json.dumps(settings, indent=2)}\n".encode()
        else:
            directory = CONFIGURATION if re.fullmatch(r"pycni.*\.json", path.name) else PRIVATE
            wanted[directory / path.name] = text.encode()
    return wanted | _secrets()


def _secrets() -> dict[Path, bytes]:
    return {PRIVATE / path.name: path.read_bytes() for path in _files(SECRETS)}


def put(path: Path, content: bytes) -> None:
    """Write a file for root alone, by a rename. Do nothing if it is the same already. The caller holds the lock."""
    if _content(path) == content and path.stat().st_mode & 0o777 == 0o600:
        return
    new = _unfinished(path)
    new.unlink(missing_ok=True)  # of a container that was killed
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextmanager
def _only_one() -> Iterator[None]:
    """Let one container at a time change configuration files. The kernel ends the lock if this process is killed."""
    PRIVATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(PRIVATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _recorded() -> set[Path]:
    return {Path(line) for line in (_content(RECORD) or b"").decode().splitlines()}


def _record(files: set[Path]) -> None:
    put(RECORD, "".join(f"{path}\n" for path in sorted(files)).encode())


def _demand_own(wanted: Mapping[Path, bytes]) -> None:
    """Raise Failed if a file is there with another content that no container wrote."""
    known = _recorded()
    foreign = [str(path) for path in wanted if path not in known and _content(path) not in (None, wanted[path])]
    if foreign:
        raise Failed(f"not of a container of pycni, with other content: {', '.join(foreign)}; move it away first")


def _write(wanted: Mapping[Path, bytes]) -> None:
    """Write the files, and remove those of an earlier container that are not wanted."""
    with _only_one():
        _demand_own(wanted)
        dropped = _recorded() - wanted.keys()
        _record(dropped | wanted.keys())
        for path, content in wanted.items():
            put(path, content)
        for path in sorted(dropped):
            _remove(path)
        _record(set(wanted))


def _remove(path: Path) -> None:
    _unfinished(path).unlink(missing_ok=True)
    if path.exists():
        path.unlink()
        say(f"removed {path}")


# -- the commands


def install() -> None:
    """Write the settings, then install the suite into the host's directories.

    In this order: an agent that runs reads the settings when install.sh tells it.
    """
    _write(read_given(os.environ))
    _run_installer("--agent", "--no-units")


def _run_installer(*options: str) -> None:
    """Run install.sh; its words are the container's log. Raise Failed."""
    command = [f"{HERE}/programs/bash", f"{HERE}/install.sh", "--bin-dir", BIN_DIR, "--lib-dir", LIB_DIR, *options]
    if subprocess.run(command, stdin=subprocess.DEVNULL, env={"PATH": f"{HERE}/programs"}, check=False).returncode:
        raise Failed("install.sh failed, its message is above")


def agent() -> NoReturn:
    """Run the agent as a child in the host's mount namespace, hand signals on to it, and end with its status.

    The first process of a container must stay in the image: a probe is executed in the namespaces of that process.
    """
    _demand_host()
    signal.pthread_sigmask(signal.SIG_BLOCK, (*HANDED_ON, signal.SIGCHLD))
    child = os.fork()
    if child == 0:
        _become_agent()
    while True:
        number = signal.sigwait((*HANDED_ON, signal.SIGCHLD))
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _demand_host() -> None:
    """Raise Failed if the container does not share the host's processes, users and network."""
    for kind, setting in (("pid", "hostPID"), ("user", "hostUsers"), ("net", "hostNetwork")):
        try:
            is_shared = os.path.samefile(f"/proc/1/ns/{kind}", f"/proc/self/ns/{kind}")
        except OSError as error:
            raise Failed(f"/proc/1/ns/{kind}: {error.strerror}; it needs the capability SYS_PTRACE") from None
        if not is_shared or os.getpid() == 1:
            raise Failed(
                f"the container needs {setting}: true (podman: --{kind}=host): it has its own {kind} namespace"
            )


def _become_agent() -> NoReturn:
    """Enter the mount namespace and root directory of the host's first process, and execute the agent."""
    program = f"{BIN_DIR}/pycni-agent"
    try:
        root = os.open(HOST, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespace = os.open("/proc/1/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        libc.call("setns", namespace, CLONE_NEWNS)
        os.fchdir(root)
        os.chroot(".")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _wait_for_predecessor()
        posix.execve(program, [program], {**os.environ, "PATH": HOST_PATH})
    except OSError as error:
        say(f"cannot become the agent {program} of the host: {error.filename or 'setns'}: {error.strerror}")
        os._exit(1)


def _wait_for_predecessor() -> None:
    """Wait for the end of an agent that runs on this host, such as the one of the pod that this one replaces."""
    try:
        file = os.open(AGENT_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another agent runs on this host; this one begins when it has ended")
        fcntl.lockf(file, fcntl.LOCK_EX)
    os.close(file)


def token() -> NoReturn:
    """Copy the projected token and other secrets whenever a copy is another one, until SIGTERM.

    A token is void when its pod is deleted. So the copies are compared: an earlier pod may have written them last.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        try:
            for path, content in _secrets().items():
                if content and content != _content(path):
                    with _only_one():
                        put(path, content)
                    say(f"wrote {path}")
        except OSError as error:
            say(f"the secrets stay as they are: {error.filename}: {error.strerror}")
        time.sleep(SECRETS_SECONDS)


def probe() -> None:
    """Ask the agent of the host. Raise Failed if it does not answer, or is not of the installed release."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(PROBE_SECONDS)
            connection.connect(CONTROL)
            connection.sendall(b"probe")
            tree = json.loads(connection.recv(ANSWER_BYTES))["tree"]
    except (OSError, ValueError, KeyError) as error:
        raise Failed(f"the agent does not answer at {CONTROL}: {error}") from None
    installed = os.readlink(f"{HOST}{LIB_DIR}/current")
    if Path(tree).name != installed:
        raise Failed(f"the agent runs {Path(tree).name}, but {installed} is installed")


def uninstall() -> None:
    """Remove the suite and all files that `install` wrote. Networks go first, so that no runtime begins another pod."""
    forget = sys.argv[2:]
    if forget not in ([], ["--forget-node"]):
        raise Failed(f"uninstall takes --forget-node or no argument, not {' '.join(forget)}")
    for path in _cluster_networks():
        _remove(path)
    _run_installer("--uninstall", *forget)
    with _only_one():
        for path in (*sorted(_recorded()), RECORD):
            _remove(path)
    for directory in (PRIVATE, HOST / "run/pycni"):  # install.sh cannot remove the latter by the image's link
        with suppress(OSError):  # there are files of others
            directory.rmdir()


def _cluster_networks() -> list[Path]:
    """Return the networks' files that the agent wrote by the settings of a container."""
    from shared.cluster import settings

    if settings.PATH not in _recorded():
        return []
    try:
        known = settings.read()
    except ValueError as error:
        say(f"the agent's networks stay: {error}")
        return []
    return [known.target(name) for name in known.networks]


def install_and_run() -> None:
    """Install, then run the agent."""
    install()
    agent()


COMMANDS: dict[str, Callable[[], None]] = {
    "install": install, "agent": agent, "token": token, "probe": probe, "uninstall": uninstall, "": install_and_run,
}  # fmt: skip


def main() -> int:
    """Run the command that the first argument names. Return the exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    command = COMMANDS.get(name)
    if command is None or (len(sys.argv) > 2 and name != "uninstall"):
        say(f"unknown arguments {' '.join(sys.argv[1:])}; the commands are {', '.join(filter(None, COMMANDS))}")
        return 2
    os.umask(0o022)
    try:
        command()
    except (Failed, OSError) as error:
        say(f"{name or 'install'}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
