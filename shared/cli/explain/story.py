"""Describe steps in the words of a network engineer.

Each sentence consumes the parts of a message that it describes. The remaining parts are printed under their kernel
names. So no attribute is hidden, and a message without a sentence is described completely.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from shared.cli.explain import link_words, nft_words
from shared.cli.explain.changes import Step
from shared.cli.explain.message import Rest, plain
from shared.cli.explain.nft_expressions import PROTOCOLS
from shared.cli.explain.nft_words import Sets
from shared.net.wire import AF_INET, IFA_F_NODAD, NLM_F_REPLACE

RT_TABLE_MAIN = 254  # linux/rtnetlink.h
SCOPES = {0: "", 253: "scope link", 254: "scope host", 255: ""}  # 255, nowhere: a deletion of any scope
RTPROT_KERNEL, RTPROT_BOOT, RTN_UNICAST = 2, 3, 1
# conntrack(8)'s words for the direction of the first packet
CONNECTION = (
    ("src", "IP", ("CTA_IP_V4_SRC", "CTA_IP_V6_SRC")), ("dst", "IP", ("CTA_IP_V4_DST", "CTA_IP_V6_DST")),
    ("sport", "PROTO", ("CTA_PROTO_SRC_PORT",)), ("dport", "PROTO", ("CTA_PROTO_DST_PORT",)),
)  # fmt: skip
SWAPPED = str.maketrans("/.", "./")  # sysctl(8)'s notation: dots for slashes, slashes for the dots of a link's name


def describe(steps: Iterable[Step]) -> None:
    """Add a `text` to each step.

    The steps that create sets of nf_tables tell the types of their elements.
    """
    steps = list(steps)
    sets = Sets(steps)
    for step in steps:
        step["text"] = describe_step(step, sets)


def describe_step(step: Step, sets: Sets = Sets()) -> str:  # noqa: B008  (never changed)
    """Return the step as a line."""
    if "change" in step:
        told = _difference(step)
    elif "message" in step:
        told = _netlink(step, sets)
    else:
        told = FILES.get(step["what"], _other)(step)
    return f"{told} (refused: {step['refused']})" if step.get("refused") else told


def _netlink(step: Step, sets: Sets) -> str:
    rest = Rest(step["message"], step["names"])
    if step["what"] in nft_words.MESSAGES:
        told = nft_words.MESSAGES[step["what"]](rest, sets)
        return ", ".join([told, *rest.words()])
    tell = MESSAGES.get(step["what"])
    if tell is None:
        return ", ".join([step["what"], *([rest.link()] if "index" in rest.left else []), *rest.words()])
    return ", ".join(word for word in (*tell(rest, step), *rest.words()) if word)


def _address(rest: Rest, step: Step) -> list[str]:
    rest.take("family")
    local, peer = rest.take("IFA_LOCAL"), rest.take("IFA_ADDRESS")
    text_ = f"{local or peer}/{rest.take('prefixlen', 0)}"
    told = [
        f"delete address {text_} from {rest.link()}"
        if step["what"] == "RTM_DELADDR"
        else f"address {text_} on {rest.link()}"
    ]
    if peer and local and peer != local:
        told.append(f"peer {peer}")
    if "IFA_BROADCAST" in rest.left:
        told.append(f"broadcast {rest.take('IFA_BROADCAST')}")
    if rest.left.get("flags", 0) & IFA_F_NODAD:
        rest.left["flags"] &= ~IFA_F_NODAD
        told.append("without duplicate address detection")
    return told


def _route(rest: Rest, step: Step) -> list[str]:
    rest.take("family")
    length = rest.take("dst_len", 0)
    words = [f"{rest.take('RTA_DST', '')}/{length}" if length else "default"]
    words += [f"via {rest.take('RTA_GATEWAY')}"] if "RTA_GATEWAY" in rest.left else []
    words += [f"src {rest.take('RTA_PREFSRC')}"] if "RTA_PREFSRC" in rest.left else []
    words += [f"dev {rest.link('RTA_OIF')}"] if "RTA_OIF" in rest.left else []
    table = rest.take("table", 0)
    table = rest.take("RTA_TABLE", table)
    words += [f"table {table}"] if table not in (0, RT_TABLE_MAIN) else []
    words += [f"metric {rest.take('RTA_PRIORITY')}"] if "RTA_PRIORITY" in rest.left else []
    metrics = rest.inner("RTA_METRICS")
    words += [
        f"{w} {metrics.take(n)}" for n, w in (("RTAX_MTU", "mtu"), ("RTAX_ADVMSS", "advmss")) if n in metrics.left
    ]
    scope = rest.take("scope", 0)
    words += [SCOPES.get(scope, f"scope {scope}")]
    for name, usual in (("proto", RTPROT_BOOT), ("type", RTN_UNICAST)):
        if rest.left.get(name) == usual:
            rest.take(name)
    words += ["proto kernel"] if rest.left.get("proto") == RTPROT_KERNEL and rest.take("proto") else []
    verb = (
        "delete route"
        if step["what"] == "RTM_DELROUTE"
        else "replace route"
        if step["flags"] & NLM_F_REPLACE
        else "route"
    )
    return [" ".join(word for word in (verb, *words, *metrics.words()) if word)]


def _rule(rest: Rest, step: Step) -> list[str]:
    family, length = rest.take("family"), rest.take("src_len", 0)
    source = str(rest.take("FRA_SRC", "all"))
    if length and length != (32 if family == AF_INET else 128):
        source += f"/{length}"
    words = ["delete rule" if step["what"] == "RTM_DELRULE" else "rule", f"from {source}"]
    rest.take("action")  # to look up a table: no other rules are written
    words.append(f"lookup {rest.take('FRA_TABLE', rest.take('table', 0))}")
    words += [f"priority {rest.take('FRA_PRIORITY')}"] if "FRA_PRIORITY" in rest.left else []
    return [" ".join(words)]


def _neighbour(rest: Rest, step: Step) -> list[str]:
    rest.take("family")
    who = f"neighbour {rest.take('NDA_DST')}"
    mac = f"with MAC {rest.take('NDA_LLADDR')} " if "NDA_LLADDR" in rest.left else ""
    return [f"{'delete ' if step['what'] == 'RTM_DELNEIGH' else ''}{who} {mac}on {rest.link('ifindex')}"]


def _delete_connection(rest: Rest, _step: Step) -> list[str]:
    rest.take("nfgen_family")
    flow = rest.inner("CTA_TUPLE_ORIG")
    address, port = flow.inner("CTA_TUPLE_IP"), flow.inner("CTA_TUPLE_PROTO")
    number = port.take("CTA_PROTO_NUM", 0)
    words = [PROTOCOLS.get(number, f"protocol {number}")]
    for word, part, names in CONNECTION:
        held = address if part == "IP" else port
        words += [f"{word}={held.take(name)}" for name in names if name in held.left]
    return [" ".join(["delete conntrack entry", *words, *address.words(), *port.words()]), *flow.words()]


MESSAGES: dict[str, Callable[[Rest, Step], list[str]]] = {
    "IPCTNL_MSG_CT_DELETE": _delete_connection,
    **link_words.MESSAGES,
    "RTM_NEWADDR": _address,
    "RTM_DELADDR": _address,
    "RTM_NEWROUTE": _route,
    "RTM_DELROUTE": _route,
    "RTM_NEWRULE": _rule,
    "RTM_DELRULE": _rule,
    "RTM_NEWNEIGH": _neighbour,
    "RTM_DELNEIGH": _neighbour,
}


def _sysctl(step: Step) -> str:
    name, value, before = step["name"].translate(SWAPPED), step["value"], step["before"]
    return f"{name} = {value}" + (f" (was {before})" if before not in ("", value) else "")


def _file(step: Step) -> str:
    path, content = step["path"], step["content"]
    shown = f": {_compact(content)}" if content else ""
    if _is_address(path) and content:
        return f"lease {path.rpartition('/')[2]} → {path}{shown}"
    return f"{'create' if step['mode'] else 'write'} {path}{shown}" + (
        "" if content else f" ({step['mode'] or 'emptied'})"
    )


def _compact(content: str) -> str:
    """Return a file's content on a line: JSON without its spaces, other text in quotation marks."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return json.dumps(found if isinstance(found, dict) else content, ensure_ascii=False)


