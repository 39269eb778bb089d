"""Existence is not completeness: after a first ADD was killed half-way, the next pod's ADD makes everything whole.

The first ADD is killed at each call that changes something. Then another pod's ADD succeeds, and its CHECK finds
nothing. After the killed pod's DEL the host is as if no call had been killed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import stepper
from tests.faults.chains import CHAINS, Attachments
from tests.faults.state import state
from tests.faults.stepper import CHANGES, Strike
from tests.plugins import Keys, marked
from tests.pretend import Answer, PretendHost

OTHER = "c2"
SHIFT = 9000  # of its host ports
SAMPLE = 2
ADDRESSES = {
    "args": {"cni": {"ips": ["10.7.0.77", "fd00:7::77"]}}
}  # so that it has the same address, whichever were leased before
# a bridge's and a VRF's MAC, which are random; in a claim of firewall the time, and the iptables that it found in use
# before; the kernel's number of an action of tc; in a record the namespace, a link's number, and a lease's beginning in
# seconds
OTHERS_EACH_TIME = re.compile(
    r"""(?<=link br0 bridge ).*'address': '[0-9a-f:]+'|(?<=link blue vrf ).*'address': '[0-9a-f:]+'|"(variant|namespace)": "[^"]*"|(\tindex |"(order|RTA_OIF|obtained)": )[0-9.]+"""
)
COMPLETE = ("bridge",)  # struck at each call in the normal run, too


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stepper.compiled(tmp_path_factory.mktemp("stepper"))


class Heir:
    """A host on which each pod is the first, and the second pod, which comes after a killed one."""

    def __init__(self, host: PretendHost, name: str, program: Path) -> None:
        self.host = host
        self.name = name
        self.first = Attachments(host, CHAINS[name], program)
        self.first.cool_down()
        host.netns(OTHER)
        self.keys: list[Keys] = [keys | ADDRESSES for keys in self.first.of_another(SHIFT)]
        self.before = len(self.first.chain.before)

    def calls(self, verb: str, keys: list[Keys]) -> list[Answer]:
        """Make the other pod's calls, which must succeed; DEL goes backwards."""
        self.first.result = None if verb != "CHECK" else self.first.result
        return [self.first.call(one, verb, OTHER) for one in (reversed(keys) if verb == "DEL" else keys)]

    def wipe(self) -> None:
        """Delete everything of both pods, and everything that pods share."""
        for answer in (*self.calls("DEL", self.keys), *self.first.delete()):
            assert answer.status == 0, answer
        self.first.forget()

    def after(self, strike: Strike | None, place: int) -> tuple[set[str], list[str]]:
        """Return the host's state with the other pod alone, and complaints, after a first ADD with or without a strike."""
        self.first.add(strike, place)
        self.first.is_cold = False
        # what an IPAM plugin alone has leased is on no link
        checked = [] if self.first.chain.is_served else self.keys
        answers = [*self.calls("ADD", self.keys), *self.calls("CHECK", checked), *self.first.delete()]
        found = {OTHERS_EACH_TIME.sub("", line) for line in state(self.host, (OTHER,))}
        self.first.is_cold = True
        return found, [str(answer) for answer in answers if answer.status]

    def points(self, *, sample: int) -> Iterator[tuple[int, Strike, str]]:
        """Yield each change of the first ADD: the place of its plugin, the strike, and its name."""
        for place, steps in enumerate(self.first.calls("ADD", CHANGES)):
            wanted = [number for number, step in enumerate(steps, 1) if step.startswith("plugin")]
            every = max(1, len(wanted) // sample) if sample else 1
            for number in wanted[len(wanted) % every :: every]:
                yield place, Strike("tree", number), steps[number - 1]


@pytest.mark.parametrize("name", [marked(name, chain.needs) for name, chain in CHAINS.items()])
@pytest.mark.parametrize("sample", [SAMPLE, pytest.param(0, marks=pytest.mark.faults, id="all")])
@pytest.mark.row("half-made")
def test_another_pod_completes_what_a_killed_add_began(
    host: PretendHost, program: Path, name: str, sample: int
) -> None:
    heir = Heir(host, name, program)
    points = list(heir.points(sample=0 if name in COMPLETE else sample))
    heir.wipe()
    expected, complaints = heir.after(None, 0)
    assert not complaints, complaints
    for place, strike, step in points:
        heir.wipe()
        found, failed = heir.after(strike, place)
        point = f"{step} ({strike.number}) of {heir.first.chain.plugins[place]['type']}"
        complaints += [f"{point}: {answer}" for answer in failed]
        complaints += [f"{point}: lost: {line}" for line in sorted(expected - found)]
        complaints += [f"{point}: left: {line}" for line in sorted(found - expected)]
    assert points
    assert not complaints, f"{len(complaints)} complaints:\n" + "\n".join(complaints[:60])
