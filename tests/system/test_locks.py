"""Only root can hold a lock of the suite: a user's process takes all that it can open, then calls do their work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.pretend import PATH, PretendHost, read_line
from tests.system.test_install import Site, make_site

pytestmark = pytest.mark.row("locks")
NETWORKS = "/var/lib/cni/networks"
SIDECARS = ("/var/lib/cni/networks/.pycni/net", "/run/cni/.pycni/firewall", "/run/cni/.pycni/hostports")
STATE = ("/var/lib/cni", "/run/cni", "/var/log")
CHAIN: list[dict[str, Any]] = [
    {"type": "bridge", "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
    {"type": "portmap", "backend": "iptables",
     "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}},
    {"type": "firewall", "backend": "iptables"},
]  # fmt: skip
# Holds each file and directory that it can open below some directories, tells how many, and stays.
HOLD = """
import fcntl, os, sys, time
held = []
for top in sys.argv[1:]:
    for folder, _, names in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            try:
                held.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
print(len(held), flush=True)
time.sleep(1000)
"""
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


@contextmanager
def holding(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Wait until the process holds all that it can; yield their number, and kill it."""
    with process:
        try:
            yield int(read_line(process))
        finally:
            process.kill()


def held_by_nobody(host: PretendHost, *tops: str) -> Any:
    return holding(host.popen(*NOBODY, sys.executable, "-IS", "-c", HOLD, *tops, env={"PATH": PATH}))


def call(host: PretendHost, verb: str, keys: dict[str, Any], **more: Any) -> Any:
    config = {"cniVersion": "1.1.0", "name": "net", **keys, **more}
    answer = host.cni(keys["type"], verb, config, netns="/run/netns/pod")
    assert answer.status == 0, (verb, keys["type"], answer)
    return answer


def pass_through(host: PretendHost) -> None:
    """Call all verbs of a pod's life."""
    host.netns("pod")
    result: Any = None
    for keys in CHAIN:
        result = call(host, "ADD", keys, **({"prevResult": result} if result else {})).json
    for keys in CHAIN:
        call(host, "CHECK", keys, prevResult=result)
        call(host, "GC", keys, **{"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]})
    for keys in reversed(CHAIN):
        call(host, "DEL", keys, prevResult=result)
    host.drop_netns("pod")


@pytest.mark.parametrize("found", ["new", "used", "of the reference"])
def test_every_lock_of_the_plugins(host: PretendHost, found: str) -> None:
    """Directories that exist already have mode 0755, the lock file of the reference 0750, by its umask."""
    if found == "used":
        pass_through(host)
    if found == "of the reference":
        host.run("mkdir", "-p", "-m", "755", f"{NETWORKS}/net", "/run/cni/firewall", "/run/cni/hostports")
        host.run("sh", "-c", f"umask 027; : >{NETWORKS}/net/lock")
    host.run("mkdir", "-p", *STATE)
    with held_by_nobody(host, *STATE) as number:
        assert number
        pass_through(host)
    for directory in (f"{NETWORKS}/net", *SIDECARS[1:2]):
        lock = (host.root / directory.lstrip("/") / "lock").stat()
        assert (lock.st_uid, lock.st_mode & 0o777) == (0, 0o600)


def test_a_lock_file_that_others_hold_already(host: PretendHost) -> None:
    """It is replaced, since no call can be the holder; a file that root holds is not."""
    host.run("mkdir", "-p", "-m", "755", f"{NETWORKS}/net", *SIDECARS)
    host.run("touch", f"{NETWORKS}/net/lock")
    before = (host.root / f"{NETWORKS}/net/lock".lstrip("/")).stat().st_ino
    with held_by_nobody(host, *STATE[:2]):
        pass_through(host)
        assert (host.root / f"{NETWORKS}/net/lock".lstrip("/")).stat().st_ino != before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "lock", "named"), [(CHAIN[0], f"{NETWORKS}/net", "lease"), (CHAIN[2], "/run/cni/.pycni/firewall", "note")]
)
def test_the_holder_is_named(host: PretendHost, keys: dict[str, Any], lock: str, named: str) -> None:
    """The error says neither "another call", which would be wrong, nor "no process"."""
    host.run("mkdir", "-p", "-m", "700", lock)
    host.netns("pod")
    previous = {"cniVersion": "1.1.0", "interfaces": [], "ips": [{"address": "10.1.0.2/24"}]}
    config = {"cniVersion": "1.1.0", "name": "net", **keys} | ({"prevResult": previous} if named == "note" else {})
    with host.popen("flock", f"{lock}/lock", "sh", "-c", "echo 1; read -r line") as held:
        assert read_line(held)
        answer = host.cni(keys["type"], "ADD", config, netns="/run/netns/pod")
        held.communicate(b"\n")
    assert answer.code == 11, answer
    assert re.search(r"is held by \S+ \(process \d+\) for over \d+ seconds", answer.json["msg"]), answer
    assert "another call" not in answer.json["msg"]


