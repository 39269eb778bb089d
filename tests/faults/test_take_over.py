"""Row 25: an ADD that takes a dead pod's lease over is struck at each of its system calls."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.faults import stepper
from tests.faults.plugin import Tally
from tests.faults.stepper import CHANGES, ON_DISK, REPORT, Strike
from tests.pretend import Answer, PretendHost

STORE = "/var/lib/cni/networks/net"
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "host-local",
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/29"},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stepper.compiled(tmp_path_factory.mktemp("stepper"))


def call(host: PretendHost, verb: str, pod: str, **how: Any) -> Answer:
    return host.cni("host-local", verb, CONFIG, netns=f"/run/netns/{pod}", container_id=pod, **how)


def leases(host: PretendHost) -> dict[str, str]:
    files = host.snapshot()["files"]
    return {name.rpartition("/")[2]: text for name, text in files.items() if name.startswith(f"{STORE}/10.")}


@pytest.mark.parametrize("action", ["plugin", "error"])
@pytest.mark.parametrize("taker", ["itself", "another"])
@pytest.mark.row(25)
def test_take_over_struck(host: PretendHost, program: Path, taker: str, action: str, tally: Tally) -> None:
    """The taker's DEL and GC delete all remains of the dead one and the taker; living pods keep theirs."""
    for pod in "bcde":
        host.netns(pod)
        assert call(host, "ADD", pod).status == 0
    kept = leases(host)
    new = "a" if taker == "itself" else "f"
    points, complaints, number, steps = 0, [], 0, 1
    while number <= steps:
        host.netns("a")
        assert call(host, "ADD", "a").status == 0
        host.drop_netns("a")
        host.netns(new)
        classes, failure = (CHANGES, 0) if action == "plugin" else (ON_DISK, errno.EIO)
        strike = Strike(action if number else "none", number, classes, failure)
        answer = call(host, "ADD", new, prefix=strike.prefix(program))
        steps = steps if number else len((host.root / REPORT.lstrip("/")).read_text().splitlines())
        now = leases(host)
        if answer.status == 0:
            assert len(now) == 5 and f"{new}\r\neth0" in now.values(), (number, now)
        elif action == "error" and f"{new}\r\neth0" in {**now} and new != "a":
            complaints.append(f"{number}: failed, but kept {now}")
        if call(host, "DEL", new).status:
            complaints.append(f"{number}: DEL fails")
        if any(text == f"{new}\r\neth0" for text in leases(host).values()):
            complaints.append(f"{number}: DEL leaves {leases(host)}")
        if kept.items() - leases(host).items():
            complaints.append(f"{number}: took {kept.items() - leases(host).items()} of the living")
        host.drop_netns(new)
        points, number = points + 1, number + 1
        host.netns("g")  # the next pod takes the dead pod's remaining lease
        answer = call(host, "ADD", "g")
        if answer.status:
            complaints.append(f"{number}: then {answer}")
        assert call(host, "DEL", "g").status == 0
        host.drop_netns("g")
        call(host, "DEL", "a")
    tally(25, points, len(complaints))
    assert points > 5 and not complaints, "\n".join(complaints)
