"""Find the links that were made on top of a link (its uppers), in each network namespace that this process can see.

The kernel shows them nowhere on the host if they are in pods. The search follows this suite's notes first, then looks
beside the pod's namespace, at mounts and in processes. A look into each namespace costs time.
"""

from __future__ import annotations

import posix
from time import monotonic, sleep

from shared import signals
from shared.cni.errors import InternalError
from shared.net import netns, placements
from shared.net.netlink import Netlink, NetlinkError
from shared.net.wire import RTM_GETLINK, RTM_GETNSID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from shared.net.netlink import Message

    Made = TypeVar("Made")
    # A link's namespace by its socket, and the link; returns True for the one that is looked for
    IsWanted = Callable[[Netlink, Message], bool]

MOUNTS = "/proc/self/mountinfo"
DYING_SECONDS = 2.0  # until the kernel has deleted the links of a deleted namespace
PAUSE_SECONDS = 0.02


class Upper:
    """A link on top of another one. `path` leads to its network namespace, empty for the host's."""

    def __init__(self, link: Message, path: str) -> None:
        self.link = link
        self.path = path

    def __str__(self) -> str:
        return f"{self.link['IFLA_IFNAME']} in {self.path or 'the host'}"


def find(below: Message, home: int, near: str, is_wanted: IsWanted, kind: str = "") -> Upper | None:
    """Return the first wanted link on top of the link `below`; None if no namespace that can be seen has one.

    `home` is a descriptor of the namespace of `below`, `near` the path of the pod's namespace. With the `kind` of the
    wanted links, a noted one is found without a look into other pods.
    """
    identity = posix.fstat(home).st_ino
    narrowed = {"IFLA_LINKINFO": {"IFLA_INFO_KIND": kind}} if kind else None

    def look(netlink: Netlink, inode: int) -> Message | None:
        own = below["index"] if inode == identity else 0  # elsewhere, another link may have this index
        found = [
            link
            for link in netlink.dump(RTM_GETLINK, narrowed)
            if link.get("IFLA_LINK") == below["index"] and link["index"] != own
        ]
        if not found:
            return None
        # the kernel gives the other namespace its number here, at the latest when it shows a link that leads there
        number = None if inode == identity else (netlink.get(RTM_GETNSID, {"NETNSA_FD": home}) or {}).get("NETNSA_NSID")
        on_it = (link for link in found if link.get("IFLA_LINK_NETNSID") == number)
        return next((link for link in on_it if is_wanted(netlink, link)), None)

    own = posix.stat(netns.OWN).st_ino
    link = look(Netlink(), own)
    if link is not None:
        return Upper(link, "")
    seen = {own}
    for path in _paths(near, kind):
        signals.safe_point()
        inode = _inode(path)
        if inode in seen:
            continue
        seen.add(inode)
        link = _look_inside(path, lambda netlink, inode=inode: look(netlink, inode))  # type: ignore[misc]
        if link is not None:
            return Upper(link, path)
    return None


def _look_inside(path: str, look: Callable[[Netlink], Message | None]) -> Message | None:
    """Return the result of a look into the namespace at the path, None if it is none, or goes meanwhile."""
    found = netns.open_if_there(path)
    if found is None:
        return None
    try:
        with found:
            inside = Netlink()
        try:
            return look(inside)
        except NetlinkError:
            return None
        finally:
            inside.close()
    finally:
        found.close()


def _paths(near: str, kind: str) -> Iterator[str]:
    """Yield paths that may lead to network namespaces; several may lead to one, and some nowhere."""
    if kind:
        yield from placements.paths(kind)
    directory = near.rpartition("/")[0]
    if not near.startswith("/proc/"):
        yield from (f"{directory}/{name}" for name in _names(directory))
    yield from mounted()
    yield from (f"/proc/{name}/ns/net" for name in _names("/proc") if name.isdigit())


def mounted() -> Iterator[str]:
    """Yield the mount points of network namespaces. Their root is net:[<inode>] (proc_pid_mountinfo(5))."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ", 5)
        if fields[3].startswith("net:["):
            yield fields[4].replace("\\040", " ")


def _names(directory: str) -> list[str]:
    try:
        return posix.listdir(directory or "/")
    except OSError:
        return []


def _inode(path: str) -> int:
    """Return the inode number behind a path, 0 if it leads nowhere."""
    try:
        return posix.stat(path).st_ino
    except (OSError, ValueError):
        return 0


def when_free(
    make: Callable[[], Made], number: int, holder: Callable[[], Upper | None], subject: str, advice: str
) -> Made:
    """Return the result of `make`, which the kernel refuses with the errno `number` if another link has the thing.

    If nobody can be found, a deleted namespace may have it: the kernel deletes its links some time later and reports
    that to no other namespace, hence the pauses. Raise InternalError that says where the `subject` is in use, and gives
    the `advice`.
    """
    deadline = monotonic() + DYING_SECONDS
    while True:
        try:
            return make()
        except NetlinkError as error:
            if error.errno != number:
                raise
            found = holder()
            if found is not None:
                raise InternalError(f"{subject} is in use by {found}", f"{advice}; {error}") from None
            if monotonic() >= deadline:
                raise InternalError(
                    f"{subject} is in use in a network namespace without a path or process", f"{advice}; {error}"
                ) from None
        signals.safe_point()
        sleep(PAUSE_SECONDS)
