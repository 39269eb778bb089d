"""Mistakes of the engine on etcd, of its HTTP client and of the objects' JSON."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TESTS = "tests/system/test_cluster_etcd.py"
HTTP = "tests/system/test_cluster_http.py"
CODEC = "tests/unit/test_cluster_codec.py"
ENGINE, FOLLOW, GATEWAY = "shared/cluster/etcd.py", "shared/cluster/etcd_follow.py", "shared/cluster/etcd_gateway.py"
CLIENT, CONNECTION, OBJECTS = "shared/cluster/http.py", "shared/cluster/connection.py", "shared/cluster/codec.py"

TABLE: tuple[Mutant, ...] = (
    Mutant(
        ENGINE, '"result": "EQUAL"', '"result": "NOT_EQUAL"',
        "a claim is a comparison", f"{TESTS} -k TestPlain",
    ),
    Mutant(
        ENGINE, "        if not is_done and not (is_gone_fine and not found):\n", "        if not is_done and found:\n",
        "an update of a block that is gone is Taken", f"{TESTS} -k TestPlain",
    ),
    Mutant(
        ENGINE, " or not int(revision):", ":",
        "revision 0, a key that is not there, is no block's revision", f"{TESTS} -k TestPlain",
    ),
    Mutant(
        ENGINE, ", lease=self._lease)", ")",
        "the sign of life ends with its lease", f"{TESTS} -k keys_and_leases",
    ),
    Mutant(
        ENGINE, "            if not endpoint.is_tls and not endpoint.is_loopback:\n", "            if False:\n",
        "no password goes over the network in clear", f"{TESTS} -k in_clear",
    ),
    Mutant(
        FOLLOW, "self._header.revision + 1, timeout", "self._header.revision + 2, timeout",
        "a watch begins at the revision after the list", f"{TESTS} -k TestPlain",
    ),
    Mutant(
        FOLLOW, "            if told.header.is_before(replace", "            if False and told.header.is_before(replace",
        "a restored backup is noticed", f"{TESTS} -k restored_backup",
    ),
    Mutant(
        FOLLOW, "if told.is_requested else self._header", "if False else self._header",
        "a late sign of life is no older store", f"{TESTS} -k events_overtook",
    ),
    Mutant(
        FOLLOW, "silence_seconds=2 * self._pace.sign", "silence_seconds=1e6",
        "a frozen server is noticed", f"{TESTS} -k frozen_server",
    ),
    Mutant(
        FOLLOW, "        elif time.monotonic() - self._alive_at > 2 * self._pace.sign:\n", "        elif False:\n",
        "only an answer to a request is a sign of life", f"{TESTS} -k hostile_watch",
    ),
    Mutant(
        FOLLOW, "(0 if is_caught_up else min(CATCH_UP_SECONDS, self._pace.sign / 2))", "0",
        "a watch that has to catch up is not current at once", f"{TESTS} -k compaction",
    ),
    Mutant(
        FOLLOW, "        for name in self._content.keys() - names:\n            self._content.drop(name)\n", "",
        "a list removes the objects that are gone", f"{TESTS} -k compaction",
    ),
    Mutant(
        FOLLOW, 'key = page[-1].key + b"\\0" if page else key', "key = page[-1].key if page else key",
        "a page begins after the one before", f"{TESTS} -k test_pages",
    ),
    Mutant(
        FOLLOW, "                limit //= 2\n                continue\n", "                raise\n",
        "pages that are too long are asked for in parts", f"{TESTS} -k large_values",
    ),
    Mutant(
        FOLLOW, "        if is_alive:\n            self._failures, ", "        if True:\n            self._failures, ",
        "a watch that only exists is no sign of life", f"{TESTS} -k hostile_watch",
    ),
    Mutant(
        GATEWAY, '"Grpc-Metadata-hasleader": "true"', '"Grpc-Metadata-x": "true"',
        "a member without a leader ends a watch", f"{TESTS} -k three_members",
    ),
    Mutant(
        GATEWAY, "            if answer.status >= UNAVAILABLE_STATUS:\n", "            if False:\n",
        "another member may do better", f"{TESTS} -k three_members",
        "a request at a member without a leader ends by its time-out, which rotates, too",
    ),
    Mutant(
        GATEWAY, "        self._forget(headers)\n        return self._post", "        return self._post",
        "a token that was refused is renewed", f"{TESTS} -k is_refused",
    ),
    Mutant(
        GATEWAY, "                    self._forget(headers)\n", "                    pass\n",
        "a watch's old token is renewed", f"{TESTS} -k is_refused",
    ),
    Mutant(
        GATEWAY, "    if found.revision <= 0:\n", "    if False:\n",
        "an answer without a revision proves nothing", f"{TESTS} -k hostile_server",
    ),
    Mutant(
        GATEWAY, "    if len(responses) != 1 or not isinstance(responses[0], dict):\n        raise _garbage(document)\n",
        "    if len(responses) != 1 or not isinstance(responses[0], dict):\n        return False, []\n",
        "only a transaction's answer makes a block taken", f"{TESTS} -k hostile_server",
    ),
    Mutant(
        CLIENT, "            if self._kept and (not self._kept.is_idle() or", "            if self._kept and (False or",
        "a connection that ended is seen before a claim is sent", f"{TESTS} -k ended_while_idle",
    ),
    Mutant(
        CLIENT, '                if method != "GET" or not is_kept:\n', "                if not is_kept:\n",
        "a request that may have been executed is not repeated", f"{HTTP} -k kept_connection",
    ),
    Mutant(
        CLIENT, "        for connection in tuple(self._live):\n", "        for connection in ():\n",
        "close ends each wait", f"{TESTS} -k close_waits",
    ),
    Mutant(
        CLIENT, "                    connection.deadline = time.monotonic() + silence_seconds\n", "                    pass\n",
        "a stream lasts as long as its lines come", f"{HTTP} -k renews",
    ),
    Mutant(
        CLIENT, "                if len(kept) > longest_bytes:\n", "                if False:\n",
        "a line has an end", f"{HTTP} -k line_without",
    ),
    Mutant(
        CLIENT, "    if response.length:\n", "    if False:\n",
        "an answer that was cut off is none", f"{HTTP} -k cut_off",
    ),
    Mutant(
        CLIENT, "    if any(not line.isascii() or not line.isprintable() for line in lines):\n", "    if False:\n",
        "no value makes a header", f"{HTTP} -k injection",
    ),
    Mutant(
        CLIENT, "            except OSError as error:\n                self._drop(connection)\n", "            except OSError as error:\n",
        "a connection that failed is closed", HTTP,
    ),
    Mutant(
        CONNECTION, "        remaining = self.deadline - time.monotonic()\n        if remaining <= 0:", "        remaining = 1.0\n        if remaining <= 0:",
        "a server that drips gains nothing", f"{TESTS} -k hostile_server",
    ),
    Mutant(
        CONNECTION, "        if parts.username is not None or parts.query or parts.fragment:\n", "        if False:\n",
        "a URL has no more than it says", f"{HTTP} -k urls",
    ),
    Mutant(
        OBJECTS, "    except (ValueError, RecursionError) as error:\n", "    except ValueError as error:\n",
        "deep JSON harms nobody", CODEC,
    ),
    Mutant(
        OBJECTS, "    if str(cidr) != text:\n", "    if False:\n",
        "a CIDR has one form", CODEC,
    ),
    Mutant(
        OBJECTS, "        if self._places.get(key) != place:\n", "        if False:\n",
        "an object that moves leaves nothing behind", CODEC,
    ),
    Mutant(
        OBJECTS, "        if kind in self._shared:\n", "        if False:\n",
        "a snapshot does not change later", CODEC,
    ),
)  # fmt: skip
