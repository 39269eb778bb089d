"""A lease: whose an address is, as its file says in the reference's form."""

from __future__ import annotations

from shared.cni.names import LONGEST_NAME, is_link_name, is_name

LEASE_LIMIT = LONGEST_NAME + 64  # bytes of a lease file that are looked at
ID_DIGITS = 64  # containerd's, CRI-O's and podman's container ids: SHA-256 in hexadecimal
LONGEST_KEY = 240  # bytes; file names have at most 255


class Lease:
    """What stands in a lease file; `ifname` is empty in the form of old."""

    def __init__(self, container_id: str, ifname: str) -> None:
        self.container_id = container_id
        self.ifname = ifname

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return f"{self.container_id}\r\n{self.ifname}".encode() if self.ifname else self.container_id.encode()

    @property
    def key(self) -> str:
        """The name of its index entry; a digest stands for one that cannot be a file's name."""
        plain = f"{self.container_id}:{self.ifname}"
        if len(plain) <= LONGEST_KEY and "/" not in plain:
            return plain
        from shared.net.owner import digest

        return f"~:{digest(plain.encode())}"

    @property
    def bare(self) -> Lease:
        """The container's lease in the form of old."""
        return Lease(self.container_id, "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lease) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    @property
    def is_runtime_made(self) -> bool:
        """Whether its id is one that container runtimes make, and nobody writes by hand."""
        return len(self.container_id) == ID_DIGITS and set(self.container_id) <= set("0123456789abcdef")


def parse_lease(content: bytes) -> Lease | None:
    """Reads a lease; None for what a crash leaves behind: nothing, zeros, or anything that is not text."""
    text = content.strip()
    if not text or not text.isascii() or any(byte < 32 and byte not in b"\t\r\n" for byte in text):
        return None
    container_id, separator, ifname = text.decode().partition("\r\n")
    return Lease(container_id, ifname if separator else "")


def is_hand_placed(lease: Lease) -> bool:
    """Whether a lease is of a form that no plugin writes, so that GC has no say over it."""
    if lease.ifname:
        return not (is_name(lease.container_id) and is_link_name(lease.ifname))
    return not lease.is_runtime_made
