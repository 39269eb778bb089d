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
TOOLS = ("pyroute2", "netaddr", "rich", "shtab", "argparse_manpage")  # what `install.sh --with-tools` brings

PURPOSE = "attach network namespaces to CNI networks, and look at a node's pod networks"
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


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _cache_dir(parser: argparse.ArgumentParser) -> None:
    text = f"where the runtime's results are remembered, in results/ (default: {CACHE_DIR})"
    parser.add_argument("--cache-dir", metavar="DIR", default=CACHE_DIR, help=text)


def _container_id(parser: argparse.ArgumentParser) -> None:
    text = "the container's id (default: derived from NETNS, as the Go cnitool does)"
    parser.add_argument("--container-id", metavar="ID", default="", help=text)


def _network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="the network's name in one of the files of NETCONFPATH")


def _attachment(parser: argparse.ArgumentParser) -> None:
    _network(parser)
    parser.add_argument("netns", metavar="NETNS", help="path of the network namespace, such as /run/netns/NAME")
    _container_id(parser)
    _cache_dir(parser)
    _json(parser)


def _whole_network(parser: argparse.ArgumentParser) -> None:
    _network(parser)
    parser.add_argument("netns", metavar="NETNS", nargs="?", help="not used; the Go cnitool wants one")
    _cache_dir(parser)
    _json(parser)


def _gc(parser: argparse.ArgumentParser) -> None:
    _whole_network(parser)
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", metavar="PLUGIN", nargs="*", help="plugins that are asked for their versions")
    _json(parser)


def _pod(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("up", "down", "status"), help="set up, tear down, or show its addresses")
    parser.add_argument("netns", metavar="NETNS", help="path of the pod's network namespace")
    parser.add_argument("--name", metavar="NAME", default="", help="the pod's name (default: the last part of NETNS)")
    parser.add_argument("--namespace", metavar="NAME", default="default", help="the pod's namespace (default: default)")
    _container_id(parser)
    _cache_dir(parser)
    _json(parser)


COMMANDS: tuple[Command, ...] = (
    Command("add", "networks", "attach a network namespace to a network, print the result", _attachment),
    Command("check", "networks", "check that an attachment is as it was made", _attachment),
    Command("del", "networks", "detach a network namespace from a network; can be repeated", _attachment),
    Command(
        "gc", "networks",
        "remove what is left of attachments whose namespace is gone, and have the plugins remove all that is of no"
        " remembered attachment; not to be run while pods are being attached to the network", _gc,
    ),
    Command("status", "networks", "exit status 0 if the network could attach a namespace now", _whole_network),
    Command("version", "networks", "print the version of cnitool, and those of CNI that plugins speak", _version),
    Command("completion", "manual", "print completion for bash: source <(cnitool completion)", _none, needs_tools=True),
    Command("manual", "manual", "print the manual page: cnitool manual | man -l -", _none, needs_tools=True),
    Command("pod", "pod", "set up, tear down or look at a pod as a kubelet does: loopback, default network", _pod),
)  # fmt: skip


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
