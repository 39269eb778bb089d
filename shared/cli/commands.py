"""Declare cnitool's command line: the source of --help, completion and manual.

This module needs the standard library only. A command's module is imported when the command is run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cli import cluster_arguments, dhcp_arguments, log_arguments
from shared.cni.ip import Prefix
from shared.executables import PLUGINS

CONF_DIR = "/etc/cni/net.d"
CACHE_DIR = "/var/lib/cni"
LONGEST_SECONDS = 3600  # of a traffic measurement
# Installed by `install.sh --with-tools`; the agent's metrics alone need prometheus_client, too.
TOOLS = ("pyroute2", "netaddr", "rich", "shtab", "argparse_manpage")

PURPOSE = "attach network namespaces to CNI networks, and inspect a node's pod networks"
DESCRIPTION = "Attach network namespaces to CNI networks, and show, check and explain the pod networks of a node."
EPILOG = """environment, as with the Go cnitool:
  NETCONFPATH  the directory with the network configurations (default: /etc/cni/net.d)
  CNI_PATH     the plugins' directories, separated by colons (default: where cnitool is)
  CAP_ARGS     capability arguments, a JSON object
  CNI_ARGS     arguments for the plugins, KEY=VALUE;KEY=VALUE
  CNI_IFNAME   the interface's name in the container (default: eth0)"""

EXPLAIN = """List the steps of an ADD of this network on this node, in order, without changing the node: links,
addresses, routes, sysctls, packet filter rules and files, then the result.

The plugins really run, in namespaces that are deleted afterwards, on a copy of this node's links, addresses, default
routes, forwarding and leases. The machine's file systems are read-only there, and daemons below /run are out of reach.
Each call of this suite's plugins is recorded as it happens. Plugins of others cannot be recorded: their steps are the
differences afterwards. Each step begins with its place: host, pod or files. The container id is `explain`; names and
MACs that derive from the container id differ for a real pod.

Exit status: 0; 1 if the ADD (or DEL) would fail. Then the output shows the steps up to the failure, the rollback and
the error."""


DOCTOR_EPILOG = f"""doctor checks:
  - the configurations, and the plugins that they name
  - the agent, if it is installed, and with "cluster": its alarms, the engine, machines that are gone
  - the kernel's features, sysctls and packet filters
  - links, addresses, MTUs and routes on the host and in its pods
  - host-local's leases, and the runtime's cache in {CACHE_DIR}/results
  - the owners and modes of files that root trusts

It changes nothing and takes no lock. It executes each plugin with CNI_COMMAND=VERSION. If it finds errors or warnings,
it looks again after a second and reports only findings that are still there: a running call is not reported.

Each finding names one object. The line with the arrow has the command that repairs it, or the decision to take:
  error    pods have no working network, or other users than root can change files that root trusts
  warning  something is left over from a deleted pod, or may cause trouble later
  note     good to know

exit status: 0 only notes, 1 warnings, 2 errors (or a wrong command line, or not root)"""


class UsageError(ValueError):
    """An environment variable or argument is invalid; the message names it."""


class Parser(argparse.ArgumentParser):
    """The arguments of a command. If it has `actions`, the first of them is the default."""

    actions: tuple[str, ...] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; insert the default action if none is given."""
        if self.actions and args is not None and not {"-h", "--help", *self.actions}.intersection(args[:1]):
            args = [self.actions[0], *args]
        return super().parse_known_args(args, namespace)


@dataclass(frozen=True)
class Command:
    """A command, its help and its arguments. `run(options)` of its module in shared.cli returns the exit status."""

    name: str
    module: str
    help: str
    arguments: Callable[[Parser], None]
    needs_tools: bool = False
    may_use_tools: bool = False


def _none(_parser: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _cache_dir(parser: argparse.ArgumentParser) -> None:
    text = f"directory of the cached results, in results/ (default: {CACHE_DIR})"
    parser.add_argument("--cache-dir", metavar="DIR", default=CACHE_DIR, help=text)


def _container_id(parser: argparse.ArgumentParser) -> None:
    text = "the container id (default: derived from NETNS, as by the Go cnitool)"
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
    parser.add_argument("netns", metavar="NETNS", nargs="?", help="not used; the Go cnitool requires it")
    _cache_dir(parser)
    _json(parser)


def _gc(parser: argparse.ArgumentParser) -> None:
    _whole_network(parser)
    parser.add_argument("--dry-run", action="store_true", help="show the plan without deleting anything")


def _version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", metavar="PLUGIN", nargs="*", help="plugins to ask for their versions")
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
    parser.add_argument("--json", action="store_true", help="print JSON: calls, steps, result, error")
    parser.add_argument(
        "--bin-dir",
        metavar="DIR",
        action="append",
        help="a plugin directory, may be repeated (default: CNI_PATH, else the directory of cnitool)",
    )
    parser.add_argument(
        "--ifname",
        default=os.environ.get("CNI_IFNAME", "eth0"),
        help="the interface name in the pod (default: %(default)s)",
    )
    parser.add_argument("--del", dest="delete", action="store_true", help="continue with a DEL")


def _epilog(parser: argparse.ArgumentParser, text: str) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = text


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("where", nargs="?", metavar="FILE|DIR", help=f"default: NETCONFPATH, else {CONF_DIR}")
    parser.add_argument(
        "--bin-dir", action="append", default=[], metavar="DIR",
        help="a plugin directory, may be repeated (default: CNI_PATH, else the directory of cnitool)",
    )  # fmt: skip
    _json(parser)
    _epilog(parser, """One line for each finding: FILE: KEY: SEVERITY: REASON. A file is also compared with
