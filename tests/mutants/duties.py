"""Mistakes in the agent's duties."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cli/agent/heal.py", 'INSIDE = ("tuning",)', "INSIDE = ()",
        "the duty changes nothing in a pod", "tests/agent/test_heal.py -k nothing_in_a_pod",
    ),
    Mutant(
        "shared/cli/agent/heal.py", "return not self._made <= before", "return bool(self._made)",
        "things that are deleted again and again wait longer", "tests/agent/test_heal.py -k again_waits",
    ),
    Mutant(
        "shared/cli/agent/heal.py", "repairs.plan_again(only, self.cache, executables) if only else repairs.plan(self.cache, executables)", "repairs.Plan(steps=only) if only else repairs.plan(self.cache, executables)",
        "a busy attachment is planned anew", "tests/agent/test_heal.py -k planned_anew",
    ),
    Mutant(
        "shared/cli/agent/repairs.py", "all(one.code == LOST for one in outcomes)", "LOST",
        "one bad attachment stops no other", "tests/agent/test_heal.py -k one_bad",
    ),
    Mutant(
        "shared/cli/agent/duties.py", "except Exception as error:  # noqa: BLE001  (the other", "except KeyError as error:  # noqa: BLE001  (the other",
        "a duty that fails begins anew", "tests/agent/test_duties.py -k ends_no_other",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "        except Exception as error:  # noqa", "        except KeyError as error:  # noqa",
        "a damaged note stops no look", "tests/agent/test_duties.py -k damaged_note",
    ),
    Mutant(
        "shared/runtime/attach.py", "        before_each()\n        _call(", "        _call(",
        "an attachment that comes back during its DEL keeps the rest", "tests/agent/test_duties.py -k during_its_del",
    ),
    Mutant(
        "shared/cli/leases/inhabited.py", "if inside is not None or identity(path) == held:", "if inside is not None:",
        "a namespace that cannot be read is a doubt", "tests/agent/test_duties.py -k doubt",
    ),
    Mutant(
        "install.sh", '\' "$naming" >"$stage/launcher"', '\' >"$stage/launcher"',
        "a call without a worker has its plugin's name", "tests/agent/test_heal.py -k without_a_worker",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "if before is None or age < self.grace or suspect in self._tried:", "if age < self.grace or suspect in self._tried:",
        "one look is not enough to call an attachment dead", "tests/agent/test_duties.py -k second_look",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "if before is None or age < self.grace or suspect", "if before is None or suspect",
        "an attachment younger than the grace is left alone", "tests/agent/test_duties.py -k grace",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "if one.keys(network) or one.path.name.startswith(DERIVED)]", "if one.keys(network)]",
        "an unreadable entry with a digest as its name may belong to any network", "tests/agent/test_duties.py -k empty_digest",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "if presence.of_namespace(entry.attachment.netns) == presence.GONE:", "if True:",
        "an attachment whose namespace is there is not dead, though its link is gone", "tests/agent/test_duties.py -k namespace_that_is_there",
    ),
    Mutant(
        "shared/cli/agent/collect.py", "    return entry.network, *entry.key, changed\n", "    return entry.network, *entry.key, 0\n",
        "another ADD's entry is another suspect", "tests/agent/test_duties.py -k dies_again",
    ),
    Mutant(
        "shared/cli/agent/events.py", 'b"").rstrip(b"\\0") in OWN or', 'b"") == b"nobody" or',
        "calls of this suite lead to no pass", "tests/agent/test_heal.py -k lead_to_no_pass",
    ),
    Mutant(
        "shared/cli/agent/events.py", "if kind == nft.NFT_MSG_NEWCHAIN and not _drops_forwarded(attributes):", "if kind == nft.NFT_MSG_NEWCHAIN:",
        "a FORWARD chain that drops by default leads to a pass", "tests/agent/test_heal.py -k policy_alone",
    ),
    Mutant(
        "shared/cli/agent/events.py", "if (before.is_up and not now.is_up) or", "if",
        "a bridge that goes down leads to a pass", "tests/agent/test_heal.py -k by_the_duty",
    ),
    Mutant(
        "shared/cli/agent/heal.py", "        if self.reloads.read():\n", "        if False:\n",
        "a reload of firewalld leads to a pass", "tests/agent/test_heal.py -k firewalld_reloads",
    ),
    Mutant(
        "shared/cli/agent/repairs.py", "if presence.of_namespace(entry.attachment.netns) == presence.GONE:", "if False:",
        "nothing is asked for a pod whose namespace is gone", "tests/agent/test_heal.py -k passed_over",
    ),
    Mutant(
        "shared/cli/agent/repairs.py", "return path if _launched_plugin(path) == name else None", "return path",
        "a plugin of another suite is passed over", "tests/agent/test_heal.py -k another_suite",
    ),
    Mutant(
        "shared/cli/agent/pacing.py", "min(max(2 * self._pauses", "min(max(0 * self._pauses",
        "a reason that leads to nothing waits longer each time", "tests/unit/test_pacing.py",
    ),
    Mutant(
        "shared/cli/agent/scraped.py", "before = os.umask(0o177)", "before = os.umask(0)",
        "only root can open the metrics' socket", "tests/agent/test_duties.py -k roots_alone",
    ),
    Mutant(
        "shared/cli/agent/scraped.py", "    _require_private(path.parent)\n", "",
        "metrics are not served in a directory of others", "tests/agent/test_duties.py -k planted",
    ),
    Mutant(
        "shared/cli/agent/duties.py", '        refusals = Sayings()\n        _start("dhcp", lambda: _dhcp(refusals))', '        _start("dhcp", lambda: _dhcp(Sayings()))',
        "another dhcp daemon is named once", "tests/agent/test_dhcp_duty.py -k left_alone",
    ),
)  # fmt: skip
