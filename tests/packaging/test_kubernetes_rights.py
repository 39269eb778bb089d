"""The agents' rights in the manifests, compared with the requests that an agent sends."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from urllib.parse import parse_qs, urlsplit

from shared.cluster.kube_access import Access, Source
from shared.cluster.kube_follow import Scope
from shared.cluster.model import Block, Peer, State
from tests.kube_server import KubeServer, agent
from tests.own_network import own_network
from tests.packaging.manifests import Object, objects, one
from tests.system.kube_cluster import Cluster

CIDR = ip_network("10.244.7.0/24")
READS = {"get", "list", "watch"}
Right = tuple[str, str, str]  # group, plural, verb


def right(request: str) -> Right:
    """Return the right that a request needs ("GET /apis/…"), as RBAC names it."""
    method, _, target = request.partition(" ")
    url = urlsplit(target)
    parts = url.path.strip("/").split("/")
    group, (plural, *name) = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if method != "GET":
        return group, plural, {"POST": "create", "PUT": "update", "DELETE": "delete"}[method]
    return group, plural, "watch" if parse_qs(url.query).get("watch") else "get" if name else "list"


def granted(role: Object) -> set[Right]:
    return {each for rule in role["rules"] for each in product(rule["apiGroups"], rule["resources"], rule["verbs"])}


def asked() -> set[Right]:
    """Let an agent do all that it can ask of the API, and return the rights for it."""
    with own_network(), KubeServer() as server:
        server.tokens["token"] = agent("node-1")
        access = Access(server.url, token=Source(data=b"token"))
        server.add("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "spec": {}})
        with Cluster(access, server) as cluster:
            engine = cluster.engine(access=access)
            block = engine.claim(Block("pods", CIDR, "node-1", "uid", 1.0))
            assert engine.read_block("pods", CIDR) == block
            engine.release(engine.update_block(replace(block, state=State.DRAINING)))
            peer = Peer("node-1", "uid", (ip_address("192.0.2.1"),), {"pods": (CIDR,)}, 1.0)
            for addresses in (peer.addresses, (ip_address("192.0.2.2"),)):
                engine.announce(replace(peer, addresses=addresses))
            cluster.follow(engine)
            cluster.follow(cluster.engine(access=access, scope=Scope(pod_cidr_network="pods")))
        return {right(each) for each in server.seen}


def test_the_role_is_what_an_agent_asks_for() -> None:
    """It may write just the objects that it writes, and read just those kinds."""
    [role] = [
        each
        for each in objects("kubernetes")
        if each["kind"] == "ClusterRole" and each["metadata"]["name"] == "pycni-agent"
    ]
    has, wants = granted(role), asked()
    assert wants <= has
    assert {each for each in has if each[2] not in READS} == {each for each in wants if each[2] not in READS}
    assert {each[:2] for each in has} == {each[:2] for each in wants}
    assert has - wants <= {("pycni.internal", "pools", "get"), ("", "nodes", "get")}


def test_the_policy_names_the_account_of_the_pod() -> None:
    found = objects("kubernetes")
    policy, account = one("ValidatingAdmissionPolicy", found), one("ServiceAccount", found)["metadata"]
    [condition] = policy["spec"]["matchConditions"]
    assert f'"system:serviceaccount:{account["namespace"]}:{account["name"]}"' in condition["expression"]
    assert one("DaemonSet", found)["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    assert one("ValidatingAdmissionPolicyBinding", found)["spec"]["policyName"] == policy["metadata"]["name"]
