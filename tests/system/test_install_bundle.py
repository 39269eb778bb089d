"""install.sh of a bundle, which brings a Python: on a host without any program, and beside the host's own."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import random
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.build.interpreter import fill
from shared.cni.suite import launched
from tests.agent.running import IDLE_WORKERS
from tests.pretend import PATIENCE, until
from tests.system.agent_node import ASK, NO_DUTIES, compile_launcher
from tests.system.small_bundle import CHROOT, BareHost, copy_bundle, make_bundle
from tests.system.test_install import Site, Watcher, content, sentence

BRIDGE = {
    "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}  # fmt: skip
INSTALL = ("/bundle/programs/bash", "/bundle/install.sh")
PROGRAMS = {"PATH": "/bundle/programs"}

pytestmark = pytest.mark.xdist_group("small-bundle")  # one worker makes it


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_bundle(tmp_path_factory.mktemp("bundle"))
    compile_launcher(site.source / "shared" / f"launcher-{platform.machine()}", "-static")
    return site


@pytest.fixture
def site(bundle: Site, tmp_path: Path) -> Site:
    return copy_bundle(bundle, tmp_path)


@pytest.fixture
def host(site: Site) -> Iterator[BareHost]:
    with BareHost(site.source) as host:
        yield host


# -- on a host without programs


def test_attach_and_remove(host: BareHost) -> None:
    """The bundle's programs and Python are enough. Nothing is left, and the pod's network was there."""
    assert not (host.files / "etc/passwd").exists() and not (host.files / "tmp").exists()
    host.install()
    tree = host.tree()
    inside = f"/{tree.relative_to(host.files)}"
    assert (host.files / "opt/cni/bin/bridge").read_text().startswith(f"#!{inside}/python/bin/python3 -IS\n")
    before = content(tree)
    added = host.call("bridge", "ADD", BRIDGE)
    assert added.status == 0, added
    (address,) = (one["address"] for one in added.json["ips"])
    assert address.partition("/")[0] in {
        one["local"] for link in host.ip("address", netns="pod") for one in link["addr_info"]
    }
    host.run("ping", "-c", "1", "-W", "5", address.partition("/")[0])
    assert host.call("bridge", "CHECK", BRIDGE | {"prevResult": added.json}).status == 0
    assert host.call("bridge", "DEL", BRIDGE).status == 0
    assert host.bare("/opt/cni/bin/cnitool", "version").stdout == f"cnitool {tree.name.rpartition('-')[0]}\n"
    assert content(tree) == before, "a call writes nothing"

    host.install("--uninstall")
    assert list((host.files / "opt/cni/bin").iterdir()) == [] and not (host.files / "opt/cni/lib/pycni").exists()
    assert not (host.files / "run/pycni").exists()


def state(host: BareHost) -> dict[str, Any]:
    """Return the agent's own words on its state."""
    return dict(json.loads(host.python(ASK)))


def test_upgrade_under_calls(host: BareHost, site: Site) -> None:
    """Each call during the upgrades succeeds, by the agent or by a Python; the agent goes on with the new Python."""
    (host.files / "etc/cni").mkdir()
    (host.files / "etc/cni/pycni-agent.json").write_text(NO_DUTIES)
    host.install("--agent")
    first = host.tree()
    with (host.files / "opt/cni/bin/bridge").open("rb") as file:
        assert file.read(4) == b"\x7fELF"
    agent = host.popen(*CHROOT, "/opt/cni/bin/pycni-agent", stdin=subprocess.DEVNULL, stderr=None)
    until(lambda: (host.root / "run/pycni/control.sock").exists() and state(host)["workers"]["idle"] == IDLE_WORKERS)

    def failed_calls(container_id: str, env: dict[str, str | None]) -> list[str]:
        calls = [host.call("bridge", verb, BRIDGE, container_id=container_id, ifname=container_id, env=env)
                 for verb in ("ADD", "DEL")]  # fmt: skip
        return [f"{answer}" for answer in calls if answer.status]

    # A request of more strings than the launcher sends is for a Python.
    large = {f"N{number}": "" for number in range(1100)}
    with (
        Watcher(lambda: failed_calls("agent", {})) as by_agent,
        Watcher(lambda: failed_calls("python", dict(large))) as by_python,
    ):
        for number in range(2):
            site.change(f"release {number}")
            (site.source / "python/lib/note").write_text(f"{number}\n")
            assert "goes on with this release" in host.install("--no-units").stdout
            until(lambda: state(host)["tree"] == f"/{host.tree().relative_to(host.files)}")
    assert by_agent.complaints == by_python.complaints == []
    assert by_agent.rounds > 0 and by_python.rounds > 0
    assert state(host)["fallbacks"] >= 2 * by_python.rounds
    assert (first / ".superseded").exists() and (first / "python/bin/python3").exists()
    assert os.readlink(f"/proc/{agent.pid}/exe").endswith(f"/{host.tree().name}/python/bin/python3")

    host.install("--uninstall", "--no-units")
    assert agent.wait(60 * PATIENCE) == 0
    assert list((host.files / "opt/cni/bin").iterdir()) == [] and not (host.files / "opt/cni/lib/pycni").exists()
    assert not (host.root / "run/pycni").exists()


