"""install.sh with --agent: compiled launchers, the running agent at an upgrade, the unit, and the way back."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.cni.suite import launched
from tests.pretend import PATH, PretendHost
from tests.system.agent_node import AgentNode, compile_launcher, is_program, kinds
from tests.system.test_install import NOBODY, Site, Watcher, aliases, content, make_site, sentence, small_path

__all__ = ["small_path"]
LOOPBACK = {"cniVersion": "1.0.0", "name": "net", "type": "loopback"}
BRIDGE = {
    "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0", "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"},
}  # fmt: skip
UNIT = "etc/systemd/system/pycni-agent.service"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[AgentNode]:
    with PretendHost() as host:
        yield AgentNode(host, make_site(tmp_path))


def test_install_twice_and_remove(node: AgentNode) -> None:
    """A run without the option keeps the agent; --no-agent ends it and removes all that belongs to it."""
    said = node.install("--agent").stdout
    assert f"start {node.site.bin}/pycni-agent yourself" in said and "no metrics without its library" in said
    assert kinds(node.site) == {True}
    node.version()
    node.start()
    node.version("bridge")
    assert node.served() == 1
    before = {path: path.read_bytes() for path in node.site.bin.iterdir()}

    assert "goes on with this release" in node.install().stdout
    assert {path: path.read_bytes() for path in node.site.bin.iterdir()} == before
    assert node.site.leftovers() == []
    node.await_release()
    node.version()
    assert node.served() == 1 + len(node.site.names()) - 1 and node.state()["fallbacks"] == 0

    said = node.install("--no-agent").stdout
    assert f"removed {node.site.bin}/pycni-agent" in said
    assert node.ended() == 0 and not (node.host.root / "run/pycni").exists()
    assert kinds(node.site) == {False}
    assert {path.name for path in node.site.bin.iterdir()} == node.site.names()
    node.version()


def test_upgrade_with_a_running_agent(node: AgentNode) -> None:
    """Every call during the upgrades succeeds, and the agent serves the new release's calls."""
    node.install("--agent")
    node.start()
    netns = node.host.netns("pod")

    def failed_calls() -> list[str]:
        answers = [node.host.cni("loopback", verb, LOOPBACK, netns=netns, ifname="lo") for verb in ("ADD", "DEL")]
        return [f"{answer}" for answer in answers if answer.status]

    with Watcher(failed_calls) as one, Watcher(failed_calls) as other:
        for number in range(2):
            node.site.change(f"release {number}")
            node.install()
            node.await_release()
    assert one.complaints == other.complaints == []
    assert one.rounds > 0 and other.rounds > 0
    assert len(node.site.trees()) == 3
    before = node.served()
    node.version("bridge")
    assert node.served() == before + 1


def test_own_ipam_is_called_and_not_executed(node: AgentNode) -> None:
    """A compiled launcher is recognized by its last line."""
    node.install("--agent")
    trace = ("strace", "-f", "-qq", "-s", "300", "-o", "/run/trace", "-e", "trace=execve")
    added = node.host.cni("bridge", "ADD", BRIDGE, netns=node.host.netns("pod"), prefix=trace)
    assert added.status == 0, added
    executed = [line for line in node.host.run("cat", "/run/trace").stdout.splitlines() if "execve(" in line]
    assert len(executed) == 2 and f"{node.tree()}/launcher" in executed[1], executed


def test_without_a_compiler(node: AgentNode, small_path: Path, tmp_path: Path) -> None:
    """The agent is installed for its duties; a later run that finds a compiler makes the launchers."""
    hide = {"PATH": str(small_path)}
    done = node.host.run("/bin/bash", *node.site.argv("--agent"), env=hide, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "there is no C compiler; install one (Debian: apt-get install gcc libc6-dev)" in done.stdout
    assert kinds(node.site) == {False} and (node.site.bin / "pycni-agent").exists()
    node.version("bridge")

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "cc").write_text("#!/bin/sh\necho 'cc: no such header' >&2\nexit 1\n")
    (broken / "cc").chmod(0o755)
    assert "cc: no such header" in node.install(path=f"{broken}:{PATH}").stdout
    os.chown(broken / "cc", NOBODY, 0)
    assert f"{broken}/cc does not belong to root" in node.install(path=f"{broken}:{PATH}").stdout
    assert kinds(node.site) == {False}

    assert "no C compiler" not in node.install().stdout
    assert kinds(node.site) == {True}


