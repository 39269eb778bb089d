"""cnitool's command line: every command with its arguments and help, the one source of --help, completion and manual.

Nothing here needs more than the standard library; a command's module is imported when the command is run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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

EXPLAIN = """Tell what an ADD of the network would do to a new pod here, in order, without doing it: links, addresses,
routes, sysctls, rules and files, the kernel's refusals, and the result.

The plugins really run, in namespaces that are thrown away, on a copy of this node's links, addresses, forwarding and
leases; the machine's file systems are read-only there, and daemons below /run cannot be reached. This suite's plugins
are listened to, step by step; others are told by what was different after them. Each step says where: host, pod or
files. The container id is `explain`: with another one, names and MACs that derive from it differ.

Exit status: 0; 1 if the ADD (or DEL) would fail: then what was done, what was taken back and the error are told."""


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


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = EXPLAIN
    parser.add_argument("conflist", metavar="CONFLIST", type=Path, help="a network's file, .conflist or .conf")
    parser.add_argument("--json", action="store_true", help="the same as data: calls, steps, result, error")
    parser.add_argument(
        "--bin-dir",
        metavar="DIR",
        action="append",
        help="where the plugins are; may be repeated (default: CNI_PATH, or where cnitool is)",
    )
    parser.add_argument(
        "--ifname",
        default=os.environ.get("CNI_IFNAME", "eth0"),
        help="the interface's name in the pod (default: %(default)s)",
    )
    parser.add_argument("--del", dest="delete", action="store_true", help="and then a DEL")


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
Command(
        "explain",
        "explain",
        "tell what an ADD would do, step by step, without doing it",
        _explain_arguments,
        needs_tools=True,
    ),
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
