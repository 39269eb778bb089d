"""A runtime's calls with libcni's cache: entries, garbage collection, versions of the plugins."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.net import netns
from shared.net.owner import Owner
from shared.runtime import attach, presence
from shared.runtime.attach import PluginError
from shared.runtime.attachment import Attachment
from shared.runtime.cache import Cache, CacheError
from shared.runtime.client import Client
from shared.runtime.pods import Pod, PodNetwork
from shared.runtime.presence import AttachmentExists
from tests.conftest import ROOT
from tests.pretend import read_line
from tests.system.test_pods import Chain

RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}], "dns": {}}
ONE = Attachment("c1", "/run/netns/one", "eth0", {"IgnoreUnknown": "1"}, {"mac": "x"})


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path)
    chain.answer("first", "ADD", f"print('{json.dumps(RESULT)}')")
    return chain


@pytest.fixture
def client(chain: Chain) -> Client:
    return Client([chain.bin_dir], cache_dir=chain.directory / "cache", limit=20)


@contextmanager
def throw_away() -> Iterator[None]:
    """Run the body in a network namespace of its own."""
    with closing(netns.create_temporary()) as elsewhere, elsewhere:
        yield


def requests(chain: Chain, verb: str) -> list[dict[str, Any]]:
    return [request for _, called, _, request in chain.calls if called == verb]


def test_result_is_remembered_until_del(chain: Chain, client: Client) -> None:
    network = chain.network("first")
    assert client.add(network, ONE) == RESULT
    (entry,) = client.cached()
    assert (entry.network, entry.attachment, entry.config, entry.result) == ("net", ONE, network, RESULT)
    assert client.check(network, ONE)
    client.delete(network, ONE)
    assert client.cached() == []
    client.delete(network, ONE)
    assert [request.get("prevResult") for request in requests(chain, "DEL")] == [RESULT, None]
    assert requests(chain, "CHECK")[0]["prevResult"] == RESULT
    with pytest.raises(CacheError, match="no result to check c1 eth0 against"):
        client.check(network, ONE)


def test_failing_del_keeps_the_memory(chain: Chain, client: Client) -> None:
    network = chain.network("first")
    client.add(network, ONE)
    chain.fail("first", "DEL")
    with pytest.raises(PluginError):
        client.delete(network, ONE)
    assert len(client.cached()) == 1


def test_attachment_that_cannot_be_remembered_is_taken_back(chain: Chain, client: Client) -> None:
    (chain.directory / "cache").mkdir()
    (chain.directory / "cache" / "results").write_text("not a directory")
    with pytest.raises(CacheError, match="cannot write"):
        client.add(chain.network("first"), ONE)
    assert chain.order == ["first ADD", "first DEL"]


def test_an_argument_that_no_file_can_hold(chain: Chain, client: Client) -> None:
    """No plugin asked for it, so only the cache detects it: nothing of the attachment is left."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        client.add(chain.network("first"), replace(ONE, capability_args={"mac": object()}))
    assert chain.order == ["first ADD", "first DEL"]
    assert list(client.cache.results.iterdir()) == []


def test_add_said_twice_is_refused_before_any_plugin_runs(chain: Chain, client: Client) -> None:
    """The caller is in another namespace than the pod; interfaces that the cached result lacks are not looked for."""
    pod = Attachment("c1", "/proc/1/ns/net", "net1")
    with throw_away():
        client.add(chain.network("first"), pod)
        before = client.cache.path("net", pod).read_bytes()
        with pytest.raises(
            AttachmentExists, match=r"cache/results/net-c1-net1 .* `CNI_IFNAME=net1 cnitool del net /proc/1"
        ):
            client.add(chain.network("first"), pod)
    assert chain.order == ["first ADD"]
    assert client.cache.path("net", pod).read_bytes() == before


