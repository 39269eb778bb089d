"""Hand the waits of the kernel to a child process, which may outlive the call.

The kernel answers some requests only when it has freed what they deleted: it waits 10 to 25 ms for RCU. Their effects
are complete long before. A child sends such a request, or closes such a socket, and waits in the place of the call.
The kernel finishes the work even if the child is killed.

Only the executables fork, because they have one thread and exit at once. The child is then init's to reap, or that of
the nearest ancestor that is a subreaper. Some containers run a program as init that reaps nothing: each child would
stay as a zombie. Nothing is forked there, nor in any other process, such as one that uses the library.
"""

from __future__ import annotations

import posix

from shared import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from shared.sockets import native

DESCRIPTORS = 1 << 10  # the child closes those below; a call has a few dozen
INIT_STATUS = "/proc/1/status"
STATUS_BYTES = 1 << 14
SIGNAL_MASKS = (b"SigBlk", b"SigIgn", b"SigCgt")

is_executable = False  # launch sets it
_retained: list[native.socket] = []
_deleting: list[native.socket] = []  # those with deletions since the last fork


def retain(socket: native.socket) -> None:
    """Keep a netfilter socket open until the exit: closing one waits until the kernel has freed deleted objects.

    Only an executable keeps it. In any other process an open socket would keep its network namespace from ending.
    """
    if is_executable:
        _retained.append(socket)


def release(socket: native.socket) -> None:
    """Let go of a socket if it was retained, before its owner closes it."""
    if socket in _retained:
        _retained.remove(socket)


def note_deletions(socket: native.socket) -> None:
    """Note that a transaction deleted objects of nf_tables: the next close of any retained socket waits."""
    if socket in _retained:
        _deleting.append(socket)


def start(task: Callable[[], object], *needed: int) -> bool:
    """Run a task in a child, with the retained sockets and the descriptors `needed`. Return False without a child.

    The child closes all other descriptors: the runtime waits for the end of stdout and stderr, and a lock is held until
    its last descriptor is closed. It ignores the task's errors.
    """
    if not is_executable or not _does_init_reap():
        return False
    try:
        child = posix.fork()
    except OSError:  # EAGAIN: a limit of processes; ENOMEM
        return False
    if child == 0:
        try:
            close_others(*needed)
            posix.chdir("/")  # the runtime may unmount its directory as soon as the call ends
            task()
        finally:
            posix._exit(0)
    _deleting.clear()  # the child closes the retained sockets last, unless it ends before the call
    return True


def _does_init_reap() -> bool:
    """Return True if init ignores SIGCHLD, handles it or waits for it: its ended children vanish then.

    A program that does none of this, such as `sleep`, is not made to be init.
    """
    try:
        descriptor = posix.open(INIT_STATUS, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:  # /proc is hidden
        return False
    lines = posix.read(descriptor, STATUS_BYTES).split(b"\n")
    posix.close(descriptor)
    masks = [int(line.partition(b":")[2], 16) for line in lines if line.startswith(SIGNAL_MASKS)]
    return any(mask >> (signals.SIGCHLD - 1) & 1 for mask in masks)


def close_others(*needed: int) -> None:
    """Close all descriptors but the retained sockets and those `needed`."""
    first = 0
    for descriptor in (*sorted([*needed, *(one.fileno() for one in _retained)]), DESCRIPTORS):
        if first < descriptor:
            posix.closerange(first, descriptor)
        first = descriptor + 1


def leave(status: int) -> NoReturn:
    """Exit. Let a child close the retained sockets if that takes time."""
    if _deleting:
        _hand_over_sockets()
    posix._exit(status)


def _hand_over_sockets() -> None:
    """Start a child that keeps the retained sockets until this process has closed them."""
    try:
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
    except OSError:  # EMFILE
        return
    # The child may run later than the runtime, which finds nothing of the pod in use.
    close_others(0, 1, 2, reader, writer)
    if start(lambda: posix.read(reader, 1), reader):
        for one in _retained:
            one.close()  # the end of this process closes the pipe, and thereby ends the child
