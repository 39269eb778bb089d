"""Find the host's device that a configuration names: by name, MAC, path in sysfs, or address on a bus."""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.config import Kind, absolute_path
from shared.cni.errors import InternalError
from shared.cni.names import NAME_CHARACTERS
from shared.net import links
from shared.net.wire import RTM_GETLINK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shared.net.lent import Record
    from shared.net.netlink import Message, Netlink

BUSES = ("/sys/bus/pci/devices", "/sys/bus/auxiliary/devices")
USERSPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")  # of DPDK: such a device has no link

SYS_DEVICES = "/sys/devices/"
ADDRESS_CHARACTERS = NAME_CHARACTERS | {":"}
LONGEST_ADDRESS = 64  # characters


def _bus_address(value: Any) -> str:
    if not isinstance(value, str) or not (0 < len(value) <= LONGEST_ADDRESS and ADDRESS_CHARACTERS.issuperset(value)):
        raise ValueError("must be one address, such as 0000:01:00.0, or the name of one auxiliary device")
    if value in (".", ".."):
        raise ValueError("must be the address of a device")
    return value


def _kernel_path(value: Any) -> str:
    path: str = absolute_path.parse(value)
    if not path.startswith(SYS_DEVICES):
        raise ValueError(f"must be a path below {SYS_DEVICES}")
    return path


bus_address = Kind(_bus_address, {"type": "string", "pattern": "^[a-zA-Z0-9_.:-]+$"}, empty_is_unset=True)
kernel_path = Kind(_kernel_path, {"type": "string", "pattern": "^/sys/devices/"}, empty_is_unset=True)


class Wanted:
    """The device of a configuration. The first of these that is set counts: name, MAC, path, bus address.

    `path` is a directory below /sys/devices, `address` the name of a PCI or auxiliary device.
    """

    def __init__(self, *, name: str, mac: str, path: str, address: str) -> None:
        self.name, self.mac, self.path, self.address = name, mac, path.rstrip("/"), address

    def __bool__(self) -> bool:
        return any((self.name, self.mac, self.path, self.address))

    def __str__(self) -> str:
        if self.name:
            return f"device {self.name}"
        if self.mac:
            return f"device with MAC {self.mac}"
        return f"device with a link below {self.path}" if self.path else f"device {self.address} with a link"

    def driver(self) -> str:
        """Return the driver of the device with the bus address. Empty: it has none, or there is no such address."""
        return _driver(self.address) if self.address else ""

    def is_passed_through(self) -> bool:
        """Return True if a program of the pod drives the device, so that it has no link to move.

        Raise InternalError if the bus address does not exist.
        """
        if self.address and not _directory(self.address):
            raise InternalError(f"there is no device {self.address}: neither {' nor '.join(BUSES)} has it")
        return self.driver() in USERSPACE_DRIVERS

    def find(self, host: Netlink) -> Message | None:
        """Return the device's link if it is on the host."""
        if self.name:
            return links.get(host, self.name)
        if self.mac:
            return host.scan(
                RTM_GETLINK,
                None,
                lambda stream: next((one for one in stream if one.get("IFLA_ADDRESS") == self.mac), None),
            )
        directory = self.path or _directory(self.address)
        found = (links.get(host, name) for name in _link_names(directory))
        return next((link for link in found if link), None)

    def is_in(self, kept: Record) -> bool:
        """Return True if the record is of this device, which is not on the host."""
        if self.name:
            return self.name in (kept.name, *kept.altnames)
        if self.mac:
            return bool(kept.attributes["mac"] == self.mac)
        parts = kept.path_on_bus.split("/")
        if self.path:
            return self.path.split("/") == parts[: self.path.count("/") + 1]
        return self.address in parts


def _directory(address: str) -> str:
    return next((f"{bus}/{address}" for bus in BUSES if posix.access(f"{bus}/{address}", posix.F_OK)), "")


def _driver(address: str) -> str:
    try:
        return posix.readlink(f"{_directory(address)}/driver").rpartition("/")[2]
    except OSError:
        return ""


def _link_names(directory: str) -> list[str]:
    """Return the names of a device's links in sysfs. Those of a virtio device are a level below."""
    for place in (directory, *(f"{directory}/{name}" for name in _entries(directory) if name.startswith("virtio"))):
        if names := _entries(f"{place}/net"):
            return names
    return []


def _entries(directory: str) -> list[str]:
    try:
        return sorted(record.entries(directory))
    except OSError:
        return []
