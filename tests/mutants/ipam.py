"""Mistakes in the IPAM plugins."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cni/delegate.py", 'return _named(call) == "dhcp"', "return False",
        "a DHCP lease is released through the pod's link", "tests/system/test_dhcp.py -k gets_a_lease",
    ),
    Mutant(
        "ipam/dhcp.py", "            records.give_up(name)\n\n\ndef _socket_path", "            pass\n\n\ndef _socket_path",
        "a DEL without the daemon leaves the lease to the next one", "tests/system/test_dhcp.py -k made_up_for",
    ),
    Mutant(
        "ipam/dhcp.py", "        if leased not in had:", "        if False:",
        "CHECK names the address that the server gave instead", "tests/system/test_dhcp.py -k refused_lease",
    ),
    Mutant(
        "ipam/dhcp.py", 'return b"\\0" + given', 'return b"\\1" + given',
        "option 61 is the reference's", "tests/system/test_dhcp.py -k tells_the_server",
    ),
    Mutant(
        "ipam/dhcp.py", "*(() if is_alone else USED)", "*USED",
        "skipDefault excludes the options that are used by default", "tests/system/test_dhcp.py -k suppressed",
    ),
    Mutant(
        "shared/cli/dhcp/content.py", "    found = classless or [*_classful", "    found = [*classless, *_classful",
        "option 121 excludes 33 and 3", "tests/system/test_dhcp.py -k routes_of_the_server",
    ),
    Mutant(
        "shared/cli/dhcp/service.py", "        self._restore()\n", "",
        "the next daemon renews the stored leases", "tests/system/test_dhcp.py -k survives",
    ),
    Mutant(
        "shared/cli/dhcp/service.py", "(tenancy.was_visible and not tenancy.pod.is_visible())", "False",
        "the lease of a pod that died without DEL is released", "tests/system/test_dhcp.py -k dies_without",
    ),
    Mutant(
        "shared/cli/dhcp/client.py", "        await self._run_hooks(Trigger.UNBOUND)\n        self._lease = None\n", "        self._lease = None\n",
        "a refused lease leaves the link", "tests/system/test_dhcp.py -k refused_lease",
    ),
    Mutant(
        "shared/cli/dhcp/tenancy.py", "                self.pod.replace(old, content)\n", "                pass\n",
        "another address of the server is put on the link", "tests/system/test_dhcp.py -k refused_lease",
    ),
    Mutant(
        "shared/cli/dhcp/requests.py", "    working.cancel()\n", "",
        "the daemon ends an ADD whose plugin is gone", "tests/system/test_dhcp.py -k gives_up",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if alive or is_hand_placed(lease):", "if alive:",
        "GC leaves leases that somebody placed by hand", "tests/system/test_host_local.py -k garbage_collection",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "(lease.container_id, lease.ifname) in valid if lease.ifname", "lease.container_id in containers if lease.ifname",
        "GC frees the other interface of a container that is valid", "tests/system/test_host_local.py -k garbage_collection",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "else lease.container_id in containers", "else False",
        "GC keeps a lease in the form of old of a container that is valid", "tests/system/test_host_local.py -k leases_of_old",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "store.is_taken(name)  # removes", "pass  # removes",
        "GC removes files that are empty or garbled", "tests/faults/test_store.py -k garbled and by_gc",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "for where in taken:  # an empty", "for where in ():  # an empty",
        "a garbled file does not hold the last address of a full pool", "tests/system/test_host_local.py -k last_address",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if store.reclaim():", "if False:",
        "an ADD that finds no address takes those of dead pods", "tests/system/test_leases_of_the_dead.py -k full_pool",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "        if held:\n            raise InternalError(\n", "        if False:\n            raise InternalError(\n",
        "a second ADD of an attachment takes no second address", "tests/system/test_host_local.py -k second_add",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if store.leased(pool.lease) and store.is_lost(pool.lease):", "if store.leased(pool.lease):",
        "a second ADD does not free the address of a pod that may be alive", "tests/system/test_host_local.py -k second_add",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "held = store.leased(pool.lease) or store.leased(pool.lease.bare)", "held = store.leased(pool.lease)",
        "a second ADD is refused if the lease has the form of old", "tests/system/test_host_local.py -k leases_of_old or form_of_old",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if holder is None or not store.is_dead(holder):", "if holder is None:",
        "an address that is asked for is not taken away from a living pod", "tests/system/test_leases_of_the_dead.py -k asked_for",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "lambda: _release(pool))", "lambda: None)",
        "an ADD whose answer nobody reads gives its address back", "tests/system/test_host_local.py -k nobody_reads",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "        requested.remove(wanted)\n", "        requested.clear()\n",
        "an address that is asked for and in no range is an error", "tests/system/test_host_local.py -k cannot_be_had",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "and str(ip.address.address) not in held\n", "and not held\n",
        "CHECK names the address that is no longer leased", "tests/system/test_host_local.py -k test_check",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "        if held:\n            raise IOFailure(", "        if False:\n            raise IOFailure(",
        "DEL that cannot free the lease says so", "tests/system/test_read_only.py -k store_that_cannot",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "            store.release_found(lease)\n", "            store.release(lease)\n",
        "DEL frees leases that the index does not know", "tests/system/test_host_local.py -k leases_of_old or form_of_old",
    ),
    Mutant(
        "ipam/host_local/__init__.py", '    if trouble:\n        raise PluginNotAvailable("host-local cannot', '    if False:\n        raise PluginNotAvailable("host-local cannot',
        "STATUS says that the store cannot be written", "tests/faults/test_truth.py -k TestStatus and host-local",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "dead = look.dead_leases()", "dead = set()",
        "STATUS calls no pool full whose leases are of dead pods", "tests/system/test_leases_of_the_dead.py -k full_pool",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if not is_left_over and name not in dead)", "if name not in dead)",
        "STATUS calls no pool full whose leases are garbled", "tests/faults/test_truth.py -k garbled and host-local",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "        return len(places - entry.gateways - {None})", "        return len(places)",
        "STATUS counts addresses of the range set alone", "tests/system/test_host_local.py -k of_other_ranges",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "if entry.overlaps(other):", "if False:",
        "range sets that share addresses are refused", "tests/system/test_host_local.py -k unusable_keys",
    ),
    Mutant(
        "ipam/host_local/__init__.py", "    if held is None or wanted == held.gateway:", "    if held is None:",
        "the gateway's address is given to no pod that asks for it", "tests/system/test_host_local.py -k cannot_be_had",
    ),
    Mutant(
        "ipam/host_local/writable.py", "if free.f_files and not free.f_favail:", "if False:",
        "STATUS sees a file system without inodes", "tests/faults/test_truth.py -k inode",
    ),
    Mutant(
        "ipam/host_local/writable.py", "if free.f_blocks and not free.f_bavail:", "if False:",
        "STATUS sees a full file system", "tests/faults/test_truth.py -k full_file_system and host-local",
    ),
    Mutant(
        "ipam/host_local/store.py", "and (entry.origin == OWN or lease.is_runtime_made)", "",
        "a lease that somebody placed by hand outlives a reboot", "tests/faults/test_store.py -k reboot or boot",
    ),
    Mutant(
        "ipam/host_local/store.py", "yield name, lease, rebooted and known", "yield name, lease, rebooted",
        "a reboot frees leases alone that the index knew before", "tests/faults/test_store.py -k boot",
    ),
    Mutant(
        "ipam/host_local/store.py", "and entry.origin == OWN and not rebooted and", "and not rebooted and",
        "a lease of the reference stays one in the index", "tests/unit/test_store.py -k by_others_stays",
    ),
    Mutant(
        "ipam/host_local/store.py", "mine and self._is_as_old(names, lease.key)", "mine",
        "a mark says nothing about a later lease of the reference", "tests/unit/test_store.py -k mark",
    ),
    Mutant(
        "ipam/host_local/store.py", "for key in old.keys() - {lease.key for lease in leases}:", "for key in ():",
        "the index forgets leases that are gone", "tests/unit/test_store.py -k forgets",
    ),
    Mutant(
        "ipam/host_local/store.py", "return self.index.boot() == boot_id()", "return True",
        "an index of an earlier boot is not believed", "tests/unit/test_store.py -k breaks_the_seal",
    ),
    Mutant(
        "ipam/host_local/store.py", "inode % (1 << 20)", "0",
        "a copy of the directory is not sealed", "tests/unit/test_store.py -k copy",
    ),
    Mutant(
        "ipam/host_local/store.py", "return own or bare", "return own",
        "DEL frees a lease in the form of old", "tests/system/test_host_local.py -k leases_of_old",
    ),
    Mutant(
        "ipam/host_local/store.py", "return entry is not None and liveness.is_dead(owner, entry.mark)", "return True",
        "a pod whose host link is there keeps its lease", "tests/system/test_leases_of_the_dead.py -k lives_on",
    ),
    Mutant(
        "ipam/host_local/store.py", "        except OSError as error:\n            self._roll_back(lease, made)\n", "        except OSError as error:\n",
        "a reservation that the file system refuses leaves no lease", "tests/unit/test_store.py -k stores_own_files",
    ),
    Mutant(
        "ipam/host_local/store.py", "                    self._roll_back(lease, made)\n                    return False", "                    return False",
        "all addresses are leased or none", "tests/unit/test_store.py -k all_addresses_or_none",
    ),
    Mutant(
        "ipam/host_local/store.py", "rest = self.leased(lease) if lease else []", "rest: list[str] = []",
        "releasing one address keeps the others of its owner", "tests/unit/test_store.py -k one_address_of_two",
    ),
    Mutant(
        "ipam/host_local/store.py", "self.index.write(lease, entry.origin, rest, entry.mark)", "self.index.write(lease, entry.origin, rest)",
        "releasing one address keeps the mark of the other", "tests/unit/test_store.py -k one_address_of_two",
    ),
    Mutant(
        "ipam/host_local/files.py", "self._write(name, content, posix.O_EXCL)", "self._write(name, content, posix.O_TRUNC)",
        "without unnamed files, too, nobody's lease is overwritten", "tests/unit/test_store.py -k unnamed",
    ),
    Mutant(
        "ipam/host_local/files.py", "            unlink_if_there(name, self.directory)\n            raise\n", "            raise\n",
        "without unnamed files, too, a full disk leaves no empty lease", "tests/unit/test_store.py -k unnamed",
    ),
    Mutant(
        "ipam/host_local/store.py", "str(address).encode(), posix.O_TRUNC)", "str(address).encode(), 0)",
        "round robin goes on after a shorter address", "tests/system/test_host_local.py -k shorter_address",
    ),
    Mutant(
        "ipam/host_local/files.py", "if found.st_mode & S_IFMT != S_IFREG or self.read(name) is not None:", "if self.read(name) is not None:",
        "a symbolic link in the place of a lease is not removed", "tests/unit/test_store.py -k other_than_regular",
    ),
    Mutant(
        "ipam/host_local/files.py", "posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC", "posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC",
        "no symbolic link leads the store elsewhere", "tests/unit/test_store.py -k symlink_in_place",
    ),
    Mutant(
        "ipam/host_local/files.py", "held.st_mode & 0o022", "held.st_mode & 0o002",
        "a directory that a group may write is refused", "tests/unit/test_store.py -k others_may_write",
    ),
    Mutant(
        "ipam/host_local/store.py", "return list(held) if all(found in (lease, lease.bare) for found in held.values()) else None", "return list(held)",
        "an index that lies frees nobody else's address", "tests/unit/test_store.py -k rewritten",
    ),
    Mutant(
        "ipam/host_local/index.py", 'self._replace(lease.key, f"{origin} {MANY}")', "pass",
        "an entry that is too long says so", "tests/unit/test_store.py -k more_addresses",
    ),
    Mutant(
        "ipam/host_local/index.py", "*words = head.split() or [SEEN]", "*words = text.split() or [SEEN]",
        "a path in a mark is no address", "tests/unit/test_store.py -k any_path",
    ),
    Mutant(
        "ipam/host_local/lease.py", '<= LONGEST_KEY and "/" not in plain', "<= LONGEST_KEY",
        "a lease with a slash does not leave the index", "tests/unit/test_store.py -k slash",
    ),
    Mutant(
        "ipam/host_local/lease.py", "return not (is_name(lease.container_id) and is_link_name(lease.ifname))", "return False",
        "a lease that no plugin writes is somebody's own", "tests/unit/test_store.py -k placed_by_hand",
    ),
    Mutant(
        "ipam/host_local/lease.py", 'or any(byte < 32 and byte not in b"\\t\\r\\n" for byte in text)', "",
        "zeros that a power cut leaves are no lease", "tests/system/test_host_local.py -k garbled_files",
    ),
    Mutant(
        "ipam/host_local/ranges.py", "if place not in taken and place not in self.gateways:", "if place not in taken:",
        "the gateway's address is not given out", "tests/unit/test_ranges.py -k next_free",
    ),
    Mutant(
        "ipam/host_local/ranges.py", "Address(4, last.value - 1)", "last",
        "the broadcast address is not given out", "tests/unit/test_ranges.py -k whole_subnet",
    ),
    Mutant(
        "ipam/host_local/ranges.py", "if bound not in subnet:", "if False:",
        "a range does not leave its subnet", "tests/unit/test_ranges.py -k no_range",
    ),
    Mutant(
        "ipam/host_local/ranges.py", "(start + 1) % self.size", "0",
        "round robin goes on after the last address", "tests/unit/test_ranges.py -k round_robin or next_free",
    ),
    Mutant(
        "ipam/host_local/resolv.py", 'dns.setdefault("nameservers", []).append(words[1])', 'dns["nameservers"] = [words[1]]',
        "every nameserver of resolv.conf is in the result", "tests/system/test_host_local.py -k routes_and_dns",
    ),
    Mutant(
        "ipam/host_local/store.py", "            self.index.write(lease, OWN, [str(address) for _, address in chosen], mark)\n            for name in [str(address) for _, address in chosen]:\n                if not self._create(name, lease.content):\n                    self._roll_back(lease, made)\n                    return False\n                made.append(name)\n", "            for name in [str(address) for _, address in chosen]:\n                if not self._create(name, lease.content):\n                    self._roll_back(lease, made)\n                    return False\n                made.append(name)\n            self.index.write(lease, OWN, [str(address) for _, address in chosen], mark)\n",
        "the index knows of a lease before there is one", "tests/unit/test_store.py -k leases_of_its_own",
    ),
    Mutant(
        "ipam/host_local/store.py", "            for name in self.leased(lease):\n                self._unlink(name)\n            self.index.remove(lease.key)\n", "            names = self.leased(lease)\n            self.index.remove(lease.key)\n            for name in names:\n                self._unlink(name)\n",
        "the index knows of a lease until it is gone", "tests/unit/test_store.py -k leases_of_its_own",
    ),
    Mutant(
        "shared/cli/dhcp/client.py", "        if not self.xid.matches(msg.xid):", "        if False:",
        "an answer for another transaction is not used", "tests/system/test_dhcp_hostile.py -k alone",
    ),
    Mutant(
        "shared/cli/dhcp/packets.py", "                self.unreadable += 1\n", "                pass\n",
        "an ADD that fails counts the messages that no client can read", "tests/system/test_dhcp_hostile.py -k noise",
    ),
    Mutant(
        "shared/cli/dhcp/client.py", "inf if lease.lease_time == packets.FOREVER else lease.lease_time", "lease.lease_time",
        "a lease forever is renewed with pauses", "tests/unit/test_dhcp_daemon.py -k forever",
    ),
    Mutant(
        "shared/cli/dhcp/client.py", "        await self._sock.put(self.wish.decline(lease, mac))\n", "",
        "an IPv4 address that another host has is declined", "tests/system/test_dhcpv6.py -k another_host_has",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "                if not await self._is_declined(lease):\n                    return lease\n", "                return lease\n",
        "an IPv6 address that another host has is declined", "tests/system/test_dhcpv6.py -k another_host_has",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "            is_due = current is not None and current.left(current.renewal) <= 0\n", "            is_due = current is not None\n",
        "a DHCPv6 lease is renewed at T1, and not before", "tests/system/test_dhcpv6_hostile.py -k rapid",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "        if server and message.get(Option.SERVER_ID) != server:", "        if False:",
        "a DHCPv6 lease is renewed by its server alone", "tests/system/test_dhcpv6_hostile.py -k another_server",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "            if refusal.status != Status.NO_BINDING or isinstance(refusal, Withdrawal):\n                raise\n", "            raise\n",
        "a server that forgot a DHCPv6 lease is asked for it again", "tests/system/test_dhcpv6.py -k forgot",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "        self.report(Trigger.EXPIRED, lease)\n", "",
        "an expired IPv6 address leaves the link", "tests/system/test_dhcpv6.py -k rebound_and_expires",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "if answer.get(Option.SERVER_ID) == lease.server and refusal.status in LOST:", "if refusal.status in LOST:",
        "another server cannot end a DHCPv6 lease", "tests/system/test_dhcpv6_hostile.py -k stranger",
    ),
    Mutant(
        "shared/cli/dhcp/lease6.py", "    if not usable and _withdraws(options):", "    if False:",
        "a lifetime of zero ends a DHCPv6 lease", "tests/system/test_dhcpv6_hostile.py -k withdraws",
    ),
    Mutant(
        "shared/cli/dhcp/client6.py", "                await self._sock.pause(min(max(current", "                await asyncio.sleep(min(max(current",
        "the lease of a deleted link is released", "tests/system/test_dhcpv6.py -k gone_without_delete",
    ),
    Mutant(
        "shared/cli/dhcp/service.py", "                if not task.cancelled() and task.exception() is None:", "                if False:",
        "an ADD that ends while it waits for IPv6 gives the IPv4 lease back", "tests/system/test_dhcpv6.py -k gives_up",
    ),
    Mutant(
        "shared/cli/dhcp/packets6.py", "self._hearer.bind((self.ifname, ETH_P_ALL))", "self._hearer.bind((self.ifname, ETH_P_IPV6))",
        "a DHCPv6 lease is renewed though a tap gets all frames", "tests/system/test_dhcpv6.py -k machine_in",
    ),
    Mutant(
        "shared/cli/dhcp/service.py", "                if not task.cancelling():", "                if True:",
        "an ADD that ends twice goes on with its release", "tests/system/test_dhcpv6.py -k during_its_probe",
    ),
    Mutant(
        "shared/cli/dhcp/tenancy.py", "            if self._client and self._client.tentative:", "            if False:",
        "a lease that is probed is released", "tests/system/test_dhcpv6.py -k during_its_probe",
    ),
    Mutant(
        "shared/cli/dhcp/lease6.py", " or renewal == valid < inf:", ":",
        "a DHCPv6 lease is renewed before its end", "tests/unit/test_dhcp_daemon.py -k times_of",
    ),
    Mutant(
        "shared/pod/inside.py", " and not result.keeps_advertisements:", ":",
        "a pod with a DHCPv6 lease follows routers", "tests/system/test_dhcpv6.py -k comes_later",
    ),
)  # fmt: skip
