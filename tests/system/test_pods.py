"""The runtime side: chains of plugins, their failures and time limits, and pods set up in a kubelet's way."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.runtime import attach
from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.conflist import NetworkConfigList, NoConfigDirectory, NoValidConfig, parse
from shared.runtime.find import PluginNotFound
from shared.runtime.pods import Pod, PodNetwork
from tests.pretend import PATIENCE, PretendHost, read_line

# A plugin that notes each call beside itself and answers as <type>.<VERB> there says; without such a file, with
# {"saw": [the types that ran before it..., its own]} for ADD.
PLUGIN = """#!{python} -IS
import json, os, sys
own = sys.argv[0]
raw = sys.stdin.read()
environment = {{key: value for key, value in os.environ.items() if key.startswith("CNI_") or key == "TRACEPARENT"}}
request = json.loads(raw)
verb = environment["CNI_COMMAND"]
with open(os.path.dirname(own) + "/calls", "a") as calls:
    calls.write(json.dumps([os.path.basename(own), verb, environment, request]) + "\\n")
try:
    with open(own + "." + verb) as script:
        exec(script.read())
except FileNotFoundError:
    if verb == "ADD":
        before = request.get("prevResult", {{}}).get("saw", [])
        print(json.dumps({{"saw": before + [os.path.basename(own)]}}))
"""

POD = Pod("ns", "web", "c1", "/run/netns/web")


class Chain:
    """A bin dir of script plugins, and the calls that they received."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin_dir = directory / "bin"
        self.bin_dir.mkdir()
        self.conf_dir = directory / "net.d"
        self.conf_dir.mkdir()
        for plugin_type in ("loopback", "first", "second", "third"):
            self.install(plugin_type)

    def install(self, plugin_type: str) -> Path:
        path = self.bin_dir / plugin_type
        path.write_text(PLUGIN.format(python=sys.executable))
        path.chmod(0o755)
        return path

    def answer(self, plugin_type: str, verb: str, script: str) -> None:
        (self.bin_dir / f"{plugin_type}.{verb}").write_text(script)

    def fail(self, plugin_type: str, verb: str, code: int = 7) -> None:
        self.answer(plugin_type, verb, f'print(\'{{"code": {code}, "msg": "no {plugin_type}"}}\'); sys.exit(1)')

    @property
    def calls(self) -> list[tuple[str, str, dict[str, str], dict[str, Any]]]:
        with suppress(FileNotFoundError):
            return [tuple(json.loads(line)) for line in (self.bin_dir / "calls").read_text().splitlines()]
        return []

    @property
    def order(self) -> list[str]:
        return [f"{plugin_type} {verb}" for plugin_type, verb, _, _ in self.calls]

    def network(self, *types: str, **keys: Any) -> NetworkConfigList:
        return parse({"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": one} for one in types], **keys})

    def pods(self, *types: str) -> PodNetwork:
        plugins = [{"type": one} for one in types]
        content = {"name": "net", "cniVersion": "1.0.0", "plugins": plugins}
        (self.conf_dir / "10-net.conflist").write_text(json.dumps(content))
        cache = self.directory / "cache"
        vendor = f"{self.directory}/vendor/{{type}}/bin"
        return PodNetwork(
            self.conf_dir, [self.bin_dir], vendor_dir=vendor, cache_dir=cache, limit=20 * PATIENCE, warn=pytest.fail
        )


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


ATTACHMENT = Attachment("c1", "/run/netns/web", "eth0", {"IgnoreUnknown": "1", "A": "b=c"}, {"ports": [1], "mac": "x"})


def test_add_chains_results_in_order(chain: Chain) -> None:
    result = attach.add(chain.network("first", "second", "third"), ATTACHMENT, [chain.bin_dir])
    assert result == {"cniVersion": "1.0.0", "saw": ["first", "second", "third"]}
    assert chain.order == ["first ADD", "second ADD", "third ADD"]
    requests = [request for _, _, _, request in chain.calls]
    assert requests[0] == {"type": "first", "name": "net", "cniVersion": "1.0.0"}
    # a result without a version gets that of the configuration before it goes on
    assert requests[1]["prevResult"] == {"cniVersion": "1.0.0", "saw": ["first"]}


def test_environment_is_inherited_and_has_the_parameters(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "00-trace")
    monkeypatch.setenv("CNI_ARGS", "left=over")
    attach.add(chain.network("first"), ATTACHMENT, [chain.bin_dir, "/opt/cni/bin"])
    ((_, _, environment, _),) = chain.calls
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/web",
        "CNI_IFNAME": "eth0",
        "CNI_ARGS": "IgnoreUnknown=1;A=b=c",
        "CNI_PATH": f"{chain.bin_dir}:/opt/cni/bin",
        "TRACEPARENT": "00-trace",
    }


