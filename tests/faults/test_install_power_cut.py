"""Row 26: the power fails during and after an upgrade; the next boot has the old or the new release, each whole."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.executables import PLUGINS
from tests.faults.plugin import Tally
from tests.pretend import PATIENCE, PretendHost
from tests.system.test_install import Site, make_site

DISK = "/var/lib/cni"  # where the file system with the installation is mounted
# Seconds after the upgrade that are looked at, and how often the power fails meanwhile. ext4 commits its journal each
# second here; the kernel writes contents out after 30 seconds, unless somebody asks for it.
SAMPLE, ALL = (6.0, 6), (40.0, 60)
TRIES = 200

# In the next boot: each executable with its exit status, its tree, and whether this is whole.
LOOK = """
import os, subprocess, sys
from pathlib import Path
for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.name.startswith("."):
        continue
    content = path.read_bytes()
    *_, line = content.splitlines()[: None if content.startswith(b"\x7fELF") else 2] or [b""]
    tree = line.decode(errors="replace").partition("the code is in ")[2]
    done = subprocess.run([path, "version"], env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.DEVNULL, capture_output=True)
    print(path.name, done.returncode, tree or "empty", sep="\\t")
"""


@dataclass
class Release:
    """A release's sources, and the tree that they were installed into."""

    files: dict[str, bytes]
    tree: str = ""

    @classmethod
    def of(cls, source: Path) -> Release:
        paths = [path for part in ("plugins", "ipam", "shared") for path in (source / part).rglob("*.py")]
        return cls({str(path.relative_to(source)): path.read_bytes() for path in paths})


def snapshot(image: Path) -> bytes:
    """Return the disk at one moment: read twice without a difference."""
    before = image.read_bytes()
    for _ in range(TRIES):
        now = image.read_bytes()
        if now == before:
            return now
        before = now
    pytest.fail("the disk did not stand still")


def mount(host: PretendHost, image: Path) -> None:
    host.run("mount", "-o", "loop,commit=1", str(image), DISK)


def cut_power(
    site: Site, image: Path, releases: list[Release], seconds: float, number: int, options: tuple[str, ...]
) -> Iterator[Path]:
    """Yield images of the disk at random moments during and after an upgrade."""
    with PretendHost() as host:
        with image.open("wb") as file:
            file.truncate(48 << 20)
        host.run("mkfs.ext4", "-q", str(image))
        mount(host, image)
        assert host.run(*site.argv(*options), timeout=120).stderr == ""
        releases[0].tree = tree_of(host)
        host.run("sync", "-f", DISK)
        site.change("newer")
        releases.append(Release.of(site.source))
        begin = time.monotonic()
        with host.popen(*site.argv()) as upgrade:
            moments = sorted(random.uniform(0, seconds) for _ in range(number))
            for place, moment in enumerate(moments):
                time.sleep(max(begin + moment - time.monotonic(), 0))
                cut = image.with_name(f"cut{place}")
                cut.write_bytes(snapshot(image))
                yield cut
            _, complaints = upgrade.communicate(timeout=120 * PATIENCE)
            assert upgrade.returncode == 0, complaints
        releases[1].tree = tree_of(host)


def tree_of(host: PretendHost) -> str:
    return host.run("sed", "-n", "2s/.*the code is in //p", f"{DISK}/bin/cnitool").stdout.strip()


def find_flaws(image: Path, releases: list[Release], others: int) -> list[str]:
    """Return the flaws of the next boot; `others` is the number of executables beside the plugins."""
    known = {release.tree: release.files for release in releases}
    with PretendHost() as host:
        mount(host, image)
        found = []
        lines = host.python(LOOK, f"{DISK}/bin").splitlines()
        for line in lines:
            name, status, tree = line.split("\t")
            if status != "0" or tree not in known:
                found.append(f"{name} of {tree} ends with {status}")
                continue
            root = host.root / tree.lstrip("/")
            lost = [path for path, text in known[tree].items() if not same(root / path, text)]
            found += [f"{name}: {len(lost)} files of {tree} differ, {lost[0]}"] if lost else []
        if len(lines) != len(PLUGINS) + others:
            found.append(f"{len(lines)} executables")
    return found


def same(path: Path, text: bytes) -> bool:
    return path.is_file() and path.read_bytes() == text


@pytest.mark.slow
@pytest.mark.row(26)
@pytest.mark.parametrize(("seconds", "number"), [SAMPLE, pytest.param(*ALL, marks=pytest.mark.faults)])
@pytest.mark.parametrize("options", [(), ("--agent",)])
def test_power_cut_after_install(
    tmp_path: Path, seconds: float, number: int, options: tuple[str, ...], tally: Tally
) -> None:
    site = make_site(tmp_path)
    site.bin, site.lib = Path(DISK, "bin"), Path(DISK, "lib")
    releases = [Release.of(site.source)]
    images = list(cut_power(site, tmp_path / "disk", releases, seconds, number, options))
    found = [[f"{cut.name}: {what}" for what in find_flaws(cut, releases, 1 + len(options))] for cut in images]
    tally(26, len(found), sum(bool(complaints) for complaints in found))
    assert not any(found), "\n".join(line for complaints in found for line in complaints)
