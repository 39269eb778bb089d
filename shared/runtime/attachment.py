"""An attachment, which is one interface of one container, and the environment of calls for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cni.names import is_link_name, is_name


@dataclass(frozen=True)
class Attachment:
    """One interface of one container; `netns` is a path, empty if the namespace is gone."""

    container_id: str
    netns: str
    ifname: str = "eth0"
    cni_args: Mapping[str, str] = field(default_factory=dict)
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError if a name could lead a plugin, or the cache, to another attachment's files."""
        if not is_name(self.container_id):
            raise ValueError(f"container id {self.container_id!r} is not a name")
        if not is_link_name(self.ifname):
            raise ValueError(f"ifname {self.ifname!r} is not the name of an interface")
        for key, value in self.cni_args.items():
            if ";" in key + value or "=" in key:
                raise ValueError(f"CNI argument {key}={value} contains a separator")

    def environment(self, verb: str, bin_dirs: Sequence[Path | str]) -> dict[str, str]:
        """Return the CNI_* variables of a call."""
        return {
            **environment_of(verb, bin_dirs),
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.cni_args.items()),
        }


def environment_of(verb: str, bin_dirs: Sequence[Path | str]) -> dict[str, str]:
    """Return the CNI_* variables that a call has without an attachment."""
    return {"CNI_COMMAND": verb, "CNI_PATH": os.pathsep.join(map(str, bin_dirs))}
