"""The duty `collect`: delete the remains of attachments that are certainly dead.

containerd never calls GC, and a DEL that was never called leaves an address that nobody can use. The runtime's cache
and this node's kernel alone decide; no API is asked. The duty calls DEL for exactly the dead attachments. GC would
delete everything that is not in a list of the living, and with it an ADD that begins after the list was made.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from shared import steps
from shared.cli.agent.counts import Counts, Sayings, say, unexpected
from shared.cli.agent.repairs import Executables
from shared.cli.leases import living
from shared.cli.leases.living import Census
from shared.cni.errors import CniError
from shared.runtime import attach, conflist, presence
from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.cache import DERIVED, Cached, CacheError, Unreadable
from shared.runtime.client import Client
from shared.runtime.conflist import ConfigError, NetworkConfigList

LOOK_SECONDS = 60.0

Suspect = tuple[str, str, str, int]  # network, container id, ifname, the cache entry's modification time or 0


class CameBack(Exception):
    """A dead attachment lives again: an ADD of the same names has begun."""


class Collect:
    """Look for dead attachments.

    An attachment is dead if two looks found neither its namespace nor its host link, and if it is older than `grace`
    seconds. A network with an unreadable cache entry counts as alive as a whole.
    """

    def __init__(self, client: Client, conf_dir: Path | str, grace: float, counts: Counts) -> None:
        self.client, self.conf_dir, self.grace, self.counts = client, conf_dir, grace, counts
        self.sayings = Sayings()
        self._suspected: dict[Suspect, float] = {}  # since when, on the monotonic clock
        self._tried: set[Suspect] = set()  # of attachments outside the cache: DEL found nothing more to delete

    def run(self) -> None:
        """Look every minute, without end."""
        while True:
            self.look(time.monotonic())
            time.sleep(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Look once, at a moment of the monotonic clock; delete the remains of dead attachments."""
        troubles: list[str] = []
        found: dict[Suspect, float] = {}
        try:
            entries, unreadable = self.client.cache.look()
            for network in self._networks(entries, troubles):
                for reason in _doubts(network.name, unreadable):
                    troubles.append(f"{reason}; network {network.name} counts as alive")
                    break
                else:
                    self._collect_guarded(network, now, found, troubles)
        except (CacheError, CniError, OSError) as error:
            troubles.append(str(error))
        self._suspected = found
        self._tried &= found.keys()
        self.sayings.say([f"collect: {text}" for text in troubles])
        steps.begun.clear()  # a call's record of its steps, which would grow here

    def _networks(self, entries: Iterable[Cached], troubles: list[str]) -> Iterator[NetworkConfigList]:
        """Return the networks in the cache and in the configuration, if plugins of this suite serve them."""
        found = {entry.network: entry.config for entry in entries if entry.config}
        with suppress(ConfigError):
            found |= {network.name: network for network in conflist.load(self.conf_dir, troubles.append)}
        executables = Executables(self.client.bin_dirs)
        for network in found.values():
            is_own = any(executables.own(str(plugin["type"])) for plugin in network.plugins)
            if is_own and not network.disable_gc:
                yield network

    def _collect_guarded(
        self, network: NetworkConfigList, now: float, found: dict[Suspect, float], troubles: list[str]
    ) -> None:
        """Collect in a network. After an unexpected error, as for a damaged note, the others have their turn."""
        try:
            self._collect(network, now, found, troubles)
        except (CacheError, CniError, OSError) as error:
            troubles.append(f"{error}; network {network.name} counts as alive")
        except Exception as error:  # noqa: BLE001  (one network's damage is no reason to leave the others)
            troubles.append(f"unexpected {unexpected(error)}; network {network.name} counts as alive")

    def _collect(
        self, network: NetworkConfigList, now: float, found: dict[Suspect, float], troubles: list[str]
    ) -> None:
        census = living.take_census(network, self.client.cache)
        if census.trouble or census.unreadable:
            return
        for suspect, entry in _suspects(network, census):
            before = self._suspected.get(suspect)
            since = found[suspect] = now if before is None else before
            age = max(now - since, _age(entry))
            if before is None or age < self.grace or suspect in self._tried:
                continue
            try:
                self._delete(network, suspect, entry)
            except CameBack:
                continue
            except (PluginError, CacheError) as error:
                troubles.append(f"{_shown(suspect)}: its remains cannot be deleted: {error}")

    def _delete(self, network: NetworkConfigList, suspect: Suspect, entry: Cached | None) -> None:
        """Call DEL for a dead attachment. Look before each plugin. Raise CameBack, PluginError, CacheError."""
        if entry is not None:
            self.client.delete(
                entry.config or network, entry.attachment, before_each=lambda: _require_dead(entry, suspect)
            )
        else:
            lost = Attachment(suspect[1], "", suspect[2] or living.IFNAME)
            self._require_lost(network, lost)
            self._tried.add(suspect)
            attach.delete(
                network, lost, self.client.bin_dirs, limit=self.client.limit,
                before_each=lambda: self._require_lost(network, lost),
            )  # fmt: skip
        say(f"collect: {_shown(suspect)}: its namespace and its link are gone; its remains are deleted")
        self.counts.collected(network.name)

    def _require_lost(self, network: NetworkConfigList, lost: Attachment) -> None:
        """Raise CameBack if an attachment outside the cache has a link, or an entry by now."""
        if presence.host_link(network.name, lost) or self.client.cache.path(network.name, lost).exists():
            raise CameBack


def _require_dead(entry: Cached, suspect: Suspect) -> None:
    """Raise CameBack if an attachment has a namespace or a link, or another ADD's entry."""
    is_gone = presence.of_namespace(entry.attachment.netns) == presence.GONE
    if not is_gone or presence.host_link(entry.network, entry.attachment, entry.result) or _suspect(entry) != suspect:
        raise CameBack


def _doubts(network: str, unreadable: Iterable[Unreadable]) -> list[str]:
    """Return the reasons why a network's cache is not complete. A digest as a file's name can mean any network."""
    return [one.reason for one in unreadable if one.keys(network) or one.path.name.startswith(DERIVED)]


def _suspects(network: NetworkConfigList, census: Census) -> Iterator[tuple[Suspect, Cached | None]]:
    for entry in census.gone:
        # a path that leads to another namespace is not gone: DEL would enter that one
        if presence.of_namespace(entry.attachment.netns) == presence.GONE:
            yield _suspect(entry), entry
    for container_id, ifname in census.leftovers:
        yield (network.name, container_id, ifname, 0), None


def _suspect(entry: Cached) -> Suspect:
    """Return the identity of an entry; another ADD's entry for the same attachment has another one."""
    try:
        changed = entry.path.stat().st_mtime_ns
    except OSError:
        changed = -1
    return entry.network, *entry.key, changed


def _age(entry: Cached | None) -> float:
    """Return the seconds since ADD, 0 if they are not known."""
    if entry is None:
        return 0
    try:
        return time.time() - entry.path.stat().st_mtime
    except OSError:
        return 0


def _shown(suspect: Suspect) -> str:
    return " ".join(filter(None, suspect[:3]))
