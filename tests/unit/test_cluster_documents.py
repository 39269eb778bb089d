"""The pages on clusters agree with the code: alarms, objects, settings, credentials, reserved addresses."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from shared.cluster import codec, conflist, kube_access, plain_yaml, settings
from shared.cluster.decide import decide
from shared.cluster.kube_objects import read_block, read_pool
from shared.cluster.model import Block, Cidr, Claim, Kind, Local, Node, Pool, Range, Snapshot
from tests.kube_store import Object, Store, User, resources

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference/cluster.md").read_text(encoding="utf-8")
PAGES = sorted(DOCS.glob("how-to/cluster-*.md"))
GROUP = "pycni.internal"
ADMINISTRATOR = User("administrator")


def blocks(page: Path, kind: str) -> list[str]:
    """Return the blocks of a kind, without their indentation."""
    found = re.findall(rf"^( *)```{kind}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def examples(kind: str) -> list[str]:
    return [text for page in PAGES for text in blocks(page, kind)]


def alarms() -> Iterator[ast.expr]:
    """Yield the first argument of each Alarm in the product."""
    for path in (ROOT / "shared").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Alarm":
                yield node.args[0]


def test_the_page_has_a_row_for_each_alarm() -> None:
    """The first argument of an Alarm is a literal, so that this test sees it."""
    named = {ast.literal_eval(one) for one in alarms()}
    section = REFERENCE.partition("## Alarms")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE)
    assert len(named) > 10
    assert listed == sorted(named)


def test_the_page_has_each_metric() -> None:
    """Prometheus' library adds _total to the names of counters."""
    text = (ROOT / "shared/cli/agent/cluster_metrics.py").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(pycni_cluster_\w+?)(?:_total)?`", REFERENCE))
    assert len(listed) > 10
    assert listed == set(re.findall(r'"(pycni_cluster_\w+)"', text))


def objects() -> list[Object]:
    return [plain_yaml.parse(text) for text in examples("yaml")]


def test_the_objects_are_those_of_the_cluster() -> None:
    """The API server's schemas admit them, and agents can read them."""
    store, read = Store(), {"Pool": read_pool, "Block": read_block}
    own = [one for one in objects() if str(one["apiVersion"]).startswith(GROUP)]
    assert {one["kind"] for one in own} == {"Pool", "Block"}
    for one in own:
        plural = f"{one['kind'].lower()}s"
        store.create(ADMINISTRATOR, resources()[GROUP, plural], one)
        read[one["kind"]]({**one, "metadata": {**one["metadata"], "uid": "u", "resourceVersion": "1"}})


def test_the_kubeconfig_can_be_used(tmp_path: Path) -> None:
    [text] = [text for text in examples("yaml") if "kind: Config" in text]
    (tmp_path / "kubeconfig").write_text(text)
    (tmp_path / "token").write_text("a.b.c\n")
    access = kube_access.from_kubeconfig(tmp_path / "kubeconfig")
    assert access.server == "https://192.0.2.10:6443" and access.ca.path == tmp_path / "ca.crt"
    assert access.headers() == {"Authorization": "Bearer a.b.c"}


@pytest.mark.parametrize("text", examples("json"))
def test_settings_and_templates_are_valid(text: str, tmp_path: Path) -> None:
    raw = json.loads(text)
    if "engine" in raw:
        assert settings.parse(raw).networks
    else:
        (tmp_path / "template").write_text(text)
        assert conflist.read(tmp_path / "template", raw["name"]).raw == raw


def test_the_pool_in_etcd_can_be_read() -> None:
    [text] = re.findall(r"^\{\"kind\".*\}$", REFERENCE, re.MULTILINE)
    assert codec.to_pool("pods", json.loads(text)).kind is Kind.ROUTED


@pytest.mark.parametrize("reserved", ["192.168.20.0/25", "192.168.20.128/30", "192.168.20.200/32"])
def test_reserved_addresses_are_claimed_by_nobody(reserved: str) -> None:
    """A block of any length that belongs to no node keeps all nodes away, until nothing else is free."""
    cidr = IPv4Network(reserved)
    block = Block("lan", cidr, "reserved", "reserved", 0.0, revision="1")
    pool = Pool("lan", Kind.SEGMENT, (Range(IPv4Network("192.168.20.0/24"), 28),))
    taken: dict[tuple[str, Cidr], Block] = {("lan", cidr): block}
    while True:
        snapshot = Snapshot({"lan": pool}, taken, is_current=True)
        local = Local(Node("one", f"uid {len(taken)}", ()))
        claims = [action for action in decide(snapshot, local, 0.0).actions if isinstance(action, Claim)]
        if not claims:
            break
        [claim] = claims
        assert not claim.cidr.overlaps(cidr)
        taken[claim.network, claim.cidr] = Block("lan", claim.cidr, "other", "other", 1.0, revision="1")
    assert len(taken) - 1 == 16 - max(1, cidr.num_addresses // 16)
