"""The leases on disk: one file for each attachment and family.

`/var/lib/cni/dhcp/leases/KEY.json` is a lease that the daemon keeps; it alone writes there.
`/var/lib/cni/dhcp/released/KEY.json` is a lease to be given back.

A DEL that finds no daemon moves the file, and the daemon gives the lease back when it runs again.
"""

from __future__ import annotations

import posix

from shared.cni import record
from shared.cni.digests import digest
from shared.cni.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/var/lib/cni/dhcp"
LEASES = f"{DIRECTORY}/leases"
RELEASED = f"{DIRECTORY}/released"


def key(network: str, container_id: str, ifname: str) -> str:
    """Return the key of an attachment's lease."""
    return digest(f"{network}/{container_id}/{ifname}".encode())[:32]


def keys(name: str) -> tuple[str, str]:
    """Return the keys of an attachment's leases: that of DHCP, and that of DHCPv6."""
    return name, f"{name}-6"


def path(name: str, directory: str = LEASES) -> str:
    """Return the file of the lease with a key."""
    return f"{directory}/{name}.json"


def give_up(name: str) -> bool:
    """Leave a lease to the daemon, which will give it back. Return False if there is none. Raise IOFailure."""
    try:
        posix.stat(path(name))
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        record.make_directories(RELEASED)
        posix.rename(path(name), path(name, RELEASED))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise IOFailure(f"cannot move {path(name)} to {RELEASED}", str(error)) from None
    return True


def of_network(network: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the key and the content of each kept lease of a network. Raise IOFailure."""
    listed = [(file.rpartition("/")[2][: -len(".json")], found) for file, found in record.listed(LEASES)]
    return [(name, found) for name, found in listed if found.get("network") == network]
