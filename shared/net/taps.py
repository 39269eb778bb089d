"""Create taps: links that pass frames to and from a program (Documentation/networking/tuntap.rst in the kernel).

The kernel creates a tap for the process that opened /dev/net/tun, in the network namespace of that time. It deletes
the tap with the last descriptor unless the tap is persistent.
"""

from __future__ import annotations

import errno
import fcntl
import posix
import sys

from shared.cni.config import Kind
from shared.cni.errors import InternalError, UnsupportedField
from shared.net import device_wire, links, liveness, sublinks
from shared.net.messages import decode_part
from shared.net.netlink import Netlink
from shared.net.netns import WITH_IOC_NONE
from shared.net.wire import RTM_NEWLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shared.net.netlink import Message
    from shared.net.netns import Netns
    from shared.net.owner import Owner
    from shared.undo import Undo

DEVICE = "/dev/net/tun"
KIND = "tun"
IFF_TAP, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN_EXCL = 0x0002, 0x0100, 0x1000, 0x8000  # linux/if_tun.h
IFNAMSIZ = 16  # linux/if.h
REST = bytes(22)  # of struct ifreq, after the name and the flags
# Of linux/if_tun.h, too, without the direction of the data, which request_of() adds.
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP = 0x454CA, 0x454CB, 0x454CC, 0x454CE
# _IOC(_IOC_WRITE, 0, 0, 0) of asm/ioctl.h: the second on the architectures in WITH_IOC_NONE.
IOC_WRITE, OTHER_IOC_WRITE = 0x40000000, 0x80000000
EXEC_LABEL = "/proc/thread-self/attr/exec"  # proc_pid_attr(5)
SELINUX = "/sys/fs/selinux"
SECONDS = 20.0  # for a process with another SELinux context
SCRIPT = "import sys; sys.path.insert(0, sys.argv[1]); from shared.net import taps; taps.main(sys.argv[2:])"
NAME_TAKEN = (errno.EBUSY, errno.EINVAL)  # by a tap, and by a link of another kind
NO_MODULE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


