"""Matches of iptables in a configuration, word by word: which may stand in a line of iptables-restore, and how.

    ["-m", "set", "--match-set", "office", "src", "-m", "comment", "--comment", "the office"]

Nobody here knows the options of extensions: iptables does, and refuses what it cannot do. But no word may become a
command, a target, a second rule, or a path from which iptables loads code.
"""

from __future__ import annotations

from shared.cni.names import ALPHANUMERIC

# Those of iptables' own options that select packets. Each other one of one letter, and each cluster, is refused.
SHORT = ("-f", "-m", "-o")
# iptables' own long options, but for those of SHORT; it also takes each beginning of one.
LONG = (
    "append", "delete", "check", "insert", "replace", "list", "list-rules", "flush", "zero", "new-chain",
    "delete-chain", "rename-chain", "policy", "protocol", "proto", "source", "src", "destination", "dst",
    "in-interface", "jump", "goto", "table", "verbose", "wait", "wait-interval", "numeric", "exact", "line-numbers",
    "modprobe", "set-counters", "combine", "version", "help", "ipv4", "ipv6",
)  # fmt: skip
FULL = ("match", "out-interface", "fragments")  # allowed, not shortened
# Options of extensions that look like the beginning of one of those, and the match that has them.
OF_EXTENSIONS = {"set": "recent", "pol": "policy", "proto": "policy"}
MATCH_NAME = ALPHANUMERIC | frozenset("_-")
PLAIN = ALPHANUMERIC | frozenset("_.,:/=+-@%^*")
LONGEST = 1000  # bytes: a word of iptables-restore has at most 1023


class Taker:
    """Takes matches off the front of a configuration's words; knows which extensions were named before."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()

    def __call__(self, words: list[str]) -> list[str]:
        """Remove an option from the front, after a possible "!", with its values. Return them as written into a line.

        Raises ValueError that names the word that cannot be used, IndexError if a word is missing.
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
                raise ValueError(f"has {option!r}, which is not for a configuration to say: portmap does")
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
    """Return a word as iptables-restore reads it."""
    if not word or not word.isascii() or not word.isprintable() or len(word) > LONGEST:
        raise ValueError(f"has {word!r}, which is not of 1 to {LONGEST} printable ASCII characters")
    if PLAIN.issuperset(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
