"""The Kubernetes manifests: valid for the API's schemas, and a policy that means the rights that tests give agents."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from shared.cluster.kube_objects import GROUP
from tests.kube_server import agent
from tests.kube_store import AGENT, Object, User, is_admitted, manifests, resources

KINDS = resources()
KUBERNETES = ("1.30", "1.32", "1.34")  # the first with the policy, and later ones


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", ["resources", "access"])
def test_manifests_are_valid(name: str, version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="./tests/run installs it")
    for document in manifests(name):
        validate.validate(document, version, strict=True)


def test_the_group_and_the_account_are_those_of_the_code() -> None:
    assert {key[0] for key in KINDS} == {GROUP, ""}
    account, binding = manifests("access")[0]["metadata"], manifests("access")[2]
    assert f"system:serviceaccount:{account['namespace']}:{account['name']}" == AGENT
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]


def test_agents_have_the_least_rights() -> None:
    """No agent deletes peers, writes pools, or touches an object outside of the cluster's kinds but to read Nodes."""
    rights = {
        (group, plural, verb)
        for rule in agent("node-1").rules
        for group, plural, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }
    reading = ("get", "list", "watch")
    assert rights == {
        *product([GROUP], ["pools", "blocks", "peers"], reading),
        *product([GROUP], ["blocks", "peers"], ["create", "update"]),
        (GROUP, "blocks", "delete"),
        *product([""], ["nodes"], reading),
    }


def raw(plural: str, node: str) -> Object:
    return {"metadata": {"name": node if plural == "peers" else "pods.10-0-0-0-24"}, "spec": {"node": node}}


def evaluate(user: User, plural: str, operation: str, new: Object | None, old: Object | None) -> bool:
    """Return True if the policy's own text lets the user write."""
    celpy = pytest.importorskip("celpy", reason="./tests/run installs it")
    policy, environment = manifests("access")[-2]["spec"], celpy.Environment()

    def run(expression: str) -> Any:
        return environment.program(environment.compile(expression)).evaluate(activation)

    extra = {"authentication.kubernetes.io/node-name": [user.node]} if user.node else {}
    request = {
        "userInfo": {"username": user.name, "extra": extra},
        "resource": {"group": GROUP, "resource": plural},
        "operation": operation,
    }
    values = {"request": request, "object": new, "oldObject": old}
    activation = {name: celpy.json_to_cel(value) for name, value in values.items()}
    if not all(run(one["expression"]) for one in policy["matchConditions"]):
        return True
    variables = {one["name"]: str(run(one["expression"])) for one in policy["variables"]}
    activation["variables"] = celpy.json_to_cel(variables)
    return all(run(one["expression"]) for one in policy["validations"])


@pytest.mark.parametrize("user", [agent("one"), agent(""), User("admin")], ids=["agent", "no node", "admin"])
@pytest.mark.parametrize("plural", ["blocks", "peers"])
def test_the_policy_means_what_the_tests_server_does(user: User, plural: str) -> None:
    for operation, new_node, old_node in (
        ("CREATE", "one", ""),
        ("CREATE", "two", ""),
        ("UPDATE", "one", "one"),
        ("UPDATE", "two", "two"),
        ("UPDATE", "one", "two"),
        ("UPDATE", "two", "one"),
        ("DELETE", "", "one"),
        ("DELETE", "", "two"),
    ):
        if plural == "peers" and operation == "UPDATE" and new_node != old_node:
            continue  # a name does not change
        new, old = (raw(plural, node) if node else None for node in (new_node, old_node))
        expected = is_admitted(user, KINDS[GROUP, plural], new, old)
        assert evaluate(user, plural, operation, new, old) is expected, (operation, new_node, old_node)


def test_each_manifest_is_tested() -> None:
    found = Path(__file__).parents[2].glob("shared/cluster/manifests/*")
    assert sorted(path.name for path in found) == ["access.yaml", "kustomization.yaml", "resources.yaml"]