the other files of its directory. error: a plugin or runtime rejects this. warning: the key or value has another effect
than it seems to have, or none. note: good to know. Plugins of other suites get the general checks only. Nothing is
executed or changed.

exit status: 0 no findings or only notes, 1 warnings, 2 errors""")  # fmt: skip


def _schema(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plugin", choices=sorted(PLUGINS), metavar="PLUGIN", help=", ".join(sorted(PLUGINS)))


def _prefix(text: str) -> str:
    prefix = Prefix.parse(text)
    if prefix != prefix.network:
        raise argparse.ArgumentTypeError(f"{text!r} has bits set after its prefix; did you mean {prefix.network}?")
    return str(prefix)


def _kubenet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pod_cidr", metavar="POD_CIDR", nargs="+", type=_prefix, help="the node's pod CIDRs")
    parser.add_argument(
        "--non-masquerade-cidr", metavar="CIDR", action="append", type=_prefix,
        help="a destination that is not masqueraded; may be repeated (default: 10.0.0.0/8, as in kubelet)",
    )  # fmt: skip
    parser.add_argument(
        "--hairpin-mode", choices=("hairpin-veth", "promiscuous-bridge", "none"), default="hairpin-veth",
        help="how a pod reaches itself through the bridge (default: %(default)s; kubelet's was promiscuous-bridge)",
    )  # fmt: skip
    parser.add_argument(
        "--mtu", type=log_arguments.positive, metavar="BYTES", help="default: the smallest of the node's links"
    )
    parser.add_argument(
        "--bridge-nf-call-iptables", action="store_true", help="bridged packets traverse iptables; needs br_netfilter"
    )
    _epilog(parser, """Print the network that kubelet's kubenet created: bridge cbr0, an address from each pod CIDR,
host ports, bandwidth limits. Write it to a file in the configuration directory. The node stays NotReady until then:

  cnitool kubenet 10.244.1.0/24 fd00:244:1::/64 >/etc/cni/net.d/10-kubenet.conflist""")  # fmt: skip


def _ipam(parser: Parser) -> None:
    parser.actions = ("show", "release", "gc")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    helps = (
        "show pools with their size, used and free addresses, and leases; the default",
        "release an address, or all addresses of a container, even if its pod exists",
        "show the leases that are certainly dead, and release them",
    )
    show, release, gc = (
        actions.add_parser(name, help=text, description=text) for name, text in zip(parser.actions, helps, strict=True)
    )
    show.add_argument("network", metavar="NETWORK", nargs="?", default="", help="only this network")
    _network(release)
    release.add_argument("what", metavar="ADDRESS|CONTAINER_ID", help="a leased address, or a container id with leases")
    gc.add_argument("--dry-run", action="store_true", help="show the plan without releasing anything")
    for name, action in zip(parser.actions, (show, release, gc), strict=True):
        _json(action)
        _cache_dir(action)
        action.set_defaults(action=name)
    _epilog(
        gc,
        """A lease is certainly dead in three cases: the network namespace in the runtime's cached result and the pod's
link are both gone; the lease is from an earlier boot; its file is empty or garbled. Run this in the host's own
namespaces. Links and rules of dead pods stay: `cnitool gc` lets the plugins delete them.""",
    )
    _epilog(
        parser,
        """Pools come from the configurations in NETCONFPATH. Leases come from host-local's files in
