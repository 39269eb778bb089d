"""Names of Kubernetes objects: DNS subdomains, made from network names and CIDRs and read back.

A Block's name is the claim, so it must be the same on every node, whatever its Python prints for an address.
Letters, digits and single `-` or `.` between them stay as they are; each other byte becomes `--` and two hexadecimal
digits. The last label is the CIDR: `pods.10-244-3-0-24`, `pods.fd00-10-244-3-0-0-0-0-64`.
"""

from __future__ import annotations

import ipaddress
import re

from shared.cluster.model import Cidr

LONGEST = 253  # characters of a name, by RFC 1123
# Three dashes in a row come from nothing else: a name that would begin with an escape gets this prefix.
FIRST = "x-"
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ESCAPED = re.compile(rb"(?<![a-z0-9])[.-]|[.-](?![a-z0-9])|[^a-z0-9.-]")
_IPV4_GROUPS, _IPV6_GROUPS = 4, 8


def is_subdomain(name: str) -> bool:
    """Return True if Kubernetes admits the name of an object."""
    return len(name) <= LONGEST and _SUBDOMAIN.fullmatch(name) is not None


def network_name(network: str) -> str:
    """Return the name of a network's Pool. Raise ValueError if it is too long for Kubernetes."""
    name = _ESCAPED.sub(lambda found: b"--%02x" % found[0][0], network.encode()).decode()
    if name.startswith("-"):
        name = FIRST + name
    if not name or len(name) > LONGEST:
        raise ValueError(
            f"network {network[:60]!r} makes a name of {len(name)} characters; Kubernetes allows 1-{LONGEST}"
        )
    return name


def network_of(name: str) -> str:
    """Return the network of a Pool's name. Raise ValueError unless `network_name` made it."""
    escaped = name.removeprefix(FIRST) if name.startswith(FIRST + "--") else name
    raw = re.sub(rb"--([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), escaped.encode())
    network = raw.decode()
    if network_name(network) != name:
        raise ValueError(f"{name!r} is not the name of a network")
    return network


def block_name(network: str, cidr: Cidr) -> str:
    """Return the name of a Block. Raise ValueError if it is too long for Kubernetes."""
    packed = cidr.network_address.packed
    if cidr.version == 4:
        groups = [str(byte) for byte in packed]
    else:
        groups = [f"{int.from_bytes(packed[at : at + 2], 'big'):x}" for at in range(0, len(packed), 2)]
    name = f"{network_name(network)}.{'-'.join(groups)}-{cidr.prefixlen}"
    if len(name) > LONGEST:
        raise ValueError(f"block {cidr} of network {network[:60]!r} makes a name longer than {LONGEST} characters")
    return name


def block_of(name: str) -> tuple[str, Cidr]:
    """Return network and CIDR of a Block's name. Raise ValueError unless `block_name` made it."""
    escaped, _, label = name.rpartition(".")
    *groups, length = label.split("-")
    joint = {_IPV4_GROUPS: ".", _IPV6_GROUPS: ":"}.get(len(groups))
    if joint is None:
        raise ValueError(f"{name!r} does not end in a CIDR")
    network, cidr = network_of(escaped), ipaddress.ip_network(f"{joint.join(groups)}/{length}")
    if block_name(network, cidr) != name:
        raise ValueError(f"{name!r} is not the name of a block")
    return network, cidr
