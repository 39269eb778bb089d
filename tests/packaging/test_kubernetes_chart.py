"""The Helm chart, rendered by Helm itself: the objects of the kustomize base, and each value changes its part of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from artifacts import chart
from artifacts.context import BuildError, Context
from artifacts.templates import Conditional, Template, merged, written

from tests.conftest import ROOT
from tests.packaging.manifests import KUBERNETES, Object, built, containers, objects, one, pod
from tests.system.test_documents import blocks as code_blocks

EPOCH = 1_700_000_000
NAME = "pycni-0.2.0-dev.0.tgz"
CLUSTER: dict[str, Any] = {"enabled": True}
WAYS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    ((), {}),
    (("kubernetes",), {"cluster": CLUSTER}),
    (("kubernetes", "blocks"), {"cluster": CLUSTER | {"blocks": True}}),
    (("etcd",), {"cluster": CLUSTER | {"engine": "etcd"}}),
    (("monitoring",), {"podMonitor": {"enabled": True}}),
    (("kubernetes", "monitoring"), {"cluster": CLUSTER, "podMonitor": {"enabled": True}}),
]
OTHER_VALUES = {
    "image": {"repository": "registry.example/pycni", "tag": "0.3.0", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "binDir": "/var/lib/rancher/k3s/data/cni",
    "libDir": "/var/lib/pycni-lib/code",
    "agent": {"workers": 8, "heal": False},
    "cluster": {
        "enabled": True,
        "apiServer": "https://192.0.2.10:6443",
        "settings": {"networks": {"pods": {"clusterCIDRs": ["10.42.0.0/16"]}}},
        "templates": {"pods": {"name": "pods", "plugins": []}},
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "priorityClassName": "high",
    "nodeSelector": {"pool": "blue"},
    "affinity": {"nodeAffinity": None, "podAntiAffinity": {}},
    "tolerations": [],
    "updateStrategy": {"type": "OnDelete"},
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
}


def build(directory: Path, root: Path = ROOT) -> Path:
    """Build the chart from the checkout as it is."""
    (directory / "output").mkdir(parents=True)
    (directory / "work").mkdir()
    context = Context(root, directory / "output", directory / "work", (), EPOCH, is_dirty=True)
    [path] = chart.make(context)
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def loaded(archive: Path) -> helm.Chart:
    return helm.Chart.load(str(archive))


def rendered(loaded: helm.Chart, values: dict[str, Any], namespace: str = "kube-system") -> list[Object]:
    """Return the objects of a release with these values, which the schema must allow."""
    loaded.validate_schema(values)
    texts = loaded.render(values, name="pycni", namespace=namespace)
    return [
        each
        for name, text in sorted(texts.items())
        if name.endswith(".yaml")
        for each in yaml.safe_load_all(text)
        if each
    ]


def normal(value: Any) -> Any:
    """Return a value with its lists in one order: those of the manifests are sets of named things."""
    if isinstance(value, dict):
        return {key: normal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return sorted(map(normal, value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


def content(name: str, text: str) -> Any:
    return yaml.safe_load(text) if name == "kubeconfig" else json.loads(text)


def comparable(found: list[Object]) -> dict[tuple[str, str], Any]:
    """Return objects by kind and name, less the marks of kustomize's and Helm's own."""
    out = {}
    for each in normal(found):
        kind, metadata = each["kind"], each["metadata"]
        annotations = metadata.pop("annotations", {})
        assert (annotations == {"helm.sh/resource-policy": "keep"}) if annotations else True
        if kind == "ConfigMap":
            metadata["name"] = metadata["name"].partition("-")[0]  # kustomize adds a digest
            each["data"] = {name: content(name, text) for name, text in each["data"].items()}
        if kind == "DaemonSet":
            each["spec"]["template"]["metadata"].pop("annotations", None)
            for volume in pod(each)["volumes"]:
                if volume["name"] == "config":
                    volume["configMap"]["name"] = volume["configMap"]["name"].partition("-")[0]
        out[kind, metadata["name"]] = each
    return out


@pytest.mark.parametrize(("way", "values"), WAYS, ids=["-".join(way) or "base" for way, _ in WAYS])
def test_a_release_has_the_objects_of_the_manifests(
    loaded: helm.Chart, way: tuple[str, ...], values: dict[str, Any]
) -> None:
    assert comparable(rendered(loaded, values)) == comparable(objects(*way))


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_other_values_are_valid(loaded: helm.Chart, version: str) -> None:
    for each in rendered(loaded, OTHER_VALUES):
        if each["kind"] != "PodMonitor":
            kubernetes_validate.validate(each, version, strict=True)


def test_each_value_is_used(loaded: helm.Chart) -> None:
    found = rendered(loaded, OTHER_VALUES)
    assert set(loaded.values) == {*OTHER_VALUES, "crds", "uninstall"}  # these have tests of their own
    daemonset, data = one("DaemonSet", found), one("ConfigMap", found)["data"]
    specification = pod(daemonset)
    for key in ("priorityClassName", "tolerations", "imagePullSecrets"):
        assert specification[key] == OTHER_VALUES[key]
    # Helm adds to the defaults; null removes one.
    assert specification["nodeSelector"] == {"kubernetes.io/os": "linux", "pool": "blue"}
    assert specification["affinity"] == {"podAntiAffinity": {}}
    assert daemonset["spec"]["updateStrategy"]["type"] == "OnDelete"
    parts = containers(specification)
    assert {each["image"] for each in parts.values()} == {"registry.example/pycni:0.3.0"}
    assert {each["imagePullPolicy"] for each in parts.values()} == {"Always"}
    assert parts["agent"]["resources"] == OTHER_VALUES["resources"]
    mounts = {each["name"]: each["mountPath"] for each in parts["install"]["volumeMounts"]}
    paths = {each["name"]: each["hostPath"]["path"] for each in specification["volumes"] if "hostPath" in each}
    assert mounts.items() >= paths.items() == {
        "bin": "/var/lib/rancher/k3s/data/cni", "lib": "/var/lib/pycni-lib", "etc": "/etc/cni",
    }.items()  # fmt: skip
    for name in ("install", "agent"):
        variables = {each["name"]: each.get("value") for each in parts[name]["env"]}
        assert (
            variables["PYCNI_BIN_DIR"] == OTHER_VALUES["binDir"]
            and variables["PYCNI_LIB_DIR"] == OTHER_VALUES["libDir"]
        )
    assert json.loads(data["pycni-agent.json"]) == OTHER_VALUES["agent"]
    network = json.loads(data["pycni-cluster.json"])["networks"]["pods"]
    assert network == {"podCIDRs": True, "clusterCIDRs": ["10.42.0.0/16"]}
    assert json.loads(data["pods.conflist"]) == {"name": "pods", "plugins": []}
    [cluster] = yaml.safe_load(data["kubeconfig"])["clusters"]
    assert cluster["cluster"]["server"] == "https://192.0.2.10:6443"
    assert one("PodMonitor", found)["metadata"]["labels"]["release"] == "prometheus"
    lan = {"name": "lan", "plugins": []}
    another = one("ConfigMap", rendered(loaded, {"cluster": CLUSTER | {"templates": {"lan": lan}}}))["data"]
    assert json.loads(another["lan.conflist"]) == lan and len(json.loads(another["pods.conflist"])["plugins"]) == 4
    etcd = rendered(loaded, {"cluster": CLUSTER | {"engine": "etcd", "etcdSecret": "mine"}})
    assert pod(one("DaemonSet", etcd))["volumes"][-1]["secret"]["secretName"] == "mine"


def test_the_pages_values(loaded: helm.Chart) -> None:
    [text] = [each for each in code_blocks(ROOT / "docs/how-to/kubernetes.md", "yaml") if "repository:" in each]
    found = rendered(loaded, yaml.safe_load(text))
    assert {each["kind"] for each in found} >= {"DaemonSet", "CustomResourceDefinition", "PodMonitor"}
    assert "https://192.0.2.10:6443" in one("ConfigMap", found)["data"]["kubeconfig"]


def test_all_is_in_the_releases_namespace(loaded: helm.Chart) -> None:
    """The names, the subject of the rights, and the account that the policy is for."""
    found = rendered(loaded, {"cluster": CLUSTER, "podMonitor": {"enabled": True}}, "network")
    assert "kube-system" not in yaml.safe_dump(found)
    assert {each["metadata"]["namespace"] for each in found if "namespace" in each["metadata"]} == {"network"}
    assert one("ClusterRoleBinding", found)["subjects"][0]["namespace"] == "network"
    [condition] = one("ValidatingAdmissionPolicy", found)["spec"]["matchConditions"]
    assert '"system:serviceaccount:network:pycni-agent"' in condition["expression"]


def test_a_changed_configuration_replaces_the_pods(loaded: helm.Chart) -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = one("DaemonSet", rendered(loaded, values))["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    first = checksum({})
    assert checksum({}) == checksum({"agent": {}}) == first and len(first) == 64
    assert checksum({"agent": {"workers": 5}}) != first


def test_kinds_stay_when_the_release_is_removed(loaded: helm.Chart) -> None:
    kinds = [each for each in rendered(loaded, {"cluster": CLUSTER}) if each["kind"] == "CustomResourceDefinition"]
    assert len(kinds) == 3
    assert all(each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for each in kinds)
    without = rendered(loaded, {"cluster": CLUSTER, "crds": {"enabled": False}})
    assert not [each for each in without if each["kind"] == "CustomResourceDefinition"]


def test_the_job_is_that_of_the_manifests(loaded: helm.Chart) -> None:
    """It is no part of a release that names no node."""
    [wanted] = built(KUBERNETES / "uninstall")
    values: dict[str, Any] = {"uninstall": {"node": "node-1"}}
    job = one("Job", rendered(loaded, values))
    assert job == json.loads(json.dumps(wanted).replace("NODE", "node-1"))
    forgetting = one("Job", rendered(loaded, {"uninstall": {"node": "node-1", "forgetNode": True}}))
    assert pod(forgetting)["containers"][0]["args"] == ["uninstall", "--forget-node"]
    assert not [each for each in rendered(loaded, {}) if each["kind"] == "Job"]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"tolerations ": []}, "'tolerations '"),
        ({"image": {"name": "pycni"}}, "/image"),
        ({"agent": {"worker": 8}}, "/agent"),
        ({"agent": {"workers": 0}}, "/agent/workers"),
        ({"cluster": {"engine": "consul"}}, "/cluster/engine"),
        ({"cluster": {"settings": {"networks": {"pods": {"podCidrs": True}}}}}, "/cluster/settings/networks/pods"),
        ({"cluster": {"settings": {"kubernetes": {"server": 6443}}}}, "/cluster/settings/kubernetes"),
        ({"cluster": {"settings": {"engine": "etcd"}}}, "/cluster/settings"),
        ({"cluster": {"apiServer": "192.0.2.10:6443"}}, "/cluster/apiServer"),
        ({"binDir": "opt/cni/bin"}, "/binDir"),
        ({"podMonitor": {"enabled": "yes"}}, "/podMonitor/enabled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_schema_refuses_a_wrong_value(loaded: helm.Chart, values: dict[str, Any], place: str) -> None:
    with pytest.raises(helm.HelmValuesError) as raised:
        loaded.render(values, name="pycni", namespace="kube-system")
    assert place in str(raised.value)


def test_helm_finds_nothing_to_complain_of(archive: Path) -> None:
    for values in ({}, OTHER_VALUES):
        report = helm.lint(str(archive), values, strict=True)
        assert not report["errors"] and {each["error"] for each in report["messages"]} <= {"icon is recommended"}


def test_the_chart_has_its_version_and_licence(archive: Path, loaded: helm.Chart) -> None:
    assert archive.name == NAME
    metadata = loaded.metadata
    assert (metadata["name"], metadata["version"], metadata["appVersion"]) == ("pycni", "0.2.0-dev.0", "0.2.0.dev0")
    assert "LICENSE" in {each["name"] for each in loaded.files}
    notes = loaded.render({"cluster": CLUSTER | {"blocks": True}}, name="pycni", namespace="kube-system")
    assert "write one, if there is none" in notes["pycni/templates/NOTES.txt"]


def test_a_second_build_is_equal(archive: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("version", "wanted"), [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3-rc.1"), ("1.2.3.dev4", "1.2.3-dev.4")]
)
def test_versions_are_those_of_helm(version: str, wanted: str) -> None:
    assert chart.semantic(version) == wanted


def test_other_versions_are_refused() -> None:
    with pytest.raises(BuildError, match="no form for a chart"):
        chart.semantic("1.2.3.post1")


# The templates' own rules


def test_a_patch_adds_under_its_condition() -> None:
    base: dict[str, Any] = {"kind": "X", "list": [{"name": "a", "deep": {"old": 1}}]}
    merged(base, {"kind": "X", "list": [{"name": "a", "deep": {"new": 2}}, {"name": "b"}], "key": "v"}, ".c")
    assert base == {
        "kind": "X",
        "list": [{"name": "a", "deep": {"old": 1, "new": Conditional(".c", 2)}}, Conditional(".c", {"name": "b"})],
        "key": Conditional(".c", "v"),
    }
    with pytest.raises(BuildError, match="a patch only adds"):
        merged(base, {"kind": "Y"}, ".c")
    with pytest.raises(BuildError, match="two patches add key"):
        merged(base, {"key": "other"}, ".d")


def test_written_yaml_means_its_object() -> None:
    value = {"a": [["x", 1], {"b": None}], "yes": "no", "c": {"d": "0644", "e": "a: b", "f": [], "g": 0.5, "h": True}}
    assert yaml.safe_load(written(value, {}, set())) == value
    unused = {"v", "w"}
    text = written({"k": Conditional(".c", ["v"])}, {"v": Template("{{ .v }}"), "w": Template("")}, unused)
    assert text == "{{- if .c }}\nk:\n  - '{{ .v }}'\n{{- end }}\n" and unused == {"w"}
