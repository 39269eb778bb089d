"""The engine on the Kubernetes API, against the server of tests/kube_server.py or a real one.

The first tests are the rules of the API that the engine rests on. They, the contract of engines, and all others that
need no faults run against a real API server, too, with an administrator's credentials. All objects of the group
pycni.internal there are deleted:

    kubectl apply -f shared/cluster/manifests/resources.yaml
    python -m pytest tests/system/test_cluster_kubernetes.py --server https://192.0.2.1:6443 --kubeconfig admin.conf
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from shared.cluster.connection import HttpError
from shared.cluster.engine import EngineError, Refused, Taken
from shared.cluster.kube_access import Access, Source, from_kubeconfig, in_cluster
from shared.cluster.kube_client import BASE
from shared.cluster.kube_follow import Scope
from shared.cluster.model import Block, Kind, Peer, Pool, Range, State
from tests import certificates
from tests.cluster_contract import Connect, EngineContract, Following
from tests.kube_server import ADMIN, KubeServer, agent
from tests.kube_store import ApiError
from tests.own_network import own_network
from tests.pretend import until
from tests.relay import Hostile
from tests.system.kube_cluster import IMPATIENT, TIMES, Cluster, administrator, status

PODS = Pool("pods", Kind.ROUTED, (Range(ip_network("10.244.0.0/16"), 24), Range(ip_network("fd00:10::/48"), 64)))
CIDRS = [ip_network(f"10.244.{third}.0/24") for third in range(8)]


def block(third: int = 0, node: str = "node-1", network: str = "pods") -> Block:
    return Block(network, CIDRS[third], node, f"uid-of-{node}", 1_790_000_000.25)


def peer(node: str, third: int = 0) -> Peer:
    addresses = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    return Peer(node, f"uid-of-{node}", addresses, {"pods": (CIDRS[third],)}, 1_790_000_000.5, "02:00:00:00:00:01")


def raw_block(name: str, **spec: object) -> dict[str, Any]:
    spec = {"node": "node-1", "nodeUID": "uid", "since": 1.5, "state": "owned"} | spec
    return {"apiVersion": "pycni.internal/v1", "kind": "Block", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    authority = certificates.make(tmp_path_factory.mktemp("certificates"))
    authority.issue("server")
    authority.issue(ADMIN, client=True)
    return authority


@pytest.fixture(scope="module", autouse=True)
def network(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.config.getoption("server"):
        yield
    else:
        with own_network():
            yield


@pytest.fixture
def cluster(request: pytest.FixtureRequest, authority: certificates.Authority, tmp_path: Path) -> Iterator[Cluster]:
    """Return an empty cluster."""
    url, directory = request.config.getoption("server"), authority.directory
    if url:
        access = from_kubeconfig(Path(request.config.getoption("kubeconfig")), server=url)
        with Cluster(access) as cluster:
            cluster.clear()
            yield cluster
        cluster.clear()
        return
    with KubeServer(directory / "server.crt", directory / "server.key", authority.certificate) as server:
        admin = administrator(server, authority.certificate, directory / f"{ADMIN}.crt", directory / f"{ADMIN}.key")
        with Cluster(admin, server, tmp_path) as cluster:
            yield cluster


@pytest.fixture
def server(cluster: Cluster) -> KubeServer:
    """Return the server of this repository, to order faults."""
    if cluster.server is None:
        pytest.skip("a real API server has no faults on order")
    return cluster.server


# The rules of the API


def test_a_name_is_created_once(cluster: Cluster) -> None:
    body = raw_block("pods.10-244-0-0-24")
    created = cluster.ask("POST", f"{BASE}/blocks", body)
    assert created.status == 201
    metadata = json.loads(created.body)["metadata"]
    assert metadata["uid"] and metadata["creationTimestamp"] and metadata["resourceVersion"].isdecimal()
    again = cluster.ask("POST", f"{BASE}/blocks", body)
    assert status(again) == (409, "AlreadyExists")
    assert json.loads(again.body)["details"]["name"] == "pods.10-244-0-0-24"


def test_an_update_compares_the_revision(cluster: Cluster) -> None:
    path = f"{BASE}/blocks/pods.10-244-0-0-24"
    body = raw_block("pods.10-244-0-0-24")
    assert status(cluster.ask("PUT", path, body | {"metadata": body["metadata"] | {"resourceVersion": "1"}}))[0] == 404
    old = json.loads(cluster.ask("POST", f"{BASE}/blocks", body).body)
    assert status(cluster.ask("PUT", path, body)) == (422, "Invalid")  # without a revision
    same = json.loads(cluster.ask("PUT", path, old).body)
    assert same["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
    draining = old | {"spec": old["spec"] | {"state": "draining"}}
    new = json.loads(cluster.ask("PUT", path, draining).body)
    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    assert status(cluster.ask("PUT", path, old)) == (409, "Conflict")
    foreign = new | {"metadata": new["metadata"] | {"uid": "2f0c5a0e-0000-4000-8000-000000000000"}}
    assert status(cluster.ask("PUT", path, foreign)) == (409, "Conflict")
    renamed = new | {"metadata": new["metadata"] | {"name": "pods.10-244-1-0-24"}}
    assert status(cluster.ask("PUT", path, renamed)) == (400, "BadRequest")


def test_a_deletion_has_preconditions(cluster: Cluster) -> None:
    path = f"{BASE}/blocks/pods.10-244-0-0-24"
    metadata = json.loads(cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-0-0-24")).body)["metadata"]
    revision = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    for other in ({"uid": "2f0c5a0e-0000-4000-8000-000000000000"}, {"resourceVersion": "1"}):
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": revision | other}
        assert status(cluster.ask("DELETE", path, options)) == (409, "Conflict")
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": revision}
    assert cluster.ask("DELETE", path, options).status == 200
    gone = cluster.ask("DELETE", path, options)
    assert status(gone) == (404, "NotFound") and json.loads(gone.body)["details"]["name"] == "pods.10-244-0-0-24"


def test_the_schema_holds(cluster: Cluster) -> None:
    for name, spec in {
        "pods.10-244-0-0-24": {"state": "free"},
        "pods.10-244-1-0-24": {"node": ""},
        "pods.10-244-2-0-24": {"since": "now"},
        "pods.10-244-2-0": {},
        "pods.10-244-02-0-24": {},
        "Pods.10-244-2-0-24": {},
    }.items():
        assert status(cluster.ask("POST", f"{BASE}/blocks", raw_block(name, **spec))) == (422, "Invalid"), name
    made = json.loads(cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-0-0-24", more=1)).body)
    assert "more" not in made["spec"]
    other = made | {"spec": made["spec"] | {"nodeUID": "another"}}
    assert status(cluster.ask("PUT", f"{BASE}/blocks/pods.10-244-0-0-24", other)) == (422, "Invalid")
    assert status(cluster.ask("POST", f"{BASE}/pools", raw_block("pods"))) == (400, "BadRequest")


def test_an_unknown_kind_is_no_absent_object(cluster: Cluster) -> None:
    answer = cluster.ask("GET", f"{BASE}/boxes/pods")
    assert answer.status == 404
    try:
        details = json.loads(answer.body).get("details") or {}
    except ValueError:
        details = {}  # plain text, of a group that the server does not know
    assert "name" not in details


def test_pages_are_of_one_revision(cluster: Cluster) -> None:
    for third in range(5):
        cluster.ask("POST", f"{BASE}/blocks", raw_block(f"pods.10-244-{third}-0-24"))
    first = json.loads(cluster.ask("GET", f"{BASE}/blocks?limit=2").body)
    cluster.ask("DELETE", f"{BASE}/blocks/pods.10-244-4-0-24")
    cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-3-0-25"))
    names = [one["metadata"]["name"] for one in first["items"]]
    token, revisions = first["metadata"]["continue"], {first["metadata"]["resourceVersion"]}
    while token:
        page = json.loads(cluster.ask("GET", f"{BASE}/blocks?limit=2&continue={token}").body)
        names += [one["metadata"]["name"] for one in page["items"]]
        revisions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue")
    assert names == [f"pods.10-244-{third}-0-24" for third in range(5)] and len(revisions) == 1


def test_a_watch_tells_all_since_a_revision(cluster: Cluster) -> None:
    """The stream ends by itself, so that it can be read as one answer."""
    begin = json.loads(cluster.ask("GET", f"{BASE}/blocks").body)["metadata"]["resourceVersion"]
    made = json.loads(cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-0-0-24")).body)
    path = f"{BASE}/blocks/pods.10-244-0-0-24"
    cluster.ask("PUT", path, made | {"spec": made["spec"] | {"state": "draining"}})
    cluster.ask("DELETE", path)
    answer = cluster.ask("GET", f"{BASE}/blocks?watch=1&resourceVersion={begin}&timeoutSeconds=1")
    events = [json.loads(line) for line in answer.body.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert int(begin) < revisions[0] < revisions[1] < revisions[2]


def test_a_watch_from_too_old_a_revision_is_gone(cluster: Cluster) -> None:
    answer = cluster.ask("GET", f"{BASE}/blocks?watch=1&resourceVersion=1&timeoutSeconds=1")
    if answer.status == 200:
        (event,) = map(json.loads, answer.body.splitlines())
        assert event["type"] == "ERROR" and event["object"]["code"] == 410
    else:
        assert answer.status == 410


def test_a_wrong_token_is_no_user(cluster: Cluster) -> None:
    access = replace(cluster.admin, token=Source(data=b"wrong"), certificate=Source(), key=Source())
    assert status(cluster.ask("GET", f"{BASE}/blocks", access=access)) == (401, "Unauthorized")


# The engine


class TestContract(EngineContract):
    @pytest.fixture
    def connect(self, cluster: Cluster) -> Connect:
        return lambda: cluster.engine(access=cluster.admin)


def test_pages_are_one_list(cluster: Cluster) -> None:
    engine = cluster.engine()
    blocks = {("pods", CIDRS[third]): engine.claim(block(third)) for third in range(8)}
    assert cluster.follow(engine).state.blocks == blocks


def test_impossible_names_are_refused(cluster: Cluster) -> None:
    engine = cluster.engine()
    with pytest.raises(Refused, match="longer than 253"):
        engine.claim(block(network="n" * 250))
    with pytest.raises(Refused, match="makes a name of 260 characters"):
        engine.write_pool(replace(PODS, network="n" * 260))
    with pytest.raises(Refused, match="'Node_1' is not the name of a Kubernetes Node"):
        engine.announce(peer("Node_1"))


def test_unreadable_objects_are_told_and_do_no_harm(cluster: Cluster) -> None:
    cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-0-1-24"))  # bits of the host
    cluster.ask("POST", f"{BASE}/blocks", raw_block("pods.10-244-1-0-24", node="a b"))
    engine = cluster.engine()
    claimed = engine.claim(block(2))
    found = cluster.follow(engine).state
    assert found.blocks == {("pods", CIDRS[2]): claimed}
    assert set(found.unreadable) == {"blocks/pods.10-244-0-1-24", "blocks/pods/10.244.1.0/24"}
    with pytest.raises(EngineError, match="node is 'a b'"):
        engine.read_block("pods", CIDRS[1])


# Credentials


def test_a_node_is_a_sign_of_life(cluster: Cluster, server: KubeServer) -> None:
    """It is that of its successor if another machine has announced itself under its name."""
    engine = cluster.engine("node-1")
    assert engine.find_life("node-1", "uid-of-node-1") == ""
    server.add("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {}})
    assert engine.find_life("node-1", "uid-of-node-1") == "Kubernetes has the Node node-1"
    engine.announce(peer("node-1"))
    assert engine.find_life("node-1", "uid-of-node-1") and engine.find_life("node-1", "former") == ""
    with pytest.raises(Refused):
        engine.find_life("Node 1", "uid")


@pytest.mark.usefixtures("server")
def test_an_agent_may_write_its_own_objects_alone(cluster: Cluster) -> None:
    engine, other = cluster.engine("node-1"), cluster.engine("node-2")
    claimed = other.claim(block(1, "node-2"))
    with pytest.raises(Refused, match=r"block pods\.10-244-0-0-24: .* 403: .*access\.yaml"):
        engine.claim(block(0, "node-2"))
    for method in (engine.update_block, engine.release):
        with pytest.raises(Refused, match=r"block pods\.10-244-1-0-24"):
            method(replace(claimed, state=State.DRAINING))
    with pytest.raises(Refused, match="peer node-2"):
        engine.announce(peer("node-2"))
    with pytest.raises(Refused, match=r'peer node-1: .*cannot delete resource "peers"'):
        engine.withdraw(engine.announce(peer("node-1")))
    with pytest.raises(Refused, match="pool pods"):
        engine.write_pool(PODS)
    assert other.read_block("pods", CIDRS[1]) == claimed
    other.release(claimed)


def test_a_token_without_a_node_writes_nothing(cluster: Cluster, server: KubeServer) -> None:
    access = cluster.access("node-1")
    server.tokens = {token: agent("") for token in server.tokens}
    engine = cluster.engine(access=access)
    with pytest.raises(Refused, match="403"):
        engine.claim(block())
    assert engine.read_block("pods", CIDRS[0]) is None


def test_a_rotated_token_is_used_at_once(cluster: Cluster, server: KubeServer) -> None:
    """A kubelet renews the file; the old token ends some time after."""
    access = cluster.access("node-1")
    engine = cluster.engine(access=access)
    engine.claim(block(0))
    following = cluster.follow(engine)
    server.tokens = {"renewed": agent("node-1")}
    with pytest.raises(Refused, match="401"):
        engine.claim(block(1))
    server.stop()
    server.start()
    following.until(lambda one: "401" in one.failure)
    assert access.token.path
    access.token.path.write_text("renewed\n")
    engine.claim(block(1))
    following.until(lambda one: one.is_current and len(one.blocks) == 2)


def test_a_token_that_cannot_be_read_sends_nothing(cluster: Cluster, server: KubeServer) -> None:
    access = cluster.access("node-1")
    engine = cluster.engine(access=access)
    assert access.token.path
    for text in ("", "two\nlines"):
        access.token.path.write_text(text)
        with pytest.raises(HttpError, match=r"token file .* one line of ASCII") as raised:
            engine.claim(block())
        assert not raised.value.was_sent
    access.token.path.unlink()
    with pytest.raises(HttpError, match="No such file"):
        engine.claim(block())
    assert server.seen == []


def test_a_pod_finds_its_account(cluster: Cluster, server: KubeServer, authority: certificates.Authority) -> None:
    directory = cluster.directory / "serviceaccount"
    directory.mkdir()
    (directory / "token").write_text("secret")
    (directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
    server.tokens["secret"] = agent("node-1")
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": server.url.rpartition(":")[2]}
    engine = cluster.engine(access=in_cluster(directory=directory, environment=environment))
    engine.claim(block())


def test_a_server_with_another_ca_gets_no_credentials(cluster: Cluster, server: KubeServer) -> None:
    """The CA's file is read for each connection, so one that is put right helps at once."""
    other = certificates.make(cluster.directory, "other-ca")
    ca = cluster.directory / "ca.crt"
    ca.write_bytes(other.certificate.read_bytes())
    engine = cluster.engine(access=replace(cluster.access("node-1"), ca=Source(ca)))
    with pytest.raises(HttpError, match="certificate verify failed") as raised:
        engine.claim(block())
    assert not raised.value.was_sent and server.seen == []
    assert cluster.admin.ca.path
    ca.write_bytes(cluster.admin.ca.path.read_bytes())
    engine.claim(block())


