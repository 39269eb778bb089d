"""Rules that choose the routing table for packets from an address."""

from __future__ import annotations

import errno

from shared.cni.ip import Address
from shared.net import rule_wire
from shared.net.addresses import FAMILIES
from shared.net.netlink import Netlink, Request
from shared.net.rule_wire import FR_ACT_TO_TBL, RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE
from shared.net.wire import NLM_F_CREATE, NLM_F_EXCL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.net.netlink import Message


class Rules(Netlink):
    """A netlink socket for the rules of the thread's network namespace at the time of creation."""

    tables = rule_wire

    def all(self) -> list[Message]:
        """Return the rules of both families. Raises NetlinkError if the kernel has no rules."""
        return [rule for rule in self.dump(RTM_GETRULE) if rule["family"] in FAMILIES.values()]

    def remove(self, is_doomed: Callable[[Message], bool]) -> None:
        """Delete all rules for which `is_doomed` returns True; the kernel accepts equal rules more than once."""
        names = ("family", "src_len", "action", "FRA_SRC", "FRA_TABLE", "FRA_PRIORITY")
        doomed = [{name: rule[name] for name in names if name in rule} for rule in self.all() if is_doomed(rule)]
        self.batch([Request(RTM_DELRULE, rule, 0, (errno.ENOENT,)) for rule in doomed])


def add_request(source: Address, table: int, priority: int) -> Request:
    """Return a request that adds a rule. The kernel refuses it with EEXIST if there is an equal one."""
    body: Message = {
        "family": FAMILIES[source.version], "src_len": source.bits, "action": FR_ACT_TO_TBL, "FRA_SRC": str(source),
        "FRA_TABLE": table, "FRA_PRIORITY": priority,
    }  # fmt: skip
    return Request(RTM_NEWRULE, body, NLM_F_CREATE | NLM_F_EXCL)


def source(rule: Message) -> Address | None:
    """Return the one address from which a rule takes packets, None if it takes others, too."""
    found = Address.parse(rule["FRA_SRC"]) if "FRA_SRC" in rule else None
    return found if found and rule["src_len"] == found.bits else None


def table(rule: Message) -> int:
    """Return the table that a rule looks up, 0 for none."""
    return int(rule.get("FRA_TABLE") or rule["table"])


def next_priority(rules: list[Message], version: int) -> int:
    """Return the priority that the kernel gives to a rule without one: before all but the first."""
    priorities = sorted(rule.get("FRA_PRIORITY", 0) for rule in rules if rule["family"] == FAMILIES[version])
    return max(priorities[1] - 1, 1) if len(priorities) > 1 else 1
