"""Run the plugin that a launcher names; the only exit."""

from __future__ import annotations

import posix

from shared.cni import plugin, suite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _hold_standard_descriptors() -> None:
    """Fill a closed descriptor 0, 1 or 2, or the next file opened would take its place and the answer go there.

    With /dev/null read-only: reading finds nothing, writing fails. Without a /dev, reading fails, too.
    """
    for descriptor in range(3):
        try:
            posix.fstat(descriptor)
        except OSError:
            try:
                posix.open("/dev/null", posix.O_RDONLY)
            except OSError:
                posix.open("/", posix.O_RDONLY)


def main(tree: str, name: str, plugins: dict[str, str]) -> NoReturn:
    """Run plugin `name` of the installation in `tree`; `plugins` are the modules of its executables.

    Leave by _exit: the interpreter's own clean-up costs 1.3 ms, and there is nothing buffered.
    """
    _hold_standard_descriptors()
    suite.plugins = plugins
    suite.tree = tree
    posix._exit(plugin.serve(plugins[name]))