def _gone(step: Step) -> str:
    path = step["path"]
    return f"release {path.rpartition('/')[2]}: delete {path}" if _is_address(path) else f"delete {path}"


def _other(step: Step) -> str:
    told = [
        f"{name} {plain(value)}"
        for name, value in step.items()
        if name not in ("call", "undo", "where", "what", "text")
    ]
    return ", ".join([step["what"], *told])


EXAMPLE_LEASE = "192.0.2.2/24"  # of TEST-NET-1 (RFC 5737)


def _tap(step: Step) -> str:
    told = [f"create tap {step['name']}", *(["several queues"] if step["multi_queue"] else [])]
    told += [f"{word} {step[word]}" for word in ("owner", "group") if step[word] is not None]
    return ", ".join(told)


def _dhcp(step: Step) -> str:
    if step["operation"] != "acquire":
        return f"give the lease back through the dhcp daemon at {step['path']}"
    return f"lease an address through the dhcp daemon at {step['path']}; here {EXAMPLE_LEASE} stands for it"


FILES: dict[str, Callable[[Step], str]] = {
    "dhcp": _dhcp,
    "tap": _tap,
    "sysctl": _sysctl,
    "file": _file,
    "mkdir": lambda step: f"create directory {step['path']} ({step['mode']})",
    # Omit the pod's namespace from host-local's index: its number differs in each rehearsal.
    "symlink": lambda step: f"create symbolic link {step['path']} → {step['target'].partition(' netns=')[0]}",
    "link": lambda step: f"create hard link {step['path']} to {step['target']}",
    "rename": lambda step: f"rename {step['path']} to {step['target']}",
    "replace": lambda step: f"rename {step['path']} to {step['target']}",
    "unlink": _gone,
    "remove": _gone,
    "rmdir": lambda step: f"delete directory {step['path']}",
    "utime": lambda step: f"set the modification time of {step['path']} to {step['modified']}",
}


def _difference(step: Step) -> str:
    """Describe a change by an executed plugin."""
    what, name, facts, before = step["what"], step["name"], step["facts"], step["before"]
    if what == "file":
        verb = {"new": "create", "changed": "write", "gone": "delete"}[step["change"]]
        if _is_address(name):
            verb = {
                "new": f"lease {name.rpartition('/')[2]} →",
                "gone": f"release {name.rpartition('/')[2]}: delete",
            }.get(step["change"], verb)
        return f"{verb} {name}" + (f": {_compact(facts)}" if facts else "")
    if step["change"] == "gone":
        return f"delete {what} {name}"
    changed = {key: value for key, value in facts.items() if before.get(key) != value}
    lost = {key: None for key in before if key not in facts}
    told = [
        f"{key} {plain(value)}" + (f" (was {plain(before[key])})" if key in before else "")
        for key, value in (changed | lost).items()
    ]
    head = {"link": "create link "}.get(what, f"{what} ") if step["change"] == "new" else f"{what} "
    return ", ".join([f"{head}{name}", *told])


def _is_address(path: str) -> bool:
    try:
        ip_address(path.rpartition("/")[2])
    except ValueError:
        return False
    return True
