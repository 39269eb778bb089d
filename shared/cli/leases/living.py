"""Tell a network's living attachments from those that are certainly gone, independently of the cache.

Read the cache first and the kernel afterwards: an ADD creates the host link before the cache entry, so an ADD that ends
in between is seen in one of them. An attachment in doubt counts as alive.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.cli.leases import traces
from shared.cli.leases.inhabited import Namespaces, Place, identity
from shared.cli.leases.traces import Key, Traces
from shared.cni.ip import Address
from shared.net.links import leads_to_pod
from shared.net.netlink import Netlink
from shared.net.owner import Owner, is_host_link, is_network, parse_alias
from shared.net.wire import RTM_GETLINK
from shared.nft import labels as nft_labels
from shared.runtime import presence
from shared.runtime.cache import Cache, Cached, CacheError, Unreadable
from shared.runtime.conflist import NetworkConfigList

if TYPE_CHECKING:
    from shared.net.netlink import Message

LINK_FIRST = ("bridge",)  # plugins that create the host link before they ask for an address
ADD_SECONDS = 300  # a younger lease may belong to a running ADD of another plugin
IFNAME = "eth0"  # the interface name for a container's lease that has none


@dataclass(frozen=True)
class Living:
    """An attachment that counts as alive, and the reason; `netns` is empty if it is not known."""

    container_id: str
    ifname: str
    netns: str
    reason: str


@dataclass
class Census:
    """The attachments of a network.

    `gone` are in the cache. `leftovers` are not in the cache, but have left something on the node. `strangers` are
    links and rules in use by an unknown attachment. `trouble` is the reason if the cache could not be read.
    """

    living: dict[Key, Living] = field(default_factory=dict)
    gone: list[Cached] = field(default_factory=list)
    leftovers: list[Key] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    trouble: str = ""


def take_census(network: NetworkConfigList, cache: Cache) -> Census:
    """Look at cache, links, leases, rules and namespaces. Change nothing."""
    census = Census()
    everyone, unreadable = _read_cache(cache, census)
    with closing(Netlink()) as host:
        links = host.dump(RTM_GETLINK)
        leading = [link for link in links if leads_to_pod(host, link)]
    namespaces = Namespaces(entry.attachment.netns for entry in everyone)
    taken = {(held, entry.attachment.ifname) for entry in everyone if (held := identity(entry.attachment.netns))}

    entries = [entry for entry in everyone if entry.network == network.name]
    for entry in entries:
        reason = presence.evidence(network.name, entry.attachment, entry.result)
        reason = reason or namespaces.home(entry.key[1], _addresses(entry), taken, guess=False)
        if reason:
            census.living[entry.key] = Living(*entry.key, entry.attachment.netns, reason)
        else:
            census.gone.append(entry)
    for one in unreadable:
        for key in sorted(one.keys(network.name)):
            census.living.setdefault(key, Living(*key, "", f"{one.path} cannot be read"))
    census.unreadable = [one for one in unreadable if one.keys(network.name)]

    found = traces.find(network, links)
    known = {*census.living, *(entry.key for entry in census.gone)}
    ports = {owner[1:]: link["IFLA_IFNAME"] for link in leading
             if (owner := parse_alias(link.get("IFLA_IFALIAS", ""))) and owner[0] == network.name}  # fmt: skip
    for key in sorted(found.addresses.keys() - known):
        if not key[1] and any(key[0] == container_id for container_id, _ in (*known, *ports)):
            continue  # The container's other interfaces decide.
        reason = _find_reason(network, key, found, ports.get(key, ""), namespaces, taken)
        if reason:
            census.living[key[0], key[1] or IFNAME] = Living(key[0], key[1] or IFNAME, "", reason)
        else:
            census.leftovers.append(key)
    census.strangers = _find_strangers(network.name, {*known, *found.addresses}, leading, found.labels)
    return census


def _read_cache(cache: Cache, census: Census) -> tuple[list[Cached], list[Unreadable]]:
    try:
        return cache.look()
    except CacheError as error:
        census.trouble = str(error)
        return [], []


def _addresses(entry: Cached) -> set[Address]:
    """Return the addresses of a result of any version."""
    listed = (entry.result or {}).get("ips")
    texts = [one.get("address") for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]
    texts += [one.get("ip") for key in ("ip4", "ip6") if isinstance(one := (entry.result or {}).get(key), dict)]
    return set(traces.parsed(str(text).partition("/")[0] for text in texts))


def _find_reason(
    network: NetworkConfigList, key: Key, found: Traces, port: str, namespaces: Namespaces, taken: set[Place]
) -> str:
    """Return the reason why an attachment outside the cache counts as alive; empty if it is certainly gone."""
    if port:
        return f"its host link {port} leads to a pod"
    if found.leased.get(key, ADD_SECONDS) < ADD_SECONDS and network.plugins[0]["type"] not in LINK_FIRST:
        return f"its lease is younger than {ADD_SECONDS} s"
    return namespaces.home(key[1], found.addresses[key], taken, guess=True)


def _find_strangers(network: str, known: set[Key], leading: list[Message], labels: set[str]) -> list[str]:
    """Return host links, and labels of rules, that belong to none of the known attachments and name no owner."""
    owners = [Owner(network, *key) for key in known]
    names = {owner.host_link for owner in owners}
    unnamed = [link for link in leading if not parse_alias(link.get("IFLA_IFALIAS", ""))]
    ports = [link["IFLA_IFNAME"] for link in unnamed if is_network(link.get("IFLA_IFALIAS", ""), network) is not False]
    return sorted(
        [f"host link {name}" for name in ports if is_host_link(name, network) and name not in names]
        + [f"rules of {name}" for name in labels - {nft_labels.of(owner) for owner in owners}]
    )
