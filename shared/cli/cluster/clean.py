"""cnitool cluster clean: delete from a node all that its agent has made for the cluster."""

from __future__ import annotations

import shutil

from shared.cli.agent.status import NoAgent, ask
from shared.cli.cluster import state
from shared.cli.networks import Options, print_json
from shared.cli.terminal import counted, say
from shared.cluster import report, routes
from shared.cluster.checkpoint import DIRECTORY
from shared.cluster.tunnel import End
from shared.net import links
from shared.net.netlink import Netlink
from shared.net.wire import RTM_GETLINK

PREFIX = "pycni."  # of the agent's devices
KINDS = ("vxlan", "wireguard")


class AgentRuns(ValueError):
    """The agent would make everything again."""


def clean(options: Options) -> None:
    """Delete routes, devices and the report; with --forget the machine's id, too."""
    _demand_no_duty()
    number = len(routes.read(()))
    routes.apply((), End("", ()))
    devices = _delete_devices()
    report.PATH.unlink(missing_ok=True)
    is_forgotten = options.forget and DIRECTORY.is_dir()
    if is_forgotten:
        shutil.rmtree(DIRECTORY)
    if options.json:
        print_json({"routes": number, "devices": devices, "isForgotten": is_forgotten})
        return
    say(f"deleted {counted(number, 'route')} of the cluster{''.join(f', {name}' for name in devices)}")
    if is_forgotten:
        say(f"deleted {DIRECTORY}: this machine is a new node if its agent begins again")
    elif DIRECTORY.is_dir():
        say(f"{DIRECTORY} stays: its blocks belong to this machine until `cnitool cluster release` frees them")


def _demand_no_duty() -> None:
    """Raise AgentRuns if an agent with the duty runs."""
    try:
        ask()
    except NoAgent:
        return
    if state.is_wanted():
        raise AgentRuns("the agent runs, and would set the routes again: stop it first, `systemctl stop pycni-agent`")


def _delete_devices() -> list[str]:
    """Delete the agent's links. Return their names."""
    host = Netlink()
    try:
        found = {
            link["IFLA_IFNAME"]: link["index"]
            for link in host.dump(RTM_GETLINK)
            if link["IFLA_IFNAME"].startswith(PREFIX) and links.kind(link) in KINDS
        }
        for index in found.values():
            links.delete_index(host, index)
    finally:
        host.close()
    return sorted(found)
