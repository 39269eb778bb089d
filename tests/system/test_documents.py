"""The documents' examples, run as a reader runs them, on a pretend host with the quick start's network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster import conflist
from shared.cluster.model import Kind, Pool, Range
from shared.executables import PLUGINS
from tests.conftest import ROOT
from tests.plugins import SAMPLES
from tests.pretend import PATH, PretendHost

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LIST = "/etc/cni/net.d/10-pods.conflist"
IN_A_CLUSTER = DOCS / "how-to/cluster-etcd.md"  # tests/system/test_cluster_documents.py has etcd for it
ELSEWHERE = ("python3 -m venv", "./install.sh", "./tests/run", "tests/bench/run", "git clone")  # other tests run these
FOUND = ("cnitool doctor", "cnitool validate", "cnitool log")  # they exit with 1 or 2 if they find something


def blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def having(kind: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, kind)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def node(host: PretendHost) -> PretendHost:
    """Return a host with the quick start's network; its `cnitool` is the one with its libraries."""
    host.run("mkdir", "-p", "/etc/cni/net.d")
    host.run("tee", LIST, input=blocks(DOCS / "quickstart.md", "json")[0])
    put_cnitool(host)
    return host


def put_cnitool(host: PretendHost) -> None:
    root = str(ROOT)
    script = f"import sys; sys.path.insert(0, {root!r}); from shared.cli.cnitool import main; main({root!r})"
    put_tool(host, "cnitool", f"#!{sys.executable}\n{script}\n")


def put_tool(host: PretendHost, name: str, text: str) -> None:
    """Write a program into a host's directory of tools."""
    host.run("mkdir", "-p", "/run/tools")
    host.run("tee", f"/run/tools/{name}", input=text)
    host.run("chmod", "755", f"/run/tools/{name}")


@pytest.mark.parametrize("page", [page for page in having("sh") if page != IN_A_CLUSTER], ids=name)
def test_commands(node: PretendHost, installed: Path, page: Path) -> None:
    """Each line succeeds. The test makes namespaces that a page presupposes; a page deletes those that it makes."""
    text = "\n".join(blocks(page, "sh"))
    made = set(re.findall(r"ip netns add (\S+)", text))
    for pod in set(re.findall(r"/run/netns/(\w+)", text)) - made:
        node.netns(pod)
    for target in re.findall(r"ip6?tables -A (CNI-\S+)", text):
        node.run("iptables", "-N", target)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(ELSEWHERE)]
    lines = [f"{line} || [ $? -le 2 ]" if line.startswith(FOUND) else line for line in lines]
    before = [f"nft add table {family} pycni" for family in ("inet", "bridge")]
    script = (
        "\n".join([*before, *lines]).replace("/opt/cni/bin", str(installed)).replace("/tmp/try/bin", str(installed))
    )
    env = {"PATH": f"/run/tools:{PATH}", "CNI_PATH": str(installed)}
    done = node.run("bash", "-eu", "-c", script, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not made & {entry["name"] for entry in node.ip("netns", "list")}


def test_a_try_from_the_checkout(installed: Path) -> None:
    """The guide's example calls a plugin on a node of its own."""
    [code] = blocks(DOCS / "development" / "adding-a-plugin.md", "python")
    command = [sys.executable, "-c", code.replace("/tmp/try/bin", str(installed))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "'name': 'lo'" in done.stdout, done.stdout + done.stderr


def filled_in(template: dict[str, Any], text: str, host: PretendHost) -> dict[str, Any]:
    """Return a conflist as the agent writes it from a template."""
    place, cidr = host.root / "run/template", ip_network("10.244.3.0/24")
    place.write_text(text)
    pool = Pool(template["name"], Kind.ROUTED, (Range(cidr, 24),))
    read = conflist.read(place, template["name"])
    found: dict[str, Any] = json.loads(conflist.render(read, pool, [cidr], mtu=1450, unmasqueraded=[cidr]))
    return found


@pytest.mark.parametrize("page", having("json"), ids=name)
def test_configurations(node: PretendHost, installed: Path, page: Path) -> None:
    """Each is valid; a chained plugin is tried behind bridge, and a cluster's template with the ranges of a node."""
    for text in blocks(page, "json"):
        given = json.loads(text)
        if "engine" in given:  # a cluster's settings: tests/unit/test_cluster_documents.py reads them
            continue
        if page.name.startswith("cluster-"):
            given = filled_in(given, text, node)
        bridge = {"type": "bridge", "isGateway": True, "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}
        sample = SAMPLES.get(given.get("type"))
        before = [bridge] if sample is None or sample.before else []
        if PLUGINS.get(given.get("type"), "").startswith("ipam."):
            before, given = [], {**bridge, "ipam": given}
        whole = given if "plugins" in given else {"cniVersion": "1.0.0", "name": "pods", "plugins": [*before, given]}
        node.run("tee", LIST, input=json.dumps(whole))
        env = {"PATH": f"/run/tools:{PATH}", "CNI_PATH": str(installed)}
        done = node.run("cnitool", "validate", LIST, env=env, check=False)
        assert done.returncode == 0 and "warning" not in done.stdout, done.stdout + done.stderr