def test_argument_cannot_smuggle_in_another(chain: Chain) -> None:
    with pytest.raises(ValueError, match="separator"):
        Attachment("c1", "", cni_args={"K8S_POD_NAME": "a;IP=10.0.0.9"})
    assert chain.calls == []


def test_capabilities_that_are_both_asked_for_and_supplied(chain: Chain) -> None:
    plugins = [{"type": "first", "capabilities": {"ports": True, "mac": False, "bandwidth": True}}, {"type": "second"}]
    attach.add(chain.network(plugins=plugins), ATTACHMENT, [chain.bin_dir])
    first, second = (request for _, _, _, request in chain.calls)
    assert first["runtimeConfig"] == {"ports": [1]}
    assert "capabilities" not in first
    assert "runtimeConfig" not in second


def test_failed_add_takes_back_what_was_tried(chain: Chain) -> None:
    chain.fail("second", "ADD", code=11)
    with pytest.raises(PluginError, match="no second") as caught:
        attach.add(chain.network("first", "second", "third"), ATTACHMENT, [chain.bin_dir])
    error = caught.value
    assert (error.plugin, error.verb, error.code, error.msg) == ("second", "ADD", 11, "no second")
    assert chain.order == ["first ADD", "second ADD", "second DEL", "first DEL"]
    # the last result of the chain: a plugin may need the address to clean up
    assert chain.calls[-1][3]["prevResult"]["saw"] == ["first"]


def test_clean_up_goes_on_after_a_failure_and_does_not_hide_the_first(chain: Chain) -> None:
    chain.fail("second", "ADD")
    chain.fail("second", "DEL", code=5)
    with pytest.raises(PluginError) as caught:
        attach.add(chain.network("first", "second"), ATTACHMENT, [chain.bin_dir])
    assert (caught.value.verb, caught.value.code) == ("ADD", 7)
    assert "second DEL" in "".join(caught.value.__notes__)
    assert chain.order[-1] == "first DEL"


def test_failed_add_can_be_left_to_the_caller(chain: Chain) -> None:
    chain.fail("second", "ADD")
    with pytest.raises(PluginError):
        attach.add(chain.network("first", "second"), ATTACHMENT, [chain.bin_dir], keep_failed=True)
    assert chain.order == ["first ADD", "second ADD"]


def test_missing_plugin_is_noticed_before_any_is_executed(chain: Chain) -> None:
    with pytest.raises(PluginError, match="absent not found"):
        attach.add(chain.network("first", "absent"), ATTACHMENT, [chain.bin_dir])
    assert chain.calls == []


@pytest.mark.parametrize("output", ["", "[]", "null", "{", "no JSON"])
def test_result_that_is_none(chain: Chain, output: str) -> None:
    chain.answer("first", "ADD", f"print({output!r}, end='')")
    with pytest.raises(PluginError) as caught:
        attach.add(chain.network("first"), ATTACHMENT, [chain.bin_dir])
    assert caught.value.code == 6
    assert chain.order == ["first ADD", "first DEL"]


def test_details_of_an_error(chain: Chain) -> None:
    chain.answer("first", "DEL", 'print(\'{"code": 5, "msg": "m", "details": "d"}\'); sys.exit(1)')
    with pytest.raises(PluginError) as caught:
        attach.delete(chain.network("first"), ATTACHMENT, [chain.bin_dir])
    assert (caught.value.code, caught.value.msg, caught.value.details) == (5, "m", "d")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sys.stderr.write('from stderr'); sys.exit(3)", "exit status 3: from stderr"),
        ("sys.stdout.write('plain words'); sys.exit(3)", "exit status 3: plain words"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
    ],
)
def test_failure_without_an_error_object(chain: Chain, script: str, reason: str) -> None:
    chain.answer("first", "DEL", script)
    with pytest.raises(PluginError, match=reason) as caught:
        attach.delete(chain.network("first"), ATTACHMENT, [chain.bin_dir])
    assert caught.value.code == 999


def test_time_limit_ends_the_plugin_and_its_children(chain: Chain) -> None:
    pids = chain.directory / "pids"
    chain.answer(
        "first",
        "DEL",
        f"child = os.fork()\nopen({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\nimport time; time.sleep(600)",
    )
    with pytest.raises(PluginError, match=f"no answer within {2 * PATIENCE:g} s"):
        attach.delete(chain.network("first"), ATTACHMENT, [chain.bin_dir], limit=2 * PATIENCE)
    ended = [int(pid) for pid in pids.read_text().split()]
    assert len(ended) == 2
    deadline = time.monotonic() + 10 * PATIENCE
    while any(running(pid) for pid in ended):  # the child is reaped by init, at init's time
        assert time.monotonic() < deadline, "the plugin's child still runs"
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_plugin_that_is_being_replaced_is_waited_for(chain: Chain) -> None:
    path = chain.install("first")
    writer = os.open(path, os.O_WRONLY)
    finished = threading.Timer(0.3, os.close, [writer])
    finished.start()
    try:
        attach.add(chain.network("first"), ATTACHMENT, [chain.bin_dir])
    finally:
        finished.join()
    assert chain.order == ["first ADD"]