def test_entry_that_cannot_be_read_may_be_of_a_pod_that_is_there(chain: Chain, client: Client) -> None:
    client.add(chain.network("first"), ONE)
    client.cache.path("net", ONE).write_text("{")
    with pytest.raises(AttachmentExists, match="is not JSON"):
        client.add(chain.network("first"), ONE)
    assert chain.order == ["first ADD"]
    client.delete(chain.network("first"), ONE)
    client.add(chain.network("first"), ONE)


def test_what_a_lost_namespace_left_gets_its_del_first(chain: Chain, client: Client) -> None:
    """The DEL has the configuration and the arguments of its ADD."""
    client.add(chain.network("first", "second"), ONE)
    client.add(chain.network("third"), ONE)
    assert chain.order == ["first ADD", "second ADD", "second DEL", "first DEL", "third ADD"]
    assert client.cached()[0].config == chain.network("third")
    chain.fail("third", "DEL")
    with pytest.raises(PluginError, match="third DEL"):
        client.add(chain.network("first"), ONE)
    assert chain.order[5:] == ["third DEL"] and len(client.cached()) == 1


def test_entry_of_another_is_not_overwritten(chain: Chain, client: Client) -> None:
    client.add(chain.network("first"), Attachment("b-a", "/x"))
    with pytest.raises(CacheError, match="belongs to another attachment"):
        client.add(chain.network("first", name="net-b"), Attachment("a", "/x"))
    assert chain.order == ["first ADD"]


def test_two_adds_of_one_attachment_at_once(chain: Chain, client: Client) -> None:
    """One of them succeeds; the others run no plugin, so that nothing of it is undone."""
    gate = chain.directory / "gate"
    os.mkfifo(gate)
    chain.answer("first", "ADD", f"open({str(gate)!r}).read(); print('{json.dumps(RESULT)}')")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.add, chain.network("first"), ONE)
        writer = os.open(gate, os.O_WRONLY)
        with pytest.raises(AttachmentExists, match="another call is attaching it"):
            client.add(chain.network("first"), ONE)
        client.add(chain.network("second"), Attachment("c2", "/x"))
        os.close(writer)
        assert first.result() == RESULT
    assert chain.order == ["first ADD", "second ADD"]
    assert list((chain.directory / "cache" / "attaching").iterdir()) == []


def test_failed_write_leaves_no_file(chain: Chain, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(client.cache, "store", limited(client.cache.store))
    with pytest.raises(CacheError, match=r"cannot write .*net-c1-eth0: File too large"):
        client.add(chain.network("first"), ONE)
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == old
    assert chain.order == ["first ADD", "first DEL"]
    assert list(client.cache.results.iterdir()) == []


def test_what_a_killed_add_left_goes_with_its_del(chain: Chain, client: Client) -> None:
    chain.answer("first", "ADD", "import signal; os.kill(os.getppid(), signal.SIGKILL); sys.exit(1)")
    script = (
        "import sys; from shared.runtime.attachment import Attachment; from shared.runtime.client import Client;"
        "from shared.runtime.conflist import parse; network = parse({'name': 'net', 'plugins': [{'type': 'first'}]});"
        "Client([sys.argv[1]], cache_dir=sys.argv[2]).add(network, Attachment('c1', '/run/netns/one'))"
    )
    argv = [sys.executable, "-c", script, str(chain.bin_dir), str(chain.directory / "cache")]
    assert subprocess.run(argv, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list(client.cache.attaching.iterdir())) == 1
    client.cache.results.mkdir()
    (client.cache.results / f".new-{next(client.cache.attaching.iterdir()).name}").touch()
    client.delete(chain.network("first"), ONE)
    assert [*client.cache.attaching.iterdir(), *client.cache.results.iterdir()] == []


def test_what_a_killed_write_left_does_not_hinder_the_next(chain: Chain, client: Client) -> None:
    """It left a partial file, or there is a symbolic link in its place, which is not followed."""
    victim = chain.directory / "victim"
    victim.write_text("precious")
    client.cache.results.mkdir(parents=True)
    half_written = client.cache._unfinished("net", ONE)  # noqa: SLF001 - only a killed call leaves it
    for left in ("file", "link"):
        half_written.write_text("{") if left == "file" else half_written.symlink_to(victim)
        client.add(chain.network("first"), ONE)
        assert [path.name for path in client.cache.results.iterdir()] == ["net-c1-eth0"]
        client.delete(chain.network("first"), ONE)
    assert victim.read_text() == "precious"


def test_the_cache_is_for_root_alone(chain: Chain, client: Client) -> None:
    """A result may contain a runtime's secrets in its arguments."""
    client.add(chain.network("first"), ONE)
    path = client.cache.path("net", ONE)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]


