"""cnitool's command line: every command with its arguments and help, the one source of --help, completion and manual.

Nothing here needs more than the standard library; a command's module is imported when the command is run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

CONF_DIR = "/etc/cni/net.d"
BIN_DIR = "/opt/cni/bin"
CACHE_DIR = "/var/lib/cni"
TOOLS = ("pyroute2", "netaddr", "rich")  # what `install.sh --with-tools` brings

DESCRIPTION = "Attach network namespaces to CNI networks, and show and explain what the pod networks of a node do."
EPILOG = """environment, as with the Go cnitool:
  NETCONFPATH  the directory with the network configurations (default: /etc/cni/net.d)
  CNI_PATH     the plugins' directories, separated by colons (default: where cnitool is)
  CAP_ARGS     capability arguments, a JSON object
  CNI_ARGS     arguments for the plugins, KEY=VALUE;KEY=VALUE
  CNI_IFNAME   the interface's name in the container (default: eth0)"""


@dataclass(frozen=True)
class Command:
    """A command: the module in shared.cli whose `run(options) -> exit status` serves it, its help, its arguments."""

    name: str
    module: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    needs_tools: bool = False


def _none(_parser: argparse.ArgumentParser) -> None:
    """No arguments."""


COMMANDS: tuple[Command, ...] = ()


def parser() -> argparse.ArgumentParser:
    """The whole command line; a parsed command is in `options.command`, a Command."""
    top = argparse.ArgumentParser(
        "cnitool", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(command=command)
    return top