def test_the_certificate_must_be_for_the_host(cluster: Cluster, server: KubeServer) -> None:
    access = replace(cluster.access("node-1"), server=server.url.replace("127.0.0.1", "127.0.0.2"))
    with pytest.raises(HttpError, match=r"127\.0\.0\.2"):
        cluster.engine(access=replace(access, server_name="127.0.0.2")).claim(block())
    cluster_access = replace(cluster.access("node-1"), server_name="other.example")
    with pytest.raises(HttpError, match=r"other\.example"):
        cluster.engine(access=cluster_access).claim(block())


def test_a_kubeconfig_has_all_inside(cluster: Cluster, server: KubeServer) -> None:
    """A client certificate and its key in base64, as kubeadm writes them."""
    from base64 import b64encode

    data = {name: b64encode(getattr(cluster.admin, name).read()).decode() for name in ("ca", "certificate", "key")}
    path = cluster.directory / "admin.conf"
    path.write_text(
        f"""apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {data["ca"]}
    server: {server.url}
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: kubernetes-admin
  name: kubernetes-admin@kubernetes
current-context: kubernetes-admin@kubernetes
kind: Config
preferences: {{}}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {data["certificate"]}
    client-key-data: {data["key"]}
"""
    )
    access: Access = from_kubeconfig(path)
    cluster.engine(access=access).write_pool(PODS)


