"""README's first command: ./install.sh --demo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ipam.host_local.store import SIDECAR
from shared.cli.demo import command as demo
from shared.net.owner import is_host_link
from tests.pretend import PATH, PATIENCE, PretendHost

TREE = Path(__file__).resolve().parents[2]
DEMO = TREE / "shared/cli/demo/command.py"
NETWORK = demo.NETWORK["name"]
CALL = "import json; from tests.system.test_demo import touched; print(json.dumps(touched()))"
# The demo in the pretend host's own namespaces, without hiding any; its pods are never torn down.
BROKEN = """
import sys
from pathlib import Path
from shared.cli.demo import command as demo
demo.throwaway.hide = lambda directory: None
demo.tear_down = lambda pods, pod: 0.0
try:
    demo.demonstrate(Path(sys.argv[1]))
except demo.Failure as failure:
    print(failure)
"""
NOISE = """
while :; do
    ip netns add noise; ip link add noise0 type veth peer name eth0 netns noise
    mkdir -p /var/lib/cni/networks/noise; : >/var/lib/cni/networks/noise/10.1.0.2; echo >>/run/noise
    ip netns del noise; rm -r /var/lib/cni/networks/noise
done
"""


def touched() -> dict[str, list[str]]:
    """Return the links, files and namespaces with names of the demo; all others on the machine are not its own."""
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    links = os.listdir("/sys/class/net")
    paths = [Path(demo.STATE_DIR, "networks", NETWORK), Path(demo.STATE_DIR, "networks", SIDECAR, NETWORK)]
    paths += [*demo.STATE_DIR.glob(f"results/{NETWORK}-*"), *demo.CONF_DIR.glob("*demo*"), demo.STATE_DIR / "attaching"]
    paths += [*Path("/run/cni").rglob("*"), demo.CONF_DIR, demo.CONF_DIR.parent, demo.STATE_DIR]
    files = {
        file for path in paths if path.exists() for file in (path, *(path.rglob("*") if NETWORK in path.name else ()))
    }
    return {
        "links": sorted(name for name in links if name == demo.BRIDGE or is_host_link(name, NETWORK)),
        "namespaces": sorted(path.name for path in demo.NETNS_DIR.glob("pod[12]")),
        "files": sorted(map(str, files)),
        "rules": sorted(line.strip() for line in rules.splitlines() if f"{NETWORK}/demo-container-" in line),
    }


def run(*argv: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120 * PATIENCE, env=env)


def run_demo(bin_dir: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-I", "-B", DEMO, "--bin-dir", bin_dir)


def test_what_else_happens_meanwhile_is_no_matter(host: PretendHost) -> None:
    before = json.loads(host.python(CALL))
    with host.popen("sh", "-c", NOISE, stdin=subprocess.DEVNULL, stdout=None, stderr=None) as noise:
        host.run("sh", "-c", "until [ -s /run/noise ]; do sleep 0.01; done")
        rounds = len((host.root / "run/noise").read_bytes())
        done = host.run(sys.executable, "-I", "-B", str(DEMO), "--bin-dir", host.bin_dir, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(host.python(CALL)) == before
        assert len((host.root / "run/noise").read_bytes()) > rounds
        noise.kill()


def test_a_demo_that_leaves_something_is_seen(host: PretendHost) -> None:
    before = json.loads(host.python(CALL))
    env = {"PATH": PATH, "PYTHONPATH": str(TREE)}
    done = host.run(sys.executable, "-B", "-c", BROKEN, host.bin_dir, env=env)
    assert done.stdout.splitlines()[-1].startswith("host port 8080 still answers")
    after = json.loads(host.python(CALL))
    assert {kind for kind in before if before[kind] != after[kind]} == {"links", "namespaces", "files", "rules"}
    assert len(after["links"]) == 3 and after["namespaces"] == ["pod1", "pod2"] and len(after["rules"]) >= 1
    assert any(path.endswith("/networks/demo/10.88.0.2") for path in after["files"])
    assert any("/results/demo-demo-container-1-eth0" in path for path in after["files"])


def test_install_and_demo(tmp_path: Path) -> None:
    before = touched()
    done = run(TREE / "install.sh", "--bin-dir", tmp_path / "bin", "--lib-dir", tmp_path / "lib", "--demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("SUCCESS")
    for line in (
        "ok pod1 → pod2 10.88.0.3",
        "ok pod2 → gateway fd00:88::1",
        "ok host → 127.0.0.1 port 8080: answered by pod1, port 80",
        "ok pod2 → fd00:88::1 port 8080: answered by pod1, port 80",
        '"cniVersion": "1.0.0"',
    ):
        assert line in done.stdout
    assert "\033" not in done.stdout
    assert touched() == before


@pytest.mark.parametrize("missing", ["loopback", "bridge", "host-local", "portmap"])
def test_missing_plugin(installed: Path, tmp_path: Path, missing: str) -> None:
    for plugin in {"loopback", "bridge", "host-local", "portmap"} - {missing}:
        (tmp_path / plugin).symlink_to(installed / plugin)
    before = touched()
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert f"FAILED: plugin {missing} not found in {tmp_path}" in done.stderr
    assert "SUCCESS" not in done.stdout
    assert touched() == before


def test_plugin_that_fails_or_lies(installed: Path, tmp_path: Path) -> None:
    for plugin in ("loopback", "host-local", "portmap"):
        (tmp_path / plugin).symlink_to(installed / plugin)
    bridge = tmp_path / "bridge"
    bridge.write_text('#!/bin/sh\necho \'{"code": 11, "msg": "not today"}\'\nexit 1\n')
    bridge.chmod(0o755)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "FAILED: bridge ADD: not today" in done.stderr
    ips = [{"address": "10.88.0.2/24", "interface": 0}, {"address": "fd00:88::2/64", "interface": 0}]
    result = {"interfaces": [{"name": "eth0", "sandbox": "/run/netns/pod1"}], "ips": ips}
    bridge.write_text(f"#!/bin/sh\necho '{json.dumps(result)}'\n")
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "FAILED: pod1: 10.88.0.2/24 of the result is not on eth0" in done.stderr


def test_plugin_that_leaves_something(installed: Path, tmp_path: Path) -> None:
    for plugin in ("loopback", "host-local", "portmap"):
        (tmp_path / plugin).symlink_to(installed / plugin)
    bridge = tmp_path / "bridge"
    bridge.write_text(f'#!/bin/sh\n[ "$CNI_COMMAND" = DEL ] || exec {installed}/bridge\n')
    bridge.chmod(0o755)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "FAILED: pod1 still has eth0" in done.stderr


def test_colour_is_for_terminals(installed: Path) -> None:
    # script(1) gives the command a terminal
    command = f"{sys.executable} -I -B {DEMO} --bin-dir {installed}"
    coloured = run("script", "-qec", command, "/dev/null", env={"PATH": os.environ["PATH"]})
    assert coloured.returncode == 0, coloured.stdout
    assert "\033[1;32m" in coloured.stdout
    plain = run("script", "-qec", command, "/dev/null", env={"PATH": os.environ["PATH"], "NO_COLOR": "1"})
    assert plain.returncode == 0, plain.stdout
    assert "\033[" not in plain.stdout


def test_own_namespaces_are_not_taken_on_trust(installed: Path) -> None:
    own = " ".join(os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "pid"))
    before = touched()
    done = run(sys.executable, "-I", "-B", DEMO, "--bin-dir", installed, "--outside", own)
    assert done.returncode == 1
    assert "not in namespaces of its own" in done.stderr
    assert touched() == before


def test_bin_dir_that_the_demo_would_hide() -> None:
    done = run_demo(Path("/run/cni/bin"))
    assert done.returncode == 1
    assert "is in /run, which is hidden here" in done.stderr


def test_host_port_that_leads_nowhere(installed: Path, tmp_path: Path) -> None:
    """The demo reports it: here portmap passes the result on and maps nothing."""
    for plugin in ("loopback", "host-local", "bridge"):
        (tmp_path / plugin).symlink_to(installed / plugin)
    portmap = tmp_path / "portmap"
    portmap.write_text(f"#!{sys.executable} -I\nimport json, os, sys\n"
                       "if os.environ['CNI_COMMAND'] == 'ADD': print(json.dumps(json.load(sys.stdin)['prevResult']))\n")  # fmt: skip
    portmap.chmod(0o755)
    done = run_demo(tmp_path)
    assert done.returncode == 1
    assert "FAILED: port 8080 of 127.0.0.1 does not lead host to pod1" in done.stderr


def test_times_with_the_agent(tmp_path: Path) -> None:
    """More pods are served by an agent in the demo's namespaces, which leaves nothing. One that fails is reported."""
    before = touched()
    directories = ("--bin-dir", f"{tmp_path}/bin", "--lib-dir", f"{tmp_path}/lib")
    with PretendHost() as host:  # no systemd runs there
        done = host.run(f"{TREE}/install.sh", *directories, "--agent", "--demo", check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done
    _, heading, rest = done.stdout.partition("== The same with pycni-agent\n")
    assert heading and re.search(r"^ +executed +with the agent\n +set-up +\d+\.\d ms +\d+\.\d ms\n +tear-down", rest)
    assert "no call found no worker" in rest
    assert done.stdout.splitlines()[-1].startswith("SUCCESS")
    assert touched() == before

    agent = tmp_path / "bin/pycni-agent"
    agent.unlink()
    agent.write_text("#!/bin/sh\necho 'not today' >&2\nexit 3\n")
    agent.chmod(0o755)
    done = run_demo(tmp_path / "bin")
    assert done.returncode == 1 and "FAILED: pycni-agent does not start: not today" in done.stderr
    assert touched() == before