def test_compiler_that_needs_libc(node: AgentNode, tmp_path: Path) -> None:
    """The program is linked with libc, statically if there is such a libc."""
    sizes = []
    for refused in ("nothing", "-nostdlib", "-static"):
        (tmp_path / "cc").write_text(f'#!/bin/sh\ncase " $* " in *" {refused} "*) exit 1 ;; esac\nexec gcc "$@"\n')
        (tmp_path / "cc").chmod(0o755)
        node.install("--agent", path=f"{tmp_path}:{PATH}")
        assert kinds(node.site) == {True}
        node.version("bridge", "loopback")
        sizes.append((node.site.bin / "bridge").stat().st_size)
    without_libc, static, dynamic = sizes
    if platform.machine() in ("x86_64", "aarch64"):
        assert without_libc < dynamic < static
    else:
        assert dynamic < without_libc == static


def test_launcher_that_a_package_brings(node: AgentNode, small_path: Path) -> None:
    """It needs no compiler. One that is not of this suite replaces nothing."""
    brought = node.site.source / "shared" / f"launcher-{platform.machine()}"
    compile_launcher(brought)
    hide = {"PATH": str(small_path)}
    node.host.run("/bin/bash", *node.site.argv("--agent"), env=hide, timeout=120)
    assert kinds(node.site) == {True}
    node.version("bridge", "loopback")
    assert (node.site.bin / "bridge").read_bytes().startswith(brought.read_bytes()[:64]), "not the one that was brought"
    shutil.copy("/bin/true", brought)
    before = (node.site.bin / "bridge").read_bytes()
    assert "is no launcher of pycni" in sentence(node.install(check=False))
    assert (node.site.bin / "bridge").read_bytes() == before and node.site.leftovers() == []


def test_links_copies_and_foreign_files(node: AgentNode, tmp_path: Path) -> None:
    """The text at a program's end says whose it is, under any name."""
    node.install("--agent")
    first = node.tree()
    made = aliases(node.site)
    elsewhere = Site(node.site.source, tmp_path / "elsewhere", node.site.lib)
    elsewhere.bin.mkdir()
    node.site.change("second")
    node.install()
    assert node.tree() != first and (first / ".superseded").exists()
    for name, plugin in made.items():
        assert (node.site.bin / name).read_bytes() == (node.site.bin / plugin).read_bytes()
    node.version("cnv-bridge", "cnv-tuning", "absolute")

    second = node.tree()
    node.host.run(*Site(node.site.source, elsewhere.bin, node.site.lib).argv(), timeout=120)
    node.site.change("third")
    node.host.run(*elsewhere.argv(), timeout=120)
    assert not (second / ".superseded").exists(), "programs of the first bin dir name it"
    node.host.run(*elsewhere.argv("--uninstall"), timeout=120)
    node.version("bridge", "cnv-tuning")

    (node.site.bin / "bridge").unlink()
    shutil.copy("/bin/true", node.site.bin / "bridge")
    assert f"{node.site.bin}/bridge" in sentence(node.install(check=False))
    assert launched(str(node.site.bin / "tuning")) == (str(second), "tuning")
    node.install("--force")
    assert kinds(node.site) == {True}
    (node.site.bin / "calico").write_bytes((node.site.bin / "bridge").read_bytes() + b"\n")
    node.install("--uninstall")
    assert {path.name for path in node.site.bin.iterdir()} == {"cnv-bridge", "absolute", "calico"}


def test_killed_at_any_moment(node: AgentNode) -> None:
    """After SIGKILL each plugin answers, compiled or not, and the next run makes all of one kind."""
    node.install("--agent")
    began = time.monotonic()
    node.install()
    seconds = time.monotonic() - began
    moments = random.Random(13)
    for number in range(4):
        node.site.change(f"release {number}")
        run = node.host.popen(*node.site.argv("--no-agent" if number % 2 else "--agent"))
        time.sleep(moments.uniform(seconds * 0.3, seconds))
        run.kill()
        run.wait()
        node.version()
    node.install("--agent")
    assert kinds(node.site) == {True} and node.tree() in node.site.trees() and node.site.leftovers() == []