def test_a_place_that_is_gone_is_nobodys(chain: Chain, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and lock, another call has ended and a third has begun."""
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        (place,) = client.cache.attaching.iterdir()
        place.rmdir()
        place.mkdir(mode=0o700)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(AttachmentExists, match="another call"):
        client.add(chain.network("first"), ONE)
    assert chain.order == []


def test_a_call_that_is_refused_does_not_free_the_place(chain: Chain, client: Client) -> None:
    with client.cache.alone("net", ONE):
        for _ in range(2):
            with pytest.raises(AttachmentExists, match="another call"):
                client.add(chain.network("first"), ONE)
    client.add(chain.network("first"), ONE)
    assert chain.order == ["first ADD"]


def test_an_interface_that_is_there_is_not_touched(chain: Chain) -> None:
    """The library's ADD without a cache leaves it; the undo of a failed ADD would delete it."""
    script = "ip link add net1 type bridge && echo ready && exec cat"
    with subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pod:
        assert pod.stdin is not None and read_line(pod) == b"ready\n"
        there = Attachment("c1", f"/proc/{pod.pid}/ns/net", "net1")
        with pytest.raises(AttachmentExists, match="interface net1 is in"):
            attach.add(chain.network("first"), there, [chain.bin_dir])
        assert chain.order == []
        attach.add(chain.network("first"), replace(there, ifname="net2"), [chain.bin_dir])
        assert chain.order == ["first ADD"]
        pod.stdin.close()


def test_a_host_link_that_leads_to_no_pod_is_no_evidence(chain: Chain, client: Client) -> None:
    """A link of that name without another end was not made by an ADD."""
    with throw_away():
        link = Owner("net", ONE.container_id, ONE.ifname).host_link
        subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
        assert presence.host_link("net", ONE) == ""
        client.add(chain.network("first"), ONE)


def test_a_host_link_that_a_result_names_is_evidence() -> None:
    """It counts whether or not the namespace's path exists; other plugins choose other link names."""
    script = "echo ready && exec cat"
    with subprocess.Popen(["unshare", "-n", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pod:
        assert pod.stdin is not None and read_line(pod) == b"ready\n"
        with throw_away():
            peer = ("peer", "name", "eth0", "netns", str(pod.pid))
            subprocess.run(["ip", "link", "add", "other0", "type", "veth", *peer], check=True)
            result = {"interfaces": [{"name": "other0"}, {"name": "eth0", "sandbox": ONE.netns}]}
            assert presence.evidence("net", ONE, result) == "its host link other0 leads to a pod"
            assert presence.evidence("net", ONE, None) == ""
        pod.stdin.close()


@pytest.mark.parametrize(("path", "state"), [
    ("/proc/self/ns/net", "alive"), ("/none", "gone"), ("/etc/passwd/x", "gone"), ("/etc/passwd", "gone"),
    ("", "unknown"), ("/x\0", "unknown"), ("/" + "x" * 300, "unknown"), ("/" + "x/" * 3000, "unknown"),
])  # fmt: skip
def test_which_namespace_counts_as_there(path: str, state: str) -> None:
    """Only a certain answer is "gone"; the file that a deleted namespace leaves is certain as well."""
    assert presence.of_namespace(path) == state


def test_an_entry_that_is_no_regular_file(chain: Chain, client: Client) -> None:
    """No call waits for a writer, and the attachment may exist."""
    client.add(chain.network("first"), ONE)
    path = client.cache.path("net", ONE)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(AttachmentExists, match="is not a regular file"):
        client.add(chain.network("first"), ONE)
    client.delete(chain.network("first"), ONE)
    assert not path.exists()


def newer_default(chain: Chain) -> None:
    content = {"name": "newer", "cniVersion": "1.0.0", "plugins": [{"type": "second"}]}
    (chain.conf_dir / "00-newer.conflist").write_text(json.dumps(content))


def test_what_a_lost_pod_has_of_a_former_default_network(chain: Chain) -> None:
    """The pod's next set-up sends the missing DEL, with the plugins of that network."""
    pods, pod = chain.pods("first"), Pod("ns", "web", "c1", "/x")
    pods.set_up(pod)
    newer_default(chain)
    pods.set_up(pod)
    assert chain.order == ["loopback ADD", "first ADD", "first DEL", "loopback ADD", "second ADD"]


def test_an_unreadable_file_names_the_network_of_a_pod(chain: Chain) -> None:
    pods, pod = chain.pods("first"), Pod("ns", "web", "c1", "/x")
    pods.set_up(pod)
    newer_default(chain)
    (entry,) = (chain.directory / "cache" / "results").iterdir()
    entry.write_text("{")
    pods.tear_down(pod)
    assert chain.order[2:] == ["first DEL"]


def limited(step: Callable[..., None]) -> Callable[..., None]:
    """Run the step while no file may have more than ten bytes."""

    def run(*args: Any) -> None:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))
        try:
            step(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    return run


def test_old_networks_get_no_result_on_del(chain: Chain, client: Client) -> None:
    network = chain.network("first", cniVersion="0.3.1")
    client.add(network, ONE)
    client.delete(network, ONE)
    assert "prevResult" not in requests(chain, "DEL")[0]


def test_result_of_another_version_is_converted(chain: Chain, client: Client) -> None:
    client.add(chain.network("first"), ONE)
    client.delete(chain.network("first", cniVersion="0.4.0"), ONE)
    converted = {**RESULT, "cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/24"}]}
    assert requests(chain, "DEL")[0]["prevResult"] == converted


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"kind": "cniCacheV2"}', b"\xff", b'{"a":' * 100_000])
def test_garbled_entry_does_not_keep_del_from_its_work(chain: Chain, client: Client, content: bytes) -> None:
    network = chain.network("first")
    client.add(network, ONE)
    path = client.cache.path("net", ONE)
    path.write_bytes(content)
    assert client.cached() == []
    with pytest.raises(CacheError):
        client.check(network, ONE)
    client.delete(network, ONE)
    assert not path.exists()
    assert "prevResult" not in requests(chain, "DEL")[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("containerId", "../../etc"), ("ifName", 7), ("networkName", None), ("result", []), ("cniArgs", [["a"]]),
     ("capabilityArgs", 3), ("containerId", "another")],
)  # fmt: skip
def test_entry_that_says_something_else_is_not_listed(chain: Chain, client: Client, key: str, value: Any) -> None:
    client.add(chain.network("first"), ONE)
    path = client.cache.path("net", ONE)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert client.cached() == []


