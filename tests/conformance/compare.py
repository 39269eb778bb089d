"""Plays one case on a pretend host and reports the outcome as flat facts; two plays are compared fact by fact.

A fact is one line about the answer (`result ips.0.address`), the kernel (`host link cni0 mtu`, `pod a route 0.0.0.0/0`)
or the disk (`file /var/lib/cni/networks/net/10.1.0.2`). Values that differ in each run (ifindexes, random MACs and veth
names, netns paths, link-local addresses) are replaced by their meaning, or left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.conformance.known_differences import KNOWN, Known
from tests.kernel.features import has
from tests.pretend import STATE_DIRECTORIES, Answer, PretendHost

ABSENT = "absent"
LASTING = ("host ", "pod ", "file ", "directory ")  # facts that are seen again after the next step
Facts = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of a plugin. `config` is JSON text or an object; `<netns a>` in it becomes the path of pod a's."""

    verb: str
    config: Mapping[str, Any] | str
    plugin: str = ""  # default: the configuration's type
    pod: str = "a"  # its netns is made when first used; "" = CNI_NETNS empty, "gone" = a path where nothing is
    id: str = ""  # default: c-<pod>
    ifname: str = "eth0"
    args: str = ""
    env: Mapping[str, str | None] = field(default_factory=dict)
    previous: bool | Mapping[str, Any] = False  # True: the answer of this attachment's last ADD
    fails: bool = False  # expected of the reference: a case that fails for another reason shows nothing
    by: int = 0  # which of the two suites in a hand-over executes it
    path: int | None = None  # the suite in CNI_PATH; default: the same; 2: always the reference
    before: str = ""  # shell commands run in the host before it, with the functions of PRELUDE

    @property
    def name(self) -> str:
        """Return the name of the executable."""
        return self.plugin or str(self.settings["type"])

    @property
    def settings(self) -> dict[str, Any]:
        """Return the configuration as an object, {} for text that is none."""
        try:
            return dict(json.loads(self.config) if isinstance(self.config, str) else self.config)
        except (ValueError, TypeError):
            return {}


@dataclass(frozen=True)
class Case:
    """A named sequence of steps, played on a host of its own."""

    name: str
    steps: Sequence[Step]
    needs: str = ""  # the marker of a feature that the kernel may lack

    @cached_property
    def is_hand_over(self) -> bool:
        """Return True if two suites take turns in it."""
        return any(step.by == 1 or step.path == 1 for step in self.steps)

    @cached_property
    def literals(self) -> str:
        """Return the case's own text: a MAC found in it is compared, any other is random."""
        return " ".join(f"{step.config} {step.args} {step.before}" for step in self.steps).lower()


@dataclass(frozen=True)
class Difference:
    """One fact on which the two plays of a case disagree, at the step where it first shows."""

    step: int
    label: str  # "bridge ADD"
    fact: str
    reference: str
    ours: str

    def __str__(self) -> str:
        return f"{self.label}: {self.fact}: {self.reference} -> {self.ours}"


@dataclass(frozen=True)
class Outcome:
    """A case on both suites: unexpected differences, listed differences, and listed ones that do not show."""

    case: str
    steps: Sequence[tuple[str, str]]  # plugin and verb, and "same", "listed" or "unlisted"
    wrong: Sequence[str]  # the case itself is wrong: the reference deviated from the step's expectation
    unexpected: Sequence[Difference]
    listed: Sequence[tuple[Difference, Known]]
    rotten: Sequence[Known]

    @property
    def good(self) -> bool:
        """Return True if no person needs to look at it."""
        return not (self.wrong or self.unexpected or self.rotten)

    def __str__(self) -> str:
        lines = [*self.wrong, *(f"step {d.step} {d}" for d in self.unexpected)]
        lines += [f"listed, but does not occur any more: {known.where}" for known in self.rotten]
        return "\n".join(f"{self.case}: {line}" for line in lines)


def play_names(case: Case) -> list[tuple[str, bool | None]]:
    """Return the names of a case's plays, and for a hand-over whether ours begins."""
    if not case.is_hand_over:
        return [(case.name, None)]
    return [(f"{case.name}:{first}-first", first == "ours") for first in ("reference", "ours")]


