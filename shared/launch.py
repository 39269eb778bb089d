"""From the name of the executable to its module; the only exit."""

from __future__ import annotations

import posix
import sys

from shared.cni import plugin, suite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PLUGINS = {
    "bandwidth": "plugins.bandwidth",
    "bridge": "plugins.bridge",
    "firewall": "plugins.firewall",
    "host-local": "ipam.host_local",
    "loopback": "plugins.loopback",
    "portmap": "plugins.portmap",
    "tuning": "plugins.tuning",
}


def _hold_standard_descriptors() -> None:
    """Fills a closed descriptor 0, 1 or 2, or the next file opened would take its place and the answer go there.

    With /dev/null read-only: reading finds nothing, writing fails.
    """
    for descriptor in range(3):
        try:
            posix.fstat(descriptor)
        except OSError:
            posix.open("/dev/null", posix.O_RDONLY)


def main(tree: str) -> NoReturn:
    """Runs the plugin that the launcher in `tree`'s installation is named after.

    Leaves by _exit: the interpreter's own clean-up costs 1.3 ms, and there is nothing buffered.
    """
    _hold_standard_descriptors()
    name = sys.argv[0].rpartition("/")[2]
    if name not in PLUGINS:
        posix.write(2, f"pycni: there is no plugin {name!r}; there are {', '.join(PLUGINS)}\n".encode(errors="replace"))
        posix._exit(1)
    suite.plugins = PLUGINS
    suite.tree = tree
    posix._exit(plugin.serve(PLUGINS[name]))