def _selinux_context(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be an SELinux context, such as system_u:object_r:container_file_t:s0")
    return value


selinux_context = Kind(_selinux_context, {"type": "string", "pattern": "^[!-~]+$"}, empty_is_unset=True)


class NameTaken(InternalError):
    """A link has the name already."""


def make(
    undo: Undo, owner: Owner, pod_netns: Netns, name: str, attributes: Message, *, context: str, rights: dict[str, Any]
) -> None:
    """Create a persistent tap in the pod, down, with the attributes and the owner's alias. Undo deletes it.

    `context` is its SELinux context, empty for that of the call; `rights` are as `rights` returns them. Raise
    LinkExists if a link has the name.
    """
    with pod_netns:
        inside = Netlink()
        exists = links.LinkExists(f"link {name} already exists in {pod_netns.path}")
        if links.get(inside, name):
            raise exists
        undo.push(f"remove tap {name}", lambda: sublinks.remove_in(pod_netns, owner, KIND))
        change: Message = {"IFLA_IFNAME": name, "IFLA_IFALIAS": owner.alias, **attributes}
        who = {"multi_queue": rights["multiQueue"], "owner": rights["owner"], "group": rights["group"]}
        if context:
            change["index"] = create_labelled(inside, owner.host_link, context, **who)
            inside.request(RTM_NEWLINK, change)
            return
        try:
            create(name, before_persistent=lambda: inside.request(RTM_NEWLINK, change), **who)
        except NameTaken:
            raise exists from None


def create(
    name: str, *, multi_queue: bool, owner: int | None, group: int | None, before_persistent: Callable[[], None]
) -> None:
    """Create a persistent tap in the thread's network namespace.

    `owner` and `group` are the numbers of those who may open it, None for root alone. `before_persistent()` runs when
    the tap is there: if the call ends before that function returns, the kernel deletes the tap.

    Raise NameTaken if a link has the name. Raise InternalError, naming /dev/net/tun, if the kernel refuses a tap.
    """
    descriptor = open_device()
    try:
        flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL | (IFF_MULTI_QUEUE if multi_queue else 0)
        _control(descriptor, TUNSETIFF, name.encode().ljust(IFNAMSIZ, b"\0") + flags.to_bytes(2, sys.byteorder) + REST)
        for request, number in ((TUNSETOWNER, owner), (TUNSETGROUP, group)):
            if number is not None:
                _control(descriptor, request, _signed(number))
        before_persistent()
        _control(descriptor, TUNSETPERSIST, 1)
    except OSError as error:
        if error.errno in NAME_TAKEN and liveness.is_link(name):
            raise NameTaken(f"link {name} already exists") from None
        raise InternalError(f"{DEVICE} refuses a tap named {name}", str(error.strerror)) from None
    finally:
        posix.close(descriptor)


def open_device() -> int:
    """Open /dev/net/tun. Raise InternalError with the cause and the next step."""
    try:
        return posix.open(DEVICE, posix.O_RDWR | posix.O_CLOEXEC)
    except OSError as error:
        advice = "load the kernel module tun on the node (modprobe tun)"
        if error.errno not in NO_MODULE:
            advice = "the node's root must be allowed to open it; a container needs the device (10:200 rwm)"
        raise InternalError(f"{DEVICE} cannot be opened: {error.strerror}", advice) from None


def create_labelled(
    pod: Netlink, name: str, context: str, *, multi_queue: bool, owner: int | None, group: int | None
) -> int:
    """Create a persistent tap as `create`, labelled with an SELinux context. Return its index.

    The kernel labels a tap with the context of the process that creates it, so that a child process does it. A killed
    call leaves that tap without alias: `name` must be the attachment's own, its host link's. An older one is deleted.

    Raise UnsupportedField without SELinux, and InternalError if the policy forbids it or the process does not answer.
    """
    from shared import signals
    from shared.cni import execute, suite

    require_selinux()
    links.delete(pod, name)
    numbers = ["-" if number is None else str(number) for number in (owner, group)]
    argv = [sys.executable, "-IS", "-c", SCRIPT, suite.tree, name, str(int(multi_queue)), *numbers, str(posix.getpid())]
    try:
        _set_exec_label(context)
        status, output = execute.run(argv, b"", {}, seconds=SECONDS, with_stderr=True)
    except signals.DeadlineExpired:
        raise InternalError(f'"selinuxContext": no tap was created as {context} within {SECONDS:.0f} seconds') from None
    except OSError as error:
        raise InternalError(f'"selinuxContext": the kernel refuses {context!r}', str(error.strerror)) from None
    finally:
        _forget_exec_label()
    if status:
        advice = "the policy must allow this context to execute Python and to create taps; see ausearch -m avc"
        raise InternalError(
            f'"selinuxContext": no tap could be created as {context}', f"{output.decode(errors='replace')}; {advice}"
        )
    return int(links.require(pod, name)["index"])


def rights(link: Message) -> dict[str, Any]:
    """Return the owner, group and multiQueue of a tap, by the names of the configuration's keys."""
    data = decode_part("tun", link["IFLA_LINKINFO"].get("IFLA_INFO_DATA", b""), device_wire)
    return {
        "owner": data.get("IFLA_TUN_OWNER"),
        "group": data.get("IFLA_TUN_GROUP"),
        "multiQueue": bool(data.get("IFLA_TUN_MULTI_QUEUE")),
    }


def require_bridge(inside: Netlink, name: str, path: str) -> Message:
    """Return the bridge in the pod at the path, of which a tap is to become a port. Raise InternalError."""
    bridge = links.get(inside, name)
    if bridge is None or links.kind(bridge) != "bridge":
        found = "there is none" if bridge is None else f"it is a link of kind {links.kind(bridge) or 'hardware'}"
        raise InternalError(
            f'"bridge": "{name}" must be a bridge in the pod, {path}: {found}',
            "an earlier attachment or the pod itself must create it",
        )
    return bridge


def right_problems(link: Message, wanted: dict[str, Any]) -> list[str]:
    """Return a text for each right of a tap that differs from the wanted one."""
    have = rights(link)
    wrong = [key for key, value in wanted.items() if have[key] != value]
    return [f"{key} of {link['IFLA_IFNAME']} is {have[key]}, not {wanted[key]}" for key in wrong]


def try_out(*, labelled: bool) -> None:
    """Raise InternalError or UnsupportedField if no tap, or none with an SELinux context, can be created."""
    posix.close(open_device())
    if labelled:
        require_selinux()


def require_selinux() -> None:
    """Raise UnsupportedField if the kernel labels no processes."""
    if not posix.access(f"{SELINUX}/enforce", posix.F_OK):
        raise UnsupportedField(
            f'"selinuxContext" needs SELinux, which is not enabled here ({SELINUX} is empty): leave the key out'
        )


def main(words: list[str]) -> None:
    """Create the tap that the words name, for `create_labelled`."""
    name, multi_queue, *numbers, caller = words
    owner, group = (None if number == "-" else int(number) for number in numbers)

    def require_caller() -> None:
        """Raise InternalError if the call was killed. A new SELinux context ends PR_SET_PDEATHSIG, see prctl(2)."""
        if posix.getppid() != int(caller):
            raise InternalError("the call that wants the tap has ended")

    try:
        create(name, multi_queue=multi_queue == "1", owner=owner, group=group, before_persistent=require_caller)
    except InternalError as error:
        sys.exit(str(error))


def _set_exec_label(context: str) -> None:
    descriptor = posix.open(EXEC_LABEL, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(descriptor, context.encode())
    finally:
        posix.close(descriptor)


def _forget_exec_label() -> None:
    try:
        _set_exec_label("\n")  # an empty write would change nothing
    except OSError:  # it was never set
        return


def _control(descriptor: int, request: int, argument: bytes | int) -> None:
    fcntl.ioctl(descriptor, request_of(request, posix.uname().machine), argument)


def request_of(number: int, machine: str) -> int:
    """Return the number of one of the ioctls above on an architecture, as uname(2) names it."""
    return number | (OTHER_IOC_WRITE if machine.startswith(WITH_IOC_NONE) else IOC_WRITE)


def _signed(number: int) -> int:
    """Return a number of 32 bits as ioctl takes it."""
    return number - (1 << 32) if number >= 1 << 31 else number
