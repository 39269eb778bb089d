"""Check the state in files: the runtime's cache, host-local's leases, permissions."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from netaddr import IPAddress

from ipam.host_local.lease import is_hand_placed
from ipam.host_local.ranges import RangeSet
from shared.cli.doctor.configuration import launched_tree
from shared.cli.doctor.files import Remembered
from shared.cli.doctor.findings import Finding, error, warning
from shared.cli.doctor.links import Pod, command
from shared.cli.doctor.node import Node
from shared.cni.ip import Address
from shared.runtime.presence import GONE, of_namespace

NEARLY_FULL = 90  # percent


def cache(node: Node) -> Iterator[Finding]:
    """Report cache entries that cannot be read, and those without their namespace."""
    for path, reason in node.unreadable.items():
        yield warning(path, f"is not a cached result: {reason}", f"rm {shlex.quote(str(path))}")
    wires = {wire.mark: wire for wire in node.wires}
    for entry in node.remembered:
        if node.pod(entry) is not None or of_namespace(entry.netns) != GONE:
            continue
        if node.is_certainly_gone(entry.mark):
            yield warning(
                entry.path, f"belongs to {entry.name}, but the network namespace {entry.netns} is gone",
                f"rm {shlex.quote(str(entry.path))}  # cnitool gc --dry-run {entry.mark[0]} shows other leftovers",
            )  # fmt: skip
        elif entry.mark in wires:
            yield _unnamed(entry.path, entry, wires[entry.mark].pod)


def _unnamed(where: Path | str, entry: Remembered, pod: Pod) -> Finding:
    """Report that a pod's namespace is no longer mounted at the path in the cache."""
    place = shlex.quote(entry.netns)
    return warning(
        where, f"belongs to {entry.name}: its network namespace lives, but not at {entry.netns}, where DEL looks",
        f"mountpoint -q {place} || {{ touch {place} && {command('mount', '--bind', pod.path, entry.netns)}; }}",
    )  # fmt: skip


def stale_links(node: Node) -> Iterator[Finding]:
    """Report the host's veth links that belong to an attachment but do not lead to its pod."""
    wired = {wire.port.index: wire for wire in node.wires}
    lost = {entry.mark: entry for entry in node.remembered if of_namespace(entry.netns) == GONE}
    for link in node.links:
        mark = link.mark
        if mark is None or link.kind != "veth":
            continue
        reason = ""
        if link.peer_nsid is None:
            peer = node.link_at(link.peer)
            reason = f"its other end {peer.name} is on the host, not in a pod" if peer else "its other end is gone"
        elif link.name not in node.leading:
            reason = "the network namespace of its other end is gone"
        elif mark in lost and link.index in wired:
            yield _unnamed(link.name, lost[mark], wired[link.index].pod)
        if reason:
            yield warning(
                link.name, f"belongs to {' '.join(mark)}, but {reason}", command("ip", "link", "delete", link.name)
            )


def leases(node: Node) -> Iterator[Finding]:
    """Report garbled leases, leases of dead pods, and live pods without a lease."""
    in_use = {held.ip for pod in node.pods.values() for link in pod.links for held in link.addresses}
    in_use |= {known.ip for entry in node.alive.values() for known in entry.addresses}
    for store in node.stores:
        for address, lease in store.leases.items():
            path = store.path / address
            todo = f"rm {shlex.quote(str(path))}"
            if lease is None:
                yield warning(path, "is empty or garbled, so its address is not assigned", todo)
                continue
            if IPAddress(address) in in_use or is_hand_placed(lease):
                continue
            # A running ADD has created its link before any runtime knows of it.
            mark = (store.network, lease.container_id, lease.ifname)
            owner = " ".join(filter(None, mark[1:]))
            if node.is_certainly_gone(mark):
                yield warning(path, f"is leased to {owner}, which is gone", todo)
    yield from _lost_leases(node)


def _lost_leases(node: Node) -> Iterator[Finding]:
    leased = {(store.network, IPAddress(address)) for store in node.stores for address in store.leases}
    for entry in node.alive.values():
        network, container_id, ifname = entry.mark
        configured = node.network(network)
        for pool in configured.pools if configured else ():
            for known in entry.addresses:
                address = Address.parse(str(known.ip))
                if any(each.range_of(address) for each in pool.sets) and (network, known.ip) not in leased:
                    path = f"{pool.store.path}/{address}"
                    lease = command("printf", r"%s\r\n%s", container_id, ifname)
                    yield error(
                        path,
                        f"is missing: {entry.name} has the address, but another pod may get it too",
                        f"(umask 077 && {lease} >{shlex.quote(path)})",
                    )  # fmt: skip


def pools(node: Node) -> Iterator[Finding]:
    """Report range sets that are full or nearly full."""
    leased = {store.path: store.leases for store in node.stores}
    for network in node.networks:
        for pool in network.pools:
            taken = [Address.parse(name) for name in leased.get(Path(pool.store.path), {})]
            for entry in pool.sets:
                yield from _pool(network.path, pool.store.path, entry, taken)


def _pool(configuration: str, directory: str, entry: RangeSet, taken: list[Address]) -> Iterator[Finding]:
    used = len({place for address in taken if (place := entry.place(address)) is not None} - entry.gateways)
    todo = f"cnitool ipam gc  # or enlarge the range in {shlex.quote(configuration)}"
    if used >= entry.capacity:
        yield error(f"{directory} {entry}", f"is full: all {entry.capacity} addresses are leased", todo)
    elif used * 100 >= entry.capacity * NEARLY_FULL:
        yield warning(f"{directory} {entry}", f"is nearly full: {used} of {entry.capacity} addresses are leased", todo)


def permissions(node: Node) -> Iterator[Finding]:
    """Report files that root executes or trusts but others can change."""
    places = [node.state_dir, node.state_dir / "results", *node.data_dirs, *(store.path for store in node.stores)]
    places += [node.conf_dir, *(Path(network.path) for network in node.networks)]
    for directory in node.bin_dirs:
        executables = [path for path in directory.iterdir() if path.is_file()] if directory.is_dir() else []
        trees = {tree for path in executables if (tree := launched_tree(path)) is not None and tree.is_dir()}
        roots = [*trees, *{tree.parent / "tools" for tree in trees}]  # the code, and the libraries of the tools
        places += [directory, *executables, *(path for root in roots for path in (root, *root.rglob("*")))]
    for place in dict.fromkeys([*places, *(parent for path in places for parent in path.parents)]):
        try:
            held = place.stat()
        except FileNotFoundError:
            continue
        # In a sticky directory such as /tmp nobody else can delete or rename root's files.
        is_shared = bool(held.st_mode & stat.S_ISVTX) and place not in places
        quoted = shlex.quote(str(place))
        if held.st_uid:
            yield error(
                place, f"belongs to user {held.st_uid}, but must belong to root, who trusts it", f"chown root: {quoted}"
            )
        if held.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_shared:
            yield error(
                place, f"is writable for others than root ({stat.filemode(held.st_mode)})", f"chmod go-w {quoted}"
            )
