"""host-local: lease addresses from ranges of this node, and store the leases as files."""

from __future__ import annotations

from ipam.host_local.lease import Lease, is_hand_placed
from ipam.host_local.ranges import Range, RangeSet
from ipam.host_local.store import Look, Store, Unwritable
from shared.cni import config
from shared.cni.call import folded
from shared.cni.config import absolute_path, address, field, invalid, list_of, obj, prefix, section
from shared.cni.errors import InternalError, InvalidConfig, IOFailure, PluginNotAvailable, TryAgainLater
from shared.cni.ip import Address, Prefix
from shared.cni.plugin import previous_result, valid_attachments
from shared.cni.result import IP, Result, routes_from_config
from shared.cni.versions import at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from shared.cni.call import Call
    from shared.undo import Undo

PROBES = 32  # addresses that ADD tries one by one before it reads the directory
RESERVE_TRIES = 100
DIRECTORY_NAME_BYTES = 255  # NAME_MAX in linux/limits.h


def _requested(value: Any) -> Address:
    """Parse an address. Some runtimes append a prefix length, which is dropped."""
    try:
        return Prefix.parse(value).address if "/" in value else Address.parse(value)
    except (ValueError, TypeError):
        raise ValueError("must be an IP address") from None


requested_address = config.Kind(_requested, {"type": "string", "format": "ip"}, empty_is_unset=True)


class RangeConfig(config.Config):
    """The keys of one range."""

    subnet: Prefix = field(prefix, None, "the network in CIDR notation", required=True)
    rangeStart: Address | None = field(address, None, "first address to lease; default: the network's first host")
    rangeEnd: Address | None = field(address, None, "last address to lease; default: the network's last host")
    gateway: Address | None = field(address, None, "the gateway, never leased; default: the network's first host")


range_sets = list_of(list_of(section(RangeConfig)))


class IpamConfig(config.Config):
    """The keys of host-local, below `ipam`."""

    subnet: Prefix | None = field(prefix, None, "short for a first range set with one range")
    rangeStart: Address | None = field(address, None, "with subnet: first address to lease", needs=("subnet",))
    rangeEnd: Address | None = field(address, None, "with subnet: last address to lease", needs=("subnet",))
    gateway: Address | None = field(address, None, "with subnet: the gateway", needs=("subnet",))
    ranges: list[list[RangeConfig]] = field(range_sets, (), "range sets; a pod gets one address of each")
    routes: list[dict[str, Any]] = field(list_of(obj), (), "routes for the result: dst, gw and, from 1.1.0, the others")
    resolvConf: str = field(absolute_path, "", "file in the form of resolv.conf; its settings become the result's dns")
    dataDir: str = field(absolute_path, "/var/lib/cni/networks", "directory of the leases")


class RuntimeConfig(config.Config):
    """The keys that the runtime adds for the `ips` and `ipRanges` capabilities."""

    ips: list[Address] = field(list_of(requested_address), (), "requested addresses (capability `ips`)")
    ipRanges: list[list[RangeConfig]] = field(range_sets, (), "range sets before the others (capability `ipRanges`)")


class CniArgs(config.Config):
    """The keys of `args.cni`."""

    ips: list[Address] = field(list_of(requested_address), (), "requested addresses")


class Args(config.Config):
    """The keys of `args`."""

    cni: CniArgs | None = field(section(CniArgs), None, "see args.cni")


class EnvironmentArgs(config.Config):
    """The names in CNI_ARGS that host-local reads."""

    IP: Address | None = field(requested_address, None, "requested address")


class Config(config.Config):
    """The keys of a network's configuration that host-local reads."""

    ipam: IpamConfig = field(section(IpamConfig), None, "see ipam", required=True)
    args: Args | None = field(section(Args), None, "see args")
    runtimeConfig: RuntimeConfig | None = field(section(RuntimeConfig), None, "see runtimeConfig")


class Pool:
    """The validated configuration of a call. Creating it changes nothing on the host."""

    def __init__(self, call: Call) -> None:
        keys: Config = Config.read(call.config)
        ipam = keys.ipam
        runtime_sets = keys.runtimeConfig.ipRanges if keys.runtimeConfig else ()
        self.sets = [_range_set(f"runtimeConfig.ipRanges[{n}]", entries) for n, entries in enumerate(runtime_sets)]
        if ipam.subnet is not None:
            self.sets.append(_range_set("ipam.subnet", [ipam]))
        self.sets += [_range_set(f"ipam.ranges[{n}]", entries) for n, entries in enumerate(ipam.ranges)]
        if not self.sets:
            raise invalid("ipam.ranges", None, "is required: no IP ranges specified")
        for number, entry in enumerate(self.sets):
            for other in self.sets[:number]:
                if entry.overlaps(other):
                    raise invalid("ipam.ranges", str(entry), f"overlaps with the range set {other}")
        families = [entry.ranges[0].subnet.version for entry in self.sets]
        if not at_least(call.version, "0.3.0") and len(set(families)) < len(families):
            raise InvalidConfig(f"CNI version {call.version} does not support more than 1 address per family")
        requested = [
            *filter(None, [call.args(EnvironmentArgs).IP]),
            *(keys.args.cni.ips if keys.args and keys.args.cni else ()),
            *(keys.runtimeConfig.ips if keys.runtimeConfig else ()),
        ]
        self.requested = list(dict.fromkeys(requested))
        self.routes = routes_from_config("ipam.routes", ipam.routes)
        if len(call.network) > DIRECTORY_NAME_BYTES:
            raise invalid(
                "name", call.network, f"is longer than {DIRECTORY_NAME_BYTES} bytes: no directory can have it"
            )
        self.resolv_conf = ipam.resolvConf
        self.store = Store(ipam.dataDir, call.network)
        self.lease = Lease(call.container_id, call.ifname)