def test_a_log_that_others_may_read(host: PretendHost) -> None:
    """Calls write lines without a wait, and replace a full log."""
    host.run("mkdir", "-p", "/var/log")
    log = {"pycni": {"log": "/run/pycni.log", "size": 4096}}
    path = host.root / "run/pycni.log"
    path.write_text("x\n" * 3000)
    path.chmod(0o644)
    with host.popen(*NOBODY, "flock", "/run/pycni.log", "sh", "-c", "echo held; read -r line") as held:
        assert read_line(held) == b"held\n"
        answer = host.cni("loopback", "STATUS", {"cniVersion": "1.1.0", "name": "net", "type": "loopback", **log})
        held.communicate(b"\n")
    assert (answer.status, answer.stderr) == (0, "")
    assert json.loads(path.read_text())["verb"] == "STATUS"
    assert (host.root / "run/pycni.log.1").read_text() == "x\n" * 3000


def test_the_runtimes_cache(host: PretendHost, installed: Path) -> None:
    host.run("mkdir", "-p", "-m", "755", "/var/lib/cni/attaching", "/etc/cni/net.d")
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [CHAIN[0]]}
    (host.root / "etc/cni/net.d/net.conflist").write_text(json.dumps(network))
    script = "import sys; from shared.cli.cnitool import run; sys.exit(run('/none', sys.argv[1:]))"
    env = {"PATH": PATH, "PYTHONPATH": str(ROOT), "CNI_PATH": str(installed)}
    with held_by_nobody(host, "/var/lib/cni"):
        for verb in ("add", "del"):
            host.run(
                sys.executable,
                "-c",
                script,
                verb,
                "net",
                host.netns("pod") if verb == "add" else "/run/netns/pod",
                env=env,
            )
    assert (host.root / "var/lib/cni/attaching").stat().st_mode & 0o777 == 0o700


@pytest.fixture
def site() -> Iterator[Site]:
    """Yield an installation in directories that every user can open."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield make_site(Path(directory))


def test_the_directories_of_an_installation(site: Site) -> None:
    site.run()
    with holding(subprocess.Popen([*NOBODY, sys.executable, "-IS", "-c", HOLD, site.bin, site.lib],
                                  stdout=subprocess.PIPE)) as number:  # fmt: skip
        assert number > 100
        site.change("next")
        site.run()
        site.run("--uninstall")
    assert site.leftovers() == []


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_lock_file_that_an_installation_found(site: Site, mode: int) -> None:
    """A file that others can open is not a run's; a killed run's file is taken over."""
    site.bin.mkdir()
    lock = site.bin / ".pycni-lock"
    lock.touch()
    lock.chmod(mode)
    with holding(subprocess.Popen([*NOBODY, sys.executable, "-IS", "-c", HOLD, site.bin], stdout=subprocess.PIPE)):
        site.run()
    assert site.leftovers() == []


def test_an_installation_names_the_run_that_it_waited_for(site: Site) -> None:
    site.bin.mkdir()
    script = site.source / "install.sh"
    script.write_text(script.read_text().replace("lock_seconds=120", "lock_seconds=1"))
    lock = site.bin / ".pycni-lock"
    lock.touch(mode=0o600)
    with subprocess.Popen(
        ["flock", lock, "sh", "-c", "echo 1; read -r line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        assert read_line(held)
        message = site.refused()
        held.communicate(b"\n")
    assert re.search(r"still running after 1 s: process \d+ \(flock\) holds ", message), message
    assert lock.exists()