@pytest.mark.row("symlinks")
def test_symbolic_link_in_the_cache_is_not_followed(chain: Chain, client: Client) -> None:
    client.add(chain.network("first"), ONE)
    path = client.cache.path("net", ONE)
    outside = chain.directory / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    assert client.cached() == []
    before = outside.read_bytes()
    client.cache.store(chain.network("first"), ONE, RESULT)
    assert outside.read_bytes() == before and not path.is_symlink()


def test_entries_by_network_container_and_interface(chain: Chain, client: Client) -> None:
    for container_id, ifname in (("a", "eth0"), ("a", "eth1"), ("b-a", "eth0")):
        client.add(chain.network("first"), Attachment(container_id, "/x", ifname))
        client.add(chain.network("first", name="net2"), Attachment(container_id, "/x", ifname))
    found = Cache(chain.directory / "cache").attachments

    def told(**wanted: str) -> list[tuple[str, str, str]]:
        return sorted((one.network, one.attachment.container_id, one.attachment.ifname) for one in found(**wanted))

    assert len(told()) == 6
    assert told(network="net") == [("net", "a", "eth0"), ("net", "a", "eth1"), ("net", "b-a", "eth0")]
    assert told(container_id="a", ifname="eth0") == [("net", "a", "eth0"), ("net2", "a", "eth0")]


