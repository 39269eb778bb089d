"""Row 4: the power fails while pods come and go; the next boot finds the disk as it was.

Every address can be leased then, once.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipam.host_local.lease import parse_lease
from tests.faults import batch
from tests.faults.batch import Call
from tests.faults.plugin import Tally
from tests.pretend import PretendHost

CNI = "/var/lib/cni"
STORE = "var/lib/cni/networks/net"
FREE = 13  # addresses of a /28 for pods
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.7.0.0/28"},
}  # fmt: skip
# how long pods come and go, in seconds, and how often the power fails meanwhile; ext4 commits its journal each second,
# and the kernel writes contents after 30
SAMPLE, ALL = (4.0, 4), (36.0, 50)


def mount(host: PretendHost, image: Path) -> None:
    """Mount the image's file system over the state directory."""
    host.run("mount", "-o", "loop,commit=1", str(image), CNI)


def call(verb: str, number: int) -> Call:
    return Call("host-local", verb, CONFIG, {"CNI_CONTAINERID": f"c{number}"})


def cut_power(host: PretendHost, image: Path, seconds: float, number: int) -> Iterator[Path]:
    """Yield images of the disk at random moments, while pods come and go."""
    over = threading.Event()

    def come_and_go() -> None:
        for turn in range(1 << 30):
            if over.wait(0.02):
                return
            batch.run(host, [call("ADD", turn), *([call("DEL", turn - 5)] if turn >= 5 else [])], at_once=1)

    pods = threading.Thread(target=come_and_go)
    begin = time.monotonic()
    pods.start()
    try:
        for place, moment in enumerate(sorted(random.uniform(0, seconds) for _ in range(number))):
            over.wait(max(begin + moment - time.monotonic(), 0))
            yield Path(shutil.copyfile(image, image.with_name(f"cut{place}")))
    finally:
        over.set()
        pods.join()


def find_flaws(installed: Path, image: Path, exhausted: int) -> list[str]:
    """Return the flaws of the next boot."""
    with PretendHost(installed) as host:
        mount(host, image)
        host.run("sh", "-ec", f"echo {uuid.uuid4()} >/run/boot; mount --bind /run/boot /proc/sys/kernel/random/boot_id")
        answers = batch.run(host, [call("ADD", 1000 + number) for number in range(FREE + 1)], at_once=1)
        given = [answer.json["ips"][0]["address"] for answer in answers if answer.status == 0]
        found = [f"{len(given)} addresses of {FREE}: {answers[len(given)]}"] if len(given) != FREE else []
        found += ["an address twice"] if len(set(given)) != len(given) else []
        leases = list((host.root / STORE).glob("10.*"))
        found += [f"{path.name} is garbled" for path in leases if parse_lease(path.read_bytes()) is None]
        if answers[-1].code != exhausted:
            found.append(f"one more than there are: {answers[-1]}")
    return found


def flaws_of_all(bin_dir: Path, directory: Path, seconds: float, number: int, exhausted: int = 11) -> list[list[str]]:
    """Return the flaws after each of the cuts; `exhausted` is the suite's code if no address is left."""
    image = directory / "disk"
    with PretendHost(bin_dir) as host:
        with image.open("wb") as file:
            file.truncate(8 << 20)
        host.run("mkfs.ext4", "-q", "-b", "1024", str(image))
        mount(host, image)
        images = list(cut_power(host, image, seconds, number))
    return [[f"{cut.name}: {what}" for what in find_flaws(bin_dir, cut, exhausted)] for cut in images]


@pytest.mark.slow
@pytest.mark.row(4)
@pytest.mark.parametrize(("seconds", "number"), [SAMPLE, pytest.param(*ALL, marks=pytest.mark.faults)])
def test_power_cut(installed: Path, tmp_path: Path, seconds: float, number: int, tally: Tally) -> None:
    found = flaws_of_all(installed, tmp_path, seconds, number)
    tally(4, len(found), sum(bool(complaints) for complaints in found))
    assert not any(found), "\n".join(line for complaints in found for line in complaints)


@pytest.mark.faults
@pytest.mark.row(4)
def test_the_reference_under_power_cuts(reference_bin: str, tmp_path: Path, reference_tally: Tally) -> None:
    """The test serves the table alone: some samples of cuts harm the reference and others do not."""
    found = flaws_of_all(Path(reference_bin), tmp_path, *SAMPLE, exhausted=999)
    reference_tally(4, len(found), sum(bool(complaints) for complaints in found))
    assert len(found) == SAMPLE[1]