def compare(
    case: Case, reference: str, ours: str, *, ours_first: bool | None = None, known: Sequence[Known] = KNOWN
) -> Outcome:
    """Play the case on the reference and on ours. In a hand-over, ours begins (or ends) the second play."""
    cast = (ours, ours) if ours_first is None else (ours, reference) if ours_first else (reference, ours)
    expected, actual = play(case, (reference,) * 3), play(case, (*cast, reference))
    name = {first: name for name, first in play_names(case)}[ours_first]
    wrong = [
        f"step {number} {step.name} {step.verb}: the reference's exit status is {facts['status']}: {facts['message']}"
        for number, (step, facts) in enumerate(zip(case.steps, expected, strict=True))
        if (facts["status"] != "0") != step.fails
    ]
    entries = [entry for entry in known if entry.shows_in(name)]
    unexpected, listed = [], []
    for difference in find_differences(case, expected, actual):
        match = next((e for e in known if (e in entries or e.everywhere) and e.covers(str(difference))), None)
        if match is None:
            unexpected.append(difference)
        else:
            listed.append((difference, match))

    def verdict(number: int) -> str:
        if any(difference.step == number for difference in unexpected):
            return "unlisted"
        return "listed" if any(difference.step == number for difference, _ in listed) else "same"

    used = [match for _, match in listed]
    if case.name.startswith("hand-over/"):
        wrong += [f"left behind: {fact}" for fact in find_leftovers(actual[-1])]
    return Outcome(
        name,
        [(f"{step.name} {step.verb}", verdict(number)) for number, step in enumerate(case.steps)],
        wrong,
        unexpected,
        listed,
        [entry for entry in entries if entry not in used],
    )


def find_differences(case: Case, expected: Sequence[Facts], actual: Sequence[Facts]) -> Iterator[Difference]:
    """Yield every fact that differs, once: a lasting difference is not repeated with each later step."""
    told: dict[str, tuple[str, str]] = {}
    for number, (step, left, right) in enumerate(zip(case.steps, expected, actual, strict=True)):
        for fact in sorted(left.keys() | right.keys()):
            pair = left.get(fact, ABSENT), right.get(fact, ABSENT)
            if pair[0] != pair[1] and told.get(fact) != pair and not is_consequence(fact, left, right):
                yield Difference(number, f"{step.name} {step.verb}", fact, *pair)
            if fact.startswith(LASTING):
                told[fact] = pair


def is_consequence(fact: str, left: Facts, right: Facts) -> bool:
    """Return True if the fact differs only because a greater one does: success or failure, a link there or not."""
    if fact == "message" or (fact.startswith(("code", "result")) and left["status"] != right["status"]):
        return True
    link = re.match(r"(host|pod \S+) (?:link|route .* dev) (\S+)", fact)
    kind = f"{link[1]} link {link[2]} kind" if link else ""
    return fact != kind and kind in left.keys() ^ right.keys()


def find_leftovers(facts: Facts) -> list[str]:
    """Return the veths and leases that a case leaves after it has deleted all its attachments."""
    lease = re.compile(r"file \S+/[0-9a-f]*[.:][0-9a-f.:]*$")
    return [fact for fact in facts if (" link veth" in fact and fact.endswith(" kind")) or lease.match(fact)]


def is_supported(case: Case) -> bool:
    """Return True if this kernel can run the case."""
    return has(case.needs)


PRELUDE = """
pod() { pod=$1; shift; nsenter --net="/run/netns/$pod" -- "$@"; }
# the kernel takes the links of a dropped netns away later
drop() { ip netns del "$1"; timeout 30 sh -c 'while ls /sys/class/net | grep -q ^veth; do :; done'; }
"""


def play(case: Case, cast: tuple[str, str, str]) -> list[Facts]:
    """Run the case's steps on a fresh host with the executables of those directories. Return the facts after each step."""
    seen = []
    pods: dict[str, str] = {"": "", "gone": "/run/netns/gone"}
    answers: dict[tuple[str, str, str], Any] = {}
    with PretendHost() as host:
        for step in case.steps:
            if step.pod not in pods:
                pods[step.pod] = host.netns(step.pod)
            if step.before:
                host.run("sh", "-euc", PRELUDE + step.before)
            container = step.id or f"c-{step.pod}"
            attachment = str(step.settings.get("name")), container, step.ifname
            previous = answers.get(attachment) if step.previous is True else step.previous
            config: Any = {**step.settings, "prevResult": previous} if previous else step.config
            text = config if isinstance(config, str) else json.dumps(config)
            for pod, path in pods.items():
                text = text.replace(f"<netns {pod}>", path)
            answer = host.cni(
                step.name,
                step.verb,
                text,
                netns=pods[step.pod],
                container_id=container,
                ifname=step.ifname,
                args=step.args,
                bin_dir=cast[step.by],
                path=cast[step.by if step.path is None else step.path],
                env=step.env,
            )
            state = State(host, [pod for pod in pods if pod], case.literals)
            seen.append(answer_facts(answer, pods, state) | state.facts())
            if step.verb == "ADD" and answer.status == 0:
                answers[attachment] = answer.json
    return seen


