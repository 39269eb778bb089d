"""install.sh inspects the Python: its path, before the Python is executed, and its features."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.cli.doctor import configuration
from shared.cni import digests
from tests.system.test_install import NOBODY, Site, make_site

PYTHON = os.path.realpath("/usr/bin/python3")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


FLAWS: dict[str, Callable[[Path], object]] = {
    "directory of another user": lambda way: os.chown(way, NOBODY, 0),
    "directory that all can write to": lambda way: way.chmod(0o777),
    "directory that a group can write to": lambda way: way.chmod(0o775),
    "directory above": lambda way: way.parent.chmod(0o777),
    "file of another user": lambda way: os.chown(way / "python3", NOBODY, 0),
    "file that all can write to": lambda way: (way / "python3").chmod(0o757),
}


@pytest.mark.row("interpreter")
@pytest.mark.parametrize(
    "how", ["directly", "by a link", "by a link to the directory", "by links with ..", "by a script"]
)
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_way_that_others_can_change(site: Site, tmp_path: Path, flaw: str, how: str) -> None:
    """install.sh executes nothing: the interpreter here would leave a trace."""
    way = tmp_path / "top" / "way"
    way.mkdir(parents=True)
    (way / "python3").write_text(f'#!/bin/sh\ntouch {tmp_path}/executed\nexec {PYTHON} "$@"\n')
    (way / "python3").chmod(0o755)
    FLAWS[flaw](way)
    named = way / "python3"
    links = tmp_path / "links"
    (links / "deep").mkdir(parents=True)
    if how == "by a link":
        named = links / "python3"
        named.symlink_to("second")
        (links / "second").symlink_to(way / "python3")
    elif how == "by a link to the directory":
        (links / "bin").symlink_to(way)
        named = links / "bin" / "python3"
    elif how == "by links with ..":
        (links / "deep" / "up").symlink_to("../../top")
        named = links / "deep" / ".." / "deep" / "up" / "way" / "python3"
    elif how == "by a script":
        pytest.importorskip("ensurepip")
        named = links / "python3"
        named.write_text(f'#!/bin/sh\nexec {PYTHON} -c "print(\\"{way}/python3\\")"\n')
        named.chmod(0o755)
    message = site.refused("--python", str(named))
    assert message.startswith(f"install.sh: cannot use {named}: {tmp_path}/top"), message
    assert "does not belong to root" in message or "is writable for others than root" in message
    assert not (tmp_path / "executed").exists() and not site.bin.exists()


@pytest.mark.row("interpreter")
def test_a_link_of_another_user(site: Site, tmp_path: Path) -> None:
    """In a sticky directory the link's owner can replace it, wherever it points."""
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "python3").symlink_to(PYTHON)
    os.chown(sticky / "python3", NOBODY, NOBODY, follow_symlinks=False)
    assert "a symbolic link, does not belong to root" in site.refused("--python", str(sticky / "python3"))
    (sticky / "loop").symlink_to("loop")
    site.refused("--python", str(sticky / "loop"))
    os.chown(sticky / "python3", 0, 0, follow_symlinks=False)
    site.run("--python", str(sticky / "python3"))


@pytest.mark.row("interpreter")
@pytest.mark.parametrize("which", ["bin", "lib"])
def test_a_link_on_the_way_to_a_directory(site: Site, tmp_path: Path, which: str) -> None:
    """The directory of the link counts as well as that of its target."""
    (tmp_path / "real").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "open").chmod(0o777)
    message = site.refused(f"--{which}-dir", f"{tmp_path}/open/link/deeper")
    assert f"{tmp_path}/open is writable for others than root" in message
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.row("interpreter")
def test_tools_that_are_not_the_known_ones(site: Site) -> None:
    file = site.source / "shared/cli/tools-build.txt"
    head, mark, tail = file.read_text().partition("sha256:")
    file.write_text(f"{head}{mark}{'0' * 64} # {tail}".replace("--hash=sha256:ca", "#"))
    done = site.run("--with-tools", check=False)
    assert done.returncode == 1 and "the tools are not: " in done.stderr, done.stderr
    assert not (site.lib / "tools").exists()
    site.assert_works()


@pytest.mark.row("fips")
@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("shared/hostports/conditions.py", "import no_such_module\n", "no_such_module"),
        ("shared/hostports/iptables.py", "raise ValueError('disabled for FIPS')\n", "disabled for FIPS"),
        ("shared/cni/blake2.py", "def hexdigest(data, size):\n    return ''\n", "its BLAKE2 gives wrong digests"),
    ],
)
def test_a_python_that_answers_version_alone(site: Site, file: str, text: str, said: str) -> None:
    """Such a launcher would fail each call; modules that only rare calls load count as well."""
    (site.source / file).write_text(text)
    message = site.refused()
    assert "the code does not work with" in message and said in message
    assert not list(site.bin.iterdir()) and not site.trees()


@pytest.mark.row("fips")
def test_the_slower_digests_are_told(site: Site) -> None:
    assert "BLAKE2" not in site.run().stdout
    path = site.source / "shared/cni/digests.py"
    path.write_text(
        path.read_text().replace("\n\nDIGEST_BYTES", "\nblake2b = lambda data=b'': None\n\nDIGEST_BYTES", 1)
    )
    assert "it has no BLAKE2 of any size, as under FIPS" in site.run().stdout


@pytest.mark.row("fips")
def test_doctor_tells_the_slower_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    node = object()
    assert list(configuration.interpreter(node)) == []  # type: ignore[arg-type]
    monkeypatch.setattr(digests, "blake2b", None)
    [finding] = configuration.interpreter(node)  # type: ignore[arg-type]
    assert "FIPS" in finding.what and finding.severity == 0
