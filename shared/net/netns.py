"""Open a pod's network namespace, check it, and enter it."""

from __future__ import annotations

import errno
import fcntl
import posix
import sys

from shared import steps
from shared.cni.errors import InvalidNetns, UnknownContainer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

OWN = "/proc/thread-self/ns/net"
OVERRIDE = b"CNI_NETNS_OVERRIDE"
OVERRIDES = (b"1", b"TRUE")  # in upper or lower case, as in the reference plugins
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, on most architectures
IOC_NONE = 0x20000000  # asm/ioctl.h: a bit that other architectures set in requests without data
WITH_IOC_NONE = ("alpha", "mips", "ppc", "sparc")
CLONE_NEWNET = 0x40000000  # linux/sched.h
PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)  # errors that tell nothing about the namespace
_open: list[Netns] = []  # the call's namespaces: an executable leaves their end to its exit
SO_NETNS_COOKIE = 71  # asm/socket.h, on all architectures but parisc and sparc, which refuse this number


class HostNetns(InvalidNetns):
    """The path leads to the namespace of the plugin itself."""


class Unopened(InvalidNetns):
    """The path cannot be opened now: there may be a namespace."""


class Netns:
    """An open network namespace. `with` moves the calling thread inside and back.

    `is_own` is True for the namespace of the call itself, which only CNI_NETNS_OVERRIDE admits. The pod's links are
    then among the host's, and a name alone does not identify the owner of a link.
    """

    def __init__(self, path: str, descriptor: int, home: int, *, is_own: bool = False) -> None:
        self.path = path
        self.descriptor = descriptor
        self.home = home
        self.is_own = is_own

    def identity(self) -> str:
        """Return `<device>:<inode>:<cookie>`, which is unique until the next boot.

        The kernel gives the inode number of a deleted namespace to the next one, but never its cookie. Linux before
        5.14 does not show the cookie: it is empty, and the text is not unique.
        """
        from shared.sockets import native as socket

        with self:
            probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            cookie = str(int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder))
        except OSError:
            cookie = ""
        finally:
            probe.close()
        found = posix.fstat(self.descriptor)
        return f"{found.st_dev}:{found.st_ino}:{cookie}"

    def close(self) -> None:
        """Close the namespace: an open one cannot be deleted. An executable leaves that to its exit."""
        if self in _open:
            _open.remove(self)
        posix.close(self.descriptor)
        posix.close(self.home)

    def __enter__(self) -> Netns:
        _setns(self.descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _setns(self.home)


def open_netns(path: str) -> Netns:
    """Open the network namespace at `path`.

    Raises UnknownContainer if the path does not exist, InvalidNetns if it is no network namespace. Raises HostNetns if
    it is the namespace of the call itself, unless CNI_NETNS_OVERRIDE=1 or TRUE is in the environment. Raises Unopened
    if the node lacks descriptors or memory.
    """
    steps.begin("netns")
    try:
        # without O_NONBLOCK, opening a FIFO would block
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise UnknownContainer(f"CNI_NETNS {path!r} does not exist") from None
    except (OSError, ValueError) as error:
        kind = Unopened if getattr(error, "errno", 0) in PASSING else InvalidNetns
        raise kind(f"CNI_NETNS {path!r} cannot be opened", str(error)) from None
    try:
        found_type = fcntl.ioctl(descriptor, request_of_type(posix.uname().machine))
    except OSError:
        found_type = 0
    if found_type != CLONE_NEWNET:
        posix.close(descriptor)
        raise InvalidNetns(f"CNI_NETNS {path!r} is not a network namespace")
    home = posix.open(OWN, posix.O_RDONLY | posix.O_CLOEXEC)
    theirs, ours = posix.fstat(descriptor), posix.fstat(home)
    is_own = (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)
    if is_own and posix.environ.get(OVERRIDE, b"").upper() not in OVERRIDES:
        posix.close(descriptor)
        posix.close(home)
        raise HostNetns(f"CNI_NETNS {path!r} is the host's own network namespace, not a container's")
    found = Netns(path, descriptor, home, is_own=is_own)
    _open.append(found)
    return found


def close_all() -> None:
    """Close the namespaces that `open_netns` opened, in a process that goes on after the call."""
    while _open:
        _open[-1].close()


def request_of_type(machine: str) -> int:
    """Return the number of the ioctl NS_GET_NSTYPE on an architecture, as uname(2) names it."""
    return NS_GET_NSTYPE | (IOC_NONE if machine.startswith(WITH_IOC_NONE) else 0)


def open_if_there(path: str) -> Netns | None:
    """Open a namespace for DEL; return None if the path leads to no pod, so that nothing is left to do there.

    A deleted namespace leaves an empty file at its old mount point. A path with a process id can lead to the host's own
    namespace if another process has that id by now. Raises Unopened if the path may lead to a pod.
    """
    if not path:
        return None
    try:
        return open_netns(path)
    except Unopened:
        raise
    except (UnknownContainer, InvalidNetns):
        return None


def of_processes(inode: str) -> Iterator[str]:
    """Yield the paths of a namespace in /proc, one for each process in it. It may be mounted nowhere any more."""
    from shared.cni import record

    for process in record.entries("/proc"):
        path = f"/proc/{process}/ns/net"
        try:
            if process.isdigit() and posix.readlink(path) == f"net:[{inode}]":
                yield path
        except OSError:  # the process has ended
            continue


def refuse_own(path: str) -> None:
    """Raise HostNetns if the path leads to the namespace of the call itself. Accept a path that leads nowhere."""
    try:
        open_netns(path)
    except HostNetns:
        raise
    except (UnknownContainer, InvalidNetns):
        return


def create_temporary() -> Netns:
    """Create a network namespace for trials, with `lo` alone. The kernel deletes it when it is closed.

    Raises OSError if the kernel refuses another namespace.
    """
    home = posix.open(OWN, posix.O_RDONLY | posix.O_CLOEXEC)
    unshare = getattr(posix, "unshare", None)  # from Python 3.12
    if unshare is not None:
        unshare(CLONE_NEWNET)
    else:
        from shared import libc

        libc.call("unshare", CLONE_NEWNET)
    made = Netns("", posix.open(OWN, posix.O_RDONLY | posix.O_CLOEXEC), home)
    _setns(home)
    return made


def _setns(descriptor: int) -> None:
    setns = getattr(posix, "setns", None)  # from Python 3.12
    if setns is not None:
        setns(descriptor, CLONE_NEWNET)
    else:
        from shared import libc

        libc.call("setns", descriptor, CLONE_NEWNET)
