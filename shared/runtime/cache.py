"""The results of a runtime's ADDs, kept as libcni keeps them, so that both can read what the other wrote.

    <directory>/results/<network>-<container id>-<ifname>    0600, JSON: kind "cniCacheV1", the configuration in base64,
                                                             the call's arguments, the result

Of old the file held the result alone. A name that is too long for a file, which libcni fails with, gives way to "~" and
a digest of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cni.errors import CniError
from shared.cni.versions import SUPPORTED, downgrade, upgrade
from shared.runtime.attach import Attachment, Result
from shared.runtime.conflist import InvalidConfigFile, NetworkConfigList, parse

DIRECTORY = Path("/var/lib/cni")
KIND = "cniCacheV1"
FILE_NAME_BYTES = 255  # NAME_MAX in linux/limits.h
DERIVED = "~"  # begins the names that are digests, and no network's


class CacheError(Exception):
    """The cache cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True)
class Cached:
    """What is known of an attachment that was made: of old, and from files by strangers, not everything."""

    network: str
    attachment: Attachment
    config: NetworkConfigList | None
    result: Result | None
    path: Path


class Cache:
    """The cached results below a directory, /var/lib/cni as a rule; a directory that is not there is empty."""

    def __init__(self, directory: Path | str = DIRECTORY) -> None:
        self.results = Path(directory) / "results"

    def path(self, network: str, attachment: Attachment) -> Path:
        """Where the entry of an attachment is, or would be."""
        name = f"{network}-{attachment.container_id}-{attachment.ifname}"
        if len(name.encode()) > FILE_NAME_BYTES:
            name = DERIVED + hashlib.blake2b(name.encode(), digest_size=24).hexdigest()
        return self.results / name

    def store(self, network: NetworkConfigList, attachment: Attachment, result: Result) -> None:
        """Remembers the result of an ADD; the file appears whole. Raises CacheError."""
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
        try:
            self.results.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".new-", dir=self.results)  # 0600
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    json.dump(entry, file)
                Path(name).rename(path)
            except BaseException:
                Path(name).unlink()
                raise
        except OSError as error:
            raise CacheError(f"cannot write {path}: {error.strerror}") from error

    def load(self, network: str, attachment: Attachment) -> Cached | None:
        """The entry of an attachment, None where there is none; raises CacheError for one that cannot be read."""
        path = self.path(network, attachment)
        raw = _read(path)
        if raw is None:
            return None
        if raw.get("kind") == KIND:
            entry = _entry(raw, path)
            # "a-b" and "c" make the same file name as "a" and "b-c"
            return entry if path == self.path(network, entry.attachment) and entry.network == network else None
        if isinstance(raw.get("cniVersion"), str):
            return Cached(network, attachment, None, raw, path)
        raise CacheError(f"{path} is not a cached result: its kind is {raw.get('kind')!r}")

    def remove(self, network: str, attachment: Attachment) -> None:
        """Forgets an attachment, and what cannot be read in its place; none is no error. Raises CacheError."""
        path = self.path(network, attachment)
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
        """The entries of a network, a container, an interface, or all, by their files' names.

        Files that say too little are passed over. Raises CacheError where the directory cannot be read.
        """
        found = []
        try:
            names = sorted(os.listdir(self.results))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CacheError(f"cannot read {self.results}: {error.strerror}") from error
        for name in names:
            # what the name can tell need not be read: a node has an entry for every pod
            fits = name.startswith(network) and container_id in name and name.endswith(ifname)
            if not fits and not name.startswith(DERIVED):
                continue
            path = self.results / name
            try:
                raw = _read(path)
                entry = _entry(raw, path) if raw is not None and raw.get("kind") == KIND else None
            except CacheError:
                continue
            if entry is None or path != self.path(entry.network, entry.attachment):
                continue
            mine = (entry.network, entry.attachment.container_id, entry.attachment.ifname)
            if all(wanted in ("", have) for wanted, have in zip((network, container_id, ifname), mine, strict=True)):
                found.append(entry)
        return found


def converted(result: Result, version: str) -> Result:
    """A cached result in another version's form, for a network whose cniVersion has changed since.

    Raises CacheError where it cannot be.
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


def _read(path: Path) -> dict[str, Any] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            raw = json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CacheError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CacheError(f"{path} is not a JSON object")
    return raw


def _entry(raw: Mapping[str, Any], path: Path) -> Cached:
    try:
        result, ifname, network = raw.get("result"), raw["ifName"], raw["networkName"]
        attachment = Attachment(
            container_id=raw["containerId"],
            netns=raw.get("netns") or _sandbox(result, ifname),
            ifname=ifname,
            cni_args={str(key): str(value) for key, value in raw.get("cniArgs") or ()},
            capability_args=dict(raw.get("capabilityArgs") or {}),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise CacheError(f"{path} is not a cached result: {error!r}") from error
    if not isinstance(network, str) or not isinstance(result, dict | None):
        raise CacheError(f"{path} is not a cached result: networkName or result is of the wrong type")
    return Cached(network, attachment, _config(raw.get("config")), result, path)


def _sandbox(result: Any, ifname: str) -> str:
    """The path of the network namespace that a result names; libcni before 1.2 wrote it nowhere else."""
    interfaces = (result or {}).get("interfaces") or ()
    return next((str(one["sandbox"]) for one in interfaces if one.get("name") == ifname and one.get("sandbox")), "")


def _config(text: object) -> NetworkConfigList | None:
    """The configuration, a list or of old a single plugin's; None for what is neither."""
    try:
        raw = json.loads(base64.b64decode(str(text), validate=True))
        single = isinstance(raw, dict) and "plugins" not in raw
        return parse({**raw, "plugins": [raw]} if single else raw)
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error, InvalidConfigFile):
        return None