def test_uninstall_ends_the_agent(node: AgentNode) -> None:
    """The agent of another bin dir goes on; the settings are the administrator's and stay."""
    node.install("--agent")
    node.start()
    other = Site(node.site.source, node.site.bin.parent / "other", node.site.lib.parent / "other-lib")
    node.host.run(*other.argv("--agent"), timeout=120)
    node.host.run(*other.argv("--uninstall"), timeout=120)
    node.version("bridge")
    assert node.served() == 1

    node.install("--uninstall")
    assert node.ended() == 0
    assert list(node.site.bin.iterdir()) == [] and not node.site.lib.exists()
    assert not (node.host.root / "run/pycni").exists() and (node.host.root / "etc/cni/pycni-agent.json").exists()


CLUSTER = """
ip link add up0 type veth peer name up1
ip address add 192.0.2.9/24 dev up0
ip link set up0 up; ip link set up1 up
ip link add pycni.vxlan type vxlan id 28793 dstport 4789 local 192.0.2.9 nolearning
ip link set pycni.vxlan up
ip link add pycni.other type veth peer name end
ip route add 10.4.1.0/24 via 192.0.2.1 metric 2048 proto 112
ip route add 10.4.2.0/24 via 10.4.2.0 dev pycni.vxlan onlink metric 2048 proto 112
ip route add 10.4.3.0/24 via 192.0.2.1
mkdir -p /var/lib/pycni/agent; mkdir -m 700 /run/pycni
echo 0123456789abcdef0123456789abcdef >/var/lib/pycni/agent/uid
echo {} >/run/pycni/cluster.json
"""


@pytest.mark.parametrize("forget", [False, True])
def test_uninstall_leaves_the_cluster(node: AgentNode, *, forget: bool) -> None:
    """Routes and tunnels go, others' stay. The machine's id goes on demand alone: its blocks are named after it."""
    node.install("--agent")
    node.host.run("sh", "-ec", CLUSTER)
    node.host.run("tee", "/etc/cni/pycni-agent.json", input=json.dumps({"cluster": True, "metrics": ""}))
    node.start()
    done = node.host.run(f"{node.site.bin}/cnitool", "cluster", "clean", check=False)
    assert done.returncode == 1 and "stop it first" in done.stderr
    said = node.install("--uninstall", *(["--forget-node"] if forget else [])).stdout
    assert "deleted 2 routes of the cluster, pycni.vxlan\n" in said and ("a new node" in said) == forget
    assert [one["dst"] for one in node.host.ip("route")] == ["10.4.3.0/24", "192.0.2.0/24"]
    assert {one["ifname"] for one in node.host.ip("link")} == {"lo", "up0", "up1", "pycni.other", "end"}
    assert not (node.host.root / "run/pycni").exists()
    assert (node.host.root / "var/lib/pycni/agent/uid").exists() != forget


def test_the_id_goes_with_an_uninstallation_alone(node: AgentNode) -> None:
    done = node.install("--forget-node", check=False)
    assert "--forget-node needs --uninstall" in sentence(done, 2)


def test_unit_where_systemd_runs(node: AgentNode, tmp_path: Path) -> None:
    path = node.add_systemd(tmp_path)
    unit = node.host.root / UNIT
    assert "started as pycni-agent.service" in node.install("--agent", path=path).stdout
    assert node.systemctl_calls() == ["daemon-reload", "enable", "start"]
    assert f'ExecStart="{node.site.bin}/pycni-agent"' in unit.read_text()

    node.install(path=path)
    assert node.systemctl_calls() == [], "the administrator has stopped it"
    node.start()
    assert "goes on with this release" in node.install(path=path).stdout
    assert node.systemctl_calls() == []

    source = node.site.source / "shared/agent/pycni-agent.service"
    source.write_text(source.read_text() + "# changed\n")
    node.install(path=path)
    assert node.systemctl_calls() == ["daemon-reload", "try-restart"] and unit.read_text().endswith("# changed\n")

    node.host.run("touch", "/run/systemctl-fails")
    source.write_text(source.read_text() + "# again\n")
    failed = node.install(path=path, check=False)
    assert (failed.returncode, failed.stderr) == (
        1, "install.sh: pycni is installed, its agent is not started: systemctl daemon-reload: Job failed.\n",
    )  # fmt: skip
    node.host.run("rm", "/run/systemctl-fails")
    node.systemctl_calls()
    node.version("bridge")

    node.install("--uninstall", path=path)
    assert node.systemctl_calls() == ["disable --now", "daemon-reload"]
    assert not unit.exists() and node.ended() == 0


