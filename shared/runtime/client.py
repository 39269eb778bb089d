"""A runtime's calls, with the results remembered in libcni's cache: what libcni is to a Go program.

    client = Client(["/opt/cni/bin"])
    network = conflist.named("/etc/cni/net.d", "pods", print)
    result = client.add(network, Attachment("c1", "/run/netns/c1"))
    client.delete(network, Attachment("c1", "/run/netns/c1"))

A Client keeps nothing but its settings, so that any number of threads may use one; calls for one and the same
attachment are the caller's to put in order, as is GC against the ADDs of its network.
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
    """The plugins of some directories and the cache of one.

    `limit` is the seconds that one plugin may take. All calls raise PluginError where a plugin fails.
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
        """ADD, and the result remembered; whatever fails is taken back. Raises CacheError, too.

        Raises AttachmentExists, before any plugin is executed, if the attachment is there already. One whose namespace
        is gone, so that only its entry is left, gets the DEL first that nobody sent, with its own configuration.
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
            except BaseException as error:  # nobody could find the attachment again
                try:
                    attach.delete(network, attachment, self.bin_dirs, result, limit=self.limit)
                except PluginError as another:
                    error.add_note(f"then, cleaning up: {another}")
                raise
            return result

    def expect_new(self, network: NetworkConfigList, attachment: Attachment) -> Cached | None:
        """Raise AttachmentExists if the attachment is there, or its entry cannot be read.

        Returns the entry of one that was made and is certain to be gone. Raises CacheError if the file is another's.
        """
        path = self.cache.path(network.name, attachment)
        try:
            entry = self.cache.load(network.name, attachment)
        except CacheError as error:
            raise AttachmentExists(network.name, attachment, f"it may be there already: {error}") from error
        if entry is None and path.exists():
            raise CacheError(f"{path} is of another attachment, whose names make the same file name")
        if entry is not None:
            reason = presence.evidence(network.name, entry.attachment, entry.result)
            if reason:
                raise AttachmentExists(network.name, attachment, f"{path} remembers it, and {reason}")
        presence.expect_new(network.name, attachment)
        return entry

    def check(self, network: NetworkConfigList, attachment: Attachment) -> bool:
        """CHECK against the remembered result; False where the network has no CHECK.

        Raises CacheError where there is no result to check against.
        """
        if network.disable_check or not network.supports("0.4.0"):
            return False
        entry = self.cache.load(network.name, attachment)
        if entry is None or entry.result is None:
            path = self.cache.path(network.name, attachment)
            raise CacheError(f"no result to check {attachment.container_id} {attachment.ifname} against: no {path}")
        result = cache.converted(entry.result, network.cni_version)
        return attach.check(network, attachment, self.bin_dirs, result, limit=self.limit)

    def delete(self, network: NetworkConfigList, attachment: Attachment) -> None:
        """DEL, with the remembered result if it is there and can be read, and the memory of it last. Can be repeated.

        As in libcni, networks before 0.4.0 get no prevResult.
        """
        attach.delete(network, attachment, self.bin_dirs, self._previous(network, attachment), limit=self.limit)
        self.cache.remove(network.name, attachment)

    def _previous(self, network: NetworkConfigList, attachment: Attachment) -> Result | None:
        if not network.supports("0.4.0"):
            return None
        try:
            entry = self.cache.load(network.name, attachment)
            result = entry.result if entry else None
            return None if result is None else cache.converted(result, network.cni_version)
        except CacheError:  # a DEL does not need it
            return None

    def cached(self, network: str = "") -> list[Cached]:
        """The attachments that are remembered, all or those of a network. Raises CacheError."""
        return self.cache.attachments(network)

    def remembered(self, network: str, attachment: Attachment) -> NetworkConfigList | None:
        """The configuration that the attachment was made with; None if that is not known."""
        try:
            entry = self.cache.load(network, attachment)
        except CacheError:
            return None
        return entry.config if entry else None

    def gc(self, network: NetworkConfigList, valid: Iterable[Attachment | tuple[str, str]]) -> None:
        """DEL of each remembered attachment that is not in `valid`, then GC of every plugin (from 1.1.0 on).

        `valid` has attachments or (container id, ifname). An entry that cannot be read counts as valid, since it may be
        of a living pod. Does nothing where the network has disableGC. What fails does not keep the rest from its turn:
        raises ExceptionGroup with all of it. Raises CacheError if the cache cannot be read at all.
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
        """The two halves of `gc`: DEL of the entries that are `gone`, then GC of every plugin (from 1.1.0 on).

        `valid` is asked in between, as late as can be, and may answer None: then there is no GC.
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
        """Raises the first error where an ADD could not succeed now: plugins are missing, or (from 1.1.0 on) say so."""
        attach.status(network, self.bin_dirs, limit=self.limit)

    def validate(self, network: NetworkConfigList) -> None:
        """Raises PluginError (code 1) for the first plugin that does not speak the network's version."""
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
