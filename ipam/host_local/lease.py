"""A lease: the owner of an address, written to a file in the form of the reference host-local."""

from __future__ import annotations

from shared.cni.names import LONGEST_NAME, is_link_name, is_name

LEASE_LIMIT_BYTES = LONGEST_NAME + 64  # the part of a lease file that is read
ID_DIGITS = 64  # containerd's, CRI-O's and podman's container ids: SHA-256 in hexadecimal
LONGEST_KEY = 240  # characters; file names have at most 255 bytes


class Lease:
    """The content of a lease file. `ifname` is empty if an old release of the reference wrote it."""

    def __init__(self, container_id: str, ifname: str) -> None:
        self.container_id = container_id
        self.ifname = ifname

    @property
    def content(self) -> bytes:
        """The bytes of the lease file."""
        return f"{self.container_id}\r\n{self.ifname}".encode() if self.ifname else self.container_id.encode()

    @property
    def key(self) -> str:
        """The name of the index entry: the id and interface, or a digest if they cannot be a file's name."""
        plain = f"{self.container_id}:{self.ifname}"
        if len(plain) <= LONGEST_KEY and "/" not in plain:
            return plain
        from shared.cni.digests import digest

        return f"~:{digest(plain.encode())}"

    @property
    def bare(self) -> Lease:
        """The container's lease in the old form, without an interface."""
        return Lease(self.container_id, "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lease) and self.content == other.content

    def __hash__(self) -> int:
        return hash(self.content)

    @property
    def is_runtime_made(self) -> bool:
        """True if the id has the form that container runtimes generate. Administrators write other forms."""
        return len(self.container_id) == ID_DIGITS and set(self.container_id) <= set("0123456789abcdef")


def parse_lease(content: bytes) -> Lease | None:
    """Return the lease in a file's content, or None if a crash garbled it: it is empty, zeros, or not text."""
    text = content.strip()
    if not text or not text.isascii() or any(byte < 32 and byte not in b"\t\r\n" for byte in text):
        return None
    container_id, separator, ifname = text.decode().partition("\r\n")
    return Lease(container_id, ifname if separator else "")


def is_hand_placed(lease: Lease) -> bool:
    """Return True if the lease has a form that no plugin writes: GC keeps it."""
    if lease.ifname:
        return not (is_name(lease.container_id) and is_link_name(lease.ifname))
    return not lease.is_runtime_made