def answer_facts(answer: Answer, pods: Mapping[str, str], state: State) -> Facts:
    """Return the facts of one answer: exit status, error code, result."""
    facts = {"status": str(answer.status), "message": answer.stdout + answer.stderr}
    if answer.status:
        try:
            facts["code"] = str(answer.json["code"])
        except (ValueError, TypeError, KeyError):
            facts["code"] = "no error object"
    elif answer.stdout.strip():
        result = answer.json
        sandboxes = {path: f"pod {pod}" for pod, path in pods.items() if path}
        for interface in result.get("interfaces") or []:
            pod = sandboxes.get(interface.get("sandbox"))
            interface["mac"] = state.whose(interface.get("mac", ""), interface["name"], pod or "host")
            interface["name"] = state.roles.get(interface["name"], interface["name"])
            if pod:
                interface["sandbox"] = pod
        facts.update(flatten(result, "result"))
    else:
        facts["result"] = "empty"
    return facts


def flatten(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Yield JSON as lines: `ips.0.address` and its value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}")
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{name}.{index}")
    else:
        yield name, json.dumps(value)


VETH = re.compile(r"veth[0-9a-f]+")
IFB = re.compile(r"bwp[0-9a-f-]+")
SYSCTLS = "accept_ra accept_dad enhanced_dad disable_ipv6 arp_notify ndisc_notify proxy_arp forwarding route_localnet"
LOOK = f"""
for ns in "$@"; do
    [ "$ns" = host ] || [ -e "/run/netns/$ns" ] || continue
    echo "== $ns"
    run() {{ if [ "$ns" = host ]; then "$@"; else nsenter --net="/run/netns/$ns" -- "$@"; fi; }}
    run sh -c '
        for what in "-d addr" "route show table all" "-6 route show table all" rule "-6 rule"; do ip -j $what; echo; echo ==; done
        bridge -j vlan; echo; echo ==
        cd /proc/sys/net; grep -sH "" {" ".join(f"ipv[46]/conf/*/{key}" for key in SYSCTLS.split())}; echo; echo =='
done
"""


