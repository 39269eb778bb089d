"""Find the traces of a network's attachments outside the runtime's cache: host links, leases, rules."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.host_local import IpamConfig
from ipam.host_local.lease import LEASE_LIMIT_BYTES, Lease, is_hand_placed, parse_lease
from shared.admission import claims
from shared.cni import record
from shared.cni.call import folded
from shared.cni.ip import Address
from shared.net.owner import parse_alias
from shared.nft import labels
from shared.nft.registry import BRIDGE, INET, Ruleset
from shared.nft.ruleset import comment_of
from shared.nft.transaction import Nfnetlink
from shared.runtime.conflist import NetworkConfigList

if TYPE_CHECKING:
    from shared.net.netlink import Message

Key = tuple[str, str]  # container id, ifname; an old lease has no ifname


@dataclass
class Traces:
    """The addresses of each attachment that has left a trace, empty if they are not known.

    `leased` is the age of the latest lease in seconds. `labels` are owners of rules with a shortened name.
    """

    addresses: dict[Key, set[Address]] = field(default_factory=dict)
    leased: dict[Key, float] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)

    def add(self, key: Key, *addresses: Address) -> None:
        """Add an attachment."""
        self.addresses.setdefault(key, set()).update(addresses)


def find(network: NetworkConfigList, links: Iterable[Message]) -> Traces:
    """Search the given links, host-local's leases, nf_tables and the firewall's claims."""
    found = Traces()
    for link in links:
        owner = parse_alias(link.get("IFLA_IFALIAS", ""))
        if owner and owner[0] == network.name:
            found.add(owner[1:])
    now = time.time()
    for directory in _stores(network):
        for name, lease, made in _leases(directory):
            key = (lease.container_id, lease.ifname)
            found.add(key, Address.parse(name))
            found.leased[key] = min(now - made, found.leased.get(key, now - made))
    for name, addresses in _registered(network.name):
        _, container_id, ifname = name.split("/")
        if "~" in container_id + ifname:
            found.labels.add(name)
        else:
            found.add((container_id, ifname), *addresses)
    for _, note in record.listed(claims.RECORDS):
        names = [note.get(key) for key in ("network", "containerID", "ifname")]
        if names[0] == network.name and isinstance(names[1], str) and isinstance(names[2], str):
            found.add((names[1], names[2]), *parsed(note.get("addresses") or ()))
    return found


def _stores(network: NetworkConfigList) -> set[Path]:
    """Return the directories of the network's leases: the default one, and those of its plugins."""
    found = {str(IpamConfig.fields["dataDir"].default)}
    for plugin in network.plugins:
        ipam = folded(dict(plugin), "ipam")
        data_dir = folded(ipam, "dataDir") if isinstance(ipam, dict) else None
        if isinstance(data_dir, str):
            found.add(data_dir)
    return {Path(data_dir, network.name) for data_dir in found}


def read_leases(directory: Path) -> Iterator[tuple[str, Lease | None]]:
    """Return the addresses and leases in one of host-local's directories, without its lock."""
    for name, lease, _ in _files(directory):
        yield name, lease


def _leases(directory: Path) -> Iterator[tuple[str, Lease, float]]:
    """Return the readable leases that plugins created, each with its modification time."""
    for name, lease, made in _files(directory):
        if lease is not None and not is_hand_placed(lease):
            yield name, lease, made


def _files(directory: Path) -> Iterator[tuple[str, Lease | None, float]]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        path = directory / name
        with suppress(ValueError, FileNotFoundError):  # not a lease, or released in the meantime
            Address.parse(name)
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                yield name, parse_lease(file.read(LEASE_LIMIT_BYTES)), os.fstat(file.fileno()).st_mtime


def _registered(network: str) -> Iterator[tuple[str, list[Address]]]:
    """Return the labels of the network's attachments that have rules, and the addresses in the rules."""
    kernel = Nfnetlink.if_there()
    if kernel is None:
        return
    prefix = labels.prefix_of(network)
    for table in (INET, BRIDGE):
        for element in kernel.dump_elements(Ruleset(table, "", (), ()).attachments):
            name, _, items = comment_of(element.get("NFTA_SET_ELEM_USERDATA", b"")).partition(" ")
            if name.startswith(prefix):
                yield name, parsed(items.replace(",", " ").split())
    kernel.close()


def parsed(words: Iterable[object]) -> list[Address]:
    """Return the addresses among words."""
    found = []
    for word in words:
        with suppress(ValueError, TypeError, AttributeError):
            found.append(Address.parse(word))  # type: ignore[arg-type]
    return found
