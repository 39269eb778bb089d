"""The cache of ADD results, in libcni's format, so that either can read the other's files.

    <directory>/results/<network>-<container id>-<ifname>    0600, JSON: kind "cniCacheV1", the configuration in base64,
                                                             the call's arguments, the result

Early versions of libcni wrote the result alone. If a file name would be too long, it is "~" and a digest of the name;
libcni fails instead.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cni import blake2, lock_holders
from shared.cni.errors import CniError
from shared.cni.names import is_link_name, is_name
from shared.cni.versions import SUPPORTED, downgrade, upgrade
from shared.runtime.attach import Result
from shared.runtime.attachment import Attachment
from shared.runtime.conflist import InvalidConfigFile, NetworkConfigList, parse

DIRECTORY = Path("/var/lib/cni")
KIND = "cniCacheV1"
FILE_NAME_BYTES = 255  # NAME_MAX in linux/limits.h
DERIVED = "~"  # the first character of names that are digests; no network's name begins with it
DIGEST_BYTES = 24


class CacheError(Exception):
    """The cache cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True)
class Cached:
    """An attachment's entry. Old files, and those of other programs, lack some of it."""

    network: str
    attachment: Attachment
    config: NetworkConfigList | None
    result: Result | None
    path: Path
    modified: int = field(default=0, compare=False)  # in nanoseconds, as before the content was read

    @property
    def key(self) -> tuple[str, str]:
        """The (container id, ifname) by which plugins identify the attachment."""
        return self.attachment.container_id, self.attachment.ifname


@dataclass(frozen=True)
class Unreadable:
    """An unreadable entry: only its file's name shows the attachment."""

    path: Path
    reason: str

    def keys(self, network: str) -> set[tuple[str, str]]:
        """Return every (container id, ifname) of the network that the file's name can mean.

        Each "-" can be the place that separates the two.
        """
        if not self.path.name.startswith(f"{network}-"):
            return set()
        words = self.path.name[len(network) + 1 :].split("-")
        splits = [("-".join(words[:place]), "-".join(words[place:])) for place in range(1, len(words))]
        return {split for split in splits if is_name(split[0]) and is_link_name(split[1])}


class Cache:
    """The cached results below a directory, by default /var/lib/cni; a missing directory is empty."""

    def __init__(self, directory: Path | str = DIRECTORY) -> None:
        self.results = Path(directory) / "results"
        self.attaching = Path(directory) / "attaching"

    def path(self, network: str, attachment: Attachment) -> Path:
        """Return the path of an attachment's entry, whether it exists or not."""
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        if len(name.encode()) > FILE_NAME_BYTES:
            name = DERIVED + blake2.hexdigest(name.encode(), DIGEST_BYTES)
        return self.results / name

    def store(self, network: NetworkConfigList, attachment: Attachment, result: Result) -> None:
        """Write an ADD's result; the file is written whole. Raise CacheError."""
        entry = {
            "kind": KIND,
            "containerId": attachment.container_id,
            "config": base64.b64encode(json.dumps(network.to_json()).encode()).decode(),
            "ifName": attachment.ifname,
            "networkName": network.name,
            "netns": attachment.netns,
            "cniArgs": [[key, value] for key, value in attachment.cni_args.items()],
            "capabilityArgs": dict(attachment.capability_args),
            "result": result,
        }
        path = self.path(network.name, attachment)
        unfinished = self._unfinished(network.name, attachment)
        try:
            self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(entry, file)
                unfinished.rename(path)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise CacheError(f"cannot write {path}: {error.strerror}") from error

    def load(self, network: str, attachment: Attachment) -> Cached | None:
        """Return an attachment's entry, None if there is none. Raise CacheError if it is unreadable."""
        path = self.path(network, attachment)
        raw, modified = _read(path)
        if raw is None:
            return None
        if raw.get("kind") == KIND:
            entry = _entry(raw, path, modified)
            # "a-b" and "c" make the same file name as "a" and "b-c"
            return entry if path == self.path(network, entry.attachment) and entry.network == network else None
        if isinstance(raw.get("cniVersion"), str):
            return Cached(network, attachment, None, raw, path, modified)
        raise CacheError(f"{path} is not a cached result: its kind is {raw.get('kind')!r}")

    def remove(self, network: str, attachment: Attachment) -> None:
        """Remove an attachment's entry, even an unreadable one, and files of a killed ADD. Raise CacheError."""
        path = self.path(network, attachment)
        with suppress(OSError):
            self._unfinished(network, attachment).unlink()
        if self._place(network, attachment).exists():
            with suppress(CacheError), self.alone(network, attachment):
                pass
        try:
            if self.load(network, attachment) is None:
                return
        except CacheError:
            pass
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise CacheError(f"cannot remove {path}: {error.strerror}") from error

    def attachments(self, network: str = "", container_id: str = "", ifname: str = "") -> list[Cached]:
        """Return the entries of a network, a container, an interface, or all. Raise CacheError.

        Skip unreadable files. Only an unreadable directory raises the error.
        """
        return self.look(network, container_id, ifname)[0]

    def look(
        self, network: str = "", container_id: str = "", ifname: str = ""
    ) -> tuple[list[Cached], list[Unreadable]]:
        """Return the same entries, and the unreadable ones that may belong to them. Raise CacheError."""
        found, unreadable = [], []
        try:
            names = sorted(os.listdir(self.results))
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise CacheError(f"cannot read {self.results}: {error.strerror}") from error
        for name in names:
            # skip by name without reading: a node has an entry for every pod
            fits = name.startswith(network) and container_id in name and name.endswith(ifname)
            if name.startswith(".") or not (fits or name.startswith(DERIVED)):
                continue
            path = self.results / name
            try:
                entry = self._listed(path)
            except CacheError as error:
                unreadable.append(Unreadable(path, str(error)))
                continue
            if entry is None:
                continue
            mine = (entry.network, *entry.key)
            if all(wanted in ("", have) for wanted, have in zip((network, container_id, ifname), mine, strict=True)):
                found.append(entry)
        return found, unreadable

    def _listed(self, path: Path) -> Cached | None:
        """Return the entry in a file, None if it is gone. Raise CacheError if it does not name its owner."""
        raw, modified = _read(path)
        if raw is None:
            return None
        if raw.get("kind") != KIND:
            is_bare = isinstance(raw.get("cniVersion"), str) and "kind" not in raw
            kind = (
                "a bare result, as early versions of libcni wrote it"
                if is_bare
                else f"of kind {raw.get('kind')!r}, not {KIND!r}"
            )
            raise CacheError(f"{path} does not name its attachment: it is {kind}")
        entry = _entry(raw, path, modified)
        if path != self.path(entry.network, entry.attachment):
            raise CacheError(
                f"{path} names attachment {entry.network} {' '.join(entry.key)}, but its file name another"
            )
        return entry

    def _place(self, network: str, attachment: Attachment) -> Path:
        return self.attaching / _digest(network, attachment)

    def _unfinished(self, network: str, attachment: Attachment) -> Path:
        return self.results / f".new-{_digest(network, attachment)}"

    @contextmanager
    def alone(self, network: str, attachment: Attachment) -> Iterator[str]:
        """Reserve the attachment for this call; yield the call that holds it already, or "".

        Raise CacheError. The reservation is a lock on a directory, which a killed call leaves unlocked.
        """
        place = self._place(network, attachment)
        try:
            self.attaching.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(_private_directory(self.attaching))
            place.mkdir(mode=0o700, exist_ok=True)
            descriptor = _private_directory(place)
        except OSError as error:
            raise CacheError(f"cannot make {place}: {error.strerror}") from error
        is_mine = _lock(descriptor, place)
        try:
            yield "" if is_mine else lock_holders.describe(descriptor)
        finally:
            if is_mine:
                with suppress(OSError):
                    place.rmdir()
            os.close(descriptor)


