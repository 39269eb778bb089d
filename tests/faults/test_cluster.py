"""Row 30: the cluster duty is struck at each of its system calls. No address is given twice, and no block is lost.

After a strike, host-local leases addresses at once, by the conflist that is there. Then a new duty brings node and
cluster together. A sample is in the normal run, and every point in `./tests/run --faults`.
"""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from shared.net.netns import open_netns
from tests.faults import stepper
from tests.faults.duty_once import UNUSABLE
from tests.faults.plugin import Tally
from tests.faults.stepper import MESSAGE, ON_DISK, RECEIVE, Strike
from tests.faults.struck_node import MEMORY, NOWHERE, SCENES, Facts, State, StruckNode, inside
from tests.pretend import PretendHost
from tests.system.cluster_node import BRIDGE, CONFLIST

pytestmark = pytest.mark.kernel_vxlan
SAMPLE = 3  # scenes with one strike
MESSAGES, ANSWERS = ("sendto", "sendmsg", "sendmmsg"), ("recvfrom", "recvmsg")
DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
NETWORK_ERRORS = (errno.EPERM, errno.ENOMEM, errno.ENOBUFS, errno.ECONNRESET)
Point = tuple[int, str]  # number and name of a system call
Act = Callable[[], None]

many = pytest.mark.parametrize(
    "scene",
    [
        pytest.param("", marks=pytest.mark.xdist_group("struck cluster"), id="sample"),
        *(pytest.param(name, marks=pytest.mark.faults) for name in SCENES),
    ],
)


@pytest.fixture(scope="module")
def node(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StruckNode]:
    program = stepper.compiled(tmp_path_factory.mktemp("stepper"))
    with PretendHost(installed) as host:
        netns = open_netns(f"/proc/{host.first_pid}/ns/net")
        try:
            found = StruckNode(host, netns, program)
            found.open()
            yield found
        finally:
            netns.close()


