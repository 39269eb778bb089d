"""The Helm chart, made from the manifests in packaging/kubernetes: its values stand in place of theirs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from artifacts.archives import write_tar_gz
from artifacts.context import BuildError, Context
from artifacts.templates import Conditional, Template, merged, written
from shared.agent.settings import Settings as AgentSettings
from shared.cli.config.schema import json_schema
from shared.cluster import plain_yaml
from shared.cluster.settings import Settings as ClusterSettings
from shared.cni.config import Config

SOURCE = Path("packaging/kubernetes")
RIGHTS = Path("shared/cluster/manifests")
KUBERNETES = 'and .Values.cluster.enabled (eq .Values.cluster.engine "kubernetes")'
COMPONENTS = {
    "network": ".Values.cluster.enabled",
    "kubernetes": KUBERNETES,
    "etcd": 'and .Values.cluster.enabled (eq .Values.cluster.engine "etcd")',
    "monitoring": ".Values.podMonitor.enabled",
}
FILES = (
    "network/pycni-agent-cluster.json", "network/pods.conflist", "monitoring/pycni-agent-metrics.json",
    "kubernetes/kubeconfig", "kubernetes/pycni-cluster.json", "blocks/pycni-cluster.json", "etcd/pycni-cluster.json",
)  # fmt: skip
NODES_RULE = re.compile(r"^  # For podCIDRs alone\..*?(?=^---$)", re.DOTALL | re.MULTILINE)
NAMESPACE = "{{ .Release.Namespace }}"
# Each string of the manifests that is a value of the chart.
STRINGS = {
    "IfNotPresent": "{{ .Values.image.pullPolicy }}",
    "/opt/cni/bin": "{{ .Values.binDir }}",
    "/opt/cni/lib/pycni": "{{ .Values.libDir }}",
    "/opt/cni/lib": "{{ dir .Values.libDir }}",
    "kube-system": NAMESPACE,
    "pycni-etcd": "{{ .Values.cluster.etcdSecret }}",
    "system-node-critical": "{{ .Values.priorityClassName }}",
    "pycni-uninstall-NODE": "pycni-uninstall-{{ .Values.uninstall.node }}",
    "NODE": "{{ .Values.uninstall.node }}",
}
IMAGE = "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
CHECKSUM = '{{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}'


def semantic(version: str) -> str:
    """Return a Python version as Helm wants it: 0.2.0.dev0 is 0.2.0-dev.0. Raise BuildError if it has another form."""
    found = re.fullmatch(r"(\d+\.\d+\.\d+)(?:\.?(a|b|rc|dev)(\d+))?", version)
    if not found:
        raise BuildError(f"version {version} has no form for a chart: X.Y.Z, X.Y.ZrcN or X.Y.Z.devN")
    release, kind, number = found.groups()
    return f"{release}-{kind}.{number}" if kind else release


def make(context: Context) -> list[Path]:
    """Write the chart's archive, and return its path."""
    source, tree = context.source(), context.work / "chart"
    shutil.copytree(source / SOURCE / "chart", tree)
    version = semantic(context.version)
    with (tree / "Chart.yaml").open("a") as file:
        file.write(f"version: {version}\nappVersion: {json.dumps(context.version)}\n")
    for name, text in templates(source, context.version).items():
        (tree / "templates" / name).write_text(text)
    for name in FILES:
        target = tree / "files" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / SOURCE / "components" / name, target)
    schema = tree / "values.schema.json"
    schema.write_text(json.dumps(_with_settings(json.loads(schema.read_text())), indent=2) + "\n")
    shutil.copyfile(source / "LICENSE", tree / "LICENSE")
    target = context.output / f"pycni-{version}.tgz"
    write_tar_gz(tree, "pycni", target, context.epoch)
    return [target]


