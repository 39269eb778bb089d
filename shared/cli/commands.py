"""cnitool's command line: every command with its arguments and help, the one source of --help, completion and manual.

Nothing here needs more than the standard library; a command's module is imported when the command is run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cni.ip import Prefix
from shared.executables import PLUGINS

CONF_DIR = "/etc/cni/net.d"
CACHE_DIR = "/var/lib/cni"
LONGEST = 3600  # seconds that a measurement may take
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


DOCTOR_EPILOG = f"""It looks at the configurations and the plugins that they name, at the kernel's features, sysctls and
packet filters, at links, addresses, MTUs and routes on the host and in its pods, at host-local's
leases, at the runtime's cache in {CACHE_DIR}/results, and at who may write where. It changes nothing
and takes no lock; it executes each plugin with CNI_COMMAND=VERSION. What it finds it looks for again
after a second, so that a call that is running is no finding.

Each finding names one object, and after the arrow the command that repairs it, or what to decide:
  error    pods have no working network, or others than root can change what root trusts
  warning  something is left over from a pod that is gone, or will be a trap
  note     good to know

exit status: 0 nothing but notes, 1 warnings, 2 errors (or a wrong command line, or not root)"""


class UsageError(ValueError):
    """An environment variable or argument cannot be used; the message names it."""


class Parser(argparse.ArgumentParser):
    """A command's arguments; where it has `actions`, the first of them may be left out."""

    actions: tuple[str, ...] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, but for that."""
        if self.actions and args is not None and not {"-h", "--help", *self.actions}.intersection(args[:1]):
            args = [self.actions[0], *args]
        return super().parse_known_args(args, namespace)


@dataclass(frozen=True)
class Command:
    """A command: the module in shared.cli whose `run(options) -> exit status` serves it, its help, its arguments."""

    name: str
    module: str
    help: str
    arguments: Callable[[Parser], None]
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


def _epilog(parser: argparse.ArgumentParser, text: str) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = text


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="FILE|DIR", help=f"default: NETCONFPATH, else {CONF_DIR}")
    parser.add_argument(
        "--bin-dir", action="append", default=[], metavar="DIR",
        help="where the plugins are, may be given several times; default: CNI_PATH, else where cnitool is",
    )  # fmt: skip
    _json(parser)
    _epilog(parser, """One line for each finding: FILE: KEY: SEVERITY: REASON. A file is compared with the others of its
directory, too. An "error" is what a plugin or runtime would refuse, a "warning" what does not do what it seems to, a
"note" is to be known. Plugins that are not of this suite get the general checks only. Nothing is executed or changed.

exit status: 0 nothing or notes only, 1 warnings, 2 errors""")  # fmt: skip


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", choices=sorted(PLUGINS), metavar="PLUGIN", help=", ".join(sorted(PLUGINS)))


def _prefix(text: str) -> str:
    prefix = Prefix.parse(text)
    if prefix != prefix.network:
        raise argparse.ArgumentTypeError(f"{text!r} has bits behind its prefix: {prefix.network} is meant?")
    return str(prefix)


def _kubenet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod_cidr", metavar="POD_CIDR", nargs="+", type=_prefix, help="the node's pod CIDRs")
    parser.add_argument(
        "--non-masquerade-cidr", metavar="CIDR", action="append", type=_prefix,
        help="what goes there keeps the pod's address; may be repeated (default: 10.0.0.0/8, kubelet's own)",
    )  # fmt: skip
    parser.add_argument(
        "--hairpin-mode", choices=("hairpin-veth", "promiscuous-bridge", "none"), default="hairpin-veth",
        help="how a pod reaches itself by way of the bridge (default: %(default)s; kubelet's was promiscuous-bridge)",
    )  # fmt: skip
    parser.add_argument("--mtu", type=_positive, metavar="BYTES", help="default: the smallest of the node's links")
    parser.add_argument(
        "--bridge-nf-call-iptables", action="store_true", help="let iptables see what is bridged; needs br_netfilter"
    )
    _epilog(parser, """The network that kubelet's kubenet made: bridge cbr0, an address of each pod CIDR, host ports,
limits of bandwidth. Write it to a file in the configuration directory; until then the node is not ready:

  cnitool kubenet 10.244.1.0/24 fd00:244:1::/64 >/etc/cni/net.d/10-kubenet.conflist""")  # fmt: skip


def _ipam(parser: Parser) -> None:
    parser.actions = ("show", "release", "gc")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    helps = (
        "pools with their size, used and free addresses, and leases; the default",
        "free an address, or all addresses of a container, whether its pod is there or not",
        "free the leases that are certain to be dead, after showing them",
    )
    show, release, gc = (
        actions.add_parser(name, help=text, description=text) for name, text in zip(parser.actions, helps, strict=True)
    )
    show.add_argument("network", metavar="NETWORK", nargs="?", default="", help="only this network")
    _network(release)
    release.add_argument("what", metavar="ADDRESS|CONTAINER_ID", help="an address that is leased, or who has leases")
    gc.add_argument("--dry-run", action="store_true", help="only show what would be freed")
    for name, action in zip(parser.actions, (show, release, gc), strict=True):
        _json(action)
        _cache_dir(action)
        action.set_defaults(action=name)
    _epilog(
        gc,
        """A lease is certain to be dead where the network namespace that the runtime's cached result names is gone and
so is the pod's link, where it is of an earlier boot, or where its file is empty or garbled. To be run in the host's
own namespaces. Links and rules of dead pods stay: `cnitool gc` has the plugins remove those.""",
    )
    _epilog(
        parser,
        """Pools come from the configurations in NETCONFPATH, leases from host-local's files in /var/lib/cni/networks
