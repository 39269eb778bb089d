"""Derive the names of an attachment's objects from its network, container id and interface name.

With these names DEL, CHECK and GC find the objects without the pod's namespace and without a result.
"""

from __future__ import annotations

from shared.cni.digests import digest

ALIAS_PREFIX = "pycni:"
ALIAS_BYTES = 255  # IFALIASZ in linux/if.h, less the closing NUL
STAND_IN = "~"  # begins a digest in place of a name; container ids and networks do not begin with it
LINK_PREFIX = "veth"
IFB_PREFIX = "bwp"
NETWORK_DIGITS = 3
LINK_NOTES = "/run/cni/links"  # directory of shared/net/placements.py: without it, no link in a pod is noted
FILE_NAME_BYTES = 255  # NAME_MAX in linux/limits.h


def file_name(name: str, suffix: str = "", *, spare: int = 0) -> str:
    """Return the name and suffix as a file's name. Replace a name that is too long by a digest.

    `spare` bytes stay free for another suffix. The digest cannot collide with a name: container ids and networks do not
    begin with `~`.
    """
    if len(f"{name}{suffix}".encode()) <= FILE_NAME_BYTES - spare:
        return name + suffix
    return f"{_stand_in(name)}{suffix}"


def _mac(digits: str) -> str:
    first = (int(digits[:2], 16) & 0xFC) | 0x02  # locally administered, unicast
    return ":".join([f"{first:02x}", *(digits[place : place + 2] for place in range(2, 12, 2))])


def port_mac(mac: str) -> str:
    """Return a MAC for a bridge's port: the given MAC with fe as its first byte.

    If a bridge has no MAC of its own, it takes the lowest MAC of its ports. With fe:… it prefers the links of others.
    """
    return "fe" + mac[2:]


class Owner:
    """The names and MACs of one attachment.

    The suite sets the MACs itself because udev's MACAddressPolicy changes random MACs, and the result would be wrong.
    """

    def __init__(self, network: str, container_id: str, ifname: str) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        digits = digest(f"{network}/{container_id}/{ifname}".encode())
        self.host_link = network_prefix(network) + digits[:8]
        self.host_mac = port_mac(_mac(digits[8:20]))
        self.pod_mac = _mac(digits[20:32])
        self.ifb = ifb_prefix(network) + digits[:8]
        self.ifb_mac = _mac(digits[32:44])

    @property
    def alias(self) -> str:
        """The host link's IFLA_IFALIAS: it names the attachment, for people and GC.

        If the names are too long for the kernel, digests replace the network and the container id.
        """
        alias = f"{ALIAS_PREFIX}{self.network}/{self.container_id}/{self.ifname}"
        if len(alias.encode()) <= ALIAS_BYTES:
            return alias
        return f"{ALIAS_PREFIX}{_stand_in(self.network)}/{_stand_in(self.container_id)}/{self.ifname}"


def _stand_in(name: str) -> str:
    return f"{STAND_IN}{digest(name.encode())}"


def network_prefix(network: str) -> str:
    """Return the prefix of the names of a network's host links. Eight hexadecimal digits follow it."""
    return LINK_PREFIX + digest(network.encode())[:NETWORK_DIGITS]


def ifb_prefix(network: str) -> str:
    """Return the prefix of the names of a network's ifb devices. The reference's names have no hyphen."""
    return f"{IFB_PREFIX}{digest(network.encode())[:NETWORK_DIGITS]}-"


def is_host_link(name: str, network: str) -> bool:
    """Return True if a name has the form of the network's host links."""
    return _is_derived(name, network_prefix(network))


def is_pod_link(name: str, alias: str) -> bool:
    """Return True if a name and alias are of a host link that this suite made for a pod of any network."""
    prefix = name[: len(LINK_PREFIX) + NETWORK_DIGITS]
    return alias.startswith(ALIAS_PREFIX) or (prefix.startswith(LINK_PREFIX) and _is_derived(name, prefix))


def is_ifb(name: str, network: str) -> bool:
    """Return True if a name has the form of the network's ifb devices."""
    return _is_derived(name, ifb_prefix(network))


def _is_derived(name: str, prefix: str) -> bool:
    tail = name.removeprefix(prefix)
    return name.startswith(prefix) and len(tail) == 8 and set(tail) <= set("0123456789abcdef")


def parse_alias(alias: str) -> tuple[str, str, str] | None:
    """Return the network, container id and ifname in an alias; None if it has digests, or is not this suite's."""
    parts = _parts(alias)
    return (parts[0], parts[1], parts[2]) if parts and not parts[0].startswith(STAND_IN) else None


def is_network(alias: str, network: str) -> bool | None:
    """Return True if an alias names an attachment of the network, by name or digest; None if it names none."""
    parts = _parts(alias)
    return parts[0] in (network, _stand_in(network)) if parts else None


def _parts(alias: str) -> list[str]:
    parts = alias.removeprefix(ALIAS_PREFIX).split("/")
    return parts if alias.startswith(ALIAS_PREFIX) and len(parts) == 3 else []


def stable_link(text: str) -> str:
    """Return the name of a host link that several attachments share, such as a bridge's VLAN gateway port."""
    return LINK_PREFIX + digest(text.encode())[:8]
