"""Record on disk the names and settings of the host's devices that are lent to pods.

A record is written before its device moves, and removed when the device is back. Records are lost with /run at a boot,
after which the devices are at home. One lock is held while a device moves. So a device on the host that has a record
was brought home by the kernel, by the pod or by hand, or its call was killed.
"""

from __future__ import annotations

import posix

from shared.cni import lock, record
from shared.cni.errors import InternalError, IOFailure
from shared.cni.names import is_link_name
from shared.net import link_attributes, links, liveness
from shared.net.netlink import Netlink
from shared.net.owner import Owner, is_host_link
from shared.net.wire import IFF_UP, RTM_GETLINK
from shared.undo import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet
    from types import TracebackType
    from typing import Any

    from shared.net.netlink import Message
    from shared.net.netns import Netns

DIRECTORY = "/run/cni/.pycni/devices"
LOCK_SECONDS = 25.0  # less than a runtime waits for a call
NOWHERE = -1  # in place of a namespace's number
IDENTITY_COLONS = 2  # of Netns.identity()
LEAST_MARKS = 2  # of a virtual device: index, MAC, alias
CLASS = "/sys/class/net"
PORT_BYTES = 16  # at most, of a port's number in sysfs


class locked:  # noqa: N801  (used like a function)
    """Hold the lock of all records, and remove unfinished ones of killed calls.

    Raise IOFailure or TryAgainLater.
    """

    def __enter__(self) -> None:
        try:
            record.make_directories(DIRECTORY)
            directory = posix.open(DIRECTORY, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
            try:
                lock.require_private(directory, DIRECTORY)
                self.file = lock.Wait(LOCK_SECONDS).take_file(DIRECTORY, parent=directory)
            finally:
                posix.close(directory)
            record.remove_unfinished(DIRECTORY)
        except OSError as error:
            raise IOFailure(f"cannot lock {DIRECTORY}", str(error)) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        posix.close(self.file)


class Record:
    """A device before it moved, and the pod that it is lent to."""

    def __init__(self, path: str, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def of(cls, link: Message, owner: Owner, pod_netns: Netns) -> Record:
        """Describe a device of the host, and the attachment that is about to get it."""
        content = {
            "network": owner.network, "containerID": owner.container_id, "ifname": owner.ifname,
            "netns": pod_netns.path, "namespace": pod_netns.identity(), "mark": liveness.mark(pod_netns.path),
            **describe(link),
        }  # fmt: skip
        return cls(f"{DIRECTORY}/{owner.host_link}-{content['name']}.json", content)

    def write(self, **news: Any) -> None:
        """Write the record to disk, with newer members. Raise IOFailure."""
        self.content.update(news)
        record.write(self.path, self.content)

    def remove(self) -> None:
        """Remove the record. Raise IOFailure."""
        record.remove(self.path)

    def __getattr__(self, name: str) -> Any:
        return self.content[name]

    @property
    def holder(self) -> str:
        """Return the attachment that has the device, for messages."""
        return f"{self.ifname} of container {self.containerID} in network {self.network}"

    @property
    def is_identity_unique(self) -> bool:
        """Return True if no other namespace can have the identity of the pod's."""
        return not str(self.content["namespace"]).endswith(":")

    @property
    def is_hardware(self) -> bool:
        """Return True if the kernel moves the device to the initial namespace when its namespace is deleted."""
        return not self.kind

    @property
    def is_plugged(self) -> bool:
        """Return True if the hardware is still there, so that the device will be."""
        return bool(self.path_on_bus) and posix.access(self.path_on_bus, posix.F_OK)

    @property
    def path_on_bus(self) -> str:
        """Return the device's directory in sysfs, empty for a virtual one."""
        return str(self.content["path"])

    def is_of(self, container_id: str, ifname: str) -> bool:
        """Return True if the attachment has the device. The network may have been renamed."""
        return bool((self.containerID, self.ifname) == (container_id, ifname))

    def find(self, netlink: Netlink) -> Message | None:
        """Return the device if it is in the namespace of the socket and of sysfs, the host's."""
        return netlink.scan(RTM_GETLINK, None, self._find_among)

    def find_in_pod(self, netlink: Netlink) -> Message | None:
        """Return the device if it is in the pod: by its index there, or by its marks if the call was killed."""
        index = self.content.get("podIndex")
        if index:
            link = netlink.get(RTM_GETLINK, {"index": index})
            return link if link and self._is_at_index(link) else None
        return netlink.scan(RTM_GETLINK, None, self._find_by_marks)

    def _is_at_index(self, link: Message) -> bool:
        """Return True if the pod's link with the device's index may be the device.

        If the namespace may be another one (Netns.identity), the link also needs the MAC or the alias.
        """
        marks = link.get("IFLA_ADDRESS", "") == self.attributes["mac"], link.get("IFLA_IFALIAS", "") == self.name
        return links.kind(link) == self.kind and (self.is_identity_unique or any(marks))

    def leads_there(self, link: Message) -> bool:
        """Return True if the pod's link leads to the namespace to which the device led when it was lent.

        A device has no record of that if its call was killed. Hardware leads to none.
        """
        found = link.get("IFLA_LINK_NETNSID", NOWHERE)
        return bool(found == self.content.get("leadsTo", found))

    def _find_among(self, stream: Iterator[Message]) -> Message | None:
        if not self.path_on_bus:
            return self._find_by_marks(stream)
        same = [one for one in stream if self._is_port(one)]
        return self._find_by_marks(iter(same)) or next((one for one in same if self._is_certain(one)), None)

    def _is_port(self, link: Message) -> bool:
        """Return True if a host link is hardware at the same place. A device on a bus may have several ports."""
        return not links.kind(link) and bus_path(link["IFLA_IFNAME"]) == self.path_on_bus and port(link) == self.port

    def _is_certain(self, link: Message) -> bool:
        """Return True if the hardware itself tells a link at the same place from those of other ports."""
        return bool(own_mac(link) == self.ownMac and (self.ownMac or self.port))

    def _find_by_marks(self, stream: Iterator[Message]) -> Message | None:
        return next((one for one in stream if self._has_marks(one)), None)

    def _has_marks(self, link: Message) -> bool:
        marks = (
            link["index"] == self.index,
            link.get("IFLA_ADDRESS", "") == self.attributes["mac"],
            link.get("IFLA_IFALIAS", "") == self.name,
        )
        return bool(links.kind(link) == self.kind and sum(marks) >= LEAST_MARKS)


def describe(link: Message) -> dict[str, Any]:
    """Return the part of a record that is about the device, which is on the host."""
    name = link["IFLA_IFNAME"]
    return {
        "name": name, "altnames": alternative_names(link), "alias": link.get("IFLA_IFALIAS", ""),
        "kind": links.kind(link), "path": bus_path(name), "port": port(link), "ownMac": own_mac(link),
        "index": link["index"], "up": bool(link["flags"] & IFF_UP), "attributes": link_attributes.read(link),
    }  # fmt: skip


def are_there() -> bool:
    """Return True if there may be a record, whole or not."""
    try:
        return any(name != lock.NAME for name in record.entries(DIRECTORY))
    except OSError as error:
        raise IOFailure(f"cannot read {DIRECTORY}", str(error)) from None


def read_all() -> list[Record]:
    """Return all records, without garbled ones. Raise IOFailure."""
    if not posix.access(DIRECTORY, posix.F_OK):
        return []
    return [Record(path, content) for path, content in record.listed(DIRECTORY) if _is_whole(content)]


def garbled() -> list[str]:
    """Return the paths of the records that are unreadable or not whole. Raise IOFailure."""
    return [path for path, content in record.listed(DIRECTORY) if not _is_whole(content)]


def remove_garbled(owner: Owner, *, is_home: bool) -> None:
    """Remove the attachment's garbled record, for DEL. `is_home` is True if the device is known to be at home.

    Otherwise raise InternalError unless a link of the host has the device's name, which is in the name of the file.
    """
    prefix = f"{DIRECTORY}/{owner.host_link}-"
    for path in [one for one in garbled() if one.startswith(prefix)]:
        name = path[len(prefix) : -len(".json")]
        if not is_home and not liveness.is_link(name):
            raise InternalError(
                f"the record of device {name} is garbled ({path}), and no link of the host has that name",
                f"find the device, rename it to {name}, and repeat DEL; or remove the record",
            )
        record.remove(path)


def collect_garbled(network: str, valid: AbstractSet[tuple[str, str]]) -> None:
    """Remove the garbled records of the network's attachments that are not in `valid`, (container id, ifname)."""
    keep = {Owner(network, *one).host_link for one in valid}
    for path in garbled():
        link, _, name = path.rpartition("/")[2].partition("-")
        if is_host_link(link, network) and link not in keep:
            complain(f"removed the garbled record {path}: device {name[: -len('.json')]} may have another name now")
            record.remove(path)


def _is_whole(content: dict[str, Any]) -> bool:
    texts = (
        "network", "containerID", "ifname", "netns", "namespace", "mark",
        "name", "alias", "kind", "path", "port", "ownMac",
    )  # fmt: skip
    attributes = content.get("attributes")
    return (
        all(isinstance(content.get(name), str) for name in texts)
        and is_link_name(content["name"])
        and content["namespace"].count(":") == IDENTITY_COLONS
        and isinstance(content.get("up"), bool)
        and all(isinstance(one, int) for one in (content.get("index"), content.get("podIndex", 0)))
        and isinstance(content.get("altnames"), list)
        and all(isinstance(one, str) for one in content["altnames"])
        and isinstance(attributes, dict)
        and isinstance(attributes.get("mac"), str)
    )


def alternative_names(link: Message) -> list[str]:
    """Return a link's alternative names, read with the tables of shared/net/device_wire.py."""
    names = link.get("IFLA_PROP_LIST", {}).get("IFLA_ALT_IFNAME", [])
    return names if isinstance(names, list) else [names]


def own_mac(link: Message) -> str:
    """Return the digits of the hardware's permanent MAC, empty if it has none. Linux before 5.6 tells none."""
    return str(link.get("IFLA_PERM_ADDRESS", b"").hex())


def port(link: Message) -> str:
    """Return number and name of a host link's port, which tell it from others on the same hardware.

    Empty: the port is the first one, and has no name.
    """
    number = ""
    try:
        descriptor = posix.open(f"{CLASS}/{link['IFLA_IFNAME']}/dev_port", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            number = posix.read(descriptor, PORT_BYTES).decode().strip()
        finally:
            posix.close(descriptor)
    except OSError:  # without sysfs, or the link has gone
        pass
    return " ".join(one for one in (number, link.get("IFLA_PHYS_PORT_NAME", "")) if one not in ("", "0"))


def bus_path(name: str) -> str:
    """Return the directory in sysfs of the hardware behind a host link; empty for a virtual link, or without sysfs."""
    try:
        target = posix.readlink(f"{CLASS}/{name}")
    except (OSError, ValueError):
        return ""
    _, found, device = target.partition("/devices/")
    return f"/sys/devices/{device.rpartition('/net/')[0]}" if found and not device.startswith("virtual/") else ""
