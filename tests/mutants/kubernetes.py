"""Mistakes of the engine on the Kubernetes API."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TESTS = "tests/system/test_cluster_kubernetes.py"
ACCESS = "tests/unit/test_cluster_kube_access.py"
NAMES = "tests/unit/test_cluster_kube_names.py"

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cluster/kubernetes.py", '"apiVersion": "v1", "preconditions": preconditions}', '"apiVersion": "v1"}',
        "a release compares the revision", f"{TESTS} -k TestContract",
    ),
    Mutant(
        "shared/cluster/kubernetes.py", "    if not condition:\n", "    if False:\n",
        "a release without a revision deletes nothing", f"{TESTS} -k TestContract",
    ),
    Mutant(
        "shared/cluster/kubernetes.py", "        if is_absent(answer, path):\n            raise Taken", "        if False:\n            raise Taken",
        "an update of a block that is gone is Taken", f"{TESTS} -k TestContract",
    ),
    Mutant(
        "shared/cluster/kube_client.py", ' and details.get("name") == name', "",
        "a missing kind is no missing block", f"{TESTS} -k missing_kind",
    ),
    Mutant(
        "shared/cluster/kube_client.py", '            self.gate.shut(answer.headers.get("Retry-After"))\n', "            pass\n",
        "a busy server is left alone", f"{TESTS} -k busy_server",
    ),
    Mutant(
        "shared/cluster/kube_client.py", "        if status == 429:\n", "        if False:\n",
        "a request that a busy server did not take has done nothing", f"{TESTS} -k busy_server",
    ),
    Mutant(
        "shared/cluster/kube_watch.py", "        if self._number(found) < int(self._revision):\n", "        if False:\n",
        "a restored backup is noticed", f"{TESTS} -k restored_backup",
    ),
    Mutant(
        "shared/cluster/kube_watch.py", "silence_seconds=times.silence", "silence_seconds=1e6",
        "a frozen server is noticed", f"{TESTS} -k frozen_server",
    ),
    Mutant(
        "shared/cluster/kube_watch.py", '            except Gone as error:\n                self._revision = ""\n', "            except Gone as error:\n",
        "a watch that is refused with 410 lists again", f"{TESTS} -k refused_watch",
    ),
    Mutant(
        "shared/cluster/kube_watch.py", '        self._revision = ""\n        if kind == "ERROR"', '        if kind == "ERROR"',
        "a watch that ended with an error lists again", f"{TESTS} -k strange_event",
    ),
    Mutant(
        "shared/cluster/kube_watch.py", "            if not following:\n", "            if True:\n",
        "a list has all pages", f"{TESTS} -k pages_are_one_list",
    ),
    Mutant(
        "shared/cluster/kube_follow.py", "for key in self._content.keys() - kept:", "for key in self._content.keys() - self._content.keys():",
        "a list removes the objects that are gone", f"{TESTS} -k compacted_watch",
    ),
    Mutant(
        "shared/cluster/kube_follow.py", "        if not all(one.is_complete for one in self._collections):\n", "        if False:\n",
        "no state has a part of the objects", f"{TESTS} -k expired_page",
    ),
    Mutant(
        "shared/cluster/kube_follow.py", "            if snapshot != before:", "            if True:",
        "a Node's heartbeat is no new state", f"{TESTS} -k nodes_are_peers",
    ),
    Mutant(
        "shared/cluster/kube_follow.py", '            elif found["metadata"]["name"] == self._node:\n                self._assigned = {self._scope.pod_cidr_network: ()}\n', '            elif found["metadata"]["name"] == self._node:\n                pass\n',
        "the CIDRs of a deleted Node are nobody's", f"{TESTS} -k own_nodes_cidrs",
    ),
    Mutant(
        "shared/cluster/kube_access.py", '    if cluster.get("insecure-skip-tls-verify"):\n', "    if False:\n",
        "a server is always verified", f"{ACCESS} -k refused_with_its_name",
    ),
    Mutant(
        "shared/cluster/kube_access.py", 'if parts.scheme == "http" and not _is_loopback(parts.hostname):', "if False:",
        "no token goes over the network in clear", f"{ACCESS} -k refused_with_its_name",
    ),
    Mutant(
        "shared/cluster/kube_access.py", "        context.minimum_version = ssl.TLSVersion.TLSv1_2\n", "        context.minimum_version = ssl.TLSVersion.TLSv1_2\n        context.check_hostname = False\n",
        "the certificate is for the host", f"{TESTS} -k certificate_must_be",
    ),
    Mutant(
        "shared/cluster/kube_access.py", '        text = _text(where, f"{key}-data")\n', '        text = ""\n',
        "the data in a kubeconfig are used", f"{TESTS} -k kubeconfig_has_all",
    ),
    Mutant(
        "shared/cluster/kube_names.py", 'if name.startswith("-"):', "if False:",
        "each network has a valid name", NAMES,
    ),
    Mutant(
        "shared/cluster/kube_names.py", "    if block_name(network, cidr) != name:\n", "    if False:\n",
        "one block has one name", NAMES,
    ),
    Mutant(
        "shared/cluster/plain_yaml.py", "            if key in found:\n", "            if False:\n",
        "a key that stands twice is refused", f"{ACCESS} -k beyond_the_reader",
    ),
)  # fmt: skip
