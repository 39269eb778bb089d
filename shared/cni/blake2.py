"""Compute BLAKE2b in Python (RFC 7693), for hosts where Python lacks it or may not use it.

A FIPS build of Python has no `_blake2`, and its hashlib leaves BLAKE2b to OpenSSL, which takes no digest_size. Names of
links and chains derive from this hash and must be the same on every host, so another hash cannot take its place.
"""

from __future__ import annotations

BLOCK_BYTES = 128
MASK = (1 << 64) - 1
IV = (
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
)  # fmt: skip
SIGMA = tuple(
    tuple(int(digit, 16) for digit in row)
    for row in (
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
        "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
    )
)  # fmt: skip
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
ROUNDS = 12


def hexdigest(data: bytes, digest_bytes: int) -> str:
    """Return the hash of `data` as hexadecimal digits, two for each of its 1 to 64 bytes."""
    state = list(IV)
    state[0] ^= 0x01010000 ^ digest_bytes
    blocks = [data[start : start + BLOCK_BYTES] for start in range(0, len(data), BLOCK_BYTES)] or [b""]
    counted = 0
    for block in blocks:
        counted += len(block)
        state = _compress(state, block.ljust(BLOCK_BYTES, b"\0"), counted, is_last=block is blocks[-1])
    return b"".join(word.to_bytes(8, "little") for word in state)[:digest_bytes].hex()


def _compress(state: list[int], block: bytes, counted: int, *, is_last: bool) -> list[int]:
    words = [int.from_bytes(block[start : start + 8], "little") for start in range(0, BLOCK_BYTES, 8)]
    mixed = [*state, *IV]
    mixed[12] ^= counted & MASK
    mixed[13] ^= counted >> 64
    if is_last:
        mixed[14] ^= MASK
    for number in range(ROUNDS):
        order = SIGMA[number % len(SIGMA)]
        for place, quarter in enumerate((*COLUMNS, *DIAGONALS)):
            _mix(mixed, quarter, words[order[2 * place]], words[order[2 * place + 1]])
    return [before ^ low ^ high for before, low, high in zip(state, mixed[:8], mixed[8:])]


def _mix(v: list[int], quarter: tuple[int, int, int, int], x: int, y: int) -> None:
    """Mix two words of the message into four of the state: the function G of the RFC."""
    a, b, c, d = quarter
    v[a] = (v[a] + v[b] + x) & MASK
    v[d] = _rotated(v[d] ^ v[a], 32)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = _rotated(v[b] ^ v[c], 24)
    v[a] = (v[a] + v[b] + y) & MASK
    v[d] = _rotated(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = _rotated(v[b] ^ v[c], 63)


def _rotated(word: int, places: int) -> int:
    return (word >> places) | (word << (64 - places)) & MASK