def test_check_gives_each_plugin_the_final_result(chain: Chain) -> None:
    result = {"cniVersion": "1.0.0", "saw": ["all"]}
    assert attach.check(chain.network("first", "second"), ATTACHMENT, [chain.bin_dir], result)
    assert chain.order == ["first CHECK", "second CHECK"]
    assert all(request["prevResult"] == result for _, _, _, request in chain.calls)
    chain.fail("first", "CHECK")
    with pytest.raises(PluginError):
        attach.check(chain.network("first", "second"), ATTACHMENT, [chain.bin_dir], result)
    assert chain.order[2:] == ["first CHECK"]


@pytest.mark.parametrize("keys", [{"cniVersion": "0.3.1"}, {"disableCheck": True}])
def test_network_without_check(chain: Chain, keys: dict[str, Any]) -> None:
    assert not attach.check(chain.network("first", **keys), ATTACHMENT, [chain.bin_dir], {})
    assert chain.calls == []


def test_delete_runs_in_reverse_and_stops_at_a_failure(chain: Chain) -> None:
    network = chain.network("first", "second", "third")
    attach.delete(network, ATTACHMENT, [chain.bin_dir], {"saw": ["all"]})
    assert chain.order == ["third DEL", "second DEL", "first DEL"]
    assert all(request["prevResult"] == {"saw": ["all"]} for _, _, _, request in chain.calls)
    chain.fail("second", "DEL")
    with pytest.raises(PluginError):
        attach.delete(network, ATTACHMENT, [chain.bin_dir])
    assert chain.order[3:] == ["third DEL", "second DEL"]
    assert "prevResult" not in chain.calls[-1][3]


def test_pod_gets_loopback_first(chain: Chain) -> None:
    pods = chain.pods("first", "second")
    result = pods.set_up(POD)
    assert chain.order == ["loopback ADD", "first ADD", "second ADD"]
    assert (result.loopback["saw"], result.default["saw"]) == (["loopback"], ["first", "second"])
    (_, _, lo, lo_request), (_, _, eth0, _), _ = chain.calls
    assert (lo["CNI_IFNAME"], eth0["CNI_IFNAME"]) == ("lo", "eth0")
    assert lo_request == {"type": "loopback", "name": "cni-loopback", "cniVersion": "0.3.1"}
    assert eth0["CNI_ARGS"] == lo["CNI_ARGS"]
    assert eth0["CNI_ARGS"] == ("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=c1")
    assert pods.check(POD)
    pods.tear_down(POD)
    assert chain.order[3:] == ["first CHECK", "second CHECK", "second DEL", "first DEL"]
    assert chain.calls[-1][3]["prevResult"] == result.default


def test_pod_is_torn_down_by_the_network_it_was_set_up_with(chain: Chain) -> None:
    pods = chain.pods("first")
    pods.set_up(POD)
    chain.pods("second").tear_down(POD)
    assert chain.order[-1] == "first DEL"


def test_pod_is_torn_down_again_without_result_and_namespace(chain: Chain) -> None:
    pods = chain.pods("first", "second")
    pods.tear_down(replace(POD, netns=""))
    assert chain.order == ["second DEL", "first DEL"]
    assert all(environment["CNI_NETNS"] == "" for _, _, environment, _ in chain.calls)


def test_pod_whose_second_plugin_fails(chain: Chain) -> None:
    chain.fail("second", "ADD")
    with pytest.raises(PluginError, match="second ADD"):
        chain.pods("first", "second").set_up(POD)
    assert chain.order == ["loopback ADD", "first ADD", "second ADD", "second DEL", "first DEL"]


def test_pod_capabilities_reach_the_default_network_only(chain: Chain) -> None:
    pods = chain.pods("first")
    plugin = {"type": "first", "capabilities": {"portMappings": True}}
    content = {"name": "net", "cniVersion": "1.0.0", "plugins": [plugin]}
    (chain.conf_dir / "10-net.conflist").write_text(json.dumps(content))
    pods.set_up(replace(POD, capability_args={"portMappings": [{"hostPort": 80}]}))
    loopback, first = (request for _, _, _, request in chain.calls)
    assert "runtimeConfig" not in loopback
    assert first["runtimeConfig"] == {"portMappings": [{"hostPort": 80}]}


