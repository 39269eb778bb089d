"""The plugins that the fault tests strike: each sample after the plugins that it needs, variants, and the sample chain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.net.owner import Owner
from tests import dhcp_lan
from tests.faults.state import state
from tests.faults.stepper import REPORT, Strike
from tests.plugins import BRIDGE, PORTS, SAMPLES, Keys
from tests.pretend import Answer, PretendHost

NETWORK = "net"
DHCP_SOCKET = "/run/dhcp.sock"
ALWAYS_THE_SAME: Keys = {"args": {"cni": {"ips": ["10.7.0.100", "fd00:7::100"]}}}
BANDWIDTH, FIREWALL, PORTMAP, TUNING = (SAMPLES[name].keys for name in ("bandwidth", "firewall", "portmap", "tuning"))


@dataclass(frozen=True)
class Chain:
    """The struck plugins, in the order of ADD, the plugins before them, and the host's links."""

    plugins: tuple[Keys, ...]
    before: tuple[Keys, ...] = ()
    links: str = ":"
    needs: str = ""  # as in a sample
    is_served: bool = False  # the same


def iptables(keys: Keys) -> Keys:
    """Return the same keys with the backend iptables."""
    return keys | {"ipMasqBackend" if "ipam" in keys else "backend": "iptables"}


def masqueraded(keys: Keys) -> Keys:
    return keys | {"ipMasq": True}


CHAINS: dict[str, Chain] = {
    **{
        name: Chain((sample.keys,), sample.before, sample.links, sample.needs)
        for name, sample in SAMPLES.items()
        if not sample.is_served
    },
    "bridge, layer 2": Chain(({"type": "bridge", "bridge": "br0"},)),
    "bridge, ipMasq": Chain((masqueraded(BRIDGE),)),
    "bridge, iptables": Chain((iptables(masqueraded(BRIDGE)),)),
    "bridge, uplinks": Chain(
        (BRIDGE | {"uplinks": ["up0"]},), links="ip link add up0 type ifb 2>/dev/null || :; ip link set up0 up"
    ),
    "bridge, spoof check": Chain((BRIDGE | {"macspoofchk": True, "promiscMode": True},)),
    "portmap, iptables": Chain((iptables(PORTMAP),), (BRIDGE,)),
    "firewall, iptables": Chain((iptables(FIREWALL),), (BRIDGE,)),
    "bandwidth, subnets": Chain((BANDWIDTH | {"shapedSubnets": ["10.9.0.0/24", "fd00:9::/64"]},), (BRIDGE,)),
    "ptp, ipMasq": Chain((masqueraded(SAMPLES["ptp"].keys),)),
    "ptp, iptables": Chain((iptables(masqueraded(SAMPLES["ptp"].keys)),)),
    # of a socket outside of /run/cni, which a cold host has not
    "dhcp": Chain(
        ({"type": "dhcp", "ipam": {"type": "dhcp", "daemonSocketPath": DHCP_SOCKET}},), (BRIDGE,), is_served=True
    ),
    "sample chain": Chain((masqueraded(BRIDGE), PORTMAP, BANDWIDTH, FIREWALL, TUNING)),
}
ENDS: dict[str, str | None] = {
    "whole": None,
    "unnamed": "",
    "gone": "/run/netns/gone",
}  # DEL's CNI_NETNS
COLD = "nft flush ruleset; rm -rf /run/cni/*"
COLDER = "ip link del br0 2>/dev/null || :; rm -rf /var/lib/cni/*; echo 0 >/proc/sys/net/ipv4/ip_forward"
FORWARDING = "ip_forward"
IS_BRIDGE = re.compile("link br0 |sysctl .*/br0/")
RULES = ("table ", "chain ", "set ", "map ", "rule ")
NOT_FOR_DEL = ("runtimeConfig",)  # nor the result