class Play:
    """A scene whose duty is struck again and again."""

    def __init__(self, node: StruckNode, name: str) -> None:
        self.node, self.name, self.scene = node, name, SCENES[name]
        self.after = node.settle_scene(name).facts
        self.before: State = node.begin_scene(name)
        self.url = NOWHERE if self.scene.is_down else ""
        self.kept = self.before.facts.published & self.after.published
        self.complaints: list[str] = []
        self.strikes = 0

    def points(self, kind: int) -> list[Point]:
        """Return the numbers and names of system calls of a class in a duty without a strike."""
        wanted = {MESSAGE: MESSAGES, RECEIVE: ANSWERS}.get(kind)
        found = [
            name
            for name in self.node.calls[self.name]
            if (name in wanted if wanted else name not in (*MESSAGES, *ANSWERS))
        ]
        return list(enumerate(found, 1))

    def strike(self, strike: Strike, call: str) -> None:
        """Strike a system call of the duty."""
        what = errno.errorcode.get(strike.errno, "")
        self.begin(f"{strike.action} {what} at {strike.number} ({call})")
        self.end(self.node.run_duty(strike, url=self.url), is_killed=strike.action == "plugin")

    def lose(self, number: int, *, is_answer: bool) -> None:
        """Lose a request of the duty, or its answer."""
        self.begin(f"{'answer' if is_answer else 'request'} {number} is lost")
        with self.node.relay(number, is_answer=is_answer) as relay:
            status = self.node.run_duty(url=relay.url)
        self.end(status)

    def count_requests(self) -> int:
        """Return the number of requests of a duty without a strike."""
        self.node.restore(self.before)
        with self.node.relay() as relay:
            assert self.node.run_duty(url=relay.url) == 0, self.node.said
        return relay.requests

    def begin(self, point: str) -> None:
        self.strikes += 1
        self.point = f"{self.name}: {point}"
        self.node.restore(self.before)

    def end(self, status: int, *, is_killed: bool = False) -> None:
        """Look, attach a pod, let another duty end the work, and look again."""
        if not is_killed and (status not in (0, UNUSABLE) or "Traceback" in self.node.said):
            self.complain(f"the duty ends with {status}: {self.node.said[-1500:]}")
        self.look(is_settled=False)
        is_kept = self.attach("between") and self.strikes % 2 == 0
        if not is_kept and "between" in self.node.pods:
            self.node.delete_pod("between")
        self.node.write_template(BRIDGE)  # an administrator corrects it, if it was unusable
        if self.node.run_duty() or "garbled" in self.node.said:
            self.complain(f"the next duty: {self.node.said[-1500:]}")
        self.look(is_settled=True)
        if not is_kept:
            self.compare()
        self.attach("after")

    def complain(self, text: str) -> None:
        self.complaints.append(f"{self.point}: {text}")

    def attach(self, pod: str) -> bool:
        """Attach a pod if the network is ready, which it stays."""
        facts = self.node.see()
        if not facts.published:
            if self.kept:
                self.complain("no range is published")
            return False
        answer = self.node.attach_pod(pod)
        if answer.status:
            self.complain(f"ADD of {pod}: {answer}")
            return False
        if not inside(self.node.pods[pod], facts.own) and (pod == "after" or not self.scene.loses):
            self.complain(f"pod {pod} has {self.node.pods[pod]} of no own block {[*map(str, facts.own)]}")
        others = {name: one for name, one in self.node.pods.items() if name != pod}
        if any(set(one) & set(self.node.pods[pod]) for one in others.values()):
            self.complain(f"pod {pod} has the address of another one: {self.node.pods}")
        return True

    def look(self, *, is_settled: bool) -> None:
        """Note each invariant that does not hold."""
        moment, facts = "settled" if is_settled else "struck", self.node.see()
        found = []
        if self.before.facts.conflist is not None or facts.conflist is not None:
            found += [] if is_whole(facts.conflist) else [f"conflist {facts.conflist!r}"]
        if not (is_settled and self.scene.drains):
            found += [f"{one} left the conflist" for one in self.kept - facts.published]
        if is_settled or not self.scene.loses:
            found += [f"{one} is published, and not owned" for one in facts.published - facts.own.keys()]
        addresses = [one for addresses in self.node.pods.values() for one in addresses]
        if not self.scene.loses and not inside(addresses, facts.own):
            found.append(f"pods {self.node.pods} have addresses of no own block: {[*map(str, facts.own)]}")
        if set(addresses) != self.node.leases():
            found.append(f"leases {self.node.leases()}, pods {self.node.pods}")
        if facts.others != self.before.facts.others:
            found.append(f"others' objects {facts.others}")
        if facts.foreign != self.before.facts.foreign:
            found.append(f"others' routes {facts.foreign}")
        found += [f"no route to {one}" for one in self.lost_routes(facts)]
        found += self.find_unreadable()
        if is_settled:
            found += self.find_unsettled(facts)
        for one in found:
            self.complain(f"{moment}: {one}")

    def lost_routes(self, facts: Facts) -> set[str]:
        """Return the CIDRs to which there was a way, and shall be one, and is none."""
        wanted = {one[0] for one in self.before.facts.routes} & {one[0] for one in self.after.routes}
        return {str(cidr) for cidr in wanted - {one[0] for one in facts.routes}}

    def find_unreadable(self) -> list[str]:
        found = []
        for path in (self.node.host.root / MEMORY).glob("*.json"):
            try:
                json.loads(path.read_text())
            except ValueError:
                found.append(f"{path.name} is {path.read_text()!r}")
        return found

    def find_unsettled(self, facts: Facts) -> list[str]:
        """Return the differences between the node's memory, its conflist, its routes and the engine."""
        checkpoint, found = self.node.checkpoint(), []
        held = {cidr for _, cidr in checkpoint.held}
        used = {
            ip_network(one) for one in held if any(inside([a], [one]) for pod in self.node.pods.values() for a in pod)
        }
        if facts.own.keys() != (held if not self.scene.loses else held & facts.own.keys()):
            found.append(f"blocks in the engine {[*map(str, facts.own)]}, in the memory {[*map(str, held)]}")
        if facts.own.keys() - facts.published - used:
            found.append(f"neither used nor given back: {[*map(str, facts.own.keys() - facts.published - used)]}")
        for cidr, block in facts.own.items():
            if block["state"] != ("owned" if cidr in facts.published else "draining"):
                found.append(f"block {cidr} is {block['state']}")
        if {one.version for one in facts.published} != {4, 6}:
            found.append(f"published are {[*map(str, facts.published)]}")
        if checkpoint.attempts:
            found.append(f"attempts {checkpoint.attempts}")
        if facts.peer is None or not {*map(str, facts.own)} <= set(facts.peer["cidrs"]["pods"]):
            found.append(f"announced {facts.peer}")
        if facts.routes != self.after.routes:
            found.append(f"routes {facts.routes}, expected {self.after.routes}")
        left = [
            path.name
            for place in (MEMORY, Path(CONFLIST).parent)
            for path in (self.node.host.root / place).glob("*.new")
        ]
        return found + [f"left {name}" for name in left]

    def compare(self) -> None:
        """Compare the end with that without a strike. Which free block is claimed is by chance."""
        facts = self.node.see()
        for name in ("published", "own"):
            one, other = (sorted((c.version, c.prefixlen) for c in getattr(f, name)) for f in (facts, self.after))
            if one != other:
                self.complain(
                    f"{name} {[*map(str, getattr(facts, name))]}, expected {[*map(str, getattr(self.after, name))]}"
                )
        own = {f"{cidr.network_address + 1}/{cidr.prefixlen}" for cidr in facts.own}
        if not facts.gateways <= self.after.gateways | own:
            self.complain(f"gateways {facts.gateways - self.after.gateways - own} stay")