read = Pool  # for validate, which touches nothing


def _range_set(path: str, entries: list[Any]) -> RangeSet:
    ranges = []
    for number, entry in enumerate(entries):
        try:
            ranges.append(Range(entry.subnet, entry.rangeStart, entry.rangeEnd, entry.gateway))
        except ValueError as error:
            where = path if path.endswith("subnet") else f"{path}[{number}].subnet"
            raise invalid(where, str(entry.subnet), str(error)) from None
    try:
        return RangeSet(ranges)
    except ValueError as error:
        raise invalid(path, [str(entry) for entry in ranges], str(error)) from None


def add(call: Call, undo: Undo) -> Result:
    """Lease one address of each range set. Raises TryAgainLater if a set has none left.

    A lease is free again if the network namespace of its ADD no longer exists and the same attachment comes back. If
    the host link does not exist either, other attachments take the address when they request it, or when the range set
    has no other left.
    """
    from shared.net import liveness

    pool = Pool(call)
    dns: dict[str, Any] = {}
    if pool.resolv_conf:
        from ipam.host_local import resolv

        dns = resolv.read(pool.resolv_conf)
    mark = liveness.mark(call.netns)
    with pool.store as store:
        if store.leased(pool.lease) and store.is_lost(pool.lease):
            # Ignore the host link: the calling plugin may have created it for this attachment a moment ago.
            store.release(pool.lease)
        held = store.leased(pool.lease) or store.leased(pool.lease.bare)
        if held:
            raise InternalError(
                f"{' and '.join(held)} {'has' if len(held) == 1 else 'have'} been allocated to {call.container_id}"
                f" {call.ifname}, duplicate allocation is not allowed"
            )
        for _ in range(RESERVE_TRIES):
            chosen = _choose(store, pool)
            if store.reserve(pool.lease, list(enumerate(address for address, _ in chosen)), mark):
                break
        else:
            raise TryAgainLater(f"the leases in {store.path} change while this call holds their lock")
    undo.push(f"release {', '.join(str(address) for address, _ in chosen)}", lambda: _release(pool))
    result = Result()
    result.ips = [IP(Prefix(address, entry.subnet.length), entry.gateway) for address, entry in chosen]
    result.routes = pool.routes
    result.dns = dns
    return result


def networks(call: Call) -> list[list[Prefix]]:
    """Return the networks of each range set's ranges, as the gateway's address with the prefix length."""
    return [[Prefix(entry.gateway, entry.subnet.length) for entry in one.ranges] for one in Pool(call).sets]


def _choose(store: Store, pool: Pool) -> list[tuple[Address, Range]]:
    """Return a free address of each range set: the requested one, or the next."""
    requested = list(pool.requested)
    chosen = []
    for number, entry in enumerate(pool.sets):
        wanted = next((address for address in requested if entry.range_of(address)), None)
        if wanted is None:
            chosen.append(_next(store, number, entry))
            continue
        requested.remove(wanted)
        chosen.append(_take(store, wanted, entry))
    if requested:
        raise InvalidConfig(f"failed to allocate all requested IPs: {', '.join(map(str, requested))} in no range")
    return chosen


def _take(store: Store, wanted: Address, entry: RangeSet) -> tuple[Address, Range]:
    """Return a requested address and its range. Free the lease of a dead attachment; raise if it is in use."""
    held = entry.range_of(wanted)
    if held is None or wanted == held.gateway:
        raise InvalidConfig(f"requested IP address {wanted} is the gateway of its subnet")
    if store.is_taken(str(wanted)):
        holder = store.read(str(wanted))
        if holder is None or not store.is_dead(holder):
            raise TryAgainLater(f"requested IP address {wanted} is not available in range set {entry}: it is in use")
        store.release(holder)
    return wanted, held


def _next(store: Store, number: int, entry: RangeSet) -> tuple[Address, Range]:
    """Return the next free address, round robin. Try a few addresses first, then read the directory."""
    last = store.last_reserved(number)
    taken: set[int] = set()
    tries = PROBES + len(entry.gateways)
    while (place := entry.next_free(last, taken, tries)) is not None:
        found = entry.at(place)
        if not store.is_taken(str(found[0])):
            return found
        taken.add(place)
    taken |= {where for name in store.names() if (where := entry.place(Address.parse(name))) is not None}
    while (place := entry.next_free(last, taken, len(taken) + len(entry.gateways) + 1)) is not None:
        found = entry.at(place)
        if not store.is_taken(str(found[0])):
            return found
        taken.add(place)
    for where in taken:  # an empty or garbled file may hold the last address
        found = entry.at(where)
        if where not in entry.gateways and not store.is_taken(str(found[0])):
            return found
    if store.reclaim():
        return _next(store, number, entry)
    raise TryAgainLater(f"no IP addresses available in range set: {entry}", _fullness(entry))