def test_entry_of_the_same_file_name_is_not_taken_for_ones_own(chain: Chain, client: Client) -> None:
    other = Attachment("b-a", "/x")
    client.add(chain.network("first"), other)
    mine = Attachment("a", "/x")
    with pytest.raises(CacheError, match="no result to check"):
        client.check(chain.network("first", name="net-b"), mine)
    client.delete(chain.network("first", name="net-b"), mine)
    assert [entry.attachment.container_id for entry in client.cached()] == ["b-a"]


def test_gc_ends_what_is_not_valid_and_asks_every_plugin(chain: Chain, client: Client) -> None:
    network = chain.network("first", "second", cniVersion="1.1.0")
    other = Attachment("c2", "/run/netns/two")
    client.add(network, ONE)
    client.add(network, other)
    client.add(chain.network("first", name="another"), ONE)
    before = len(chain.calls)
    client.gc(network, [other])
    assert chain.order[before:] == ["second DEL", "first DEL", "first GC", "second GC"]
    assert {entry.network for entry in client.cached()} == {"net", "another"}
    asked = requests(chain, "GC")[0]
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    assert asked["cni.dev/valid-attachments"] == asked["cni.dev/attachments"] == valid
    assert (asked["name"], asked["cniVersion"], asked["type"]) == ("net", "1.1.0", "first")


def test_gc_keeps_what_it_cannot_read_and_ends_the_rest_by_their_own_configuration(
    chain: Chain, client: Client
) -> None:
    network = chain.network("first", cniVersion="1.1.0")
    client.add(network, Attachment("a-b", "/x", "net-1"))
    client.add(chain.network("second", cniVersion="1.1.0"), Attachment("c2", "/x"))
    client.cache.path("net", Attachment("a-b", "/x", "net-1")).write_text("")
    client.gc(network, [])
    assert chain.order[2:] == ["second DEL", "first GC"]
    valid = {(one["containerID"], one["ifname"]) for one in requests(chain, "GC")[0]["cni.dev/valid-attachments"]}
    assert valid == {("a", "b-net-1"), ("a-b", "net-1"), ("a-b-net", "1")}
    assert [path.name for path in client.cache.results.iterdir()] == ["net-a-b-net-1"]


def test_gc_without_a_cache_to_read_does_nothing(chain: Chain, client: Client) -> None:
    (chain.directory / "cache").mkdir()
    client.cache.results.write_text("not a directory")
    with pytest.raises(CacheError, match="Not a directory"):
        client.gc(chain.network("first", cniVersion="1.1.0"), [])
    assert chain.order == []


def test_gc_goes_on_after_failures_and_tells_them_all(chain: Chain, client: Client) -> None:
    network = chain.network("first", "second", cniVersion="1.1.0")
    client.add(network, ONE)
    chain.fail("second", "DEL")
    chain.fail("first", "GC")
    with pytest.raises(ExceptionGroup) as told:
        client.gc(network, [])
    assert [str(error).partition(":")[0] for error in told.value.exceptions] == ["second DEL", "first GC"]
    assert chain.order[-2:] == ["first GC", "second GC"]


def test_gc_of_networks_that_have_none(chain: Chain, client: Client) -> None:
    network = chain.network("first", cniVersion="1.1.0", disableGC=True)
    client.add(network, ONE)
    client.gc(network, [])
    assert chain.order == ["first ADD"]
    client.gc(chain.network("first", cniVersion="1.0.0"), [])
    assert chain.order == ["first ADD", "first DEL"]


