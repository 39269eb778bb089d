"""The manifests for Kubernetes: valid, whole, with no more rights than the code uses, and files that the agent reads."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shared.agent import settings as agent_settings
from shared.cluster import conflist, kube_access, plain_yaml
from shared.cluster import settings as cluster_settings
from tests.conftest import ROOT
from tests.packaging.container import container
from tests.packaging.manifests import KUBERNETES, Object, built, containers, files, objects, one, pod, probe
from tests.system.test_documents import blocks as code_blocks

VERSIONS = ("1.30", "1.34", "1.37")  # the first with appArmorProfile and the policy, and later ones
PAGE = ROOT / "docs/how-to/kubernetes.md"
WAYS = [
    (),
    ("kubernetes",),
    ("kubernetes", "blocks"),
    ("etcd",),
    ("monitoring",),
    ("kubernetes", "blocks", "monitoring"),
    ("etcd", "monitoring"),
]
ENGINES = [way for way in WAYS if {"kubernetes", "etcd"} & set(way)]
NODE = {"NODE_NAME": "node-1", "NODE_IP": "192.0.2.21"}
SERVICE = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
FOREIGN = {"PodMonitor"}  # the Prometheus operator's, which the API's own schemas do not have


def names(way: tuple[str, ...]) -> str:
    return "-".join(way) or "base"


def workloads(way: tuple[str, ...]) -> list[Object]:
    """Return the pods of the DaemonSet and of the Job that removes it."""
    return [pod(one("DaemonSet", objects(*way))), pod(one("Job", built(KUBERNETES / "uninstall")))]


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(version: str) -> None:
    found = [each for way in WAYS for each in objects(*way)] + built(KUBERNETES / "uninstall")
    assert {each["kind"] for each in found} >= FOREIGN | {"DaemonSet", "ConfigMap", "CustomResourceDefinition", "Job"}
    for each in {json.dumps(each): each for each in found}.values():
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)


def test_each_file_is_used() -> None:
    """Each file belongs to a kustomization, but for the chart's own and the example of a pool."""
    used = {KUBERNETES / "components/blocks/pool.yaml"}
    for path in KUBERNETES.rglob("kustomization.yaml"):
        document = yaml.safe_load(path.read_text())
        named = [
            *document.get("resources", []),
            *(each["path"] for each in document.get("patches", []) if "path" in each),
        ]
        named += [each for generator in document.get("configMapGenerator", []) for each in generator["files"]]
        used |= {path, *(path.parent / each for each in named)}
    found = {path for path in KUBERNETES.rglob("*") if path.is_file() and KUBERNETES / "chart" not in path.parents}
    assert found - used == set()


