"""Count the leases in a node's CIDRs, from the names of host-local's files alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from ipam.host_local.files import Files, open_existing_directory
from ipam.host_local.lease import Lease
from shared.cluster.model import Address, Cidr
from shared.cni.errors import IOFailure
from shared.cni.ip import Address as LeasedAddress


def used(data_dir: str, network: str, cidrs: Iterable[Cidr]) -> dict[Cidr, int]:
    """Return the number of leases in each CIDR. A garbled one counts: its address is not given out at once.

    Open no file: a directory of 10,000 leases is one reading. Raise IOFailure if it cannot be read.
    """
    found = dict.fromkeys(cidrs, 0)
    lengths: dict[tuple[int, int], dict[int, Cidr]] = {}  # by family and host bits, the CIDRs by their network's bits
    for cidr in found:
        bits = cidr.max_prefixlen - cidr.prefixlen
        lengths.setdefault((cidr.version, bits), {})[int(cidr.network_address) >> bits] = cidr
    store = _open(data_dir, network)
    try:
        for name in _names(store):
            address = LeasedAddress.parse(name)
            for (version, bits), of_length in lengths.items():
                cidr_of_address = of_length.get(address.value >> bits) if version == address.version else None
                if cidr_of_address is not None:
                    found[cidr_of_address] += 1
    finally:
        _close(store)
    return found


def holders(data_dir: str, network: str, cidr: Cidr) -> dict[Address, Lease | None]:
    """Return the leases in a CIDR by address, None for a garbled one. Raise IOFailure."""
    store = _open(data_dir, network)
    try:
        return {ip_address(name): store.read(name) for name in _names(store) if ip_address(name) in cidr}
    finally:
        _close(store)


def _open(data_dir: str, network: str) -> Files:
    """Open a network's directory of leases, without its lock. One that does not exist is empty."""
    store = Files()
    path = f"{data_dir}/{network}"
    try:
        store.directory = open_existing_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise IOFailure(f"cannot read the leases in {path}", str(error.strerror)) from None
    return store


def _close(store: Files) -> None:
    if store.directory >= 0:
        os.close(store.directory)


def _names(store: Files) -> Iterator[str]:
    if store.directory >= 0:
        yield from store.names()
