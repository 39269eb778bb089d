"""Raise the kernel's limits of neighbour entries for the number of peers. All network namespaces share them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shared.cluster.model import Route

SYSCTLS = Path("/proc/sys/net")  # the limits are there in the machine's own network namespace alone
FACTORS = {"gc_thresh3": 2.0, "gc_thresh2": 1.5, "gc_thresh1": 1.0}  # of peers; entries above the first live 5 seconds


def raise_for(wanted: Iterable[Route], sysctls: Path = SYSCTLS) -> bool:
    """Raise the limits of each family that are too low for these routes. Return True if one was raised.

    The largest comes first: the kernel ignores a lower limit above it.
    """
    is_raised = False
    peers = {route.via for route in wanted}
    for version in (4, 6):
        number = sum(one.version == version for one in peers)
        for name, factor in FACTORS.items():
            path = sysctls / f"ipv{version}/neigh/default/{name}"
            with suppress(OSError, ValueError):
                if int(path.read_text()) < number * factor:
                    path.write_text(f"{int(number * factor)}\n")
                    is_raised = True
    return is_raised
