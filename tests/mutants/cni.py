"""Mistakes in the parts that every call uses: shared/cni, signals, undo, launchers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/cni/repair.py", "                _require_unchanged(*cache)\n", "                pass\n",
        "nothing is repaired by the result of an earlier ADD", "tests/agent/test_heal.py -k plan_ends",
    ),
    Mutant(
        "shared/cni/repair.py", "    elif is_veth and named:\n", "    elif is_veth:\n",
        "a pod whose result names no link of the host is known by its MAC", "tests/system/test_repair.py -k another_suites",
    ),
    Mutant(
        "shared/cni/repair.py", "    except Exception as error:  # noqa: BLE001", "    except OSError as error:  # noqa: BLE001",
        "an odd request does not end the process that repairs", "tests/system/test_repair.py -k that_is_none",
    ),
    Mutant(
        "shared/cni/plugin.py", "        except (CniError, OSError) as error:\n            left.append(str(error))\n", "        except OSError as error:\n            left.append(str(error))\n",
        "a part that cannot be made keeps no other from its turn", "tests/unit/test_tasks.py -k keeps_no_other",
    ),
    Mutant(
        "shared/cni/turn.py", "        if not self.is_locked:\n", "        if False:\n",
        "nothing is repaired without a lock", "tests/system/test_turn.py -k no_repair_without",
    ),
    Mutant(
        "shared/cni/turn.py", "                posix.close(self.descriptor)  # a process", "                pass  # a process",
        "a busy attachment costs no descriptor", "tests/system/test_turn.py -k no_descriptor",
    ),
    Mutant(
        "plugins/tuning.py", "restore(*_read_parts(call, with_sysctls=False))", "restore(*_read_parts(call))",
        "the pod's own sysctls stay", "tests/system/test_repair.py -k sysctls_stay",
    ),
    Mutant(
        "shared/pod/attachment.py", "self.exempt, replace=False)", "self.exempt)",
        "a repair takes no address from another pod", "tests/system/test_repair.py -k address_that_was",
    ),
    Mutant(
        "shared/cni/turn.py", "            try:\n                self._lock()\n", "            try:\n                pass\n",
        "a DEL waits for an ADD of the attachment that rolls back", "tests/system/test_turn.py -k rolls_back",
    ),
    Mutant(
        "shared/cni/turn.py", 'half = module.startswith("ipam.")', "half = False",
        "a plugin does not wait for the IPAM plugin that it executes", "tests/system/test_turn.py -k own_ipam",
    ),
    Mutant(
        "shared/cni/repair.py", "            own.require_living()\n", "",
        "an attachment whose DEL was killed is not repaired", "tests/system/test_turn.py -k deleted",
    ),
    Mutant(
        "shared/cni/repair.py", "            _require_same_pod(call)\n", "",
        "nothing is repaired for another pod at the namespace's path", "tests/system/test_repair.py -k without_the_pod",
    ),
    Mutant(
        "shared/cni/plugin.py", "left += failure(make)", "pass",
        "a repair makes what is lost", "tests/system/test_repair.py -k ptp",
    ),
    Mutant(
        "shared/net/bridges.py", "    mac = mac or random_mac()\n", "    mac = random_mac()\n",
        "a bridge that was deleted comes back with its MAC", "tests/system/test_repair.py -k test_the_chain",
    ),
    Mutant(
        "shared/nft/chains.py", "        if generation and _whole.get(place) == generation:", "        if place in _whole:",
        "a chain that was whole before a flush is compared again", "tests/system/test_repair.py -k test_the_chain",
    ),
    Mutant(
        "shared/cni/fastjson.py", "NESTING_LIMIT and _is_deep(value)", "NESTING_LIMIT and False",
        "deep JSON is code 6 on every Python", "tests/unit/test_fastjson.py -k deep",
    ),
    Mutant(
        "shared/cni/call.py", '.split(":") if entry.startswith("/")]', '.split(":")]',
        "CNI_PATH leads to no directory that is relative", "tests/faults/test_parser_fuzz.py -k test_variables",
    ),
    Mutant(
        "shared/cni/call.py", "if not is_name(self.container_id):", "if not self.container_id:",
        "a container id leads no path elsewhere", "tests/faults/test_parser_fuzz.py -k test_variables",
    ),
    Mutant(
        "shared/cni/call.py", "if not is_link_name(self.ifname):", "if len(self.ifname) > 15:",
        "CNI_IFNAME leads no path elsewhere", "tests/faults/test_parser_fuzz.py -k test_variables",
    ),
    Mutant(
        "shared/cni/call.py", "if unknown and ignore in FALSE_WORDS:", "if False:",
        "unknown CNI_ARGS are an error unless they are to be ignored", "tests/unit/test_call.py -k args_that_are_refused",
    ),
    Mutant(
        "shared/cni/call.py", "if since and not at_least(version, since):", "if False:",
        "a version before CHECK, GC or STATUS has none", "tests/unit/test_call.py -k came_later",
    ),
    Mutant(
        "shared/cni/call.py", "        self.stdin = data\n", "        self.stdin = data.strip()\n",
        "an executed IPAM plugin reads what the plugin has read", "tests/unit/test_call.py -k white_space",
    ),
    Mutant(
        "shared/cni/call.py", "except ValueError as error:\n            raise DecodingFailure(", "except RecursionError as error:\n            raise DecodingFailure(",
        "what is no JSON is code 6", "tests/faults/test_parser_fuzz.py -k test_bytes",
    ),
    Mutant(
        "shared/cni/config.py", "        value = raw.get(name)\n        if value is None:\n", "        value = None\n        if value is None:\n",
        "of two spellings of a key the exact one counts", "tests/unit/test_config.py -k exact_match",
    ),
    Mutant(
        "shared/cni/config.py", "if int(parts[0], 16) & 1 or int(digits, 16) == 0:", "if int(digits, 16) == 0:",
        "a multicast MAC is refused", "tests/unit/test_config.py -k names_key",
    ),
    Mutant(
        "shared/cni/config.py", "if isinstance(value, bool) or not isinstance(value, int)", "if not isinstance(value, int)",
        "true is no number", "tests/unit/test_config.py -k names_key",
    ),
    Mutant(
        "shared/cni/delegate.py", 'if tree == suite.tree else ""', 'if tree else ""',
        "the IPAM plugin of another installation is executed, not this one's called", "tests/system/test_launcher.py -k another_installation",
    ),
    Mutant(
        "shared/cni/delegate.py", '    undo.push(f"release the address through {path}", lambda: _execute(path, call, "DEL"))\n    return Result.from_json(_json(path, _execute(path, call, "ADD")), call.version, f"result of {path}")', '    result = Result.from_json(_json(path, _execute(path, call, "ADD")), call.version, f"result of {path}")\n    undo.push(f"release the address through {path}", lambda: _execute(path, call, "DEL"))\n    return result',
        "an IPAM plugin whose ADD fails gets a DEL", "tests/faults/test_ipam.py -k ipam_fails",
    ),
    Mutant(
        "shared/cni/delegate.py", 'if call.command not in ("GC", "STATUS") or error.code != UNKNOWN_COMMAND:', 'if call.command not in ("GC", "STATUS"):',
        "errors of another IPAM plugin's GC and STATUS are passed on", "tests/faults/test_ipam.py -k is_heard",
    ),
    Mutant(
        "shared/cni/delegate.py", 'if call.command not in ("GC", "STATUS") or error.code != UNKNOWN_COMMAND:', "if error.code != UNKNOWN_COMMAND:",
        "an IPAM plugin that knows no DEL fails it", "tests/faults/test_ipam.py -k knows_no_del",
    ),
    Mutant(
        "shared/cni/delegate.py", 'and (name or "ipam.").startswith("ipam.")', "",
        "bridge does not call itself as its IPAM plugin under another name", "tests/system/test_launcher.py -k bridge_itself",
    ),
    Mutant(
        "shared/cni/delegate.py", "raise PluginNotAvailable(error.msg, error.details) from None", "raise",
        "STATUS says 50 if the IPAM plugin is missing", "tests/unit/test_delegate.py",
    ),
    Mutant(
        "shared/cni/suite.py", 'if b"\\n" in first or not (mark and end and place):', "if not (mark and end and place):",
        "a script that mentions a launcher is executed", "tests/faults/test_ipam.py -k speaks_of",
    ),
    Mutant(
        "shared/cni/execute.py", 'libc.call("prctl", PR_SET_PDEATHSIG, signals.SIGKILL, 0, 0, 0)', "pass",
        "an IPAM plugin dies with the plugin that called it", "tests/faults/test_ipam.py -k outlives",
    ),
    Mutant(
        "shared/cni/execute.py", "for kill, number in ((posix.killpg, child), (posix.kill, child)):", "for kill, number in ((posix.kill, child),):",
        "an IPAM plugin's own children end with it", "tests/faults/test_ipam.py -k terminated_while",
    ),
    Mutant(
        "shared/cni/execute.py", "            signals.restore()\n", "",
        "an IPAM plugin is started with the signals of any program", "tests/faults/test_ipam.py -k signals_of_any",
    ),
    Mutant(
        "shared/cni/execute.py", "and 0 < code < 1 << 32", "",
        "an error of another plugin has a code of the specification", "tests/faults/test_ipam.py -k ipam_fails",
    ),
    Mutant(
        "shared/cni/fastjson.py", "parse_constant = staticmethod(_refuse_constant)", "parse_constant = float",
        "NaN is no JSON", "tests/unit/test_fastjson.py -k not_json",
    ),
    Mutant(
        "shared/cni/fastjson.py", "if text[end:].strip(WHITE_SPACE):", "if False:",
        "two documents are no configuration", "tests/unit/test_fastjson.py -k not_json",
    ),
    Mutant(
        "shared/cni/fastjson.py", "if text[end:].strip(WHITE_SPACE):", "if text[end:].strip():",
        "after the document only JSON's white space may stand", "tests/unit/test_call.py -k white_space",
    ),
    Mutant(
        "shared/cni/fastjson.py", "start = len(text) - len(text.lstrip(WHITE_SPACE))\n    try:\n        value, end", "start = len(text) - len(text.lstrip())\n    try:\n        value, end",
        "before the document only JSON's white space may stand", "tests/unit/test_call.py -k white_space",
    ),
    Mutant(
        "shared/cni/fastjson.py", "start = len(text) - len(text.lstrip(WHITE_SPACE))\n    try:\n        value, end", "start = 0\n    try:\n        value, end",
        "white space before the document is passed over", "tests/unit/test_call.py -k white_space",
    ),
    Mutant(
        "shared/cni/ip.py", "if value >> 32 == 0xFFFF else cls(6, value)", "if value >> 32 == 0x1FFFF else cls(6, value)",
        "an IPv4-mapped address is its IPv4 address", "tests/unit/test_ranges.py -k address",
    ),
    Mutant(
        "shared/cni/ip.py", '        if "." not in text:\n', "        if True:\n",
        "a lease file has the name that Go gives it", "tests/unit/test_ranges.py -k address",
    ),
    Mutant(
        "shared/cni/ip.py", "length_text.isascii() and", "",
        "digits of other scripts are no prefix length", "tests/unit/test_ranges.py -k no_prefix",
    ),
    Mutant(
        "shared/cni/log.py", "or held.st_nlink > 1", "",
        "no other file is written through a second name of the log", "tests/system/test_log.py -k cannot_be_written",
    ),
    Mutant(
        "shared/cni/log.py", "if not _has_name(held, path):", "if False:",
        "no line is lost between two files of the log", "tests/unit/test_log_file.py -k renamed_meanwhile",
    ),
    Mutant(
        "shared/cni/log.py", "            posix.ftruncate(file, size)\n", "            pass\n",
        "a full disk tears no line of the log", "tests/system/test_log.py -k full_disk",
    ),
    Mutant(
        "shared/cni/log.py", 'if size and posix.pread(file, 1, size - 1) != b"\\n":', "if False:",
        "a torn line of the log spoils no other", "tests/system/test_log.py -k killed_writer",
    ),
    Mutant(
        "shared/cni/log.py", 'PODS_MUST_GO = ("DEL", "GC")', "PODS_MUST_GO = ()",
        "a slip in the log's key keeps no pod", "tests/system/test_log.py -k wrong_key",
    ),
    Mutant(
        "shared/cni/log.py", "for number in range(suite.LOGS_KEPT, 0, -1):", "for number in range(1, suite.LOGS_KEPT + 1):",
        "the last full files of the log are kept", "tests/unit/test_log_file.py -k oldest",
    ),
    Mutant(
        "shared/cni/names.py", 'and ".." not in value.split("/")', "",
        "no `..` leads a path elsewhere", "tests/unit/test_config.py -k names_key",
    ),
    Mutant(
        "shared/cni/names.py", 'and value not in (".", "..")', "",
        "no link is called `..`", "tests/unit/test_config.py -k no_link_names",
    ),
    Mutant(
        "shared/cni/names.py", "        and value.isascii()\n", "",
        "a link's name is ASCII", "tests/unit/test_config.py -k no_link_names",
    ),
    Mutant(
        "shared/cni/plugin.py", "        except CniError as error:\n            problems.append(error)\n", "        except CniError as error:\n            problems.append(error)\n            break\n",
        "a step that fails does not keep the others from their turn", "tests/unit/test_tasks.py",
    ),
    Mutant(
        "shared/cni/plugin.py", "        except OSError as error:\n            problems.append(", "        except FileNotFoundError as error:\n            problems.append(",
        "a step that the system refuses does not keep the others from their turn", "tests/unit/test_tasks.py",
    ),
    Mutant(
        "shared/cni/plugin.py", '"; ".join(filter(None, [first.details, *map(str, others)]))', "first.details",
        "no failure of a step goes unsaid", "tests/unit/test_tasks.py",
    ),
    Mutant(
        "shared/cni/plugin.py", "    if attachments is None:\n        raise InvalidConfig('", "    if attachments is None:\n        return set()\n        raise InvalidConfig('",
        "GC without a list frees nothing", "tests/unit/test_call.py -k not_an_empty_list",
    ),
    Mutant(
        "shared/cni/plugin.py", 'raise IOFailure("cannot write the answer to stdout", str(error)) from None', "return",
        "an ADD whose answer nobody reads is taken back", "tests/system/test_host_local.py -k nobody_reads",
    ),
    Mutant(
        "shared/cni/plugin.py", 'if folded(call.config, "prevResult") is None:', "if False:",
        "CHECK without a result is an error", "tests/system/test_host_local.py -k test_check",
    ),
    Mutant(
        "shared/cni/plugin.py", "            text = dumps(result.to_json(call.version))\n            signals.safe_point()\n            _write(text)\n", '            _write(dumps(result.to_json("1.1.0")))\n',
        "the result is of the configuration's version", "tests/system/test_host_local.py -k versions_of_old",
    ),
    Mutant(
        "shared/cni/record.py", "        _unlink_if_there(unfinished)\n        raise", "        raise",
        "a record that cannot be written leaves no file", "tests/unit/test_record.py",
    ),
    Mutant(
        "shared/cni/record.py", "        _unlink_if_there(unfinished)\n", "",
        "a record that a killed call left half written is replaced", "tests/unit/test_record.py",
    ),
    Mutant(
        "shared/cni/record.py", 'for one in (path, f"{path}{UNFINISHED}"):', "for one in (path,):",
        "what a killed call left of a record goes with it", "tests/unit/test_record.py",
    ),
    Mutant(
        "shared/cni/record.py", "posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK", "posix.O_RDONLY | posix.O_NONBLOCK",
        "no symbolic link is read as a record", "tests/unit/test_record.py",
    ),
    Mutant(
        "shared/cni/record.py", "        if is_there(path):\n            raise", "        raise",
        "DEL of nothing succeeds on a read-only file system", "tests/system/test_read_only.py -k read_only_run and others and tuning",
    ),
    Mutant(
        "shared/cni/result.py", "not 0 <= ip.interface < len(result.interfaces)", "not ip.interface < len(result.interfaces)",
        "an address is on no interface below the first", "tests/unit/test_versions.py -k no_result",
    ),
    Mutant(
        "shared/cni/versions.py", 'if not at_least(version, "1.1.0"):', "if False:",
        "a result has no keys that its version does not know", "tests/unit/test_versions.py -k lists_of",
    ),
    Mutant(
        "shared/signals.py", "    _pending = 0\n    for number in", "    for number in",
        "what is taken back is not ended by an earlier signal", "tests/unit/test_signals.py -k after_the_answer",
    ),
    Mutant(
        "shared/signals.py", "_signal.signal(number, _signal.SIG_IGN)", "pass",
        "nothing interrupts the answer", "tests/unit/test_signals.py -k after_the_answer",
    ),
    Mutant(
        "shared/signals.py", "        _interruptible = True\n        if _pending:", "        _interruptible = True\n        if False:",
        "a signal that came before a wait ends it", "tests/unit/test_signals.py -k came_before",
    ),
    Mutant(
        "shared/signals.py", "max(min(self.seconds, TICK), SOONEST), TICK)", "max(self.seconds, SOONEST))",
        "a signal that does not wake the call is seen soon", "tests/unit/test_signals.py -k does_not_wake",
    ),
    Mutant(
        "shared/signals.py", "if not _pending and monotonic() < _deadline:", "if False:",
        "a long wait is not ended by its ticks", "tests/unit/test_signals.py -k ticks",
    ),
    Mutant(
        "shared/signals.py", "max(min(self.seconds, TICK), SOONEST), TICK)", "min(self.seconds, TICK), TICK)",
        "a deadline that is past ends a wait at once", "tests/unit/test_signals.py -k test_a_deadline",
    ),
    Mutant(
        "shared/signals.py", "        _signal.setitimer(_signal.ITIMER_REAL, 0)", "        pass",
        "a wait that is over leaves no timer", "tests/unit/test_signals.py -k leaves_no_timer",
    ),
    Mutant(
        "shared/undo.py", "        self.steps.append((what, step))\n        signals.safe_point()", "        signals.safe_point()\n        self.steps.append((what, step))",
        "what was made when the signal came is taken back, too", "tests/unit/test_undo.py -k interrupts",
    ),
    Mutant(
        "shared/undo.py", "self.steps.pop()", "self.steps.pop(0)",
        "the last step is taken back first", "tests/unit/test_undo.py -k backwards",
    ),
    Mutant(
        "shared/undo.py", "except Exception as failure:", "except OSError as failure:",
        "a step that cannot be taken back does not keep the others", "tests/unit/test_undo.py -k hides_neither",
    ),
    Mutant(
        "shared/undo.py", "        signals.ignore()\n", "",
        "nothing interrupts the taking back", "tests/unit/test_undo.py -k interrupts",
    ),
    Mutant(
        "shared/launch.py", "    _hold_standard_descriptors()\n    suite", "    suite",
        "no file takes the place of a closed stdout", "tests/system/test_host_local.py -k closed_descriptors",
    ),
    Mutant(
        "shared/libc.py", "    _ctypes = None  # type: ignore[assignment]", "    raise",
        "a Python without ctypes can import the suite", "tests/unit/test_accelerators.py -k c_library",
    ),
    Mutant(
        "shared/libc.py", "raise OSError(number, os.strerror(number), function)", "return answer",
        "a system call that fails is an error", "tests/unit/test_accelerators.py -k c_library",
    ),
    Mutant(
        "shared/libc.py", "        if answer != -1:\n            return answer", "        return answer",
        "a system call that fails is an error by the short way, too", "tests/unit/test_accelerators.py -k c_library",
    ),
    Mutant(
        "shared/preload.py", "if digest(data) != expected:", "if not data:",
        "garbled code is not executed", "tests/system/test_launcher.py -k needed_late",
    ),
    Mutant(
        "shared/sockets.py", "except (ImportError, AttributeError):", "except ImportError:",
        "another interface of the private module is no obstacle", "tests/unit/test_accelerators.py -k lacks_something",
    ),
    Mutant(
        "shared/cni/lock.py", "posix.fchmod(descriptor, mode)", "posix.fstat(descriptor)",
        "a lock file that others can open is closed to them", "tests/system/test_locks.py -k reference",
    ),
    Mutant(
        "shared/cni/lock.py", "            if lock_holders.are_foreign(descriptor):", "            if False:",
        "a lock file that another user holds gives way to a new one", "tests/system/test_locks.py -k already",
    ),
    Mutant(
        "shared/cni/log.py", "if lock_holders.are_foreign(file) else -1", "if False else -1",
        "a user who may read the log delays no line and stops no change of files", "tests/system/test_locks.py -k log",
    ),
)  # fmt: skip