def is_whole(text: str | None) -> bool:
    """Return True if a conflist is a document with ranges."""
    try:
        return bool(json.loads(text or "")["plugins"][0]["ipam"]["ranges"])
    except (ValueError, KeyError, IndexError):
        return False


def play(
    node: StruckNode,
    scene: str,
    list_acts: Callable[[Play], list[Act]],
    tally: Tally,
    scenes: Sequence[str] = (*SCENES,),
) -> None:
    """Strike at each point of a scene; of some scenes at one point, if none is named."""
    complaints, strikes = [], 0
    for name in [scene] if scene else random.sample(scenes, min(SAMPLE, len(scenes))):
        one = Play(node, name)
        acts = list_acts(one)
        for act in acts if scene else random.sample(acts, min(1, len(acts))):
            act()
        complaints += one.complaints
        strikes += one.strikes
    tally(30, strikes, len(complaints))
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:40])


def list_kills(one: Play) -> list[Act]:
    return [
        partial(one.strike, Strike("plugin", number, kind), name)
        for kind in (MESSAGE, ON_DISK)
        for number, name in one.points(kind)
    ]


def list_refusals(one: Play) -> list[Act]:
    found = [
        (Strike("own", number, kind, errors[number % len(errors)]), name)
        for kind, errors in ((ON_DISK, DISK_ERRORS), (MESSAGE, NETWORK_ERRORS), (RECEIVE, NETWORK_ERRORS[-2:]))
        for number, name in one.points(kind)[:: 2 if kind == RECEIVE else 1]
    ]
    found += [(Strike("spoil", number, MESSAGE), name) for number, name in one.points(MESSAGE)[::2]]
    return [partial(one.strike, strike, name) for strike, name in found]


def list_losses(one: Play) -> list[Act]:
    if one.scene.is_down:
        return []
    return [
        partial(one.lose, number, is_answer=is_answer)
        for number in range(1, one.count_requests() + 1)
        for is_answer in (True, False)
    ]


@many
@pytest.mark.row(30)
def test_killed(node: StruckNode, scene: str, tally: Tally) -> None:
    play(node, scene, list_kills, tally)


@many
@pytest.mark.row(30)
def test_refused(node: StruckNode, scene: str, tally: Tally) -> None:
    """A call fails: on the disk, to the kernel, to the engine. Or an answer does not come."""
    play(node, scene, list_refusals, tally)


@many
@pytest.mark.row(30)
def test_lost_requests(node: StruckNode, scene: str, tally: Tally) -> None:
    """Connections to the engine end before a request, or before its answer."""
    play(node, scene, list_losses, tally)
