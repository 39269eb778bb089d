"""Run the plugin that the launcher names; the process exits here."""

from __future__ import annotations

import posix
import sys

from shared import handover
from shared.cni import plugin, suite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _hold_standard_descriptors() -> None:
    """Open descriptors 0, 1 and 2 if they are closed, so that no other file takes their place.

    Otherwise the answer could be written to such a file. /dev/null is opened read-only: a read returns nothing, a write
    fails. Without /dev, reads fail, too.
    """
    for descriptor in range(3):
        try:
            posix.fstat(descriptor)
        except OSError:
            try:
                posix.open("/dev/null", posix.O_RDONLY)
            except OSError:
                posix.open("/", posix.O_RDONLY)


def _run_command(tree: str, module: str) -> None:
    """Run the command line if the plugin has commands, such as `dhcp daemon`. A runtime's call has none."""
    command = getattr(__import__(module, fromlist=("command",)), "command", None)
    words = sys.argv[1:]
    if sys.argv[0] == f"{tree}/launcher":  # a program's, with the plugin's name
        words = words[1:]
    if command and words:
        handover.leave(command(tree, words))


def main(tree: str, name: str, plugins: dict[str, str]) -> NoReturn:
    """Run plugin `name` of the installation in `tree`; `plugins` are the modules of its executables.

    Leave with _exit: the interpreter's own clean-up takes 1.3 ms, and nothing is buffered.
    """
    _hold_standard_descriptors()
    suite.plugins = plugins
    suite.tree = tree
    handover.is_executable = True
    if len(sys.argv) > 1 and b"CNI_COMMAND" not in posix.environ:
        _run_command(tree, plugins[name])
    handover.leave(1 if plugin.serve(plugins[name]) else 0)
