"""Compare chains in the kernel with the rules that they should have."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.net.netlink import Message
    from shared.nft.ruleset import Chain
    from shared.nft.transaction import Nfnetlink

_whole: dict[tuple[int, str], int] = {}  # by family and name: the last generation in which the chain had its rules


def is_whole(kernel: Nfnetlink, chain: Chain) -> bool:
    """Return True if the chain has exactly its rules, as their comments tell."""
    return kernel.dump_rules(chain) == [rule.comment for rule in chain.rules]


def without_rules(kernel: Nfnetlink, chains: Iterable[Chain], answers: Iterable[Message | None]) -> list[Chain]:
    """Return the chains that do not have their rules.

    `answers` are the kernel's to queries just before. Each has the last 16 bits of the rule set's generation, which
    each commit increments. So a chain that was whole in this generation is whole now. Some kernels answer 0.
    """
    generations = {answer["res_id"] for answer in answers if answer}
    generation = min(generations) if len(generations) == 1 else 0
    found = []
    for chain in chains:
        place = (chain.table.family, chain.name)
        if generation and _whole.get(place) == generation:
            continue
        if not is_whole(kernel, chain):
            found.append(chain)
        elif generation:
            _whole[place] = generation
    return found