def test_status_asks_in_order_and_stops_at_the_first_error(chain: Chain, client: Client) -> None:
    client.status(chain.network("first"))
    assert chain.order == []
    chain.fail("second", "STATUS", code=50)
    with pytest.raises(PluginError) as told:
        client.status(chain.network("first", "second", "third", cniVersion="1.1.0"))
    assert told.value.code == 50
    assert chain.order == ["first STATUS", "second STATUS"]
    with pytest.raises(PluginError, match="absent"):
        client.status(chain.network("first", "absent"))


@pytest.mark.parametrize(
    ("script", "supported"),
    [
        ("""print('{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}')""", ("0.4.0", "1.0.0")),
        ("""print('{"cniVersion": "0.2.0"}')""", ("0.1.0", "0.2.0")),
        ("""print('{"code": 4, "msg": "unknown CNI_COMMAND: VERSION"}'); sys.exit(1)""", ("0.1.0",)),
    ],
)
def test_versions_of_new_and_old_plugins(chain: Chain, client: Client, script: str, supported: tuple[str, ...]) -> None:
    chain.answer("first", "VERSION", script)
    assert attach.versions("first", [chain.bin_dir]) == supported
    client.validate(chain.network("first", cniVersion=supported[-1]))
    with pytest.raises(PluginError, match="the plugin speaks") as told:
        client.validate(chain.network("first", cniVersion="1.1.0"))
    assert told.value.code == 1


@pytest.mark.parametrize("script", ["print('[]')", "print('{}')", "sys.exit(3)", "print('no')"])
def test_plugin_whose_versions_cannot_be_told(chain: Chain, script: str) -> None:
    chain.answer("first", "VERSION", script)
    with pytest.raises(PluginError):
        attach.versions("first", [chain.bin_dir])


@pytest.mark.parametrize(
    ("container_id", "ifname"), [("", "eth0"), ("../x", "eth0"), ("a b", "eth0"), ("c1\n", "eth0"), ("c1", "a/b"),
                                 ("c1", ".."), ("c1", ""), ("c1", "x" * 16)],
)  # fmt: skip
@pytest.mark.row("plugin-path")
def test_names_that_could_lead_elsewhere(container_id: str, ifname: str) -> None:
    with pytest.raises(ValueError, match=r"container id|ifname"):
        Attachment(container_id, "/run/netns/x", ifname)


def test_vendors_directory_comes_first(chain: Chain) -> None:
    pods = chain.pods("first")
    vendor = chain.directory / "vendor" / "first" / "bin"
    vendor.mkdir(parents=True)
    (vendor / "first").write_text('#!/bin/sh\nprintf \'{"from": "vendor"}\'\n')
    (vendor / "first").chmod(0o755)
    assert pods.set_up(Pod("ns", "web", "c1", "/x")).default["from"] == "vendor"


def test_new_default_network_is_seen(chain: Chain) -> None:
    pods = chain.pods("first")
    assert pods.default_network().name == "net"
    content = {"name": "newer", "cniVersion": "1.0.0", "plugins": [{"type": "second"}]}
    (chain.conf_dir / "00-newer.conflist").write_text(json.dumps(content))
    assert pods.default_network().name == "newer"


def test_pods_readiness_is_the_plugins_word(chain: Chain) -> None:
    pods = chain.pods("first")
    content = {"name": "net", "cniVersion": "1.1.0", "plugins": [{"type": "first"}]}
    (chain.conf_dir / "10-net.conflist").write_text(json.dumps(content))
    pods.status()
    chain.fail("first", "STATUS", code=50)
    with pytest.raises(PluginError) as told:
        pods.status()
    assert told.value.code == 50


def test_a_pods_network_object_needs_no_vendors(chain: Chain) -> None:
    chain.pods("first")
    plain = PodNetwork(chain.conf_dir, [chain.bin_dir], vendor_dir="", cache_dir=chain.directory / "cache")
    assert plain.status().name == "net"