# Failures


def test_a_lost_answer_is_read_back_by_name(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine()
    server.order("POST", "lose")
    with pytest.raises(EngineError) as raised:
        engine.claim(block())
    assert not isinstance(raised.value, Taken | Refused)
    found = engine.read_block("pods", CIDRS[0])
    assert found and found.uid == "uid-of-node-1"
    assert [one for one in server.seen if one.startswith("POST")] == [f"POST {BASE}/blocks"]


def test_a_missing_kind_is_no_missing_block(cluster: Cluster, server: KubeServer) -> None:
    """Else a node would think that its blocks are gone, or that a release was done."""
    engine = cluster.engine()
    claimed = engine.claim(block())
    kind = server.resources.pop(("pycni.internal", "blocks"))
    with pytest.raises(Refused, match=r"apply the manifest resources\.yaml"):
        engine.read_block("pods", CIDRS[0])
    with pytest.raises(Refused, match=r"apply the manifest resources\.yaml"):
        engine.release(claimed)
    with pytest.raises(Refused, match=r"resources\.yaml"):
        engine.claim(block(1))
    server.resources["pycni.internal", "blocks"] = kind
    assert engine.read_block("pods", CIDRS[0]) == claimed


def test_a_busy_server_is_left_alone(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine()
    server.order("POST", (ApiError(429, "TooManyRequests", "too many requests"), 1))
    with pytest.raises(HttpError, match="429: too many requests") as raised:
        engine.claim(block())
    assert not raised.value.was_sent  # it did nothing
    with pytest.raises(HttpError, match="wants no requests for") as raised:
        engine.read_block("pods", CIDRS[0])
    assert not raised.value.was_sent and len(server.seen) == 1

    def answers() -> bool:
        try:
            engine.claim(block())
        except EngineError:
            return False
        return True

    until(answers)
    assert len(server.seen) == 2


@pytest.mark.parametrize("code", [500, 503, 504])
def test_the_end_of_a_failed_write_is_unknown(cluster: Cluster, server: KubeServer, code: int) -> None:
    server.order("POST", ApiError(code, "", "etcdserver: request timed out"))
    with pytest.raises(EngineError, match="request timed out") as raised:
        cluster.engine().claim(block())
    assert type(raised.value) is EngineError


def test_a_frozen_server_is_noticed(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine(times=IMPATIENT)
    following = cluster.follow(engine)
    with server.frozen():
        found = following.until(lambda one: not one.is_current)
        assert found.failure
        server.add("blocks", raw_block("pods.10-244-0-0-24"))
    following.until(lambda one: one.is_current and ("pods", CIDRS[0]) in one.blocks)


def test_a_restart_loses_no_change(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine()
    first = engine.claim(block(0))
    following = cluster.follow(engine)
    server.stop()
    assert following.until(lambda one: not one.is_current).blocks == {("pods", CIDRS[0]): first}
    server.store.delete(server.admin, server.resource("blocks"), "pods.10-244-0-0-24", {})
    server.add("blocks", raw_block("pods.10-244-1-0-24"))
    server.start()
    found = following.until(lambda one: one.is_current and ("pods", CIDRS[1]) in one.blocks)
    assert set(found.blocks) == {("pods", CIDRS[1])}
    assert len(server.lists("blocks")) == 1  # the watch went on where it was


def test_a_compacted_watch_lists_again(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine()
    for third in range(3):
        engine.claim(block(third))
    following = cluster.follow(engine)
    server.stop()
    following.until(lambda one: not one.is_current)
    server.store.delete(server.admin, server.resource("blocks"), "pods.10-244-0-0-24", {})
    server.add("blocks", raw_block("pods.10-244-4-0-24"))
    server.store.compact()
    server.start()
    wanted = {("pods", CIDRS[third]) for third in (1, 2, 4)}
    following.until(lambda one: one.is_current and set(one.blocks) == wanted)
    # No state in between: an object that is there before and after is never missed.
    assert all(("pods", CIDRS[1]) in one.blocks for one in following.states if one.blocks)


def test_a_refused_watch_lists_again(cluster: Cluster, server: KubeServer) -> None:
    """Servers without a watch cache answer 410 in place of an event."""
    server.order(f"GET {BASE}/blocks?watch", ApiError(410, "Expired", "too old resource version"))
    engine = cluster.engine()
    claimed = engine.claim(block())
    assert cluster.follow(engine).state.blocks == {("pods", CIDRS[0]): claimed}
    assert len(server.lists("blocks")) == 2


def test_an_expired_page_begins_the_list_anew(cluster: Cluster, server: KubeServer) -> None:
    cluster.engine(access=cluster.admin).write_pool(PODS)
    engine = cluster.engine()
    for third in range(8):
        engine.claim(block(third))
    server.order(f"GET {BASE}/blocks?limit=3&continue", ApiError(410, "Expired", "too old"), times=3)
    following = cluster.follow(engine)
    assert len(following.state.blocks) == 8
    # A part of the objects would look like the loss of the others.
    assert {(len(one.pools), len(one.blocks)) for one in following.states} <= {(0, 0), (1, 8)}


def test_a_restored_backup_is_noticed(cluster: Cluster, server: KubeServer) -> None:
    """Such a server says nothing on a watch from a revision that it has not had."""
    engine = cluster.engine()
    engine.claim(block(0))
    revision = server.store.revision
    for third in range(1, 4):
        engine.claim(block(third))
    following = cluster.follow(engine)
    server.stop()
    server.store.restore(revision)
    server.start()
    following.until(lambda one: one.is_current and len(one.blocks) == 1)


def test_a_server_without_bookmarks_stays_current(cluster: Cluster, server: KubeServer) -> None:
    server.has_bookmarks = False
    engine = cluster.engine()
    following = cluster.follow(engine)
    until(lambda: len([one for one in server.seen if "/blocks?watch" in one]) >= 3)
    assert len(server.lists("blocks")) == 1
    server.add("blocks", raw_block("pods.10-244-0-0-24"))
    following.until(lambda one: ("pods", CIDRS[0]) in one.blocks)
    first = next(at for at, one in enumerate(following.states) if one.is_current)
    assert all(one.is_current for one in following.states[first:])


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"type": "ADDED"}',
        '{"type": "ERROR", "object": {"code": 500}}',
        '{"type": "BOOKMARK", "object": {"metadata": []}}',
        '{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "%s"}}}' % ("9" * 5000),
    ],
    ids=range(6),
)
def test_a_strange_event_lists_again(cluster: Cluster, server: KubeServer, line: str) -> None:
    engine = cluster.engine()
    following = cluster.follow(engine)
    server.say("blocks", line)
    until(lambda: len(server.lists("blocks")) > 1)
    server.add("blocks", raw_block("pods.10-244-0-0-24"))
    following.until(lambda one: one.is_current and ("pods", CIDRS[0]) in one.blocks)


OTHER = raw_block("pods.10-244-9-0-24") | {
    "metadata": {"name": "pods.10-244-9-0-24", "resourceVersion": "1", "uid": "u"}
}


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "302 Found", "404 Not Found"])
@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b"{}", b'{"metadata": {}}', json.dumps(OTHER).encode()], ids=range(5)
)
def test_another_server_is_believed_nothing(cluster: Cluster, status: str, body: bytes) -> None:
    """Such as a proxy's page of errors: no claim is made or lost by it, and no state is current."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with Hostile(lambda _: [head, body]) as hostile:
        engine = cluster.engine(access=Access(hostile.url))
        asks: list[Callable[[], object]] = [
            lambda: engine.claim(block()),
            lambda: engine.read_block("pods", CIDRS[0]),
            lambda: engine.update_block(replace(block(), revision="u/1")),
        ]
        for ask in asks:
            with pytest.raises(EngineError) as raised:
                ask()
            assert not isinstance(raised.value, Taken)
        with Following(engine) as following:
            following.until(lambda one: "/pools" in one.failure)
        assert not any(one.is_current or one.blocks for one in following.states)


def test_close_ends_a_request_in_progress(cluster: Cluster, server: KubeServer) -> None:
    engine = cluster.engine()
    raised: list[EngineError] = []

    def claim() -> None:
        try:
            engine.claim(block())
        except EngineError as error:
            raised.append(error)

    with server.frozen():
        thread = threading.Thread(target=claim, daemon=True)
        thread.start()
        until(lambda: bool(server.waiting))
        engine.close()
        thread.join(30)
    assert len(raised) == 1


@pytest.mark.usefixtures("server")
def test_a_joining_node_costs_few_requests(cluster: Cluster) -> None:
    engine = cluster.engine(times=replace(TIMES, page=500, shortest_watch=60))
    following = cluster.follow(engine)
    assert engine.counts().requests == 6 and engine.counts().events == 0  # a list and a watch of each kind
    cluster.engine("node-2").announce(peer("node-2"))
    following.until(lambda one: "node-2" in one.peers)
    counts = engine.counts()
    assert counts.requests == 6 and counts.events == 1 and counts.received_bytes > counts.sent_bytes > 0


# podCIDRs


def raw_node(name: str, cidrs: list[str], addresses: list[str]) -> dict[str, Any]:
    listed = [{"type": "Hostname", "address": name}]
    listed += [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs} if cidrs else {},
        "status": {"addresses": listed, "images": [{"names": ["x" * 200], "sizeBytes": 1}]},
    }


def change_node(server: KubeServer, name: str, **changes: object) -> None:
    node = server.store.get(server.resource("nodes"), name)
    server.store.replace(server.admin, server.resource("nodes"), name, node | changes)


def test_the_own_nodes_cidrs_are_assigned(cluster: Cluster, server: KubeServer) -> None:
    server.add("nodes", raw_node("node-2", ["10.244.2.0/24"], ["192.0.2.2"]))
    engine = cluster.engine("node-1", Scope(pod_cidr_network="pods"))
    following = cluster.follow(engine)
    assert following.state.assigned == {"pods": ()}
    server.add("nodes", raw_node("node-1", [], ["192.0.2.1"]))
    change_node(server, "node-1", spec={"podCIDRs": ["10.244.1.0/24", "fd00:10:0:1::/64"]})
    both = (ip_network("10.244.1.0/24"), ip_network("fd00:10:0:1::/64"))
    found = following.until(lambda one: one.assigned == {"pods": both})
    assert found.peers == {}
    change_node(server, "node-1", spec={"podCIDRs": ["10.244.1.1/24"]})
    found = following.until(lambda one: bool(one.unreadable))
    assert found.assigned == {"pods": both} and "spec.podCIDRs" in found.unreadable["assigned/node-1"]
    change_node(server, "node-1", spec={"podCIDR": "10.244.3.0/24"})
    found = following.until(lambda one: one.assigned == {"pods": (ip_network("10.244.3.0/24"),)})
    assert not found.unreadable
    server.store.delete(server.admin, server.resource("nodes"), "node-1", {})
    following.until(lambda one: one.assigned == {"pods": ()})


def test_nodes_are_peers_without_peer_objects(cluster: Cluster, server: KubeServer) -> None:
    """A small cluster needs none of the manifests' kinds."""
    server.resources = {key: one for key, one in server.resources.items() if key[1] == "nodes"}
    for at in range(1, 5):
        cidrs = [f"10.244.{at}.0/24", f"fd00:10:0:{at}::/64"]
        server.add("nodes", raw_node(f"node-{at}", cidrs, [f"192.0.2.{at}", f"2001:db8::{at}", "192.0.2.99"]))
    server.add("nodes", raw_node("node-5", ["10.244.5.0/24"], ["fe80::1"]))
    engine = cluster.engine("node-1", Scope(claims_blocks=False, pod_cidr_network="pods", peers_from_nodes=True))
    following = cluster.follow(engine)
    found = following.state
    assert set(found.peers) == {"node-2", "node-3", "node-4"} and set(found.unreadable) == {"nodes/node-5"}
    assert found.peers["node-2"].addresses == (ip_address("192.0.2.2"), ip_address("2001:db8::2"))
    assert found.peers["node-2"].cidrs == {"pods": (ip_network("10.244.2.0/24"), ip_network("fd00:10:0:2::/64"))}
    assert found.peers["node-2"].since > 1_700_000_000
    assert found.assigned["pods"][0] == ip_network("10.244.1.0/24")
    requests, states = len(server.seen), len(following.states)
    for at in range(3):  # heartbeats
        status = raw_node("", [], ["192.0.2.2", "2001:db8::2"])["status"]
        change_node(server, "node-2", status=status | {"conditions": [{"lastHeartbeatTime": at}]})
    until(lambda: engine.counts().events >= 3)
    own = engine.announce(peer("node-1", 1))
    following.until(lambda one: one.peers.get("node-1") == own)
    assert len(following.states) == states + 1
    server.store.delete(server.admin, server.resource("nodes"), "node-3", {})
    following.until(lambda one: set(one.peers) == {"node-1", "node-2", "node-4"})
    change_node(server, "node-1", metadata=server.store.get(server.resource("nodes"), "node-1")["metadata"], spec={})
    following.until(lambda one: one.assigned == {"pods": ()} and one.peers["node-1"] == own)
    assert len([one for one in server.seen[requests:] if not one.startswith("GET")]) == 0
