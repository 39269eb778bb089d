"""Matches of iptables in a configuration: the words that a line of iptables-restore may contain, quoted for it.

    ["-m", "set", "--match-set", "office", "src", "-m", "comment", "--comment", "the office"]

The options of extensions are unknown here: iptables checks them. This module ensures that no word becomes a command, a
target, a second rule, or a path from which iptables loads code.
"""

from __future__ import annotations

from shared.cni.names import ALPHANUMERIC

# iptables' own short options that select packets. All other short options, and clusters of them, are refused.
SHORT = ("-f", "-m", "-o")
# iptables' own long options, except those of SHORT. It also accepts the beginning of each.
LONG = (
    "append", "delete", "check", "insert", "replace", "list", "list-rules", "flush", "zero", "new-chain",
    "delete-chain", "rename-chain", "policy", "protocol", "proto", "source", "src", "destination", "dst",
    "in-interface", "jump", "goto", "table", "verbose", "wait", "wait-interval", "numeric", "exact", "line-numbers",
    "modprobe", "set-counters", "combine", "version", "help", "ipv4", "ipv6",
)  # fmt: skip
FULL = ("match", "out-interface", "fragments")  # allowed, not shortened
# Options of extensions that look like the beginning of an option in LONG, and the match that has them.
OF_EXTENSIONS = {"set": "recent", "pol": "policy", "proto": "policy"}
MATCH_NAME = ALPHANUMERIC | frozenset("_-")
PLAIN = ALPHANUMERIC | frozenset("_.,:/=+-@%^*")
LONGEST = 1000  # bytes: a word of iptables-restore has at most 1023


class Taker:
    """Takes matches from the front of a configuration's words, and remembers the extensions that they load."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()

    def __call__(self, words: list[str]) -> list[str]:
        """Remove an option with its "!" and values from the front. Return them as iptables-restore reads them.

        Raise ValueError that names the word that cannot be used, IndexError if a word is missing.
        """
        taken = [words.pop(0)] if words[0] == "!" else []
        option = words.pop(0)
        values = []
        while words and words[0] != "!" and not words[0].startswith("-"):
            values.append(words.pop(0))
        name, equals, value = option.partition("=") if option.startswith("--") else (option, "", "")
        self._require_match_option(name)
        if name in ("-m", "--match"):
            extension = value if equals else next(iter(values), "")
            if not extension or not MATCH_NAME.issuperset(extension) or extension[0] == "-":
                raise ValueError(f"has {name} {extension!r}, which is no name of a match")
            self.loaded.add(extension)
        return taken + [_quoted(word) for word in (option, *values)]

    def _require_match_option(self, option: str) -> None:
        if not option.startswith("--"):
            if option in ("-p", "-j", "-g"):
                raise ValueError(f"has {option!r}, which a configuration may not set: portmap does")
            if option not in SHORT:
                known = "ip saddr, ip daddr, iifname, -s, -d, -i, and iptables' matches by -m"
                raise ValueError(f"has {option!r}: only {known} are known")
            return
        name = option[2:]
        if name in FULL or OF_EXTENSIONS.get(name) in self.loaded:
            return
        own = next((one for one in (*LONG, *FULL) if one.startswith(name)), "")
        if own:
            raise ValueError(f"has {option!r}, which iptables takes for --{own}: only its matches are for conditions")


def _quoted(word: str) -> str:
    """Return a word quoted for iptables-restore. Raise ValueError if it cannot be quoted."""
    if not word or not word.isascii() or not word.isprintable() or len(word) > LONGEST:
        raise ValueError(f"has {word!r}, which is not of 1 to {LONGEST} printable ASCII characters")
    if PLAIN.issuperset(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