def test_unit_of_somebody_else(node: AgentNode, tmp_path: Path) -> None:
    path = node.add_systemd(tmp_path)
    unit = node.host.root / UNIT
    unit.write_text("[Service]\nExecStart=/usr/bin/other\n")
    said = node.install("--agent", path=path).stdout
    assert f"/{UNIT} is not of this installation and stays" in said
    node.install("--uninstall", path=path)
    assert unit.read_text() == "[Service]\nExecStart=/usr/bin/other\n" and node.systemctl_calls() == []


def test_no_units_where_systemd_runs(node: AgentNode, tmp_path: Path) -> None:
    """The units are a package's: install.sh neither writes nor stops them, and an agent follows the release all the same."""
    path = node.add_systemd(tmp_path)
    said = node.install("--agent", "--dhcp", "--no-units", path=path).stdout
    assert "yourself" not in said and "started" not in said
    units = node.host.root / "etc/systemd/system"
    assert list(units.iterdir()) == [] and node.systemctl_calls() == []
    node.start()
    node.site.change("newer")
    assert "goes on with this release" in node.install("--no-units", path=path).stdout
    node.await_release()

    (units / "pycni-agent.service").write_text(f'[Service]\nExecStart="{node.site.bin}/pycni-agent"\n')
    (units / "cni-dhcp.service").write_text(f'[Service]\nExecStart="{node.site.bin}/dhcp" daemon\n')
    before = content(units)
    node.install("--no-units", path=path)
    node.install("--uninstall", "--no-units", path=path)
    assert node.ended() == 0 and list(node.site.bin.iterdir()) == []
    assert content(units) == before and node.systemctl_calls() == []


def test_no_units_leaves_systemds_agent_running(node: AgentNode, tmp_path: Path) -> None:
    """An agent in the control group of its unit ends with the unit."""
    node.install("--agent")
    node.start()
    node.host.run("sh", "-ec", "mkdir /run/groups; mount -t cgroup2 cgroup2 /run/groups")
    group = node.host.root / "run/groups" / f"test-{os.getpid()}" / "pycni-agent.service"
    group.mkdir(parents=True)
    try:
        assert node.agent is not None
        (group / "cgroup.procs").write_text(str(node.agent.pid))
        node.install("--uninstall", "--no-units", path=node.add_systemd(tmp_path))
        assert node.agent.poll() is None and node.systemctl_calls() == []
        assert list(node.site.bin.iterdir()) == []
        node.agent.terminate()
        assert node.ended() == 0
    finally:
        group.rmdir()
        group.parent.rmdir()


@pytest.mark.parametrize("which", ["pycni-agent", "bridge"])
def test_program_in_the_place_of_another(node: AgentNode, which: str) -> None:
    """A foreign file is named and stays, and nothing is installed."""
    node.site.bin.mkdir()
    shutil.copy("/bin/true", node.site.bin / which)
    assert f"{node.site.bin}/{which}" in sentence(node.install("--agent", check=False))
    assert [path.name for path in node.site.bin.iterdir()] == [which] and node.site.trees() == set()


def test_program_that_does_not_start_replaces_nothing(node: AgentNode) -> None:
    node.install("--agent")
    before = {path: path.read_bytes() for path in node.site.bin.iterdir()}, node.site.trees()
    (node.site.source / "plugins" / "loopback.py").write_text("import no_such_module\n")
    assert "no_such_module" in sentence(node.install(check=False))
    script = node.site.source / "install.sh"
    script.write_text(script.read_text().replace("\n${3-}main(tree, name, $modules)\n", "\nraise SystemExit('no')\n"))
    shutil.copy(Path(__file__).parents[2] / "plugins/loopback.py", node.site.source / "plugins")
    assert "does not start" in sentence(node.install(check=False))
    assert ({path: path.read_bytes() for path in node.site.bin.iterdir()}, node.site.trees()) == before


def test_a_program_without_its_code_says_so(node: AgentNode) -> None:
    """The tree is gone: the answer is an error object as that of a text launcher."""
    node.install("--agent")
    shutil.rmtree(node.tree())
    answer = node.host.cni("bridge", "STATUS", BRIDGE)
    assert answer.status == 1 and answer.code == 50, answer
    assert json.loads(answer.stdout)["msg"] == "pycni bridge cannot start: run install.sh again"
    assert is_program(node.site.bin / "bridge")
