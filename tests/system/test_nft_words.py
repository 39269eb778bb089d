"""explain's nf_tables steps are nft's language: nft makes the same rule set from them as the plugins do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest

from shared.cli.explain import story, wiretap
from shared.cli.explain.recorder import Recorder
from shared.net.messages import encode
from shared.net.netlink import Request
from shared.net.wire import NETLINK_NETFILTER
from shared.nft import wire
from tests.pretend import PretendHost
from tests.system import nft_rules
from tests.system.test_explain import BRIDGE, explain, network, prepare

VERBS = ("add ", "delete ", "flush ")
NFT_STEPS = "NFT_MSG_"
HOST, HOST_6 = "192.0.2.2", "2001:db8::2"
MARK = re.compile(r"\d+:\d+(:\d+)? (?=/run/netns/)")  # each namespace has its own


class Kernel:
    """Accepts transactions, keeps them and does nothing."""

    def __init__(self) -> None:
        self.recorder = Recorder(0, 0, dict)

    def commit(self, requests: Iterable[Request]) -> None:
        talk = wiretap.Talk(self.recorder, 0, NETLINK_NETFILTER)
        frames = [Request(kind, {}) for kind in (wire.NFNL_MSG_BATCH_BEGIN, wire.NFNL_MSG_BATCH_END)]
        batch = [frames[0], *requests, frames[1]]
        talk.record_requests(b"".join(encode(one.kind, one.flags, n, one.message, wire) for n, one in enumerate(batch)))


def script(steps: list[dict[str, Any]]) -> str:
    """Return the nf_tables steps that were not refused, as a script for nft."""
    lines = [step["text"] for step in steps if step["what"].startswith(NFT_STEPS) and not step.get("refused")]
    assert lines and all(line.startswith(VERBS) for line in lines)
    return "\n".join(lines)


def ruleset(host: PretendHost) -> str:
    return host.run("nft", "--stateless", "list", "ruleset").stdout


def fed(text: str) -> str:
    """Return the rule set that nft makes of a script, in a host of its own."""
    with PretendHost() as host:
        host.run("nft", "-f", "-", input=text)
        return ruleset(host)


def test_every_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules beside their words in nft's language, each set, map and element."""
    kernel = Kernel()
    monkeypatch.setattr(nft_rules, "Nfnetlink", lambda: kernel)
    nft_rules.main()
    story.describe(kernel.recorder.steps)
    with PretendHost() as host:
        host.python("from tests.system.nft_rules import main; main()")
        assert fed(script(kernel.recorder.steps)) == ruleset(host)
    told = [step["text"] for step in kernel.recorder.steps if step["what"] == "NFT_MSG_NEWRULE"]
    wanted = [words for rules in nft_rules.RULES.values() for words, _ in rules]
    differing = {
        text.split(" ", 5)[5].rpartition(" comment ")[0] for text, words in zip(told, wanted, strict=True) if words not in text
    }  # fmt: skip
    assert differing == {"meta mark & 0x00002000 == 0x00002000 masquerade"}


FULL = {**BRIDGE, "ipMasq": True, "ipMasqBackend": "nftables", "macspoofchk": True}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": HOST},
    {"hostPort": 53, "containerPort": 53, "protocol": "sctp", "hostIP": HOST_6},
]
CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "masquerading": [{**FULL, "nonMasqueradeCIDRs": ["192.168.0.0/17", "fd00:9::/33"]}],
    "de-duplication": [{**FULL, "promiscMode": True, "hairpinMode": False}],
    "host ports": [FULL, {**PORTMAP, "conditionsV4": ["!", "-s", "192.0.2.77", "-i", "up0"]}],
    "conditions": [
        BRIDGE, {**PORTMAP, "masqAll": True, "conditionsV4": ["ip daddr != 203.0.113.0/24", "ip saddr 198.51.100.0/22"],
                 "conditionsV6": ["iifname != up0"]},
    ],
    "firewall": [FULL, PORTMAP, {"type": "firewall", "backend": "nftables", "ingressPolicy": "same-bridge"}],
    "isolation": [FULL, {"type": "firewall", "backend": "nftables", "ingressPolicy": "isolated"}],
}  # fmt: skip


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_plugins_make(host: PretendHost, name: str, ends: bool) -> None:
    """The plugins' rule set after an ADD, or an ADD and a DEL, and that of nft after the story's steps."""
    prepare(host)
    host.run("ip", "address", "add", f"{HOST_6}/64", "dev", "up0", "nodad")
    config, arguments = network(*CONFIGURATIONS[name]), {"portMappings": PORTS}
    done = explain(host, config, "--json", *(["--del"] if ends else []), env={"CAP_ARGS": json.dumps(arguments)})
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert "pycni" not in ruleset(host)

    netns, result = host.netns("explain"), None
    for verb in ("ADD", "DEL") if ends else ("ADD",):
        plugins = config["plugins"] if verb == "ADD" else reversed(config["plugins"])
        for plugin in plugins:
            whole = {**plugin, "name": config["name"], "cniVersion": config["cniVersion"]}
            whole |= {"prevResult": result} if result else {}
            whole |= {"runtimeConfig": arguments} if plugin["type"] == "portmap" else {}
            answer = host.cni(plugin["type"], verb, whole, netns=netns, container_id="explain")
            assert answer.status == 0, answer.stdout
            result = answer.json if verb == "ADD" else result
    text = script(told["steps"])
    assert "[" not in text and MARK.sub("mark", fed(text)) == MARK.sub("mark", ruleset(host))


def test_many_elements_are_one_step(host: PretendHost) -> None:
    """A line shows ten elements of each set; the data has them all."""
    prepare(host)
    ports = [{"hostPort": number, "containerPort": 80, "protocol": "tcp"} for number in range(10_000, 11_500)]
    arguments = json.dumps({"portMappings": ports}, separators=(",", ":"))
    done = explain(host, network(BRIDGE, PORTMAP), "--json", "--del", env={"CAP_ARGS": arguments})
    assert done.returncode == 0, done.stderr
    steps = [step for step in json.loads(done.stdout)["steps"] if " element inet pycni hostports4 { " in step["text"]]
    told = [step["text"] for step in steps]
    assert [text.split()[0] for text in told] == ["add", "delete"]
    assert all(text.endswith(", … and 1,490 more }") and "tcp . 10009" in text and "10010" not in text for text in told)
    assert {len(step["message"]["NFTA_SET_ELEM_LIST_ELEMENTS"]) for step in steps} == {1_500}


def test_no_nft_is_needed(host: PretendHost) -> None:
    """The words come from the messages alone."""
    prepare(host)
    assert "/usr/sbin/" in host.run("which", "nft").stdout
    done = explain(host, network(FULL), env={"PATH": "/usr/bin:/bin"})
    assert "add element inet pycni masq4 { 10.1.0.2 comment " in done.stdout