def templates(source: Path, version: str) -> dict[str, str]:
    """Return the templates that are made from manifests, by file name. Raise BuildError if a manifest does not fit."""
    image = f"localhost/pycni:{version}"
    unused = {image, *STRINGS}
    strings = {text: Template(value) for text, value in {**STRINGS, image: IMAGE}.items()}
    found = {
        "daemonset.yaml": written(_daemonset(source / SOURCE), strings, unused),
        "uninstall.yaml": _if(".Values.uninstall.node", written(_job(source / SOURCE), strings, unused)),
        "access.yaml": _if(KUBERNETES, _rights(_text(source / RIGHTS / "access.yaml"))),
        "resources.yaml": _if(f"and .Values.crds.enabled ({KUBERNETES})", _kinds(source / RIGHTS / "resources.yaml")),
        "podmonitor.yaml": _if(COMPONENTS["monitoring"], _monitor(source / SOURCE)),
    }
    if unused:
        raise BuildError(f"no manifest has {', '.join(sorted(unused))}: correct the list in {__name__}")
    return found


def _daemonset(source: Path) -> dict[str, Any]:
    """Return the DaemonSet of the base with those of the components, and the values that are no strings."""
    found: dict[str, Any] = plain_yaml.parse(_text(source / "base/daemonset.yaml"))
    for name, condition in COMPONENTS.items():
        merged(found, plain_yaml.parse(_text(source / "components" / name / "daemonset.yaml")), condition)
    template = found["spec"]["template"]
    template["metadata"]["annotations"] = {"checksum/config": Template(CHECKSUM)}
    found["spec"]["updateStrategy"] = _yaml("updateStrategy")
    template["spec"] |= {name: _yaml(name) for name in ("nodeSelector", "affinity", "tolerations")}
    [agent] = [one for one in template["spec"]["containers"] if isinstance(one, dict) and one["name"] == "agent"]
    agent["resources"] = _yaml("resources")
    return _with_secrets(found)


def _job(source: Path) -> dict[str, Any]:
    """Return the Job that removes the plugins from a node, with the chart's values."""
    found: dict[str, Any] = plain_yaml.parse(_text(source / "uninstall/job.yaml"))
    [container] = found["spec"]["template"]["spec"]["containers"]
    container["args"].append(Conditional(".Values.uninstall.forgetNode", "--forget-node"))
    return _with_secrets(found)


def _with_secrets(workload: dict[str, Any]) -> dict[str, Any]:
    secrets = Conditional(".Values.imagePullSecrets", _yaml("imagePullSecrets"))
    workload["spec"]["template"]["spec"]["imagePullSecrets"] = secrets
    return workload


def _rights(text: str) -> str:
    """Return the rights in the release's namespace, without those for Nodes if nodes claim blocks."""
    made, times = NODES_RULE.subn(lambda found: _if("not .Values.cluster.blocks", found[0]), text)
    if times != 1:
        raise BuildError("access.yaml has no rule for podCIDRs alone")
    return made.replace("kube-system", NAMESPACE)


def _kinds(path: Path) -> str:
    """Return the kinds, which Helm does not delete."""
    keep = "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n"
    return re.sub("^metadata:\n", keep, _text(path), flags=re.MULTILINE)


def _monitor(source: Path) -> str:
    """Return the PodMonitor with the labels of the values."""
    labels = "{{- with .Values.podMonitor.labels }}\n    {{- toYaml . | nindent 4 }}\n{{- end }}\n"
    text = _text(source / "components/monitoring/podmonitor.yaml")
    return text.replace("kube-system", NAMESPACE).replace("spec:\n", f"{labels}spec:\n", 1)


def _yaml(value: str) -> Template:
    return Template(f"toYaml .Values.{value}", is_block=True)


def _if(condition: str, text: str) -> str:
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"


def _text(path: Path) -> str:
    """Return a manifest. Raise BuildError if Helm would execute a part of it."""
    text = path.read_text()
    if "{{" in text:
        raise BuildError(f"{path} has two braces, which begin a template")
    return text


def _with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the values' schema with the keys of the agent's and the cluster's settings, as the code declares them."""
    properties = schema["properties"]
    properties["agent"] = _strict(AgentSettings)
    cluster = properties["cluster"]["properties"]
    settings = _strict(ClusterSettings)
    del settings["required"], settings["properties"]["engine"]  # the chart's values and files have them
    cluster["settings"] = settings
    return schema


def _strict(keys: type[Config]) -> dict[str, Any]:
    """Return the JSON Schema of these keys and no others."""

    def closed(schema: Any) -> Any:
        if isinstance(schema, list):
            return [closed(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        inner = {name: closed(one) for name, one in schema.items()}
        return {"additionalProperties": False, **inner} if "properties" in schema else inner

    return dict(closed(json_schema(keys)))
