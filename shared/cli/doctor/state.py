"""Checks of what is kept in files: the runtime's cache, host-local's leases, and who may write where."""

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

NEARLY_FULL = 90  # per cent


def cache(node: Node) -> Iterator[Finding]:
    """Each entry of the runtime's cache can be read, and its namespace is there."""
    for path, reason in node.unreadable.items():
        yield warning(path, f"is no cached result: {reason}", f"rm {shlex.quote(str(path))}")
    wires = {wire.mark: wire for wire in node.wires}
    for entry in node.remembered:
        if node.pod(entry) is not None or of_namespace(entry.netns) != GONE:
            continue
        if node.is_certainly_gone(entry.mark):
            yield warning(
                entry.path, f"is of {entry.name}, whose network namespace {entry.netns} is gone",
                f"rm {shlex.quote(str(entry.path))}  # cnitool gc --dry-run {entry.mark[0]} shows what else is left",
            )  # fmt: skip
        elif entry.mark in wires:
            yield _unnamed(entry.path, entry, wires[entry.mark].pod)


def _unnamed(where: Path | str, entry: Remembered, pod: Pod) -> Finding:
    """A pod's network namespace has lost the name that the runtime remembers."""
    place = shlex.quote(entry.netns)
    return warning(
        where, f"is of {entry.name}, whose network namespace lives, but not at {entry.netns}, where DEL looks for it",
        f"mountpoint -q {place} || {{ touch {place} && {command('mount', '--bind', pod.path, entry.netns)}; }}",
    )  # fmt: skip


def stale_links(node: Node) -> Iterator[Finding]:
    """The other end of each host link that bears an attachment's mark is in the pod that the runtime remembers."""
    wired = {wire.port.index: wire for wire in node.wires}
    lost = {entry.mark: entry for entry in node.remembered if of_namespace(entry.netns) == GONE}
    for link in node.links:
        mark = link.mark
        if mark is None or link.kind != "veth":
            continue
        reason = ""
        if link.peer_nsid is None:
            peer = node.link_at(link.peer)
            reason = f"its other end {peer.name if peer else 'that it had'} is on the host, in no pod"
        elif link.name not in node.leading:
            reason = "the network namespace of its other end is gone"
        elif mark in lost and link.index in wired:
            yield _unnamed(link.name, lost[mark], wired[link.index].pod)
        if reason:
            yield warning(
                link.name, f"is of {' '.join(mark)}, but {reason}", command("ip", "link", "delete", link.name)
            )


def leases(node: Node) -> Iterator[Finding]:
    """Each lease is a live pod's, and each live pod has one."""
    in_use = {held.ip for pod in node.pods.values() for link in pod.links for held in link.addresses}
    in_use |= {known.ip for entry in node.alive.values() for known in entry.addresses}
    for store in node.stores:
        for address, lease in store.leases.items():
            path = store.path / address
            todo = f"rm {shlex.quote(str(path))}"
            if lease is None:
                yield warning(path, "is empty or garbled: the address is not given out", todo)
                continue
            if IPAddress(address) in in_use or is_hand_placed(lease):
                continue
            # an ADD that is running has made its link, and no runtime knows of it yet
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
                        f"is missing: {entry.name} has the address, and another pod may get it",
                        f"(umask 077 && {lease} >{shlex.quote(path)})",
                    )  # fmt: skip


def pools(node: Node) -> Iterator[Finding]:
    """Each range set has addresses left."""
    leased = {store.path: store.leases for store in node.stores}
    for network in node.networks:
        for pool in network.pools:
            taken = [Address.parse(name) for name in leased.get(Path(pool.store.path), {})]
            for entry in pool.sets:
                yield from _pool(network.path, pool.store.path, entry, taken)


def _pool(configuration: str, directory: str, entry: RangeSet, taken: list[Address]) -> Iterator[Finding]:
    used = len({place for address in taken if (place := entry.place(address)) is not None} - entry.gateways)
    todo = f"free the stale leases, if doctor finds any, or give the pool more room in {shlex.quote(configuration)}"
    if used >= entry.capacity:
        yield error(f"{directory} {entry}", f"is full: all {entry.capacity} addresses are leased", todo)
    elif used * 100 >= entry.capacity * NEARLY_FULL:
        yield warning(f"{directory} {entry}", f"is nearly full: {used} of {entry.capacity} addresses are leased", todo)


def permissions(node: Node) -> Iterator[Finding]:
    """What root executes or believes is root's, and nobody else's to write."""
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
        is_shared = bool(held.st_mode & stat.S_ISVTX) and place not in places  # /tmp: what is root's there stays so
        quoted = shlex.quote(str(place))
        if held.st_uid:
            yield error(
                place, f"belongs to user {held.st_uid}, who can change what root trusts", f"chown root: {quoted}"
            )
        if held.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_shared:
            yield error(place, f"is writable for others ({stat.filemode(held.st_mode)})", f"chmod go-w {quoted}")