/var/lib/cni/networks and in each configuration's dataDir, including those of the reference plugin. Leases without a
configuration are marked.""",
    )


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DOCTOR_EPILOG
    parser.add_argument("--json", action="store_true", help="print one JSON object: counts, and all findings")
    parser.add_argument(
        "--bin-dir", action="append", metavar="DIR",
        help="a plugin directory, may be repeated (default: CNI_PATH, else the directory of cnitool)",
    )  # fmt: skip
    parser.add_argument(
        "--conf-dir", metavar="DIR", help=f"the configuration directory (default: NETCONFPATH, else {CONF_DIR})"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {LONGEST_SECONDS}")
    return seconds


def _network_or_all(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", nargs="?", default="", help="only this network (default: all)")


def _show(parser: argparse.ArgumentParser) -> None:
    _network_or_all(parser)
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print JSON; unknown values are empty")
    forms.add_argument("--mermaid", action="store_true", help="print a Mermaid flowchart, for wikis and tickets")
    forms.add_argument("--svg", metavar="FILE", default="", help="write a picture to FILE")
    text = "measure traffic for this time and show it per second; 0: totals since each link was created (default: 1)"
    parser.add_argument("--seconds", metavar="SECONDS", type=_seconds, default=1.0, help=text)
    _cache_dir(parser)
    text = "show the cluster instead: pools, nodes with their CIDRs, and the way from this node to each"
    parser.add_argument("--cluster", action="store_true", help=text)
    cluster_arguments.declare_engine(parser.add_argument_group("with --cluster"))


def _heal(parser: argparse.ArgumentParser) -> None:
    _network_or_all(parser)
    parser.add_argument("--dry-run", action="store_true", help="only show the complaints of CHECK, change nothing")
    _cache_dir(parser)
    _json(parser)
    _epilog(parser, """Attachments come from the runtime's cache. Each plugin of this suite creates again what ADD
created and somebody deleted: rules, elements, bridge ports, routes, limits. It touches nothing that is there, and no
pod that is gone. Plugins of others are passed over. The node agent does the same by itself.

exit status: 0 all is in order now, 1 something is not: the lines say what""")  # fmt: skip


def _agent(parser: Parser) -> None:
    parser.actions = ("status", "run")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    helps = (
        "show the running agent: workers, calls, duties; exit status 1 if none runs; the default",
        "run the duties heal, collect and metrics until stdin ends; the agent itself executes this",
    )
    for name, text in zip(parser.actions, helps, strict=True):
        action = actions.add_parser(name, help=text, description=text)
        if name == "status":
            _json(action)
        else:
            _cache_dir(action)
        action.set_defaults(action=name)


def _monitor(parser: argparse.ArgumentParser) -> None:
    _network_or_all(parser)
    _json(parser)
    _cache_dir(parser)


COMMANDS: tuple[Command, ...] = (
    Command("add", "networks", "attach a network namespace to a network and print the result", _attachment),
    Command("check", "networks", "check that an attachment is as ADD created it", _attachment),
    Command("del", "networks", "detach a network namespace from a network; may be repeated", _attachment),
    Command(
        "gc", "networks",
        "delete the remains of attachments that are certainly gone: DEL for those in the cache, GC for all others;"
        " an attachment in doubt counts as alive; do not run it while pods are being attached to the network", _gc,
    ),
    Command("status", "networks", "exit status 0 if the network could attach a namespace now", _whole_network),
    Command("version", "networks", "print the version of cnitool, and the CNI versions that plugins support", _version),
    Command("completion", "manual", "print completion for bash: source <(cnitool completion)", _none, needs_tools=True),
    Command("manual", "manual", "print the manual page: cnitool manual | man -l -", _none, needs_tools=True),
    Command("pod", "pod", "set up, tear down or show a pod as a kubelet does: loopback, default network", _pod),
    Command(
        "explain", "explain.command", "list the steps of an ADD on this node, without changing it", _explain_arguments,
        needs_tools=True,
    ),
    Command("validate", "config.validate", "check network configurations without using them", _validate),
    Command("schema", "config.schema", "print the JSON Schema of a plugin's keys", _schema),
    Command("kubenet", "config.kubenet", "print the network that kubenet created from a node's pod CIDRs", _kubenet),
    Command("ipam", "leases.command", "show and release host-local's leases", _ipam, needs_tools=True),
    Command(
        "doctor", "doctor", "check this node's pod networks, and name a repair for each finding", _doctor_arguments,
        needs_tools=True,
    ),
    Command(
        "show", "view.show",
        "show the node's pod network: uplinks, bridges and their ports, the pod behind each port, addresses, traffic",
        _show, needs_tools=True,
    ),
    Command(
        "monitor", "view.monitor",
        "print changes of the links, addresses and routes of pods and their bridges as they happen, a line each;"
        " stop it with Ctrl-C or SIGTERM", _monitor, needs_tools=True,
    ),
    Command("heal", "agent.heal_command", "repair the networks of running pods after their rules were deleted", _heal),
    Command("agent", "agent.command", "show the node agent, or run its duties", _agent, may_use_tools=True),
    Command(
        "cluster", "cluster.command",
        "show this node's part in the cluster, blocks, nodes and pools; free what a machine that is gone has left",
        cluster_arguments.declare,
    ),
    Command(
        "dhcp", "dhcp.command", "run the daemon that acquires and renews the leases of the dhcp plugin",
        dhcp_arguments.declare,
        needs_tools=True,
    ),
    Command("log", "log", "read the log of the plugins' calls: filter, follow, summarize", log_arguments.declare),
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; it puts the Command into `options.command`."""
    top = Parser(
        "cnitool", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        command.arguments(sub)
        sub.set_defaults(command=command)
    return top