and the dataDir of each configuration, whichever suite wrote them. Leases without a configuration are shown as such.""",
    )


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DOCTOR_EPILOG
    parser.add_argument("--json", action="store_true", help="one JSON object: counts, and all findings")
    parser.add_argument(
        "--bin-dir", action="append", metavar="DIR",
        help="a plugin directory, may be repeated (default: those in CNI_PATH, else where cnitool is)",
    )  # fmt: skip
    parser.add_argument(
        "--conf-dir", metavar="DIR", help=f"the configuration directory (default: NETCONFPATH, else {CONF_DIR})"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {LONGEST}")
    return seconds


def _network_or_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", nargs="?", default="", help="only this network (default: all)")


def _show(parser: argparse.ArgumentParser) -> None:
    _network_or_all(parser)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="all of it as JSON; what could not be found out is empty")
    forms.add_argument(
        "--mermaid", action="store_true", help="a flowchart in Mermaid's language, for wikis and tickets"
    )
    forms.add_argument("--svg", metavar="FILE", default="", help="write a picture to FILE")
    text = (
        "how long to measure traffic, which is then shown per second; 0: totals since each link was made (default: 1)"
    )
    parser.add_argument("--seconds", metavar="SECONDS", type=_seconds, default=1.0, help=text)
    _cache_dir(parser)


def _monitor(parser: argparse.ArgumentParser) -> None:
    _network_or_all(parser)
    _json(parser)
    _cache_dir(parser)


def _log_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = """a line: time, verb, plugin, network, container, interface, milliseconds, longest steps, outcome

examples:
  cnitool log --errors --since 2h          what failed in the last two hours
  cnitool log --container 4f2a --slowest 3 the three slowest calls of a pod, by the beginning of its id
  cnitool log --histogram --verb ADD       how long ADDs take, for each plugin
  cnitool log --follow --json | jq .       calls as they come"""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", nargs="?", metavar="FILE", help="the log (default: the one in /etc/cni/pycni.json)")
    chosen = parser.add_argument_group("which calls")
    chosen.add_argument("--network", metavar="NAME", help="of this network")
    chosen.add_argument("--container", metavar="ID", help="of the containers whose id begins like this")
    chosen.add_argument("--ifname", metavar="NAME", help="for the interface of this name")
    chosen.add_argument("--verb", type=str.upper, metavar="VERB", help="ADD, DEL, CHECK, GC, STATUS or VERSION")
    chosen.add_argument("--plugin", metavar="NAME", help="of this plugin")
    chosen.add_argument("--errors", action="store_true", help="that failed")
    chosen.add_argument(
        "--since",
        metavar="WHEN",
        help="since a time (2026-01-31T22:15, or 22:15 today), or an age: 90s, 15m, 2h, 3d",
    )
    shown = parser.add_argument_group("what is shown").add_mutually_exclusive_group()
    shown.add_argument("--slowest", type=_positive, metavar="N", help="only the N slowest, the slowest first")
    shown.add_argument("--histogram", action="store_true", help="how long calls take, for each verb and plugin")
    shown.add_argument("--follow", action="store_true", help="the calls that come; with --since those before, too")
    parser.add_argument("--json", action="store_true", help="the log's own lines, or the histogram as JSON")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


COMMANDS: tuple[Command, ...] = (
    Command("add", "networks", "attach a network namespace to a network, print the result", _attachment),
    Command("check", "networks", "check that an attachment is as it was made", _attachment),
    Command("del", "networks", "detach a network namespace from a network; can be repeated", _attachment),
    Command(
        "gc", "networks",
        "delete what is left of attachments that are certain to be gone: DEL for those in the cache, GC for all others;"
        " what cannot be told counts as alive; not to be run while pods are being attached to the network", _gc,
    ),
    Command("status", "networks", "exit status 0 if the network could attach a namespace now", _whole_network),
    Command("version", "networks", "print the version of cnitool, and those of CNI that plugins speak", _version),
    Command("completion", "manual", "print completion for bash: source <(cnitool completion)", _none, needs_tools=True),
    Command("manual", "manual", "print the manual page: cnitool manual | man -l -", _none, needs_tools=True),
    Command("pod", "pod", "set up, tear down or look at a pod as a kubelet does: loopback, default network", _pod),
    Command(
        "explain", "explain.command", "tell what an ADD would do, step by step, without doing it", _explain_arguments,
        needs_tools=True,
    ),
    Command("validate", "config.validate", "check network configurations without using them", _validate),
    Command("schema", "config.schema", "print the JSON Schema of a plugin's keys", _schema),
    Command("kubenet", "config.kubenet", "print the network that kubenet made of a node's pod CIDRs", _kubenet),
    Command("ipam", "leases.command", "show, release and clear host-local's leases", _ipam, needs_tools=True),
    Command(
        "doctor", "doctor", "check this node's pod networks, and say what to do about each finding", _doctor_arguments,
        needs_tools=True,
    ),
    Command(
        "show", "view.show",
        "show the node's pod network: uplinks, bridges and their ports, the pod behind each port, addresses, traffic;"
        " as a tree, or in one of the other forms", _show, needs_tools=True,
    ),
    Command(
        "monitor", "view.monitor",
        "tell, a line each, what happens to links, addresses and routes of the pods and their bridges, until ended by"
        " Ctrl-C or SIGTERM", _monitor, needs_tools=True,
    ),
    Command("log", "log", "read the log of the plugins' calls: find, follow, sum up", _log_arguments),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The whole command line; a parsed command is in `options.command`, a Command."""
    top = Parser(
        "cnitool", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(command=command)
    return top
