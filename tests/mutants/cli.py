"""Mistakes in the operator's tools and install.sh."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cli/leases/pools.py", "if again is not None and again.dead:", "if True:",
        "a lease whose pod has come back is kept: `cnitool ipam gc` looks again with the lock", "tests/system/test_cnitool_ipam.py -k with_the_lock",
    ),
    Mutant(
        "shared/cli/leases/pools.py", "and lease in (held.lease, held.lease.bare):", ":",
        "an address that another pod has got meanwhile is not freed", "tests/system/test_cnitool_ipam.py -k with_the_lock",
    ),
    Mutant(
        "shared/cli/leases/pools.py", 'dead = "" if self._is_inside(address, lease) else "its namespace is gone"', 'dead = "its namespace is gone"',
        "a lease whose address a process has is kept", "tests/system/test_cnitool_ipam.py -k whatever_the_names",
    ),
    Mutant(
        "shared/cli/leases/pools.py", "and not held.is_in_use and _is_before(made, cached):", "and not held.is_in_use:",
        "a lease newer than the cached result is kept: its ADD may run", "tests/system/test_cnitool_ipam.py -k who_may_live",
    ),
    Mutant(
        "shared/cli/leases/pools.py", "and not held.is_in_use and _is_before", "and _is_before",
        "a lease whose host link is there is kept", "tests/system/test_cnitool_ipam.py -k link_is_there",
    ),
    Mutant(
        "shared/cli/leases/pools.py", "return [] if any(one.keys(network) for one in unreadable) else found", "return found",
        "a lease of old beside an unreadable entry is kept", "tests/system/test_cnitool_ipam.py -k lease_of_old_beside",
    ),
    Mutant(
        "shared/cli/leases/pools.py", "if what == name or (lease and what == lease.container_id)]", "if what == name or (lease and lease.container_id.startswith(what))]",
        "releasing a container's addresses frees nobody else's", "tests/system/test_cnitool_ipam.py -k release_of_a_container",
    ),
    Mutant(
        "shared/cli/leases/pools.py", 'return Held(address, lease, made, dead="empty or garbled")', "return Held(address, lease, made)",
        "a garbled lease is shown as dead", "tests/system/test_cnitool_ipam.py -k earlier_boot",
    ),
    Mutant(
        "shared/cli/leases/command.py", "    if not options.dry_run:\n        for pool", "    if True:\n        for pool",
        "`cnitool ipam gc --dry-run` frees nothing", "tests/system/test_cnitool_ipam.py -k garbage_collection",
    ),
    Mutant(
        "shared/cli/networks.py", "    if options.dry_run:\n        return\n", "",
        "`cnitool gc --dry-run` removes nothing", "tests/system/test_cnitool.py -k gc_keeps",
    ),
    Mutant(
        "shared/cli/networks.py", "{*census.living, *now.living}", "{*census.living}",
        "a pod whose ADD began after the plan counts as alive", "tests/system/test_cnitool.py -k since_the_plan",
    ),
    Mutant(
        "shared/cli/networks.py", 'asks = found.supports("1.1.0") and not census.strangers', 'asks = found.supports("1.1.0")',
        "plugins are not asked to collect where a pod cannot be told", "tests/faults/test_cache.py -k cannot_be_told",
    ),
    Mutant(
        "shared/cli/networks.py", "    if found.disable_gc:\n", "    if False:\n",
        "`cnitool gc` leaves a network with disableGC alone", "tests/system/test_cnitool.py -k disable_gc",
    ),
    Mutant(
        "shared/cli/networks.py", "return mine.remembered(options.network, pod) or network(options)", "return network(options)",
        "del and check have the configuration that add had", "tests/system/test_cnitool.py -k configuration_that_add_had",
    ),
    Mutant(
        "shared/cli/networks.py", '        if not part.startswith("/"):', "        if False:",
        "a relative CNI_PATH is refused", "tests/system/test_cnitool.py -k variable_that_cannot",
    ),
    Mutant(
        "shared/cli/leases/living.py", "reason = reason or namespaces.home(entry.key[1], _addresses(entry), taken, guess=False)", "",
        "a pod whose namespace has lost its path is not collected", "tests/faults/test_cache.py -k one_evidence and address",
    ),
    Mutant(
        "shared/cli/leases/living.py", "        for key in sorted(one.keys(network.name)):", "        for key in ():",
        "pods whose entry cannot be read are not collected", "tests/faults/test_cache.py -k one_evidence and read",
    ),
    Mutant(
        "shared/cli/leases/living.py", "    if port:\n        return", "    if False:\n        return",
        "an attachment whose host link leads to a pod is not collected", "tests/faults/test_cache.py -k link_is_enough",
    ),
    Mutant(
        "shared/cli/leases/living.py", "if found.leased.get(key, ADD_SECONDS) < ADD_SECONDS and", "if False and",
        "a young lease by another main plugin is not collected", "tests/faults/test_cache.py -k one_evidence and young",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "if IPAddress(address) in in_use or is_hand_placed(lease):", "if IPAddress(address) in in_use:",
        "doctor calls no lease stale that somebody placed by hand", "tests/system/test_doctor.py -k old and stale",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "            if node.is_certainly_gone(mark):\n", "            if mark not in node.alive:\n",
        "doctor calls no lease stale whose pod may live", "tests/system/test_doctor.py -k may_live",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "    yield from _lost_leases(node)\n", "",
        "doctor sees that a pod has lost its lease", "tests/system/test_doctor.py -k lease and lost",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "    if used >= entry.capacity:\n", "    if used > entry.capacity:\n",
        "doctor calls a full pool an error", "tests/system/test_doctor.py -k pool and full and not nearly",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "(stat.S_IWGRP | stat.S_IWOTH)", "stat.S_IWOTH",
        "doctor sees what a group may write", "tests/system/test_doctor.py -k writable and group",
    ),
    Mutant(
        "shared/cli/doctor/state.py", "        if held.st_uid:\n", "        if False:\n",
        "doctor sees what is another user's", "tests/system/test_doctor.py -k user and state",
    ),
    Mutant(
        "shared/cli/doctor/node.py", "        if not self.leading.isdisjoint((Owner(*mark).host_link, *ports)):\n            return False\n", "",
        "doctor calls no attachment gone whose ADD is running", "tests/system/test_doctor.py -k running_add",
    ),
    Mutant(
        "shared/cli/doctor/node.py", '        if any(key[: len(mine)] == mine for path in self.unreadable for key in Unreadable(path, "").keys(network)):\n            return False\n', "",
        "doctor calls no attachment gone whose entry cannot be read", "tests/system/test_doctor.py -k leaves_the_lease_alone",
    ),
    Mutant(
        "shared/cli/doctor/__init__.py", "                findings.append(replace(failed, check=name))", "                pass",
        "a check of doctor that fails is a finding", "tests/unit/test_doctor.py -k failing_check",
    ),
    Mutant(
        "shared/cli/doctor/__init__.py", "if (finding.check, finding.where) in seen]", "]",
        "doctor reports what two looks have found", "tests/unit/test_doctor.py",
    ),
    Mutant(
        "shared/cli/doctor/__init__.py", "        again = examine(look())\n", "        again = findings\n",
        "doctor does not report what passes by itself", "tests/unit/test_doctor.py -k passes_by_itself",
    ),
    Mutant(
        "shared/cli/doctor/findings.py", "max((finding.severity for finding in findings), default=Severity.NOTE)", "min((finding.severity for finding in findings), default=Severity.NOTE)",
        "doctor's exit status is the worst finding's", "tests/unit/test_doctor.py",
    ),
    Mutant(
        "shared/cli/doctor/configuration.py", "                if network.config.cni_version not in versions:", "                if False:",
        "doctor sees that a plugin does not speak a network's version", "tests/system/test_doctor.py -k version and unknown",
    ),
    Mutant(
        "shared/build/tree.py", "{name in programs:d}", "0",
        "the digest of a tree covers the executable bits of a bundle's Python", "tests/system/test_install_bundle.py -k digest",
    ),
    Mutant(
        "shared/build/tree.py", "if path.parts[0] == OWN or path.suffix in KINDS:", "if path.suffix in KINDS:",
        "strays are deleted from a bundle's Python as well, and its compiled files stay", "tests/system/test_install_bundle.py -k repairs",
    ),
    Mutant(
        "shared/build/libraries.py", "if hashlib.sha256(content).hexdigest() not in hashes:", "if False:",
        "a library's file must have a pinned hash", "tests/system/test_install_offline.py -k missing_or_wrong",
    ),
    Mutant(
        "install.sh", '[[ $tools == no || -z $offline ]] || unpack_tools\n"${action}_plugins"\n', '"${action}_plugins"\n[[ $tools == no || -z $offline ]] || unpack_tools\n',
        "the tools' files are checked before anything changes", "tests/system/test_install_offline.py -k missing_or_wrong",
    ),
    Mutant(
        "install.sh", "if [[ $units == no && -n $pid && $(cat", "if [[ -z $units && -n $pid && $(cat",
        "--no-units leaves systemd's agent running", "tests/system/test_install_agent.py -k leaves_systemds_agent",
    ),
    Mutant(
        "install.sh", "local python=$python oldest=$oldest_tools candidate reason", "local python=$python candidate reason",
        "cnitool gets a Python that is new enough for it", "tests/system/test_install.py -k cnitool_of",
    ),
    Mutant(
        "install.sh", "if ((${#foreign[@]})) && [[ $force == no ]]; then", "if false; then",
        "files of others are replaced with --force alone", "tests/system/test_install.py -k foreign_file",
    ),
    Mutant(
        "install.sh", '        if is_ours "$file"; then\n            rm -f -- "$file" || die', '        if [[ -f $file ]]; then\n            rm -f -- "$file" || die',
        "--uninstall leaves files of others", "tests/system/test_install.py -k test_uninstall",
    ),
    Mutant(
        "install.sh", '        rmdir --ignore-fail-on-non-empty -- "$lib_dir"', '        rm -rf -- "$lib_dir"',
        "--uninstall leaves what others have put into the lib dir", "tests/system/test_install.py -k test_uninstall",
    ),
    Mutant(
        "install.sh", " && -f $1/shared/launch.py ]]", " ]]",
        "--uninstall leaves directories that are no trees of pycni", "tests/system/test_install.py -k test_uninstall",
    ),
    Mutant(
        "install.sh", "    done < <(known_bin_dirs)", '    done <<<"$bin_dir"',
        "a tree that another bin dir uses stays", "tests/system/test_install.py -k another_bin_dir",
    ),
    Mutant(
        "install.sh", "> keep_seconds)); then", "> 0)); then",
        "a superseded tree stays for calls that began before", "tests/system/test_install.py -k superseded_trees",
    ),
    Mutant(
        "install.sh", '    new_tree=""                       # from here on', "    :                       # from here on",
        "a new installation keeps its tree", "tests/system/test_install.py -k fresh_install",
    ),
    Mutant(
        "install.sh", "umask 022\n", "umask 000\n",
        "nobody else can write what root executes", "tests/system/test_install.py -k owner_and_mode",
    ),
    Mutant(
        "install.sh", '    [[ ! -L $1 ]] || die "$1 is a symbolic link; name the directory that it points to"\n', "",
        "a target that is a symbolic link is refused", "tests/system/test_install.py -k target_that_others and link",
    ),
    Mutant(
        "install.sh", 'if is_ours "$file" && ! is_part "${file##*/}" && ! is_part "$plugin"; then', 'if is_ours "$file" && ! is_part "${file##*/}"; then',
        "an administrator's copies stay", "tests/system/test_install.py -k links_and_copies",
    ),
    Mutant(
        "install.sh", '            copies+=("$name")\n', "            :\n",
        "an administrator's copies follow an upgrade", "tests/system/test_install.py -k links_and_copies",
    ),
    Mutant(
        "install.sh", "    remove_superseded\n    printf 'pycni", "    printf 'pycni",
        "superseded trees go", "tests/system/test_install.py -k superseded_trees",
    ),
    Mutant(
        "install.sh", '    [[ -z $new_tree ]] || remove_tree "$new_tree"\n', "",
        "an installation that fails leaves no tree", "tests/system/test_install.py -k replaces_nothing",
    ),
    Mutant(
        "install.sh", '        ((${#remaining[@]})) || rm -rf -- "$lib_dir/.bin-dirs" "$lib_dir/tools"\n', '        rm -rf -- "$lib_dir/.bin-dirs" "$lib_dir/tools"\n',
        "--uninstall leaves the tools that another bin dir uses", "tests/system/test_install.py -k another_bin_dir",
    ),
    Mutant(
        "shared/cli/config/validate.py", "        if needed and not is_given:\n", "        if False:\n",
        "validate says that portmap has nothing to do without its capability", "tests/unit/test_validate.py -k findings_of_a_plugin",
    ),
    Mutant(
        "shared/cli/config/validate.py", "                if one.gateway not in one.subnet:\n", "                if False:\n",
        "validate sees a gateway outside of its subnet", "tests/unit/test_validate.py -k findings_of_a_plugin",
    ),
    Mutant(
        "shared/cli/config/validate.py", '"isDefaultGateway" in fields or is_used', '"isDefaultGateway" in fields',
        "validate knows that sbr uses a gateway without routes", "tests/unit/test_validate.py -k gateway_without",
    ),
    Mutant(
        "shared/cli/config/validate.py", "            elif value and name not in served and", "            elif False and",
        "validate sees a capability that no plugin serves", "tests/unit/test_validate.py -k findings_of_a_plugin",
    ),
    Mutant(
        "shared/cli/config/validate.py", "            yield from _without_effect(keys, raw, path)\n", "            pass\n",
        "validate sees keys without effect", "tests/unit/test_validate.py -k findings_of_a_plugin",
    ),
    Mutant(
        "shared/cli/doctor/kernel.py", '        return value == "y"\n', "        return True\n",
        "doctor sees what a kernel lacks", "tests/unit/test_doctor.py -k kernel_has",
    ),
    Mutant(
        "shared/cli/doctor/kernel.py", "    if not all(path.is_file() for path in lists):\n        return None\n", "    lists = [path for path in lists if path.is_file()]\n",
        "doctor says nothing of a kernel whose modules cannot be told", "tests/unit/test_doctor.py -k kernel_has",
    ),
    Mutant(
        "shared/cli/doctor/wiring.py", "key=lambda holder: (holder[0].mark, ip) not in remembered)", "key=lambda holder: (holder[0].mark, ip) in remembered)",
        "doctor leaves an address to the pod that the runtime knows with it", "tests/system/test_doctor.py -k pod and another and address",
    ),
    Mutant(
        "shared/cli/doctor/wiring.py", "            if bridge and wire.port.master != bridge.index:", "            if False:",
        "doctor sees that a pod's link is no port of the bridge", "tests/system/test_doctor.py -k end and no and port",
    ),
    Mutant(
        "shared/cli/doctor/wiring.py", "        for destination, gateway in entry.routes:\n", "        for destination, gateway in ():\n",
        "doctor sees that a pod has lost a route", "tests/system/test_doctor.py -k lost and route",
    ),
    Mutant(
        "shared/cli/throwaway.py", "MS_REMOUNT | MS_BIND | MS_RDONLY", "MS_REMOUNT | MS_BIND",
        "explain lets no executed plugin touch the node", "tests/system/test_explain.py -k executed_plugin_can_touch",
    ),
    Mutant(
        "install.sh", 'code = 50 if posix.environ.get(b"CNI_COMMAND") == b"STATUS" else 999\n', "code = 999\n",
        "STATUS of a plugin that cannot start says that no ADD can succeed", "tests/system/test_launcher.py -k keeps_a_plugin and recursion",
    ),
    Mutant(
        "install.sh", '    remember_bin_dir "$stage" || die "nothing is installed, cannot write to $lib_dir"\n', "",
        "the lib dir knows each bin dir that uses it", "tests/system/test_install.py -k another_bin_dir",
    ),
    Mutant(
        "install.sh", '            die "nothing is installed, $name does not start with $python: $(version_of "$new/$name" 2>&1 | tail -n 1)"', "            true",
        "what does not start replaces nothing", "tests/system/test_install.py -k replaces_nothing",
    ),
    Mutant(
        "shared/cli/networks.py", "        if now.strangers:\n", "        if False:\n",
        "plugins are not asked to collect if a pod that cannot be told came since the plan", "tests/system/test_cnitool.py -k stranger_came",
    ),
    Mutant(
        "install.sh", "((owner == 0)) ||", "true ||",
        "a target in another user's directory is refused", "tests/system/test_install.py -k target_that_others and owner",
    ),
    Mutant(
        "install.sh", "((!(mode & 01000)))", "true",
        "a directory below a sticky one such as /tmp is no flaw", "tests/system/test_install.py -k fresh_install",
    ),
    Mutant(
        "shared/cli/doctor/switches.py", "if not names or _is_guarded():", "if not names or True:",
        "doctor reports route_localnet without its rules", "tests/system/test_route_localnet.py -k doctor",
    ),
    Mutant(
        "shared/cli/doctor/kernel.py", "before = switches.keep_routes() if path == sysctl.FORWARDING[6] else []", "before = list[str]()",
        "doctor's command for forwarding keeps routes by advertisements", "tests/system/test_doctor.py -k would",
    ),
    Mutant(
        "install.sh", '[[ $(stat -L -c \'%u %a\' -- "/dev/fd/$2") != "0 600" ]]', "false",
        "install.sh takes no lock file that others can open", "tests/system/test_locks.py -k found",
    ),
    Mutant(
        "install.sh", '                eval "exec $2<&-"       # clean_up must not take it for held', "                :",
        "a run that waited in vain leaves the other's lock alone", "tests/system/test_locks.py -k names_the_run",
    ),
    Mutant(
        "install.sh", "reason=$flaw\n    [[ -z $reason ]] || return 1\n    answer", 'reason=""\n    answer',
        "nothing that others can change is executed", "tests/system/test_interpreter.py -k way_that",
    ),
    Mutant(
        "install.sh", "        elif [[ $part != . && -L $path ]]; then\n            ((", "        elif [[ $part != . && -L $path ]]; then\n            true || ((",
        "a symbolic link on the way is root's", "tests/system/test_interpreter.py -k link_of_another",
    ),
    Mutant(
        "install.sh", '    [[ -n $agent ]] || ! is_ours "$bin_dir/pycni-agent" || agent=yes\n', "",
        "an installation with the agent keeps it", "tests/system/test_install_agent.py -k twice",
    ),
    Mutant(
        "install.sh", "    [[ $agent != no ]] || stop_agent\n", "",
        "the agent ends before its program is removed", "tests/system/test_install_agent.py -k twice",
    ),
    Mutant(
        "install.sh", "&& [[ $head == $'\\x7fELF' ]]; then", "&& false; then",
        "an agent's program is recognized by its last line", "tests/system/test_install_agent.py -k links_copies",
    ),
    Mutant(
        "install.sh", 'if [[ -n $pid ]] && kill -HUP "$pid"; then', "if [[ -n $pid ]]; then",
        "the running agent is told of an upgrade", "tests/system/test_install_agent.py -k upgrade_with",
    ),
    Mutant(
        "install.sh", "[[ ! $word -ef $bin_dir/pycni-agent ]] || pid=$number", "pid=$number",
        "an agent of another bin dir goes on", "tests/system/test_install_agent.py -k uninstall_ends",
    ),
    Mutant(
        "install.sh", 'answer=$(version_of "$new/$name" 2>&-) ||', 'answer=$(version_of "$new/$name" 2>/dev/null) ||',
        "no running agent answers in the place of a new program", "tests/system/test_install_agent.py -k twice",
    ),
    Mutant(
        "install.sh", "(ulimit -f 0 && exec env", "(exec env",
        "the proofs count for no calls that found no agent", "tests/system/test_install_agent.py -k twice",
    ),
    Mutant(
        "install.sh", "    missing=$flaw\n", '    missing=""\n',
        "no compiler that others can change is executed", "tests/system/test_install_agent.py -k without_a_compiler",
    ),
    Mutant(
        "install.sh", 'elif [[ -e $unit || -L $unit ]] && ! has_unit "$unit" pycni-agent; then', "elif false; then",
        "the unit of another agent stays", "tests/system/test_install_agent.py -k somebody_else",
    ),
    Mutant(
        "shared/cni/suite.py", "        if not head.startswith(ELF):", "        if True:",
        "a compiled host-local is called, not executed", "tests/system/test_install_agent.py -k own_ipam",
    ),
    Mutant(
        "shared/cli/doctor/agent.py", '    if running["tree"] != str(tree):', "    if False:",
        "doctor reports an agent of another release", "tests/system/test_doctor_agent.py -k each_state",
    ),
    Mutant(
        "shared/cli/doctor/agent.py", '    if duties["restarts"] and not duties["pid"]:', "    if False:",
        "doctor reports duties that fail", "tests/system/test_doctor_agent.py -k duties",
    ),
    Mutant(
        "shared/agent/pycni-agent.service", "CAP_SYS_PTRACE ", "",
        "the unit lets workers look at their callers", "tests/system/test_agent_unit.py -k each_call",
    ),
    Mutant(
        "install.sh", "    leave_cluster\n    stop_dhcp\n", "    leave_cluster\n",
        "--uninstall removes the units of the dhcp daemon", "tests/system/test_install_dhcp.py -k come_and_go",
    ),
    Mutant(
        "shared/cli/doctor/dhcp.py", "                yield error(network.path, what, START)\n", "                break\n",
        "doctor reports a dhcp network without a daemon", "tests/system/test_dhcp.py -k doctor",
    ),
)  # fmt: skip
