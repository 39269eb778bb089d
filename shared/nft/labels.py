"""Labels: the names of attachments in the comments of nf_tables elements, network/container id/ifname."""

from __future__ import annotations

from shared.cni.digests import digest
from shared.net.owner import Owner

LONGEST_BYTES = (24, 64, 15)  # of network, container id and ifname in a comment, which has 128 bytes
DIGITS = 16  # of the digest that replaces the rest of a longer name
FORBIDDEN = frozenset('"~')  # a quote would end the comment in the output of `nft list`; "~" marks a cut name


def of(owner: Owner) -> str:
    """Return an attachment's label. A long name is cut and ends in "~" and a digest."""
    names = (owner.network, owner.container_id, owner.ifname)
    return "/".join(_shorten(name, longest) for name, longest in zip(names, LONGEST_BYTES))


def prefix_of(network: str) -> str:
    """Return the text with which the labels of a network's attachments begin."""
    return f"{_shorten(network, LONGEST_BYTES[0])}/"


def is_same_container(label: str, owner: Owner) -> bool:
    """Return True if a label names the owner's container; network and interface may differ."""
    return label.split("/")[1:2] == of(owner).split("/")[1:2]


def _shorten(name: str, longest: int) -> str:
    if len(name) <= longest and not FORBIDDEN & set(name):
        return name
    kept = "".join(character for character in name[: max(longest - DIGITS - 1, 0)] if character not in FORBIDDEN)
    return f"{kept}~{digest(name.encode())[: min(DIGITS, longest - 1)]}"
