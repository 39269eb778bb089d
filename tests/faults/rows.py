"""The rows: the fault, what is required, and what the reference did (containernetworking/plugins v1.9.1)."""

from __future__ import annotations

TABLE = (
    ("SIGKILL at any state-changing call of ADD, then DEL", "0 links, leases, rules left", "55 of 55; 162 of 163; 107 of 108 clean"),
    ("SIGKILL at any call of DEL, then DEL", "0 left", "8 of 24 clean (by nft 22 of 24)"),
    ("ADD killed or whole, then DEL without namespace and result", "0 left", "0 of 136 clean"),
    ("power cut after ADD", "no address lost or given twice, no file garbled for good", "50 of 50 leases empty, never reclaimed"),
    ("empty or garbled lease file", "reclaimed by the next ADD or GC", "never; 253 of them exhaust a /24"),
    ("bridge killed while its IPAM is slow, then DEL", "0 leases leak", "10 of 10 leak"),
    ("CNI_NETNS is the host's own", "code 8, nothing touched", "DEL deletes a host link"),
    ("hostile stdin and environment", "success or one error object", "1,340 of 1,344"),
    ("concurrent ADDs, the lock file removed meanwhile", "0 duplicates, exact exhaustion", "0 duplicates, exact; code 999"),
    ("ENOSPC, EIO, EROFS at each store call", "a failed ADD keeps nothing, a DEL that failed says so", "3 of 9 points keep the lease"),
    ("each request of an ADD refused in turn, IPAM fails", "0 left without DEL", "veth left in 25 of 25 and 14 of 19"),
    ("IPAM missing, hanging, garbage, endless, crashing", "an error with a code, IPAM's DEL called", "6 with code 0, no limit of time"),
    ("lock held, FIFO in the store, endless stdin", "an error within 30 s", "waits for ever"),
    ("16 first ADDs at once, 8 rounds", "0 failures, one gateway address", "384 of 384"),
    ("ADD twice; two interfaces, DEL of one", "the first untouched, the other kept", "second fails (iptables)"),
    ("GC, STATUS, CHECK tell the truth", "0 stale; 50; what is lost is named", "100 of 100 stale; 0; 0"),
    ("interrupted dumps, ENOBUFS, EINTR", "the right result", "dumps yes; ENOBUFS, EINTR fail"),
    ("symlink, FIFO, foreign owner in the state directory", "nothing outside read or written", "3 of 3 victims written"),
    ("traversal, rule injection, sysctls that escape", "refused before any change", "traversal and 3 of 3 injections work"),
    ("soak: 4 workers (8 from four processors on), 25 % killed, against a model", "0 violations, 0 leftovers", "90 s: 225 rule lines left"),
    ("an address goes to another pod", "reached within a second of ADD's answer", "22 s"),
    ("first pod of a new bridge, reached over IPv6 from outside", "no delay", "2 s"),
    ("rules flushed, firewalld reloaded, FORWARD becomes DROP", "CHECK names it, the next ADD repairs it", "never repaired"),
    ("a key changed or removed, the network renamed, under running pods", "nothing of the old is left or strikes", "masquerade left"),
    ("a dead holder of a host port, lease or rule, and no DEL", "the next ADD that needs it takes it over", "accepted, then misdirected"),
    ("power cut after install.sh", "the old or the new release, each whole", "–"),
    ("the runtime's cache empty, cut, unreadable or gone, then gc", "no living pod is touched", "libcni cannot delete"),
    ("batches larger than a socket's buffer", "done, in time linear in their number", "routes yes"),
)  # fmt: skip
ROWS = {number: row[0] for number, row in enumerate(TABLE, 1)}
REQUIRED = {number: row[1] for number, row in enumerate(TABLE, 1)}
REFERENCE = {number: row[2] for number, row in enumerate(TABLE, 1)}
