"""Mistakes on the runtime's side: shared/runtime."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TABLE: tuple[Mutant, ...] = (
    Mutant(
        "shared/runtime/attach.py", "reversed(network.plugins[: position + 1])", "reversed(network.plugins[:position])",
        "the plugin that fails gets a DEL, too", "tests/system/test_pods.py -k failed_add_takes_back",
    ),
    Mutant(
        "shared/runtime/attach.py", "reversed(network.plugins[: position + 1])", "network.plugins[: position + 1]",
        "a failed ADD is taken back in reverse", "tests/system/test_pods.py -k failed_add_takes_back",
    ),
    Mutant(
        "shared/runtime/attach.py", '                        error.add_note(f"then, cleaning up: {another}")', '                        error.add_note(f"then, cleaning up: {another}")\n                        break',
        "a DEL that fails does not end the taking back", "tests/system/test_pods.py -k clean_up_goes_on",
    ),
    Mutant(
        "shared/runtime/attach.py", "    if not keep_failed:\n        expect_new(network.name, attachment)\n", "",
        "an ADD beside an interface that is there executes no plugin", "tests/system/test_client.py -k interface_that_is_there",
    ),
    Mutant(
        "shared/runtime/attach.py", '    for plugin in network.plugins:\n        _executable(plugin, "ADD", bin_dirs)\n', "",
        "no plugin is executed if one of them is missing", "tests/system/test_pods.py -k missing_plugin",
    ),
    Mutant(
        "shared/runtime/attach.py", "    for plugin in reversed(network.plugins):\n", "    for plugin in network.plugins:\n",
        "DEL goes in reverse", "tests/system/test_pods.py -k delete_runs_in_reverse",
    ),
    Mutant(
        "shared/runtime/attach.py", "        before_each()\n        _call(", "        before_each()\n        with contextlib.suppress(PluginError):\n            _call(",
        "no address is released while an earlier step's rules may lead to it", "tests/system/test_pods.py -k delete_runs_in_reverse",
    ),
    Mutant(
        "shared/runtime/attach.py", "if capabilities.get(key) is True", "if key in capabilities",
        "a capability that is false is not supplied", "tests/system/test_pods.py -k capabilities_that",
    ),
    Mutant(
        "shared/runtime/attach.py", "os.killpg(process.pid, signal.SIGKILL)", "process.kill()",
        "a plugin that takes too long is killed with its children", "tests/system/test_pods.py -k time_limit",
    ),
    Mutant(
        "shared/runtime/attach.py", "if error.errno != errno.ETXTBSY or", "if True or",
        "a plugin that is being replaced is waited for", "tests/system/test_pods.py -k being_replaced",
    ),
    Mutant(
        "shared/runtime/attachment.py", 'if ";" in key + value or "=" in key:', 'if "=" in key:',
        "no CNI argument smuggles in another", "tests/system/test_pods.py -k smuggle",
    ),
    Mutant(
        "shared/runtime/attach.py", '    executables = [_executable(plugin, "STATUS", bin_dirs) for plugin in network.plugins]\n    if network', '    executables = [_executable(plugin, "STATUS", bin_dirs) for plugin in network.plugins[:1]]\n    if network',
        "STATUS says that a plugin is missing", "tests/system/test_client.py -k status_asks",
    ),
    Mutant(
        "shared/runtime/attachment.py", "if not is_name(self.container_id):", "if not self.container_id:",
        "a container id leads to nobody else's cached result", "tests/system/test_client.py -k lead_elsewhere",
    ),
    Mutant(
        "shared/runtime/cache.py", "            except BaseException:\n                unfinished.unlink(missing_ok=True)\n                raise", "            except BaseException:\n                raise",
        "a cache write that fails leaves no file", "tests/system/test_client.py -k failed_write",
    ),
    Mutant(
        "shared/runtime/cache.py", "            unfinished.unlink(missing_ok=True)\n            descriptor", "            descriptor",
        "a cache write that was killed does not hinder the next", "tests/system/test_client.py -k does_not_hinder",
    ),
    Mutant(
        "shared/runtime/cache.py", "return entry if path == self.path(network, entry.attachment) and entry.network == network else None", "return entry",
        "an entry of another attachment with the same file name is not taken for one's own", "tests/system/test_client.py -k same_file_name",
    ),
    Mutant(
        "shared/runtime/cache.py", "            if self.load(network, attachment) is None:\n                return\n", "            self.load(network, attachment)\n",
        "DEL removes no entry of another attachment with the same file name", "tests/system/test_client.py -k same_file_name",
    ),
    Mutant(
        "shared/runtime/cache.py", "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK",
        "no symbolic link is read as a cached result", "tests/system/test_client.py -k symbolic_link",
    ),
    Mutant(
        "shared/runtime/cache.py", "os.O_EXCL | os.O_CLOEXEC, 0o600)", "os.O_EXCL | os.O_CLOEXEC, 0o644)",
        "cached results are root's alone to read", "tests/system/test_client.py -k root_alone",
    ),
    Mutant(
        "shared/runtime/cache.py", "return os.path.samestat(os.fstat(descriptor), place.stat())", "return True",
        "the lock of a place that is gone is nobody's", "tests/system/test_client.py -k place_that_is_gone",
    ),
    Mutant(
        "shared/runtime/cache.py", "            if is_mine:\n", "            if True:\n",
        "a call that is refused does not free another's place", "tests/system/test_client.py -k does_not_free",
    ),
    Mutant(
        "shared/runtime/cache.py", "unreadable.append(Unreadable(path, str(error)))", "pass",
        "GC keeps what it cannot read", "tests/system/test_client.py -k cannot_read",
    ),
    Mutant(
        "shared/runtime/cache.py", "for place in range(1, len(words))]", "for place in range(1, 2)]",
        "an unreadable entry keeps every attachment whose it may be", "tests/system/test_client.py -k cannot_read",
    ),
    Mutant(
        "shared/runtime/cache.py", "        if path != self.path(entry.network, entry.attachment):", "        if False:",
        "an entry that contradicts its name is nobody's", "tests/system/test_client.py -k something_else",
    ),
    Mutant(
        "shared/runtime/cache.py", "            self._unfinished(network, attachment).unlink()", "            pass",
        "DEL removes what a killed ADD left of the cache", "tests/system/test_client.py -k killed_add",
    ),
    Mutant(
        "shared/runtime/cache.py", "if not stat.S_ISREG(held.st_mode):", "if False:",
        "a FIFO in the cache hinders nobody", "tests/system/test_client.py -k no_regular_file",
    ),
    Mutant(
        "shared/runtime/client.py", "            if stale is not None:", "            if False:",
        "what a lost namespace left gets its DEL before the next ADD", "tests/system/test_client.py -k lost_namespace",
    ),
    Mutant(
        "shared/runtime/client.py", "self.delete(stale.config or network, stale.attachment)", "self.delete(network, stale.attachment)",
        "DEL of a lost pod has the configuration that its ADD had", "tests/system/test_client.py -k lost_namespace",
    ),
    Mutant(
        "shared/runtime/client.py", "                    attach.delete(network, attachment, self.bin_dirs, result, limit=self.limit)\n", "                    pass\n",
        "an attachment that cannot be remembered is taken back", "tests/system/test_client.py -k cannot_be_remembered",
    ),
    Mutant(
        "shared/runtime/client.py", "        previous = self._previous(network, attachment)\n", "        previous = self._previous(network, attachment)\n        self.cache.remove(network.name, attachment)\n",
        "a DEL that fails forgets nothing", "tests/system/test_client.py -k failing_del",
    ),
    Mutant(
        "shared/runtime/client.py", '        if not network.supports("0.4.0"):\n            return None\n', "",
        "networks before 0.4.0 get no result on DEL", "tests/system/test_client.py -k old_networks",
    ),
    Mutant(
        "shared/runtime/client.py", "        if network.disable_gc:\n            return\n", "",
        "a network with disableGC is left alone", "tests/system/test_client.py -k that_have_none",
    ),
    Mutant(
        "shared/runtime/client.py", "        kept = kept.union(*(one.keys(network.name) for one in unreadable))\n", "",
        "GC keeps attachments whose entry cannot be read", "tests/system/test_client.py -k cannot_read",
    ),
    Mutant(
        "shared/runtime/client.py", "entry=entry: self.delete(entry.config or network,", "entry=entry: self.delete(network,",
        "GC's DEL has the configuration that the ADD had", "tests/system/test_client.py -k own_configuration",
    ),
    Mutant(
        "shared/runtime/client.py", "        errors.append(error)", "        raise",
        "a failure in GC does not keep the rest from its turn", "tests/system/test_client.py -k goes_on",
    ),
    Mutant(
        "shared/runtime/client.py", "        if entry is None and path.exists():", "        if False:",
        "the entry of another attachment is not overwritten", "tests/system/test_client.py -k of_another_is_not",
    ),
    Mutant(
        "shared/runtime/client.py", '            raise AttachmentExists(network.name, attachment, f"it may be there already: {error}") from error', "            entry = None",
        "an entry that cannot be read may be of a pod that is there", "tests/system/test_client.py -k that_cannot_be_read",
    ),
    Mutant(
        "shared/runtime/client.py", "            if reason:\n                raise AttachmentExists(", "            if False:\n                raise AttachmentExists(",
        "an ADD does not reach the attachment of an earlier one", "tests/system/test_client.py -k said_twice",
    ),
    Mutant(
        "shared/runtime/presence.py", "return GONE if path else UNKNOWN", "return GONE",
        "an attachment whose namespace is not known counts as alive", "tests/system/test_client.py -k namespace_counts",
    ),
    Mutant(
        "shared/runtime/presence.py", "    except (OSError, ValueError):\n        return UNKNOWN", "    except (OSError, ValueError):\n        return GONE",
        "a namespace that cannot be looked at counts as alive", "tests/system/test_client.py -k namespace_counts",
    ),
    Mutant(
        "shared/runtime/presence.py", "return ALIVE if os.stat(path).st_dev == os.stat(OWN).st_dev else GONE", "return ALIVE if os.stat(path) else GONE",
        "the file that a deleted namespace left is none", "tests/system/test_client.py -k namespace_counts",
    ),
    Mutant(
        "shared/runtime/presence.py", "    found = host_link(network, attachment, result)\n    return", '    found = ""\n    return',
        "a pod whose host link leads to it is alive, whatever its path says", "tests/system/test_client.py -k result_names",
    ),
    Mutant(
        "shared/runtime/presence.py", "    if found:\n        raise", "    if False:\n        raise",
        "an ADD does not reach the host link of an earlier one", "tests/system/test_cnitool.py -k add_twice",
    ),
    Mutant(
        "shared/runtime/presence.py", "if link is not None and links.leads_to_pod(host, link):", "if link is not None:",
        "a host link that leads to no pod is no evidence", "tests/system/test_client.py -k leads_to_no_pod",
    ),
    Mutant(
        "shared/runtime/conflist.py", "not NETWORK_NAME.fullmatch(name)", "not NETWORK_NAME.match(name)",
        "a network's name leads no path elsewhere", "tests/unit/test_conflist.py -k invalid_list",
    ),
    Mutant(
        "shared/runtime/conflist.py", "for path in sorted(where.iterdir()):", "for path in sorted(where.iterdir(), reverse=True):",
        "the first configuration in lexical order is the default network", "tests/unit/test_conflist.py -k lexical",
    ),
    Mutant(
        "shared/runtime/conflist.py", "                warn(str(error))", "                raise",
        "an invalid configuration does not hide the valid ones", "tests/unit/test_conflist.py -k passed_over",
    ),
    Mutant(
        "shared/runtime/conflist.py", "return max(versions, key=_numbers, default", "return max(versions, default",
        "versions compare as numbers", "tests/unit/test_conflist.py -k version",
    ),
    Mutant(
        "shared/runtime/find.py", 'or "/" in plugin_type', "",
        "a plugin's type leads root to no other file", "tests/unit/test_conflist.py -k no_file_name",
    ),
    Mutant(
        "shared/runtime/find.py", "if not directory.is_absolute():", "if False:",
        "a plugin directory is absolute", "tests/unit/test_conflist.py -k relative",
    ),
    Mutant(
        "shared/runtime/find.py", "if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):", "if stat.S_ISREG(mode):",
        "a file that is not executable is no plugin", "tests/unit/test_conflist.py -k first_executable",
    ),
    Mutant(
        "shared/runtime/pods.py", "        network = self.network_of(pod)\n        self.client(network).delete(", "        network = self.default_network()\n        self.client(network).delete(",
        "a pod is torn down by the network that it was set up with", "tests/system/test_pods.py -k torn_down_by",
    ),
    Mutant(
        "shared/runtime/pods.py", "        if names:\n", "        if False:\n",
        "a pod whose entry cannot be read is torn down by the network in the file's name", "tests/system/test_client.py -k file_names_the_network",
    ),
    Mutant(
        "shared/runtime/pods.py", "            if reason:\n                raise AttachmentExists(", "            if False:\n                raise AttachmentExists(",
        "a pod is not set up a second time by another default network", "tests/system/test_cnitool.py -k up_twice",
    ),
    Mutant(
        "shared/runtime/pods.py", "            if entry.config is not None:\n                self.client(entry.config).delete(entry.config, entry.attachment)\n", "",
        "what a lost pod has of a former default network gets its DEL", "tests/system/test_client.py -k former_default",
    ),
    Mutant(
        "shared/runtime/pods.py", "[*(path for path in vendors if Path(path).is_dir()), *self.bin_dirs]", "[*self.bin_dirs, *(path for path in vendors if Path(path).is_dir())]",
        "the vendor's directory comes first", "tests/system/test_client.py -k vendors_directory",
    ),
    Mutant(
        "shared/runtime/pods.py", "if prefix.address not in LINK_LOCAL]", "]",
        "addresses of link scope are not the pod's", "tests/system/test_cnitool.py -k kubelets_way",
    ),
    Mutant(
        "shared/runtime/client.py", "            except BaseException as error:  # without", "            except CacheError as error:  # without",
        "an attachment is taken back for whatever reason it cannot be remembered", "tests/system/test_client.py -k no_file_can_hold",
    ),
    Mutant(
        "shared/runtime/cache.py", "    except (BlockingIOError, FileNotFoundError):\n        return False\n", "    except (BlockingIOError, FileNotFoundError):\n        return True\n",
        "of two ADDs of one attachment at once one is refused", "tests/system/test_client.py -k two_adds",
    ),
)  # fmt: skip
