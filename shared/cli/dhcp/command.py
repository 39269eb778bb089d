"""cnitool dhcp: run the daemon, as `dhcp daemon` does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from shared.cli.commands import UsageError
from shared.cli.dhcp.service import Service
from shared.cli.dhcp.settings import Settings
from shared.cli.networks import Options
from shared.cni import record
from shared.dhcp import channel, records

FIRST_PASSED = 3  # SD_LISTEN_FDS_START in sd_listen_fds(3)


def run(options: Options) -> int:
    """Run the daemon until SIGTERM or SIGINT. The leases stay: the next daemon renews them."""
    settings = Settings(
        options.host_prefix + (options.socket_path or channel.SOCKET_PATH), options.host_prefix, options.broadcast,
        options.timeout, options.resend_max, options.resend_timeout,
    )  # fmt: skip
    if not 0 < settings.resend_timeout < channel.ACQUIRE_SECONDS:
        raise UsageError(f"-resendtimeout must be less than {channel.ACQUIRE_SECONDS:.0f}s, which the plugin waits")
    serve(settings, say, is_main=True, pidfile=options.pidfile)
    return 0


def serve(
    settings: Settings, say: Callable[[str], None], *, is_main: bool = False, pidfile: str = ""
) -> None:  # fmt: skip
    """Keep the leases and answer plugins. Raise UsageError if another daemon does.

    With `is_main`, take the socket that systemd passes, and end at SIGTERM or SIGINT. Otherwise a thread runs this for
    as long as its process lives.
    """
    _allow_many_files()
    with _holding_leases(settings.host_prefix + records.DIRECTORY):
        listener = (_passed_socket() if is_main else None) or _listen(settings.socket_path)
        with listener, _writing_pid(pidfile):
            listener.setblocking(False)
            say(f"serving {listener.getsockname()}")
            asyncio.run(_serve(Service(settings, say), listener, is_main=is_main))


def _allow_many_files() -> None:
    """Raise the limit of open files as far as it goes: each lease takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def say(text: str) -> None:
    """Write a line to stderr. Ignore a closed stderr."""
    with suppress(OSError):
        os.write(2, f"dhcp: {text}\n".encode(errors="backslashreplace"))


async def _serve(service: Service, listener: socket.socket, *, is_main: bool) -> None:
    task = asyncio.ensure_future(service.serve(listener))
    for number in (signal.SIGTERM, signal.SIGINT) if is_main else ():
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


@contextmanager
def _writing_pid(path: str) -> Iterator[None]:
    """Write the process id to a file, if one is wanted, and remove the file at the end."""
    if path:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    try:
        yield
    finally:
        if path:
            with suppress(OSError):
                os.unlink(path)


@contextmanager
def _holding_leases(directory: str) -> Iterator[None]:
    """Hold the daemon's lock. Raise UsageError if another daemon keeps these leases."""
    record.make_directories(directory)
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another dhcp daemon holds {directory}/lock; stop it first") from None
        yield
    finally:
        os.close(lock)


def _passed_socket() -> socket.socket | None:
    """Return the socket that systemd listens on for this service, None without one."""
    passed = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    if not passed[0]:
        return None
    if passed != ("1", str(os.getpid())):
        raise UsageError(f"LISTEN_FDS={passed[0]} LISTEN_PID={passed[1]}: expected one socket for this process")
    os.set_inheritable(FIRST_PASSED, False)
    return socket.socket(fileno=FIRST_PASSED)


def _listen(path: str) -> socket.socket:
    """Listen at a path, for root alone. Replace a socket that no process listens on; the lock is held."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        raise UsageError(f"another program serves {path}; stop it, or choose another -socketpath")
    with suppress(FileNotFoundError):
        os.unlink(path)
    os.fchmod(listener.fileno(), 0o600)  # before the bind: the file has this mode from its beginning
    try:
        listener.bind(path)
    except OSError as error:
        raise UsageError(f"-socketpath {path}: {error.strerror}") from None
    listener.listen(socket.SOMAXCONN)
    return listener
