"""Sysctls of a pod that a configuration may name: their files, and the administrator's list of allowed names."""

from __future__ import annotations

from shared.cni import config
from shared.cni.errors import InvalidConfig, IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
ALLOWLIST_BYTES = 1 << 20
KEY_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@/")
# A pod can write these, but the kernel has one variable for all network namespaces: the host's changes too.
HOST_WIDE = frozenset({
    "netfilter/nf_hooks_lwtunnel", "netfilter/nf_conntrack_max", "netfilter/nf_conntrack_expect_max",
    "netfilter/nf_conntrack_buckets", "nf_conntrack_max",
})  # fmt: skip


def _parse(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    for key, wanted in value.items():
        if not isinstance(wanted, str):
            raise config.Invalid(f'["{key}"]', wanted, "must be a string")
        if not wanted.isprintable():
            raise config.Invalid(f'["{key}"]', wanted, "must be one line of printable characters")
        path_of(key)
    return value


sysctls = config.Kind(_parse, {"type": "object", "additionalProperties": {"type": "string"}})


def path_of(key: str, ifname: str = "") -> str:
    """Return the file of a sysctl below /proc/sys/net. The key has dots or slashes, as for sysctl(8).

    `ifname` replaces IFNAME. Raise config.Invalid for a sysctl that does not belong to the network namespace.
    """
    dotted = next((character for character in key if character in "./"), ".") == "."
    # between dots, a slash stands for a dot in a name, as in net.ipv4.conf.eth0/100.mtu
    parts = [part.replace("/", ".") for part in key.split(".")] if dotted else key.split("/")
    safe = KEY_CHARACTERS.issuperset(key) and all(part not in ("", ".", "..") for part in parts)
    if not safe or len(parts) < 3 or parts[0] != "net":
        raise config.Invalid(
            f'["{key}"]', None, "is not a sysctl of the network namespace, such as net.ipv4.ip_forward"
        )
    path = "/".join(parts[1:]).replace("IFNAME", ifname or "IFNAME")
    if path in HOST_WIDE:
        raise config.Invalid(f'["{key}"]', None, "is the host's, not the pod's: it would change for every pod")
    return path


def require_allowed(names: Collection[str]) -> None:
    """Raise InvalidConfig for a name that the node's allowlist does not match. Without a list all are allowed."""
    if not names:
        return
    import posix

    try:
        descriptor = posix.open(ALLOWLIST, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IOFailure(f"cannot read {ALLOWLIST}", str(error)) from None
    import re

    lines = posix.read(descriptor, ALLOWLIST_BYTES).decode(errors="replace").splitlines()
    posix.close(descriptor)
    allowed = [line.strip() for line in lines if line.strip()]
    for key in names:
        try:
            if not any(re.fullmatch(pattern, key, re.ASCII) for pattern in allowed):
                raise InvalidConfig(f'invalid configuration: "sysctl": "{key}" is not allowed by {ALLOWLIST}')
        except re.error as error:
            raise IOFailure(f"{ALLOWLIST} has a line that is no regular expression", str(error)) from None