class State:
    """The state of the host, its pods and the stores at one moment."""

    def __init__(self, host: PretendHost, pods: Sequence[str], literals: str) -> None:
        self.literals = literals
        self.root = host.root
        parts = re.split(r"^== (\S+)\n", host.run("sh", "-c", LOOK, "look", "host", *pods).stdout, flags=re.MULTILINE)
        self.looks: dict[str, tuple[Any, Any, Any, str]] = {}
        self.rules: dict[str, list[Any]] = {}
        for place, text in zip(parts[1::2], parts[2::2], strict=True):
            links, routes, routes6, rules, rules6, vlans, sysctls, *_ = text.split("\n==\n")
            where = place if place == "host" else f"pod {place}"
            self.looks[where] = json.loads(links or "[]"), [*read(routes), *read(routes6)], read(vlans), sysctls
            self.rules[where] = [*read(rules), *read(rules6)]
        #: random names of host veths → their pod's interface, by the peer's ifindex as the pod shows it
        indexes = {link["ifindex"]: link["ifname"] for link in self.looks["host"][0]}
        self.roles = {name: "veth-stray" for name in indexes.values() if VETH.fullmatch(name)}
        for link in self.looks["host"][0]:
            if link["ifname"] in self.roles and link.get("link", "veth").startswith("cni0."):
                self.roles[link["ifname"]] = f"port-of-{link['link']}"
        self.roles |= {name: "ifb" for name in indexes.values() if IFB.fullmatch(name)}
        for where, (links, *_) in self.looks.items():
            for link in links if where != "host" else []:
                name = indexes.get(link.get("link_index", 0))
                if name in self.roles:
                    self.roles[name] = f"veth-of-{where[4:]}-{link['ifname']}"

        self.traffic = list(self.traffic_facts(host)) if "bandwidth" in literals else []

    def traffic_facts(self, host: PretendHost) -> Iterator[tuple[str, str]]:
        """Yield qdiscs of the host's links, and their ingress filters."""
        for qdisc in read(host.run("tc", "-j", "qdisc").stdout):
            if qdisc["kind"] == "noqueue":
                continue
            link = self.roles.get(qdisc["dev"], qdisc["dev"])
            yield f"host link {link} qdisc {qdisc['handle']}", f"{qdisc['kind']} {json.dumps(qdisc['options'])}"
            if qdisc["kind"] not in ("ingress", "clsact"):
                continue
            for filter_ in read(host.run("tc", "-j", "filter", "show", "dev", qdisc["dev"], "ingress").stdout):
                options = filter_.get("options", {})
                name = f"host link {link} filter {filter_['pref']} {filter_['kind']}"
                yield from (
                    (f"{name} {key}", json.dumps(options[key])) for key in ("match", "flowid") if key in options
                )
                for action in options.get("actions", []):
                    words = [action.get(key) for key in ("kind", "mirred_action", "direction", "control_action")]
                    target = self.roles.get(action.get("to_dev", ""), "none")
                    yield f"{name} action {action['order']}", f"{json.dumps(words)} to {target}"

    def whose(self, mac: str, name: str, where: str) -> str:
        """Return a MAC in a result by its meaning: the requested one, the link's, or neither."""
        links = self.looks.get(where, ([], [], [], ""))[0]
        kernels = [link["address"] for link in links if link["ifname"] == name]
        if not mac:
            return "none"
        return mac if mac in self.literals else "the link's" if mac in kernels else "not the link's"

    def facts(self) -> Facts:
        """Return all of it, one line a fact."""
        facts: Facts = {}
        for where, (links, routes, vlans, sysctls) in self.looks.items():
            known = {link["ifname"]: self.roles.get(link["ifname"], link["ifname"]) for link in links}
            masters = {name: role for name, role in known.items() if name}
            for link in links:
                facts.update(self.link_facts(f"{where} link {known[link['ifname']]}", link, masters))
            for route in routes:
                facts.update(route_facts(where, route, known))
            for port in vlans:
                words = [" ".join([str(entry["vlan"]), *entry.get("flags", [])]) for entry in port["vlans"]]
                facts[f"{where} link {known[port['ifname']]} vlans"] = ", ".join(words)
            for line in sysctls.split():
                path, value = line.split(":")
                family, _, name, key = path.split("/")
                if name in known and not (name == "lo" and where == "host"):
                    facts[f"{where} link {known[name]} {family} {key}"] = value
                elif name == "all" and key == "forwarding":
                    facts[f"{where} forwarding {family}"] = value
        for where, rules in self.rules.items():
            facts.update((f"{where} rule {one['priority']} from {one['src']}", str(one.get("table"))) for one in rules)
        facts.update(self.file_facts())
        facts.update(self.traffic)
        return facts

    def link_facts(self, name: str, link: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield one link, its port of a bridge, its addresses."""
        info = link.get("linkinfo", {})
        yield f"{name} kind", info.get("info_kind", link["link_type"])
        yield f"{name} flags", " ".join(sorted(set(link["flags"]) & {"UP", "PROMISC", "ALLMULTI"}))
        yield f"{name} mtu", str(link["mtu"])
        if "master" in link:
            yield f"{name} master", known.get(link["master"], link["master"])
        if link["address"] in self.literals:
            yield f"{name} mac", link["address"]
        port, bridge = info.get("info_slave_data", {}), info.get("info_data", {})
        yield from ((f"{name} port {key}", str(port[key])) for key in ("hairpin", "isolated") if key in port)
        yield from (
            (f"{name} {key}", str(bridge[key])) for key in ("vlan_filtering", "stp_state", "table") if key in bridge
        )
        for address in link["addr_info"]:
            if address["scope"] != "link" or address["family"] == "inet":
                words = [f"scope {address['scope']}", *(["nodad"] if address.get("nodad") else [])]
                words += [f"{key} {address[key]}" for key in ("broadcast", "address") if key in address]
                yield f"{name} address {address['local']}/{address['prefixlen']}", " ".join(words)

    def file_facts(self) -> Iterator[tuple[str, str]]:
        """Yield the stores' content, byte for byte, without the sidecar that the reference never reads."""
        for store in STATE_DIRECTORIES:
            for path in sorted((self.root / store).rglob("*")):
                name = path.relative_to(self.root)
                if not any(part.startswith(".pycni") for part in name.parts):
                    yield (
                        (f"directory /{name}", "there") if path.is_dir() else (f"file /{name}", str(path.read_bytes()))
                    )


def read(text: str) -> list[Any]:
    """Return the JSON of an `ip -j`, which prints nothing at all if there is nothing."""
    return list(json.loads(text)) if text.strip() else []


def route_facts(where: str, route: Mapping[str, Any], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield one route, without the kernel's own local table and link-local routes."""
    if route.get("table") == "local" or route["dst"].startswith(("fe80:", "ff00:", "multicast")):
        return
    words = [f"dev {known.get(route.get('dev', ''), route.get('dev'))}"]
    words += [
        f"{key} {route[key]}" for key in ("gateway", "protocol", "scope", "metric", "prefsrc", "table") if key in route
    ]
    words += [f"metrics {json.dumps(route['metrics'])}"] if "metrics" in route else []
    name = f"{where} route {route['dst']}" + (f" metric {route['metric']}" if "metric" in route else "")
    name += f" table {route['table']}" if "table" in route else ""
    yield f"{name} {words.pop(0)}", " ".join(words)