def _digest(network: str, attachment: Attachment) -> str:
    """Return a name of fixed length for an attachment's own files."""
    return hashlib.sha256(f"{network}/{attachment.container_id}/{attachment.ifname}".encode()).hexdigest()


def _private_directory(path: Path) -> int:
    """Open a directory that only this user can open. Raise OSError, CacheError.

    A directory that is open for reading can be locked.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    held = os.fstat(descriptor)
    if held.st_uid != os.geteuid():
        os.close(descriptor)
        raise CacheError(f"{path} belongs to user {held.st_uid}, not to this command's: remove it")
    if held.st_mode & 0o077:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _lock(descriptor: int, place: Path) -> bool:
    """Lock an open directory. Return False if it is locked already, or was replaced at its path."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), place.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def converted(result: Result, version: str) -> Result:
    """Convert a cached result to another version, for a network with a changed cniVersion.

    Raise CacheError if that version cannot express it.
    """
    own = str(result.get("cniVersion") or version)
    if own == version:
        return result
    if own not in SUPPORTED or version not in SUPPORTED:
        raise CacheError(f"a cached result of version {own} cannot be converted to {version}")
    try:
        return downgrade(upgrade(result, own), version) if version != SUPPORTED[-1] else upgrade(result, own)
    except (CniError, ValueError, KeyError, TypeError) as error:
        raise CacheError(f"a cached result of version {own} cannot be converted to {version}: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any] | None, int]:
    """Return a file's JSON and time of modification; None and 0 if there is no file. Raise CacheError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            held = os.fstat(descriptor)
            if not stat.S_ISREG(held.st_mode):
                raise CacheError(f"{path} is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                raw = json.loads(file.read())
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CacheError(f"{path} is not a JSON object")
    return raw, held.st_mtime_ns


def _entry(raw: Mapping[str, Any], path: Path, modified: int) -> Cached:
    try:
        result, ifname, network = raw.get("result"), raw["ifName"], raw["networkName"]
        attachment = Attachment(
            container_id=raw["containerId"],
            netns=_text(raw.get("netns")) or _sandbox(result, ifname),
            ifname=ifname,
            cni_args={str(key): str(value) for key, value in raw.get("cniArgs") or ()},
            capability_args=dict(raw.get("capabilityArgs") or {}),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CacheError(f"{path} is not a cached result: {error!r}") from error
    if not isinstance(network, str) or not isinstance(result, dict | None):
        raise CacheError(f"{path} is not a cached result: networkName or result is of the wrong type")
    config = _config(raw.get("config"))
    own = config if config and config.name == network else None
    return Cached(network, attachment, own, result, path, modified)


def _text(value: object) -> str:
    """Return an optional text, empty for None. Raise TypeError for anything else."""
    if not isinstance(value, str | None):
        raise TypeError(f"{value!r} is not a text")
    return value or ""


def _sandbox(result: Any, ifname: str) -> str:
    """Return the network namespace's path in a result; libcni before 1.2 stored it only there."""
    interfaces = (result or {}).get("interfaces") or ()
    return next((str(one["sandbox"]) for one in interfaces if one.get("name") == ifname and one.get("sandbox")), "")


def _config(text: object) -> NetworkConfigList | None:
    """Return the configuration, a list or an old single plugin's; None if it is neither."""
    try:
        raw = json.loads(base64.b64decode(str(text), validate=True))
        single = isinstance(raw, dict) and "plugins" not in raw
        return parse({**raw, "plugins": [raw]} if single else raw)
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error, InvalidConfigFile):
        return None
