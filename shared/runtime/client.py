"""A runtime's calls, with results in libcni's cache: for Python what libcni is for Go.

    client = Client(["/opt/cni/bin"])
    network = conflist.named("/etc/cni/net.d", "pods", print)
    result = client.add(network, Attachment("c1", "/run/netns/c1"))
    client.delete(network, Attachment("c1", "/run/netns/c1"))

A Client holds only its settings, so that any number of threads can share one. The caller puts calls for one attachment
in order, and GC and ADDs of one network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shared.runtime import attach, cache, presence
from shared.runtime.attach import PluginError, Result
from shared.runtime.attachment import Attachment
from shared.runtime.cache import Cache, Cached, CacheError
from shared.runtime.conflist import NetworkConfigList
from shared.runtime.presence import AttachmentExists


class Client:
    """Plugin directories and a cache directory.

    `limit` is the seconds that one plugin may take. All calls raise PluginError if a plugin fails.
    """

    def __init__(
        self,
        bin_dirs: Sequence[Path | str],
        *,
        cache_dir: Path | str = cache.DIRECTORY,
        limit: float = attach.TIME_LIMIT,
    ) -> None:
        self.bin_dirs, self.limit, self.cache = tuple(bin_dirs), limit, Cache(cache_dir)

    def add(self, network: NetworkConfigList, attachment: Attachment) -> Result:
        """Execute ADD and cache the result; undo everything after a failure. Raise CacheError, too.

        Raise AttachmentExists, before any plugin is executed, if the attachment exists. If its namespace is gone and
        only its entry is left, it first gets the missing DEL, with its own configuration.
        """
        with self.cache.alone(network.name, attachment) as other:
            if other:
                raise AttachmentExists(network.name, attachment, f"another call is attaching it now: {other}")
            stale = self.expect_new(network, attachment)
            if stale is not None:
                self.delete(stale.config or network, stale.attachment)
            result = attach.add(network, attachment, self.bin_dirs, limit=self.limit)
            try:
                self.cache.store(network, attachment, result)
            except BaseException as error:  # without an entry, no DEL would find the attachment
                try:
                    attach.delete(network, attachment, self.bin_dirs, result, limit=self.limit)
                except PluginError as another:
                    error.add_note(f"then, cleaning up: {another}")
                raise
            return result

    def expect_new(self, network: NetworkConfigList, attachment: Attachment) -> Cached | None:
        """Raise AttachmentExists if the attachment exists, or its entry is unreadable.

        Return the entry of an attachment that is certainly gone. Raise CacheError if the file belongs to another
        attachment.
        """
        path = self.cache.path(network.name, attachment)
        try:
            entry = self.cache.load(network.name, attachment)
        except CacheError as error:
            raise AttachmentExists(network.name, attachment, f"it may be there already: {error}") from error
        if entry is None and path.exists():
            raise CacheError(f"{path} belongs to another attachment with names that make the same file name")
        if entry is not None:
            reason = presence.evidence(network.name, entry.attachment, entry.result)
            if reason:
                raise AttachmentExists(network.name, attachment, f"{path} remembers it, and {reason}")
        presence.expect_new(network.name, attachment)
        return entry

    def check(self, network: NetworkConfigList, attachment: Attachment) -> bool:
        """Execute CHECK against the cached result. Return False if the network has no CHECK.

        Raise CacheError if there is no result.
        """
        if network.disable_check or not network.supports("0.4.0"):
            return False
        entry = self.cache.load(network.name, attachment)
        if entry is None or entry.result is None:
            path = self.cache.path(network.name, attachment)
            raise CacheError(f"no result to check {attachment.container_id} {attachment.ifname} against: no {path}")
        result = cache.converted(entry.result, network.cni_version)
        return attach.check(network, attachment, self.bin_dirs, result, limit=self.limit)

    def delete(
        self, network: NetworkConfigList, attachment: Attachment, *, before_each: Callable[[], object] = lambda: None
    ) -> None:
        """Execute DEL with the cached result, if it is readable, then remove the entry. Can be repeated.

        As in libcni, networks before 0.4.0 get no prevResult. `before_each()` is called before each of these steps; its
        exception stops them.
        """
        previous = self._previous(network, attachment)
        attach.delete(network, attachment, self.bin_dirs, previous, limit=self.limit, before_each=before_each)
        before_each()
        self.cache.remove(network.name, attachment)

    def _previous(self, network: NetworkConfigList, attachment: Attachment) -> Result | None:
        if not network.supports("0.4.0"):
            return None
        try:
            entry = self.cache.load(network.name, attachment)
            result = entry.result if entry else None
            return None if result is None else cache.converted(result, network.cni_version)
        except CacheError:  # a DEL works without a result
            return None

    def cached(self, network: str = "") -> list[Cached]:
        """Return the cached attachments, all or those of a network. Raise CacheError."""
        return self.cache.attachments(network)

    def remembered(self, network: str, attachment: Attachment) -> NetworkConfigList | None:
        """Return the configuration of an attachment's ADD, None if it is not known."""
        try:
            entry = self.cache.load(network, attachment)
        except CacheError:
            return None
        return entry.config if entry else None

    def gc(self, network: NetworkConfigList, valid: Iterable[Attachment | tuple[str, str]]) -> None:
        """Execute DEL of each cached attachment that is not in `valid`, then GC of every plugin (since 1.1.0).

        `valid` has attachments or (container id, ifname). An unreadable entry counts as valid, because its pod may be
        alive. Do nothing if the network has disableGC. After a failure the rest still runs: raise ExceptionGroup with
        all errors. Raise CacheError if the cache cannot be read at all.
        """
        if network.disable_gc:
            return
        kept = {(one.container_id, one.ifname) if isinstance(one, Attachment) else one for one in valid}
        entries, unreadable = self.cache.look(network.name)
        kept = kept.union(*(one.keys(network.name) for one in unreadable))
        self.collect(network, [entry for entry in entries if entry.key not in kept], lambda: kept)

    def collect(
        self, network: NetworkConfigList, gone: Iterable[Cached], valid: Callable[[], Iterable[tuple[str, str]] | None]
    ) -> None:
        """Run the two halves of `gc`: DEL of the entries `gone`, then GC of every plugin (since 1.1.0).

        `valid` is called in between, as late as possible. If it returns None, there is no GC.
        """
        errors: list[Exception] = []
        for entry in gone:
            _attempt(errors, lambda entry=entry: self.delete(entry.config or network, entry.attachment))  # type: ignore[misc]
        kept = valid() if network.supports("1.1.0") else None
        if kept is not None:
            for plugin in network.plugins:
                _attempt(errors, lambda plugin=plugin: attach.gc(  # type: ignore[misc]
                    network, plugin, kept, self.bin_dirs, limit=self.limit))  # fmt: skip
        if errors:
            raise ExceptionGroup(f"garbage collection of network {network.name}", errors)

    def status(self, network: NetworkConfigList) -> None:
        """Raise the first error if an ADD could not succeed now; before 1.1.0 only for missing plugins."""
        attach.status(network, self.bin_dirs, limit=self.limit)

    def validate(self, network: NetworkConfigList) -> None:
        """Raise PluginError (code 1) for the first plugin that does not support the network's version."""
        for plugin in network.plugins:
            supported = attach.versions(plugin["type"], self.bin_dirs, limit=self.limit)
            if network.cni_version not in supported:
                raise PluginError(
                    plugin["type"], "VERSION", attach.INCOMPATIBLE_VERSION,
                    f"network {network.name} is of version {network.cni_version}, the plugin speaks"
                    f" {', '.join(supported)}",
                )  # fmt: skip


def _attempt(errors: list[Exception], step: Callable[[], None]) -> None:
    try:
        step()
    except (PluginError, CacheError) as error:
        errors.append(error)
