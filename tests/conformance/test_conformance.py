"""Conformance: every case of the table on the reference and on this suite: they agree, or the difference is listed."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.conformance.__main__ import cell
from tests.conformance.cases import CASES
from tests.conformance.compare import compare, is_supported, play_names
from tests.conformance.known_differences import KNOWN, Known
from tests.plugins import marked

PLAYED = {name: (case, ours_first) for case in CASES for name, ours_first in play_names(case)}
# test_vlan.py and test_vrf.py have hand-overs of their own: the stock kernel, which is slow, plays these for the command
HERE = {name: case for name, (case, ours_first) in PLAYED.items() if ours_first is None or is_supported(case)}


@pytest.mark.parametrize("name", [marked(name, case.needs) for name, case in HERE.items()])
def test_same_as_the_reference(name: str, installed: Path, reference_bin: str) -> None:
    """Answers, kernel and store are the reference's, but for the listed differences, all of which show."""
    case, ours_first = PLAYED[name]
    outcome = compare(case, reference_bin, str(installed), ours_first=ours_first)
    assert outcome.good, f"\n{outcome}"


LIES = {
    "bridge VERSION: result.*": ("bridge/VERSION", "bridge", "sed 's/0.3.0/0.3.9/'"),
    "loopback ADD: host link lo mtu: 65536 -> 1400": ("loopback/ADD twice", "loopback", "cat; ip link set lo mtu 1400"),
    "host-local ADD: file /var/lib/cni/networks/net/10.1.0.2: *": (
        "host-local/DEL twice", "host-local", "cat; for lease in /var/lib/cni/networks/net/10*; do echo >>$lease; done"
    ),
    "loopback ADD: status: 1 -> 3": ("loopback/ADD netns gone", "loopback", "cat; exit 3"),
}  # fmt: skip


@pytest.mark.parametrize("where", LIES)
def test_a_deviation_is_seen(where: str, tmp_path: Path, reference_bin: str) -> None:
    """A wrapper that deviates in one thing is told from the reference; once listed, the deviation passes."""
    name, plugin, after = LIES[where]
    for path in Path(reference_bin).iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / plugin).unlink()
    (tmp_path / plugin).write_text(f"#!/bin/bash\nset -o pipefail\n{reference_bin}/{plugin} | {{ {after}; }}\n")
    (tmp_path / plugin).chmod(0o755)
    case, _ = PLAYED[name]
    seen = compare(case, reference_bin, str(tmp_path), known=())
    assert any(Known(where, "", ()).covers(str(difference)) for difference in seen.unexpected)
    excused = compare(case, reference_bin, str(tmp_path), known=[Known("*", "a wrapper", [name])])
    assert excused.good


def test_an_entry_that_no_longer_shows_is_rotten(reference_bin: str) -> None:
    """An entry for a difference that is gone fails its case."""
    case, _ = PLAYED["loopback/VERSION"]
    assert not compare(case, reference_bin, reference_bin, known=[Known("*", "gone", ["loopback/*"])]).good


def test_every_listed_difference_names_a_case() -> None:
    """A pattern that names no case would never be tried again."""
    dead = [
        (known.where, pattern)
        for known in KNOWN
        for pattern in known.cases
        if not any(fnmatchcase(name, pattern) for name in PLAYED)
    ]
    assert not dead


def test_the_command(installed: Path, tmp_path: Path, reference_bin: str) -> None:
    """It judges a directory, writes both columns, and fails if a difference is not listed."""
    run = Path(__file__).with_name("run")
    good = subprocess.run(
        [run, "--bin-dir", installed, "-k", "loopback/VERSION", "--markdown", tmp_path / "results.md"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert good.returncode == 0 and "1 cases: 1 as expected" in good.stdout, good.stdout + good.stderr
    assert "| loopback VERSION: result.supportedVersions." in (tmp_path / "results.md").read_text()
    for path in Path(reference_bin).iterdir():
        (tmp_path / path.name).symlink_to(path)
    bad = subprocess.run([run, "--bin-dir", tmp_path, "-k", "loopback/"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and "listed, but does not occur any more" in bad.stdout


def test_every_reason_is_in_the_documentation() -> None:
    results = Path(__file__).with_name("RESULTS.md").read_text(encoding="utf-8")
    assert not [known.reason for known in KNOWN if cell(known.reason) not in results]