def test_killed_at_any_moment(host: BareHost, site: Site) -> None:
    """After SIGKILL the earlier installation or the new one works, and the next run deletes the leftovers."""
    host.install()
    began = time.monotonic()
    host.install()
    seconds = time.monotonic() - began
    moments = random.Random(5)
    for number in range(4):
        site.change(f"release {number}")
        (site.source / "python/lib/note").write_text(f"{number}\n")
        run = host.popen(*CHROOT, *INSTALL, env=PROGRAMS)
        time.sleep(moments.uniform(0, seconds * 1.3))
        run.kill()
        run.wait()
        for name in sorted(site.names() - {"cnitool"}):
            assert host.call(name, "VERSION", {"cniVersion": "1.0.0"}).status == 0
    host.install()
    places = [host.files / "opt/cni/bin", host.files / "opt/cni/lib/pycni"]
    assert [path for place in places for path in place.glob(".pycni-*")] == []
    assert {launched(str(path)) for path in places[0].iterdir()} <= {
        (str(Path("/") / host.tree().relative_to(host.files)), name) for name in site.names()
    }


def test_runs_wait_for_each_other(host: BareHost, site: Site) -> None:
    """There is no program flock: the bundle's Python takes the lock."""
    runs = [host.popen(*CHROOT, *INSTALL, *more, env=PROGRAMS) for more in ([], ["--uninstall"], [])]
    for run in runs:
        output, complaint = run.communicate(timeout=120 * PATIENCE)
        assert run.returncode == 0, output + complaint
    host.install()
    script = site.source / "install.sh"
    script.write_text(script.read_text().replace("lock_seconds=120", "lock_seconds=1"))
    lock = host.files / "opt/cni/lib/pycni/.pycni-lock"
    lock.touch(mode=0o600)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "still running after 1 s" in sentence(host.install(check=False))
        assert "still running after 1 s" in sentence(host.install("--uninstall", check=False))
    host.install("--uninstall")


# -- beside the host's own Python


def own_python(site: Site) -> Path:
    return site.tree() / "python" / "bin" / "python3"


def test_modes_and_compiled_files_are_the_bundles(site: Site) -> None:
    site.run(umask=0o077)
    site.assert_works()
    brought, installed = site.source / "python", site.tree() / "python"
    files = {path.relative_to(brought) for path in brought.rglob("*") if path.is_file()}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} == files
    for path in files - {Path("bin/python3")}:
        assert (installed / path).read_bytes() == (brought / path).read_bytes()
        mode = 0o755 if path.name.startswith("ld-linux") else 0o644
        assert stat.S_IMODE((installed / path).stat().st_mode) == mode, path
    assert stat.S_IMODE(own_python(site).stat().st_mode) == 0o755
    code = "import json, sys; print(json.__cached__, json.__spec__.loader_state, sys.executable)"
    said = subprocess.run([own_python(site), "-ISc", code], capture_output=True, text=True, check=True).stdout
    assert said.split()[-1] == str(own_python(site)) and str(installed) in said.split()[0]
    maps = subprocess.run([own_python(site), "-IS", "-c", "print(open('/proc/self/maps').read())"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert {str(Path(path).parent) for path in re.findall(r"/\S+\.so\S*", maps)} == {str(installed / "lib")}


def test_run_again_repairs(site: Site) -> None:
    site.run()
    tree, python = site.tree(), site.tree() / "python"
    before = {path: content(path)[str(path)][4] for path in python.rglob("*") if path.is_file()}
    library = next(python.glob("lib/python3*"))
    own_python(site).write_bytes(b"")
    (library / "json/__init__.py").write_text("")
    (library / "os.py").unlink()
    (library / "stray.py").write_text("")
    for path in python.rglob("*.pyc"):
        path.write_bytes(path.read_bytes()[:20])
    for path in python.glob("lib/*.so.*"):
        path.chmod(0o666)
    site.run()
    assert site.trees() == {tree}
    assert {path: content(path)[str(path)][4] for path in python.rglob("*") if path.is_file()} == before
    assert not any(path.stat().st_mode & 0o022 for path in python.rglob("*"))
    site.assert_works()


def test_digest_covers_names_content_and_executable_bits(site: Site) -> None:
    """The loader that the Python names is no part of it: an image's Python runs where it is."""
    note, program = site.source / "python/lib/note", site.source / "python/bin/python3"
    trees = set()
    for text, mode in (("one", 0o644), ("one", 0o755), ("two", 0o755)):
        note.write_text(text)
        note.chmod(mode)
        site.run()
        trees.add(site.tree())
    assert len(trees) == 3
    filled = fill(program.read_bytes(), "/pycni/python/lib/ld-linux.so.2")
    program.unlink()
    program.write_bytes(filled)
    program.chmod(0o755)
    site.run()
    assert site.trees() == trees
    site.assert_works()


def test_the_hosts_python_on_demand(site: Site) -> None:
    site.run("--python", "/usr/bin/python3")
    assert not (site.tree() / "python").exists()
    assert (site.bin / "bridge").read_text().startswith("#!/usr/bin/python3 -IS\n")
    with_host = site.tree()
    site.run()
    assert site.tree() != with_host and (site.bin / "bridge").read_text().startswith(f"#!{own_python(site)} -IS\n")
    site.run("--uninstall")
    assert not site.lib.exists() and list(site.bin.iterdir()) == []


@pytest.mark.parametrize("name", ["white space", "long" * 30])
def test_place_that_no_first_line_can_hold(site: Site, tmp_path: Path, name: str) -> None:
    assert name in site.refused("--lib-dir", str(tmp_path / name))
    assert not site.bin.exists() and not (tmp_path / name).exists()


def test_bundle_that_lacks_a_part(site: Site) -> None:
    (loader,) = site.source.glob("python/lib/ld-linux*")
    loader.rename(loader.with_name("ld"))
    assert "unpack the bundle again" in site.refused()
    loader.with_name("ld").rename(loader)
    shutil.rmtree(site.source / "python/lib/python3.11/json", ignore_errors=True)
    for path in site.source.glob("python/lib/python3*/encodings"):
        shutil.rmtree(path)
    assert f"cannot install from {site.source} with {site.source}/python/bin/python3" in site.refused()
    assert not site.bin.exists() and not site.lib.exists()
