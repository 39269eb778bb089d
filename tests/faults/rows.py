"""The rows of two tables: faults, by their numbers, and security duties, by their names.

Each fault names the requirement and the result of the reference (containernetworking/plugins v1.9.1). Each duty names
the incident or the class of mistakes behind it.
"""

from __future__ import annotations

from typing import Union

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
    ("the agent killed, frozen, upgraded at any moment of a call; its launcher killed", "no call runs twice or is lost, 0 left after DEL", "–"),
    ("a cluster's engine down, partitioned, restored from a backup; the cluster duty killed or refused at each call", "no address twice, no block lost, pods start meanwhile", "–"),
)  # fmt: skip
DUTIES = {
    "clean-up": ("the pod decides whether its own clean-up succeeds", "DEL ends well, however the pod's namespace looks"),
    "path": ("CNI_NETNS leads to another pod by now, or to the host", "that pod is not touched; the old one's things on the host go"),
    "peer": ("an interface index of one namespace is used in another", "a peer is found by index and namespace, and has nobody else's alias"),
    "accept-ra": ("IPv6 forwarding purges routes from advertisements", "the node keeps its IPv6 default route"),
    "route-localnet": ("CVE-2020-8558, and its mirror image", "127.0.0.0/8 neither reaches the host from other links nor comes from them"),
    "host-sysctls": ("CVE-2022-0811; sysctls that look like a pod's", "one sysctl of the pod's own namespace for each write"),
    "source-address": ("CVE-2021-20199; strangers' redirections masqueraded", "services see their clients' addresses"),
    "isolated": ("a fence on one of two paths", "isolated pods do not reach each other by layer 2, layer 3 or a host port"),
    "half-made": ("what exists is taken for complete", "the next call completes it, and refuses a stranger's"),
    "alias": ("names that do not fit into an alias", "GC never takes another network's link"),
    "mac": ("a MAC asked for that another port has", "refused, with the port's name"),
    "locks": ("an unprivileged user holds a lock", "locks are on files that root alone can open"),
    "bus": ("a full or silent system bus", "a call asks it for 2 s at most, and only where firewalld can be"),
    "netlink": ("a process in the pod forges or floods netlink answers", "only the kernel is believed, within one deadline"),
    "size": ("the pod makes its tables large", "memory does not grow with them"),
    "architectures": ("a number of x86-64 on another architecture", "all numbers are those of the kernel's headers"),
    "fips": ("a Python with OpenSSL's BLAKE2 alone", "names are the same, and every call works"),
    "hidden-sysctl": ("/proc/sys hidden or read-only", "no success without the setting"),
    "interpreter": ("CVE-2024-33522: a writable directory before the interpreter", "install.sh refuses it, and pins what it downloads"),
    "plugin-path": ("CVE-2021-20206", "a plugin's type is one path component, found in absolute CNI_PATH entries alone"),
    "identifiers": ("crun#2074, CVE-2024-9675", "an identifier is ASCII as a whole before it becomes a path"),
    "symlinks": ("symbolic links in a state directory", "nothing outside is read or written"),
    "advertisements": ("CVE-2020-10749", "neither pod nor bridge accepts a rogue router advertisement"),
    "foreign-rules": ("CVE-2019-9946", "rules are appended, and a stranger's stay"),
    "local-destination": ("CVE-2025-67499", "a host port redirects what is for the host's own addresses alone"),
    "host-ip": ("CVE-2020-8554", "a host IP is an address of the host"),
    "spoofing": ("ARP and MAC spoofing, the leak of VLAN 1", "a pod sends with its own addresses and VLANs alone"),
    "lost-rules": ("CVE-2025-54388, CVE-2025-54410", "CHECK notices rules that are gone, and ADD repairs them"),
    "gc-races": ("whereabouts#162, #207", "GC frees no running ADD's lease"),
    "python-path": ("a json.py beside the script, PYTHONPATH", "nothing but the installation is imported"),
}  # fmt: skip
Name = Union[int, str]
FAULTS: dict[int, tuple[str, ...]] = dict(enumerate(TABLE, 1))
REFERENCE = {number: row[2] for number, row in FAULTS.items()}
ROWS: dict[Name, str] = {}
REQUIRED: dict[Name, str] = {}
BOTH: list[tuple[Name, tuple[str, ...]]] = [*FAULTS.items(), *DUTIES.items()]
for name, text in BOTH:
    ROWS[name], REQUIRED[name] = text[:2]