@pytest.mark.parametrize("way", WAYS, ids=names)
def test_names_lead_somewhere(way: tuple[str, ...]) -> None:
    found = objects(*way)
    workload, configuration = one("DaemonSet", found), one("ConfigMap", found)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    volumes = {each["name"]: each for each in pod(workload)["volumes"]}
    mounted = {mount["name"] for each in containers(pod(workload)).values() for mount in each.get("volumeMounts", [])}
    assert mounted == set(volumes)
    assert volumes["config"]["configMap"]["name"] == configuration["metadata"]["name"] != "pycni"  # the digest follows
    account = pod(workload).get("serviceAccountName")
    assert account == ("pycni-agent" if "kubernetes" in way else None)
    assert [each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"] == [account] * bool(account)
    for binding in (each for each in found if each["kind"] == "ClusterRoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}]
        assert binding["roleRef"]["name"] in {
            each["metadata"]["name"] for each in found if each["kind"] == "ClusterRole"
        }
    for monitor in (each for each in found if each["kind"] == "PodMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ports = {port["name"] for each in containers(pod(workload)).values() for port in each.get("ports", [])}
        assert {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]} == ports
    assert ("monitoring" in way) == any(each["kind"] == "PodMonitor" for each in found)
    assert {each["metadata"]["namespace"] for each in found if "namespace" in each["metadata"]} == {"kube-system"}


@pytest.mark.parametrize("way", WAYS, ids=names)
def test_pods_have_few_rights(way: tuple[str, ...]) -> None:
    for specification in workloads(way):
        assert specification["automountServiceAccountToken"] is False
        assert specification["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for part in containers(specification).values():
            context = part["securityContext"]
            assert context["readOnlyRootFilesystem"] and context["capabilities"]["drop"] == ["ALL"]
            assert "privileged" not in context and "lifecycle" not in part  # the old pod's hook would race
        for volume in specification["volumes"]:
            assert volume.get("hostPath", {"type": "DirectoryOrCreate"})["type"] == "DirectoryOrCreate"


@pytest.mark.parametrize("way", WAYS, ids=names)
def test_only_two_containers_have_the_credentials(way: tuple[str, ...]) -> None:
    found = containers(pod(one("DaemonSet", objects(*way))))
    mounted = {name: {mount["name"] for mount in each.get("volumeMounts", [])} for name, each in found.items()}
    holders = {name for name, volumes in mounted.items() if "credentials" in volumes}
    assert holders == ({"install", "credentials"} if way in ENGINES else set())
    assert mounted["agent"] == set()  # it runs in the node's own files


def test_the_pods_capabilities_are_those_of_the_service() -> None:
    """The agent needs one more to enter the node's file system. `install` looks at the agent, `uninstall` ends it."""
    unit = (ROOT / "shared/agent/pycni-agent.service").read_text()
    service = {word for line in re.findall("^CapabilityBoundingSet=(.*)", unit, re.MULTILINE) for word in line.split()}
    found = {
        name: set(each["securityContext"]["capabilities"].get("add", []))
        for specification in workloads(("kubernetes",))
        for name, each in containers(specification).items()
    }
    assert {f"CAP_{each}" for each in found["agent"]} == service | {"CAP_SYS_CHROOT"}
    assert found["install"] == {"SYS_PTRACE"} and found["credentials"] == set()
    assert found["uninstall"] == {"SYS_PTRACE", "NET_ADMIN", "KILL"}


def test_the_agent_runs_where_nothing_else_does() -> None:
    """Before the node has a network, on a full node, and without an API."""
    workload = one("DaemonSet", objects("kubernetes"))
    specification = pod(workload)
    assert specification["hostNetwork"] and specification["hostPID"] and specification["dnsPolicy"] == "Default"
    assert specification["tolerations"] == [{"operator": "Exists"}]
    assert specification["priorityClassName"] == "system-node-critical"
    assert workload["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0
    unit = (ROOT / "shared/agent/pycni-agent.service").read_text()
    assert f"TimeoutStopSec={specification['terminationGracePeriodSeconds']}\n" in unit
    agent = containers(specification)["agent"]
    for kind in ("livenessProbe", "readinessProbe"):
        assert probe(agent, kind)[-1] == "probe"
        assert agent[kind]["timeoutSeconds"] <= agent[kind]["periodSeconds"]
    patience = agent["livenessProbe"]["periodSeconds"] * agent["livenessProbe"]["failureThreshold"]
    assert patience > specification["terminationGracePeriodSeconds"]
    assert all("limits" not in each["resources"] for each in containers(specification).values())


def test_the_job_removes_the_same_directories() -> None:
    daemonset, job = workloads(())
    places = {each["name"]: each.get("hostPath", {}).get("path") for each in job["volumes"]}
    assert places == {"bin": "/opt/cni/bin", "lib": "/opt/cni/lib", "etc": "/etc/cni", "state": "/var/lib/pycni"}
    assert {each["name"]: each["hostPath"]["path"] for each in daemonset["volumes"] if "hostPath" in each} == {
        name: path for name, path in places.items() if name != "state"
    }
    variables = {
        tuple(sorted((each["name"], each["value"]) for each in part["env"] if "value" in each))
        for part in (
            containers(daemonset)["install"],
            containers(daemonset)["agent"],
            containers(job)["uninstall"],
        )
    }
    assert len(variables) == 1
    for specification in (daemonset, job):
        [owner] = [each for each in containers(specification).values() if each["name"] in ("install", "uninstall")]
        paths = {each["name"]: each["mountPath"] for each in owner["volumeMounts"] if each["name"] in places}
        assert paths.items() <= places.items()  # the host's directories are at their own paths


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for one_pod in workloads(("kubernetes",)) for each in containers(one_pod).values()}
    assert images == {f"localhost/pycni:{version}"}


# The files of the ConfigMap, as `install` writes them


Install = Callable[[tuple[str, ...], dict[str, str]], dict[str, bytes]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that gives the files that the image's own program would write, by path."""

    def run(way: tuple[str, ...], variables: dict[str, str]) -> dict[str, bytes]:
        (tmp_path / "given").mkdir()
        for name, text in files(objects(*way)).items():
            (tmp_path / "given" / name).write_text(text)
        monkeypatch.setattr(container, "GIVEN", tmp_path / "given")
        monkeypatch.setattr(container, "SECRETS", tmp_path / "secrets")
        return {str(path): content for path, content in container.read_given(variables).items()}

    return run


@pytest.mark.parametrize("way", WAYS, ids=names)
def test_the_agent_reads_the_files(install: Install, tmp_path: Path, way: tuple[str, ...]) -> None:
    found = install(way, NODE | SERVICE)
    settings = agent_settings.parse(json.loads(found["/etc/cni/pycni-agent.json"]))
    assert settings.cluster == (way in ENGINES)
    assert settings.metrics == ("192.0.2.21:9477" if "monitoring" in way else "unix")
    if way not in ENGINES:
        assert list(found) == ["/etc/cni/pycni-agent.json"]
        return
    cluster = cluster_settings.parse(json.loads(found["/etc/cni/pycni-cluster.json"]))
    assert cluster.node == "node-1" and cluster.engine == way[0]
    template = tmp_path / "pods.conflist"
    template.write_bytes(found["/etc/cni/pycni/pods.conflist"])
    assert list(cluster.networks) == ["pods"]
    assert conflist.read(template, "pods").data_dir
    assert bool(cluster.pod_cidr_network()) == (way == ("kubernetes",))
    roles = [
        each for each in objects(*way) if each["metadata"]["name"] == "pycni-agent" and each["kind"] == "ClusterRole"
    ]
    assert [{"resources": ["nodes"]}.items() <= role["rules"][-1].items() for role in roles] == (
        [] if cluster.engine == "etcd" else [bool(cluster.pod_cidr_network())]
    )
    if cluster.engine == "etcd":
        assert "/etc/cni/pycni/kubeconfig" not in found


@pytest.mark.parametrize(("host", "server"), [("10.96.0.1", "10.96.0.1"), ("fd00:96::1", "[fd00:96::1]")])
def test_the_kubeconfig_names_the_files_beside_it(install: Install, tmp_path: Path, host: str, server: str) -> None:
    found = install(("kubernetes",), NODE | SERVICE | {"KUBERNETES_SERVICE_HOST": host})
    path = tmp_path / "kubeconfig"
    path.write_bytes(found["/etc/cni/pycni/kubeconfig"])
    access = kube_access.from_kubeconfig(path)
    assert access.server == f"https://{server}:443"
    assert (access.token.path, access.ca.path) == (tmp_path / "token", tmp_path / "ca.crt")


def test_the_files_are_those_of_the_pages() -> None:
    """Other tests run the pages up to a pod with addresses."""
    page = ROOT / "docs/how-to/cluster-kubeadm.md"
    template, pod_cidrs, claims = (json.loads(text) for text in code_blocks(page, "json"))

    def own(way: tuple[str, ...], name: str) -> Any:
        return json.loads(files(objects(*way))[name].replace("${NODE_NAME}", "node-1"))

    assert own(("kubernetes",), "pods.conflist") == own(("etcd",), "pods.conflist") == template
    assert own(("kubernetes",), "pycni-cluster.json") == pod_cidrs
    assert own(("kubernetes", "blocks"), "pycni-cluster.json") == claims
    _, etcd = (json.loads(text) for text in code_blocks(ROOT / "docs/how-to/cluster-etcd.md", "json"))
    etcd["etcd"] |= {"user": "node", "passwordFile": "/etc/cni/pycni/password"}  # all nodes share them
    assert own(("etcd",), "pycni-cluster.json") == etcd
    kubeconfig, pool = (
        next(plain_yaml.parse(text) for text in code_blocks(page, "yaml") if f"kind: {kind}" in text)
        for kind in ("Config", "Pool")
    )
    given = plain_yaml.parse(files(objects("kubernetes"))["kubeconfig"])
    given["clusters"][0]["cluster"]["server"] = kubeconfig["clusters"][0]["cluster"]["server"]
    assert given == kubeconfig
    assert plain_yaml.parse((KUBERNETES / "components/blocks/pool.yaml").read_text()) == pool


def test_the_pages_kustomization(tmp_path: Path) -> None:
    """It stands beside a checkout, with changed copies of two files."""
    kustomization, component = [each for each in code_blocks(PAGE, "yaml") if "kustomize.config" in each]
    (tmp_path / "kustomization.yaml").write_text(kustomization)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/kustomization.yaml").write_text(component)
    (tmp_path / "pycni").symlink_to(ROOT)
    own = {"pycni-cluster.json": ("10.244", "10.42"), "kubeconfig": ("${KUBERNETES_SERVICE_HOST}", "192.0.2.10")}
    changed = {}
    for name, words in own.items():
        changed[name] = (KUBERNETES / "components/kubernetes" / name).read_text().replace(*words)
        (tmp_path / "site" / name).write_text(changed[name])
    found, wanted = built(tmp_path), objects("kubernetes")
    assert {(each["kind"], each["metadata"]["name"].partition("-")[0]) for each in found} == {
        (each["kind"], each["metadata"]["name"].partition("-")[0]) for each in wanted
    }
    version = images(wanted).pop().partition(":")[2]
    assert images(found) == {f"registry.example/network/pycni:{version}"}
    assert files(found) == files(wanted) | changed != files(wanted)
    assert one("ConfigMap", found)["metadata"]["name"] != one("ConfigMap", wanted)["metadata"]["name"]


def images(found: list[Object]) -> set[str]:
    return {each["image"] for each in containers(pod(one("DaemonSet", found))).values()}


def test_the_page_names_each_component() -> None:
    table = re.findall(r"^\| `(\w+)` \| .*", PAGE.read_text().partition("## 2. Or with Helm")[0], re.MULTILINE)
    assert {*table, "network"} == {each.name for each in (KUBERNETES / "components").iterdir()}  # both engines have it


def test_the_page_names_the_pods_rights() -> None:
    text = PAGE.read_text().partition("## What the pods may do")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    parts = [containers(each) for each in workloads(("kubernetes",))]
    assert set(rows) == {name for each in parts for name in each}
    for each in parts:
        for name, part in each.items():
            named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b|\bKILL\b", rows[name]))
            has = set(part["securityContext"]["capabilities"].get("add", []))
            assert named == ({"SYS_CHROOT"} if name == "agent" else has)