def test_status_needs_a_network_and_its_plugins(chain: Chain) -> None:
    with pytest.raises(NoConfigDirectory):
        PodNetwork(chain.directory / "absent", [chain.bin_dir]).status()
    with pytest.raises(NoValidConfig):
        PodNetwork(chain.conf_dir, [chain.bin_dir]).status()
    assert chain.pods("first").status().name == "net"
    with pytest.raises(PluginNotFound, match="absent"):
        chain.pods("first", "absent").status()
    pods = chain.pods("first")
    content = {"name": "net", "plugins": [{"type": "first", "ipam": {"type": "no-ipam"}}]}
    (chain.conf_dir / "10-net.conflist").write_text(json.dumps(content))
    with pytest.raises(PluginNotFound, match="no-ipam"):
        pods.status()
    (chain.bin_dir / "loopback").unlink()
    with pytest.raises(PluginNotFound, match="loopback"):
        chain.pods("first").status()
    assert chain.calls == []


# The tests below run the installed executables. One process in the host acts as a kubelet, with eight pods
# at once, and reports what the runtime side returned.
KUBELET = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from shared.runtime.pods import Pod, PodNetwork
pods = PodNetwork("/etc/cni/net.d", [sys.argv[1]], warn=sys.exit)
pods.status()
names = sys.argv[2:]
pod = {name: Pod("default", name, f"container-{name}", f"/run/netns/{name}") for name in names}
with ThreadPoolExecutor(len(names)) as pool:
    results = dict(zip(names, pool.map(lambda name: pods.set_up(pod[name]), names)))
    checked = list(pool.map(lambda name: pods.check(pod[name]), names))
    addresses = list(pool.map(lambda name: pods.addresses(pod[name]), names))
print(json.dumps({name: [result.loopback, result.default] for name, result in results.items()}), flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(len(names)) as pool:
    list(pool.map(lambda name: pods.tear_down(pod[name]), names))
    for name in names:
        pods.tear_down(replace(pod[name], netns=""))
print(json.dumps([checked, addresses]))
"""


@pytest.fixture
def node(installed: Path) -> Iterator[PretendHost]:
    with PretendHost(installed) as host:
        bridge = {"type": "bridge", "isDefaultGateway": True}
        ranges = [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd00:99::/64"}]]
        content = {
            "name": "pods",
            "cniVersion": "1.0.0",
            "plugins": [{**bridge, "ipam": {"type": "host-local", "ranges": ranges}}],
        }
        host.run("mkdir", "-p", "/etc/cni/net.d")
        host.run("tee", "/etc/cni/net.d/10-pods.conflist", input=json.dumps(content))
        yield host


def test_pods_at_once_through_the_installed_plugins(node: PretendHost) -> None:
    names = [f"pod{number}" for number in range(8)]
    for name in names:
        node.netns(name)
    empty = node.snapshot(names)
    tree = Path(__file__).resolve().parents[2]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with node.popen(sys.executable, "-c", KUBELET, node.bin_dir, *names, env=environment) as kubelet:
        said = read_line(kubelet)
        if not said:
            pytest.fail(kubelet.communicate()[1].decode())
        results = json.loads(said)
        during = node.snapshot(names)
        out, err = kubelet.communicate(b"\n", 60 * PATIENCE)
    assert kubelet.returncode == 0, err.decode()
    checked, told = json.loads(out)
    assert checked == [True] * 8
    assert told == [[ip["address"].split("/")[0] for ip in default["ips"]] for _, default in results.values()]
    assert [path for path in during["files"] if "/results/" in path] == [
        f"/var/lib/cni/results/pods-container-{name}-eth0" for name in names
    ]

    given = [ip["address"] for _, default in results.values() for ip in default["ips"]]
    assert len(set(given)) == 16
    for name, (loopback, default) in results.items():
        assert [interface["name"] for interface in loopback["interfaces"]] == ["lo"]
        addresses = during["pods"][name]["addresses"]
        assert "lo 127.0.0.1/8 host" in addresses
        assert {f"eth0 {ip['address']} global" for ip in default["ips"]} <= set(addresses)

    after = node.snapshot(names)
    assert [name for name in after["host"]["links"] if name not in empty["host"]["links"]] == ["cni0"]
    assert {name: list(pod["links"]) for name, pod in after["pods"].items()} == {name: ["lo"] for name in names}
    leased = {one.split("/")[0] for one in given}
    assert [path for path in after["files"] if "/results/" in path or path.rpartition("/")[2] in leased] == []