class Attachments:
    """A pretend host, one chain and its calls for pod `c1`. Another pod, `kept`, has the same and keeps it."""

    def __init__(self, host: PretendHost, chain: Chain, program: Path) -> None:
        self.host = host
        self.chain = chain
        self.program = program
        self.result: Any = None
        self.state_before: Any = None
        self.is_cold = False
        self.stays: set[str] = set()
        self.goes: set[str] = set()
        if chain.is_served:
            dhcp_lan.run(host, "-socketpath", DHCP_SOCKET)
        host.run("sh", "-ec", chain.links)

    def warm_up(self) -> None:
        """Create everything that stays for good: the bridge, rules that all share, another pod."""
        self.host.netns("kept")
        for keys in self.of_another(9000):
            self._must(self.call(keys, "ADD", "kept"))
        self.result = None
        self.renew()
        self.must_add()
        self.delete("whole")

    def cool_down(self) -> None:
        """Make a host that has never had a pod, and measure the remains of a whole cycle.

        Only the plugins before the struck ones have run.
        """
        self.is_cold = True
        self.renew()
        self.forget()
        before = self.state()
        self.must_add()
        self.delete()
        after = self.state()
        self.stays, self.goes = after - before, before - after

    def forget(self) -> None:
        """Delete the permanent things of the last strike, before each strike on a cold host."""
        if self.is_cold:
            self.host.run("sh", "-ec", COLD if self.chain.before else f"{COLD}; {COLDER}")

    def differences(self, before: set[str], after: set[str], *, undone: bool = False) -> list[str]:
        """Return the remains and the losses, beside the permanent things of a cold host.

        There the bridge may stay, with a MAC of its own each time: no DEL removes one. Forwarding may stay, because
        others may need it by then. If everything was `undone`, only forwarding and rules may stay.
        """
        stays = {line for line in self.stays if line.startswith(RULES)} if undone else self.stays
        left, lost = after - before - stays, before - after - self.goes
        if self.is_cold:
            left = {line for line in left if not (FORWARDING in line or (not undone and IS_BRIDGE.match(line)))}
        return [*(f"left: {line}" for line in sorted(left)), *(f"lost: {line}" for line in sorted(lost))]

    def of_another(self, shift: int) -> list[Keys]:
        """Return the whole chain's keys for another pod: other host ports, and another MAC."""
        found = []
        for keys in (*self.chain.before, *self.chain.plugins):
            if keys["type"] == "portmap":
                ports = [{**port, "hostPort": port["hostPort"] + shift} for port in PORTS]
                found.append(keys | {"runtimeConfig": {"portMappings": ports}})
            elif keys["type"] == "host-device":
                found.append(keys | {"device": "dev1"})
            elif "mac" in keys:
                found.append(keys | {"mac": f"02:00:00:00:{shift >> 8:02x}:{shift & 255:02x}"})
            elif "vlanId" in keys:  # which one pod can have
                found.append(keys | {"vlanId": keys["vlanId"] + 1})
            else:
                found.append(keys)
        return found

    def renew(self) -> None:
        """Make a new namespace for the pod, with the plugins before the struck ones, and the host's links if lost."""
        if (self.host.root / "run/netns/c1").exists():
            for keys in reversed(self.chain.before):
                self._must(self.call(keys, "DEL"))
            self.host.drop_netns("c1")
        self.host.netns("c1")
        self.host.run("sh", "-ec", self.chain.links)  # a virtual device that was lent dies with the pod
        self.result = None
        for keys in self.chain.before:
            self._must(self.call(keys | ALWAYS_THE_SAME, "ADD"))
        self.state_before = self.result

    def call(
        self, keys: Keys, verb: str, pod: str = "c1", *, netns: str | None = None, strike: Strike | None = None
    ) -> Answer:
        """Call one plugin; the next call gets the result of an ADD."""
        config: Keys = {"cniVersion": "1.0.0", "name": NETWORK, **keys}
        if verb == "DEL":
            config = {key: value for key, value in config.items() if key not in NOT_FOR_DEL}
        elif self.result is not None:
            config["prevResult"] = self.result
        answer = self.host.cni(
            config["type"], verb, config, container_id=pod, netns=f"/run/netns/{pod}" if netns is None else netns,
            prefix=strike.prefix(self.program) if strike else (),
        )  # fmt: skip
        if verb == "ADD" and answer.status == 0:
            self.result = answer.json
        return answer

    def add(self, strike: Strike | None = None, place: int = 0) -> Answer:
        """ADD the chain, with the strike at the plugin of that place. Return the last answer."""
        self.forget()
        self.result = self.state_before
        answer = Answer(0, "", "")
        for number, keys in enumerate(self.chain.plugins):
            answer = self.call(keys, "ADD", strike=strike if number == place else None)
            if answer.status:
                break
        return answer

    def must_add(self) -> None:
        """ADD without a strike."""
        self._must(self.add())

    def check(self) -> Answer:
        """CHECK the chain. Return the first complaint, or the last answer."""
        answer = Answer(0, "", "")
        for keys in self.chain.plugins:
            answer = self.call(keys, "CHECK")
            if answer.status:
                break
        return answer

    def delete(self, end: str = "whole", strike: Strike | None = None, place: int = 0) -> list[Answer]:
        """DEL the chain, from the last to the first whatever they answer, with the strike at the plugin of a place."""
        return [
            self.call(keys, "DEL", netns=ENDS[end], strike=strike if number == place else None)
            for number, keys in reversed(list(enumerate(self.chain.plugins)))
        ]

    def lose(self) -> None:
        """Replace the pod's namespace by another without DEL, and wait until its links are gone."""
        self.host.drop_netns("c1")
        host_link = Owner(NETWORK, "c1", "eth0").host_link
        self.host.run("sh", "-c", f"while ip link show {host_link} >/dev/null 2>&1; do sleep 0.01; done", timeout=30)
        self.host.netns("c1")

    def collect(self) -> list[Answer]:
        """GC the struck plugins, with `kept` as the only valid attachment."""
        valid = [{"containerID": "kept", "ifname": "eth0"}]
        # its prevResult has no meaning for GC
        self.result = None
        return [
            self.call(keys | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}, "GC")
            for keys in reversed(self.chain.plugins)
        ]

    def calls(self, verb: str, classes: int) -> list[list[str]]:
        """Return, for each plugin, the stepper's lines about a call without a strike."""
        found = []
        for place in range(len(self.chain.plugins)):
            strike = Strike(classes=classes)
            if verb == "ADD":
                self._must(self.add(strike, place))
            else:
                self.must_add()
            self._all_must(self.delete("whole", strike if verb == "DEL" else None, place))
            found.append(self.steps())
        return found

    def steps(self) -> list[str]:
        """Return the stepper's report."""
        return (self.host.root / REPORT.lstrip("/")).read_text().splitlines()

    def state(self) -> set[str]:
        """Return the state of the host and of the pods."""
        if self.chain.is_served:
            dhcp_lan.await_releases(self.host)
        return state(self.host, ("c1",) if self.is_cold else ("c1", "kept"))

    def _must(self, answer: Answer) -> None:
        assert answer.status == 0, answer

    def _all_must(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._must(answer)
