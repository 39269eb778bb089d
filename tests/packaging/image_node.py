"""A node of a cluster that runs the image, and calls that go on while its pods are replaced."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Self

from artifacts import image

from tests.clients.container_host import PORT
from tests.clients.containerd import Containerd, pod_config
from tests.conftest import ROOT
from tests.packaging import manifests
from tests.packaging.daemon_pod import BIN_DIR, LIB_DIR, DaemonPod, ImageHost, daemon_set
from tests.pretend import until

RELEASE = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


class Node:
    """A host with containerd and the images. No network of pycni is in use before the first pod."""

    def __init__(self, host: ImageHost, containerd: Containerd) -> None:
        self.host, self.containerd = host, containerd
        self.pods = 0

    def load(self, archive: Path) -> None:
        self.containerd.command("ctr", "--namespace", "k8s.io", "images", "import", str(archive))

    def daemon(self, release: str = RELEASE, *components: str) -> DaemonPod:
        """Begin a pod of the DaemonSet with the manifests' files. Start none of its containers."""
        objects = daemon_set(*components)
        for name, text in manifests.files(objects).items():
            self.host.give("config", name, text)
        return self._pod(release, manifests.pod(manifests.one("DaemonSet", objects)))

    def uninstall(self, *arguments: str) -> str:
        """Run the Job. Return its words."""
        (job,) = (one for one in manifests.built(manifests.KUBERNETES / "uninstall") if one["kind"] == "Job")
        pod = self._pod(RELEASE, manifests.pod(job))
        words = pod.run("uninstall", *arguments)
        pod.end()
        return words

    def _pod(self, release: str, specification: manifests.Object) -> DaemonPod:
        self.pods += 1
        return DaemonPod(self.containerd, image.name(release), str(self.pods), specification)

    def serving_pod(self, name: str) -> tuple[str, str]:
        """Run a pod that serves. Return its id and address."""
        config = pod_config(name)
        pod = str(self.containerd.ask("RunPodSandbox", config=config).pod_sandbox_id)
        self.containerd.serve(pod, config)
        address = self.containerd.addresses(pod)[0]
        assert self.host.answer(address, PORT) == name
        return pod, address

    def releases(self) -> set[str]:
        """Return the releases whose code the executables name."""
        found = set()
        for file in self.host.path(BIN_DIR).glob("[!.]*"):
            found |= set(re.findall(rf"the code is in {LIB_DIR}/(.+)-[0-9a-f]{{12}}\n".encode(), file.read_bytes()))
        return {release.decode() for release in found}


class Calls:
    """Calls without an end, of the plugins and of containerd, in threads; a context manager. None may fail."""

    def __init__(self, node: Node) -> None:
        self.node, self.done = node, 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(run,)) for run in (self._call, self._call, self._run_pod)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, run: Callable[[str], None]) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                run(f"{threading.get_native_id()}-{number}")
            except Exception as error:  # noqa: BLE001 - the test fails with it
                self.failed.append(repr(error))

    def _call(self, name: str) -> None:
        netns = self.node.host.netns(name)
        config = {
            "cniVersion": "1.0.0", "name": "calls", "type": "bridge", "bridge": "calls0", "isGateway": True, "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.45.0.0/24"}]]},
        }  # fmt: skip
        for command in ("ADD", "DEL"):
            answer = self.node.host.cni("bridge", command, config, netns=netns, container_id=name)
            self.done += 1
            if answer.status:
                self.failed.append(f"{command}: {answer}")
        self.node.host.drop_netns(name)

    def _run_pod(self, name: str) -> None:
        pod = self.node.containerd.ask("RunPodSandbox", config=pod_config(name)).pod_sandbox_id
        self.node.containerd.remove([pod])
        self.done += 2

    def go_on(self, number: int = 10) -> None:
        """Wait until so many calls more are done."""
        wanted = self.done + number
        until(lambda: self.done >= wanted, seconds=60)