def _fullness(entry: RangeSet) -> str:
    return f"all {entry.capacity} addresses are leased: delete pods, or configure a larger range"


def _release(pool: Pool) -> None:
    with pool.store as store:
        store.release(pool.lease)


def check(call: Call) -> None:
    """Raise InternalError if the container has no lease, or not for each prevResult address in these ranges."""
    pool = Pool(call)
    previous = previous_result(call) or Result()
    held: list[str] = []
    if pool.store.exists():
        with Look(pool.store.data_dir, call.network) as look:
            held = look.find(pool.lease)
    if not held:
        raise InternalError(
            f"host-local: container {call.container_id} {call.ifname} has no lease in {pool.store.path}, but ADD made"
            " one: recreate the pod"
        )
    lost = [
        str(ip.address.address)
        for ip in previous.ips
        if ip.interface is None or previous.interfaces[ip.interface].name == call.ifname
        if any(entry.range_of(ip.address.address) for entry in pool.sets) and str(ip.address.address) not in held
    ]
    if lost:
        raise InternalError(
            f"host-local: {', '.join(lost)} of prevResult not leased to container {call.container_id} {call.ifname},"
            f" but {', '.join(held)}: recreate the pod"
        )


def _store(call: Call) -> Store:
    """Return the store for DEL and GC, which free addresses even if the ranges are invalid."""
    ipam = folded(call.config, "ipam")
    data_dir = folded(ipam, "dataDir") if isinstance(ipam, dict) else None
    try:
        path = absolute_path.parse(data_dir) if data_dir else IpamConfig.fields["dataDir"].default
    except ValueError as error:
        raise invalid("ipam.dataDir", data_dir, str(error)) from None
    return Store(path, call.network)


def holders(call: Call, addresses: list[Address]) -> set[str]:
    """Return the ids of the containers that have leases of the addresses, including the reference's leases."""
    store = _store(call)
    if not store.exists():
        return set()
    with Look(store.data_dir, call.network) as look:
        return {lease.container_id for lease in map(look.read, map(str, addresses)) if lease}


def delete(call: Call) -> None:
    """Free the addresses of the container's interface. Do nothing if it has none, even if the store is read-only."""
    store = _store(call)
    if not store.exists():
        return
    lease = Lease(call.container_id, call.ifname)
    try:
        with store:
            store.release_found(lease)
    except Unwritable as failure:
        with Look(store.data_dir, call.network) as look:
            held = look.find(lease)
        if held:
            raise IOFailure(f"cannot release {', '.join(held)} in {store.path}", failure.details) from None


def gc(call: Call) -> None:
    """Free the addresses of attachments that are no longer valid. Keep leases that an administrator wrote."""
    valid = valid_attachments(call)
    containers = {container_id for container_id, _ in valid}
    store = _store(call)
    if not store.exists():
        return
    with store:
        kept = set()
        for name, lease, _ in list(store.survey(store.index.entries())):
            if lease is None:
                store.is_taken(name)  # removes an empty or garbled file
                continue
            alive = (lease.container_id, lease.ifname) in valid if lease.ifname else lease.container_id in containers
            if alive or is_hand_placed(lease):
                kept.add(lease.key)
            else:
                store.release_address(name)
        store.forget_all_but(kept)


def status(call: Call) -> None:
    """Raise PluginNotAvailable if the store is not writable or a range set has no address left."""
    from ipam.host_local.writable import problem

    pool = Pool(call)
    trouble = problem(pool.store.data_dir, call.network)
    if trouble:
        raise PluginNotAvailable("host-local cannot write leases", trouble)
    if not pool.store.exists():
        return
    try:
        with Look(pool.store.data_dir, call.network) as look:
            full = [entry for entry in pool.sets if _is_full(look, entry)]
    except IOFailure as error:
        raise PluginNotAvailable("host-local cannot use its leases", str(error)) from None
    if full:
        raise PluginNotAvailable(f"no IP addresses available in range set: {full[0]}", _fullness(full[0]))


def _is_full(look: Look, entry: RangeSet) -> bool:
    """Return True if an ADD would find no address.

    Read the files only if there are as many as addresses: ADD reclaims garbled files and leases of dead attachments.
    """

    def count(names: Iterable[str]) -> int:
        places = {entry.place(Address.parse(name)) for name in names}
        return len(places - entry.gateways - {None})

    if count(look.names()) < entry.capacity:
        return False
    dead = look.dead_leases()
    found = look.survey(look.index.entries())
    return count(name for name, _, is_left_over in found if not is_left_over and name not in dead) >= entry.capacity
