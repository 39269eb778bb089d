#!/usr/bin/env bash
# Installs the executables of pycni on a node, or removes them; `./install.sh --help` lists the options.
#
# The code goes into a directory of its own, <lib-dir>/<version>-<digest of the code>, which never changes once it is there; each executable is a
# launcher of a few lines that names this directory and the Python to run it with. Replacing a launcher is one rename, so a runtime that calls a
# plugin during an upgrade gets the old one or the new one, whole. Needs coreutils, util-linux and Python, no more; a bundle, which brings a Python,
# needs Debian's busybox-static instead.
set -euo pipefail
shopt -s nullglob
umask 022
export LC_ALL=C                       # paths are bytes here, and the system's error texts are English
PATH=${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}

marker="# pycni launcher:"
oldest="3, 9"                         # Python that can run the plugins
oldest_tools="3, 11"                  # Python that can run cnitool and the demo
keep_seconds=600                      # a superseded tree may still be read by a call that began before the upgrade
lock_seconds=120
source_dir=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
brought=$source_dir/python            # a bundle brings a Python
own=no                                # yes, if it becomes part of the tree
bin_dir=/opt/cni/bin
lib_dir=/opt/cni/lib/pycni
python=""
interpreter=()                        # the command that runs it now
action=install
forget=""                             # --forget, if the machine shall be a new node
force=no
demo=no                               # no, or a script of shared/cli/demo
tools=no                              # yes; kept: those of a bundle, unless they are there already
offline=""                            # the directory with the tools' libraries; empty: pip fetches them
unpacked=""                           # a directory with the tools from there
units=yes
agent=""                              # yes, no; empty: as it is
unit=/etc/systemd/system/pycni-agent.service
dhcp=""                               # yes, no; empty: as it is
dhcp_unit=/etc/systemd/system/cni-dhcp # .service, .socket
run_dir=/run/pycni
without_libc="-Os -ffreestanding -nostdlib -static -fno-pie -fno-stack-protector -U_FORTIFY_SOURCE -fno-asynchronous-unwind-tables"
without_libc+=" -Wl,-z,noseparate-code -Wl,--build-id=none"
stop_seconds=70                       # the agent waits a minute for its calls
lock_name=.pycni-lock
new_tree=""                           # as long as no launcher names it

die() {
    printf 'install.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

usage() {
    cat <<EOF
Usage: ./install.sh [OPTION]...
Installs the pycni plugins, or removes them with --uninstall. Run it as root; you can run it again.

  --bin-dir DIR   where the executables go, the runtime's plugin directory  (default: /opt/cni/bin)
  --lib-dir DIR   where their code goes                                     (default: /opt/cni/lib/pycni)
  --python PATH   the Python, 3.9 or newer, that runs them                  (default: /usr/bin/python3, else the first on PATH;
                  of a bundle: its own). cnitool needs 3.11: if PATH is older, the first newer one that is found runs cnitool
  --force         replace files of the same name that are not pycni's       (default: leave them, install nothing)
  --with-tools    also install, with pip, the libraries of cnitool's commands that show and explain; needs python3-venv
  --offline DIR   with --with-tools, take the libraries' files from DIR, without pip and network
                  (default: wheels beside install.sh, if it is there; a bundle has it, and installs the tools without being asked)
  --agent         also install pycni-agent, which serves calls without starting Python and repairs pods' networks; a later run
                  keeps it. Needs a C compiler once. Where systemd runs, it is started as pycni-agent.service
  --no-agent      remove it again
  --dhcp          where systemd runs, also start the daemon of the plugin dhcp, as cni-dhcp.socket; a later run keeps it.
                  It needs --with-tools once
  --no-dhcp       remove it again; leases stay, and the next daemon renews them
  --no-units      leave systemd's units alone, as they are a package's or none is wanted; a running agent follows the release
  --demo          after installing, show two pods getting their network, in namespaces of their own
  --demo-cluster  the same with a cluster of three nodes and etcd; needs the program etcd (Debian package etcd-server)
  --uninstall     remove the executables, their code, and the agent's routes and tunnels; leases under /var/lib/cni stay
  --forget-node   with --uninstall, also delete what this machine knows of its cluster, its id too: it is a new node afterwards
  --help          show this text
EOF
}

# A plugin takes the variable, cnitool and pycni-agent the argument. The launcher's count of calls that found no agent takes no byte under this limit.
version_of() { # EXECUTABLE
    (ulimit -f 0 && exec env -i CNI_COMMAND=VERSION "$1" version) <<<'{"cniVersion": "1.0.0"}'
}

# VERSION needs little of the code. This script tries the rest without touching anything: the digests from which names derive, netlink, JSON, and every
# module of the plugins.
proof='
import importlib
import pkgutil
import sys

sys.path.insert(0, sys.argv[1])
import ipam, plugins, shared
rooms = [room.name for room in pkgutil.iter_modules(shared.__path__) if room.ispkg and room.name not in ("build", "cli", "cluster", "runtime")]
for package in (plugins, ipam, *(importlib.import_module(f"shared.{room}") for room in rooms)):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
from shared.cni import blake2, digests, fastjson
from shared.net import links
from shared.net.netlink import Netlink

if not digests.has_fast_digests():
    print("it has no BLAKE2 of any size, as under FIPS: calls use slower code of the suite")
if digests.digest(b"pycni") != blake2.hexdigest(b"pycni", digests.DIGEST_BYTES):
    sys.exit("its BLAKE2 gives wrong digests")
if links.get(Netlink(), "lo") is None:
    sys.exit("it finds no link lo by netlink")
if fastjson.loads(fastjson.dumps({"a": ["b", 1]}).encode()) != {"a": ["b", 1]}:
    sys.exit("its JSON reads something else than it writes")
'

clean_up() {
    if holds "$lib_dir" 9; then
        [[ -z $new_tree ]] || remove_tree "$new_tree"
        unlock "$lib_dir"
    fi
    ! holds "$bin_dir" 8 || unlock "$bin_dir"
}

# A launcher quotes the path as "...", and is read in any locale: only printable ASCII without quote and backslash is safe.
clean_path() { # OPTION PATH -> path: absolute, no trailing slash, symbolic links kept
    local rest=$2/ part
    [[ -n $2 ]] || die "$1 needs a path" 2
    [[ $2 != *[![:print:]]* && $2 != *[\"\\]* ]] ||
        die "$1: only printable ASCII without \" and \\ can be used in the path: $(printf '%q' "$2")" 2
    [[ $rest == /* ]] || rest=$(pwd -P)/$rest
    path=""
    while [[ -n $rest ]]; do
        part=${rest%%/*} rest=${rest#*/}
        case $part in
            "" | .) ;;
            ..) path=${path%/*} ;;
            *) path+=/$part ;;
        esac
    done
    [[ -n $path ]] || die "$1 cannot be /" 2
}

# Root executes the file at this path on every pod start: nobody else may be able to replace a part of the way there. A symbolic link is followed as the
# kernel follows it, since its directory and that of its target count, and its owner, who can replace it in a sticky directory such as /tmp.
flaw_of() { # PATH -> flaw: empty, or what is wrong with the way to it; parts that do not exist are passed over
    local rest=$1 way=/ part path owner group mode links=0
    flaw=""
    while :; do
        if [[ -e $way ]]; then
            read -r owner group mode < <(stat -c '%u %g 0%a' -- "$way")
            [[ -d $way ]] || ((group != 0)) || ((mode &= ~0020)) # of a file, root's group may be let in
            ((owner == 0)) || flaw="$way does not belong to root, so its owner could replace what root executes"
            # In a sticky directory nobody can rename what is root's.
            if ((mode & 0022)) && { [[ ! -d $way || $rest != *[!/]* ]] || ((!(mode & 01000))); }; then
                flaw="$way is writable for others than root, who could replace what root executes"
            fi
        fi
        [[ -z $flaw && $rest == *[!/]* ]] || return 0
        rest=${rest#"${rest%%[!/]*}"} part=${rest%%/*} rest=${rest#"$part"} path=${way%/}/$part
        if [[ $part == .. ]]; then
            way=${way%/*} way=${way:-/}
        elif [[ $part != . && -L $path ]]; then
            (($(stat -c %u -- "$path") == 0)) || flaw="$path, a symbolic link, does not belong to root, so its owner could replace it"
            ((++links <= 40)) || flaw="$path leads to too many symbolic links"
            part=$(readlink -- "$path")
            rest=$part$rest
            [[ $part != /* ]] || way=/
        elif [[ $part != . ]]; then
            way=$path
        fi
    done
}

check_directory() { # DIR
    local flaw
    [[ ! -L $1 ]] || die "$1 is a symbolic link; name the directory that it points to"
    [[ ! -e $1 || -d $1 ]] || die "$1 is not a directory"
    flaw_of "$1"
    [[ -z $flaw ]] || die "$flaw from $1"
}

make_directory() { # DIR
    local error
    error=$(mkdir -p -- "$1" 2>&1) || die "cannot make $1: ${error##*: }"
    check_directory "$1"
}

# An open for reading is enough to hold a lock, so only root can open the lock file. unlock removes the file. If a run is killed, the kernel ends its
# lock, and the next run takes the file over.
lock() { # DIR FD
    local error file=$1/$lock_name
    while :; do
        make_directory "$1"             # an --uninstall may remove the directory while this run waits
        [[ ! -L $file && (! -e $file || -f $file) ]] || rm -rf -- "$file"
        if ! error=$(umask 077 && { : >>"$file"; } 2>&1); then
            [[ ! -d $1 ]] || die "cannot write to $1: ${error##*: }"
        elif eval "command exec $2<\"\$file\"" 2>/dev/null; then
            if [[ $(stat -L -c '%u %a' -- "/dev/fd/$2") != "0 600" ]]; then
                rm -f -- "$file"        # no run makes one that others can open
            elif ! wait_for_lock "$2"; then
                eval "exec $2<&-"       # clean_up must not take it for held
                die "another installation into $1 is still running after $lock_seconds s: $(holder "$file") holds $file"
            elif holds "$1" "$2"; then
                return 0
            fi
        fi
    done
}

# flock's option for a time limit is not the same everywhere.
wait_for_lock() { # FD
    local deadline=$((SECONDS + lock_seconds))
    until try_lock "$1"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# The lock belongs to the open file, which this shell keeps. Debian's busybox has no flock.
try_lock() { # FD
    if type -P flock >/dev/null; then
        flock -n "$1"
    elif ((${#interpreter[@]})); then
        "${interpreter[@]}" -I -S -c 'import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)' "$1" 2>/dev/null
    else
        die "there is no program flock; install it (Debian: apt-get install util-linux)"
    fi
}

holds() { # DIR FD
    [[ -e /dev/fd/$2 && $1/$lock_name -ef /dev/fd/$2 ]]
}

holder() { # FILE: on stdout, as the kernel knows it
    local inode kind pid place name="an unknown process" _
    inode=$(stat -L -c %i -- "$1")
    while read -r _ kind _ _ pid place _; do
        [[ $kind != FLOCK || $place != *:"$inode" ]] || name="process $pid ($(cat "/proc/$pid/comm" 2>/dev/null || echo ended))"
    done </proc/locks
    printf '%s\n' "$name"
}

unlock() { # DIR
    sweep "$1"
    rm -f -- "$1/$lock_name"
}

probe() { # CANDIDATE -> on stdout the interpreter behind it (for it may be a version manager's script) and its libraries, or the reason against it
    "$1" -I -S -c '
import posix, sys
if sys.version_info < ('"$oldest"'):
    sys.exit("it is Python " + sys.version.split()[0] + ", and '"${oldest/, /.}"' is the oldest that can be used")
print(sys.executable, *(path for path in sys.path if posix.access(path, posix.F_OK)), sep="\n")' 2>&1 </dev/null
}

is_usable() { # CANDIDATE -> python, or reason: why it cannot be used; nothing that others can change is executed
    local answer path
    flaw_of "$1"
    reason=$flaw
    [[ -z $reason ]] || return 1
    answer=$(probe "$1") || { reason=${answer##*$'\n'} && return 1; }
    [[ -n $answer ]] || { reason="it does not answer as a Python does" && return 1; }
    python=${answer%%$'\n'*}
    while read -r path; do
        flaw_of "$path"
        reason=$flaw
        [[ -z $reason ]] || return 1
    done <<<"$answer"
}

# Its loader is not yet where the program says.
use_brought_python() { # -> python, tools_python, interpreter
    local loaders=("$brought"/lib/ld-linux-*.so.*)
    ((${#loaders[@]} == 1)) || die "$brought/lib has ${#loaders[@]} loaders instead of one: unpack the bundle again"
    python=$brought/bin/python3 tools_python=$brought/bin/python3
    interpreter=("${loaders[0]}" --argv0 "$python" "$python")
}

choose_python() { # -> python, interpreter
    local candidate reason found=""
    if [[ -n $python ]]; then
        [[ $python == /* ]] || die "--python needs an absolute path, not $python" 2
        [[ -f $python && -x $python ]] || die "cannot use $python: there is no such executable file"
        candidate=$python
        is_usable "$candidate" || die "cannot use $candidate: $reason"
    else
        for candidate in /usr/bin/python3 python3.{9..19} python3; do
            if candidate=$(type -P "$candidate") && is_usable "$candidate"; then
                found=yes
                break
            fi
        done
        [[ -n $found ]] || die "no Python ${oldest/, /.} or newer found${reason:+ ($reason)}; install one (Debian: apt-get install python3) or name it with --python"
    fi
    check_first_line "$python"
    interpreter=("$python")
    if ((0$(stat -L -c '%a' -- "$python") & 0022)); then
        printf 'install.sh: warning: %s can be changed by the group root, and root will execute it\n' "$python" >&2
    fi
}

# The kernel reads 127 bytes of "#!PATH -IS", and ends PATH at white space.
check_first_line() { # PATH
    [[ $1 == /* && $1 != *[![:graph:]]* ]] || die "cannot use $1: a launcher's first line needs an absolute path without white space"
    ((${#1} <= 127 - 6)) || die "cannot use $1: the path is too long for a launcher's first line"
}

choose_tools_python() { # -> tools_python, empty if there is none
    local python=$python oldest=$oldest_tools candidate reason
    tools_python=""
    for candidate in "$python" /usr/bin/python3 python3.{11..19} python3; do
        if candidate=$(type -P "$candidate") && is_usable "$candidate"; then
            tools_python=$python
            return 0
        fi
    done
}

# Errors come on stdout too; their last line has the message.
python_runs() { "${interpreter[@]}" -I -S -B -W ignore -X no_debug_ranges - "$@" 2>&1; }

# Imports every executable's module, too, to detect a Python that lacks part of its standard library.
read_source() { # -> version, cache_tag, names, modules: the plugins' as a dict of Python
    local facts
    facts=$(python_runs "$source_dir" <<'EOF'
import importlib
import re
import sys

sys.path.insert(0, sys.argv[1])
with open(sys.argv[1] + "/pyproject.toml", encoding="utf-8") as file:
    version = re.search(r'^version = "(.*)"$', file.read(), re.MULTILINE).group(1)
from shared.executables import PLUGINS

for word in (version, *PLUGINS):
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", word):
        sys.exit(f"{word!r} cannot be a file name here")
for module in PLUGINS.values():
    importlib.import_module(module)
print(PLUGINS)
print(version, sys.implementation.cache_tag, *PLUGINS, "cnitool")
EOF
    ) || die "cannot install from $source_dir with $python: ${facts##*$'\n'}"
    modules=${facts%$'\n'*} modules=${modules##*$'\n'}
    facts=${facts##*$'\n'}
    read -r version cache_tag facts <<<"$facts"
    read -r -a names <<<"$facts"
}

# Prints the tree's path.
build_tree() { # STAGE
    python_runs "$source_dir" "$lib_dir" "$1" "$version" "$own" <<'EOF'
import sys

sys.path.insert(0, sys.argv[1])
from shared.build import tree

print(tree.build(*sys.argv[1:5], own=sys.argv[5] == "yes"))
EOF
}

# cnitool or pycni-agent.
program_text() { # NAME PYTHON OLDEST MODULE ARGUMENTS
    cat <<EOF
#!$2 -IS
$marker $1; the code is in $tree
import sys
try:
    if sys.version_info < ($3):
        raise ImportError("it needs Python ${3/, /.} or newer")
    sys.path.insert(0, "$tree")
    from $4 import main
except Exception as error:
    version = sys.version.split()[0]
    sys.exit("$1 cannot start: %s: %s\n(code $tree, $2 %s; run install.sh again)" % (type(error).__name__, error, version))
main($5)
EOF
}

# The launcher reports every error before the plugin's own code as the plugin would. Every Python must be able to parse the text, however old. If the
# bundle is lost or garbled, the compiled files beside it are doubtful, too: the sources are used. Another Python has no bundle, and compiles files for
# itself. A text in quotes costs a call nothing: it is compiled if it is executed.
launcher_code() { # TREE NAME [STATEMENTS], as expressions of Python
    cat <<EOF
import posix, sys
tree, name = $1, $2
try:
    if sys.version_info < ($oldest):
        raise ImportError("it needs Python ${oldest/, /.} or newer")
    sys.path.insert(0, tree)
    import _imp, marshal
    from _frozen_importlib_external import MAGIC_NUMBER
    try:
        bundle = posix.open(tree + "/bundle." + sys.implementation.cache_tag, posix.O_RDONLY | posix.O_CLOEXEC)
        head = posix.read(bundle, int(posix.read(bundle, 8)))
        if _imp.source_hash(int.from_bytes(MAGIC_NUMBER, "little"), head[8:]) != head[:8]:
            raise ValueError("the bundle is garbled")
    except (OSError, ValueError, MemoryError):
        if sys.implementation.cache_tag == "$cache_tag":
            sys.pycache_prefix, sys.dont_write_bytecode = tree + "/none", True
    else:
        code, *places = marshal.loads(head[8:])
        exec(code)
        preload(bundle, tree, name, *places)
    from shared.launch import main
except BaseException as error:
    exec(r"""
why = "%s: %s (code %s, Python %s)" % (type(error).__name__, error, tree, sys.version.split()[0])
why = ascii(why)[1:-1].replace("\\\\", "/").replace('"', "'")
code = 50 if posix.environ.get(b"CNI_COMMAND") == b"STATUS" else 999
answer = '{"cniVersion": "1.1.0", "code": %d, "msg": "pycni %s cannot start: run install.sh again", "details": "%s"}\n'
try:
    posix.write(1, (answer % (code, name, why)).encode())
finally:
    posix._exit(1)
""")
${3-}main(tree, name, $modules)
EOF
}

# The kernel calls a script by its file's name, but this process python3: the agent tells calls of this suite by that name.
naming='try:
    comm = posix.open("/proc/self/comm", posix.O_WRONLY | posix.O_CLOEXEC)
    posix.write(comm, name[:15].encode())
    posix.close(comm)
except OSError:
    pass
'

launcher_text() { # NAME
    printf '#!%s -IS\n%s %s; the code is in %s\n' "$python" "$marker" "$1" "$tree"
    launcher_code "\"$tree\"" "\"$1\""
}

launcher() { # NAME FILE
    case $1 in
        cnitool) program_text "$1" "${tools_python:-$python}" "$oldest_tools" shared.cli.cnitool "\"$tree\"" >"$2" ;;
        pycni-agent) program_text "$1" "$python" "$oldest" shared.agent.server "\"$tree\", $modules" >"$2" ;;
        *) if [[ -n $program ]]; then fill_program "$@"; else launcher_text "$1" >"$2"; fi ;;
    esac
}

be_executable() { # FILE; a host may have no /etc/passwd, so root is a number
    chown 0:0 -- "$1" && chmod 0755 -- "$1"
}

# The launcher that asks the agent, a program: the one that a package brings, or compiled here. A warning of a newer compiler is no reason against it.
# The best is without libc (shared/launcher_bare.h), which not every machine and compiler can do.
make_program() { # STAGE -> program, empty if there is none, and then missing: the reason
    local cc options words flaw output="" source=$source_dir/shared/launcher
    program=$source-$(uname -m) missing=""
    [[ ! -f $program ]] || return 0
    program=""
    if ! cc=$(type -P cc); then
        missing="there is no C compiler; install one (Debian: apt-get install gcc libc6-dev)"
        return 0
    fi
    flaw_of "$cc"
    missing=$flaw
    [[ -z $missing ]] || return 0
    for options in "$without_libc" "-O2 -static" -O2; do
        read -ra words <<<"$options"
        if output=$("$cc" -std=c11 "${words[@]}" -o "$1/program" "$source.c" 2>&1 </dev/null); then
            program=$1/program
            return 0
        fi
    done
    missing="$cc cannot compile $source.c: ${output%%$'\n'*}"
}

# The program is the same for every plugin; a place in it takes the plugin's name and the paths. The file's last line tells readers the same.
fill_program() { # NAME FILE
    python_runs "$program" "$marker $1; the code is in $tree" "$1" "$tree" "$python" "$2" <<'EOF'
import sys

program, line, *words, target = sys.argv[1:]
mark = b"@pycni-launcher@"
place = mark.ljust(4096, b"\0")
with open(program, "rb") as file:
    code = file.read()
filling = "\0".join(("\n" + line + "\n", *words, "")).encode().ljust(len(place), b"\0")
if code.count(place) != 1 or code.count(mark) != 1:
    sys.exit(program + " is no launcher of pycni")
if len(filling) > len(place):
    sys.exit("the paths are too long for a launcher")
with open(target, "wb") as file:
    file.write(code.replace(place, filling) + b"\n" + line.encode() + b"\n")
EOF
}

# A program has its second line at the end.
second_line() { # FILE -> second, empty where the file is not a regular one
    local head
    second=""
    [[ -f $1 && ! -L $1 ]] || return 0
    if IFS= read -r -N 4 head <"$1" && [[ $head == $'\x7fELF' ]]; then
        IFS= read -r -n 8192 second < <(tail -n 1 -- "$1") || second=""
    else
        { read -r -n 4096 second && IFS= read -r -n 8192 second; } <"$1" || second=""
    fi
}

is_ours() { # FILE
    local second
    second_line "$1"
    [[ $second == "$marker"* ]]
}

# A launcher's text names its plugin, so that the file can have any name. Before release 0.2.0 the file's name was the plugin's.
plugin_of() { # FILE -> plugin, empty where the file is not a launcher
    local second
    second_line "$1"
    plugin=""
    [[ $second != "$marker "*"; the code is in "* ]] || plugin=${second#"$marker "} plugin=${plugin%%;*}
}

is_part() { # NAME
    [[ " ${names[*]} " == *" $1 "* ]]
}

is_tree() { # PATH: made by this script
    [[ -d $1 && ! -L $1 && ${1##*/} =~ ^.+-[0-9a-f]{12}$ && -f $1/shared/launch.py ]]
}

# One lib dir can serve several bin dirs; a tree is in use as long as a launcher in any of them names it.
in_use() { # TREE
    local directory file second
    while read -r directory; do
        for file in "$directory"/*; do
            second_line "$file"
            [[ $second != "$marker"*" the code is in $1" ]] || return 0
        done
    done < <(known_bin_dirs)
    return 1
}

known_bin_dirs() {
    [[ ! -f $lib_dir/.bin-dirs ]] || cat -- "$lib_dir/.bin-dirs"
}

remember_bin_dir() { # STAGE
    { known_bin_dirs && printf '%s\n' "$bin_dir"; } | sort -u >"$1/bin-dirs" &&
        mv -fT -- "$1/bin-dirs" "$lib_dir/.bin-dirs"
}

# Call it before you replace files that rely on these directories, and before you remove files that they replace: the power may fail.
put_on_disk() { # DIR...
    local error
    error=$(sync -f -- "$@" 2>&1) || die "cannot put $* on the disk: ${error##*: }"
}

# Remove the unfinished work of this run, or of a killed one. The lock is held, so no other run is at work here.
sweep() { # DIR
    rm -rf -- "$1"/.pycni-new.* "$1"/.pycni-old.*
}

remove_tree() { # TREE, by a rename first: a tree is never seen in part
    local aside=$lib_dir/.pycni-old.${1##*/}
    mv -T -- "$1" "$aside" && rm -rf -- "$aside"
}

# Programs find shared.runtime by the link `current`, whichever release is installed.
be_current() { # TREE STAGE
    [[ $(readlink -- "$lib_dir/current") != "${1##*/}" ]] || return 0
    ln -s -- "${1##*/}" "$2/.pycni-new.current" && mv -fT -- "$2/.pycni-new.current" "$lib_dir/current"
}

remove_superseded() {
    local old
    for old in "$lib_dir"/*; do
        if ! is_tree "$old" || in_use "$old"; then
            continue
        elif [[ ! -e $old/.superseded ]]; then
            touch -- "$old/.superseded"
        elif (($(date +%s) - $(stat -c %Y -- "$old/.superseded") > keep_seconds)); then
            remove_tree "$old"
        fi
    done
}

workspace() { # DIR -> made: an empty directory in it, so on the same file system, removed at the end
    made=$(mktemp -d -- "$1/.pycni-new.XXXXXX" 2>&1) || die "cannot write to $1: ${made##*: }"
}

install_plugins() {
    local name foreign=() copies=() stage new answer made file plugin program="" missing=""
    [[ -n $agent ]] || ! is_ours "$bin_dir/pycni-agent" || agent=yes
    [[ -n $dhcp ]] || ! has_unit "$dhcp_unit.service" dhcp || dhcp=yes
    [[ $agent != yes ]] || names=(pycni-agent "${names[@]}")
    for name in "${names[@]}"; do
        file=$bin_dir/$name
        if [[ -d $file && ! -L $file ]]; then
            die "nothing is installed, $file is a directory"
        elif [[ -e $file || -L $file ]] && ! is_ours "$file"; then
            foreign+=("$file")
        fi
    done
    if ((${#foreign[@]})) && [[ $force == no ]]; then
        die "nothing is installed, for these files are not pycni's: ${foreign[*]} (--force replaces them)"
    fi

    workspace "$bin_dir"
    new=$made
    workspace "$lib_dir"
    stage=$made
    # A program that finds no agent executes this file with its plugin's name.
    launcher_code 'sys.argv[0][: -len("/launcher")]' 'sys.argv[1]' "$naming" >"$stage/launcher" || die "nothing is installed, cannot write to $lib_dir"
    [[ $agent != yes ]] || make_program "$stage"
    tree=$(build_tree "$stage") || die "nothing is installed, the code could not be put into $lib_dir: ${tree##*$'\n'}"
    tree=${tree##*$'\n'}
    [[ $own == no ]] || python=$tree/python/bin/python3 tools_python=$tree/python/bin/python3 interpreter=("$tree/python/bin/python3")
    in_use "$tree" || new_tree=$tree
    for name in "${names[@]}"; do
        answer=$(launcher "$name" "$new/$name" 2>&1) || die "nothing is installed, cannot make $name: ${answer##*$'\n'}"
        be_executable "$new/$name" || die "nothing is installed, cannot write to $bin_dir"
        [[ $name != cnitool || -n $tools_python ]] || continue
        # Prove that this Python can run it, and that files in this directory can be executed, before anything is replaced.
        # Without stderr a program does not ask a running agent.
        answer=$(version_of "$new/$name" 2>&-) ||
            die "nothing is installed, $name does not start with $python: $(version_of "$new/$name" 2>&1 | tail -n 1)"
    done
    answer=$(python_runs "$tree" <<<"$proof") || die "nothing is installed, the code does not work with $python: ${answer##*$'\n'}"
    # An administrator's copies follow an upgrade as links do.
    for file in "$bin_dir"/*; do
        plugin_of "$file"
        name=${file##*/}
        if [[ -n $plugin ]] && is_part "$plugin" && ! is_part "$name"; then
            { cp -- "$new/$plugin" "$new/$name" && be_executable "$new/$name"; } || die "nothing is installed, cannot write to $bin_dir"
            copies+=("$name")
        fi
    done
    [[ $agent != no ]] || stop_agent
    [[ $dhcp != no ]] || stop_dhcp
    remember_bin_dir "$stage" || die "nothing is installed, cannot write to $lib_dir"
    put_on_disk "$lib_dir" "$bin_dir"
    new_tree=""                       # from here on launchers may name it
    for name in "${names[@]}" "${copies[@]}"; do
        mv -fT -- "$new/$name" "$bin_dir/$name" || die "cannot replace $bin_dir/$name"
    done
    for file in "$bin_dir"/*; do
        plugin_of "$file"
        if is_ours "$file" && ! is_part "${file##*/}" && ! is_part "$plugin"; then
            rm -f -- "$file"
            printf 'removed %s, no longer part of this installation\n' "$file"
        fi
    done
    be_current "$tree" "$stage" || die "cannot write to $lib_dir"
    put_on_disk "$bin_dir" "$lib_dir"
    remove_superseded
    printf 'pycni %s is installed in %s: %s\n' "$version" "$bin_dir" "${names[*]}"
    [[ -z $missing ]] || printf '  note    calls start Python, though there is an agent: %s, then run install.sh again\n' "$missing"
    ((!${#copies[@]})) || printf '  copies  %s, now of this release, too\n' "${copies[*]}"
    [[ -z $answer ]] || printf '  note    %s: %s\n' "$python" "${answer##*$'\n'}"
    [[ -n $tools_python ]] || printf '  note    cnitool needs Python %s or newer; install one, then run install.sh again\n' "${oldest_tools/, /.}"
    printf '  code    %s\n  python  %s (%s)\n' "$tree" "$python" "$("$python" -I -S -c 'import sys; print(sys.version.split()[0])')"
}

# Install the packages that pyproject.toml calls "tools", each file by its hash. Only the packages of the virtual environment are used, so that it can
# be renamed. A package without a wheel is built with the packages in that environment: pip would fetch build tools without a hash.
install_tools() {
    local made=$unpacked word pid packages=() pins=$source_dir/shared/cli old=$lib_dir/.pycni-old.tools
    [[ -n $tools_python ]] || die "the plugins are installed, the tools are not: they need Python ${oldest_tools/, /.} or newer"
    while read -r word _; do
        [[ $word != *==* ]] || packages+=("$word")
    done <"$pins/tools.txt" || die "the plugins are installed, the tools are not: cannot read $pins/tools.txt"
    [[ $tools != kept || -n $made ]] || return 0
    [[ -n $made ]] || fetch_tools
    put_on_disk "$made"
    [[ ! -e $lib_dir/tools ]] || mv -T -- "$lib_dir/tools" "$old" || die "cannot replace $lib_dir/tools"
    mv -T -- "$made/tools" "$lib_dir/tools" || die "cannot write to $lib_dir"
    printf '  tools   %s (%s)\n' "$lib_dir/tools" "${packages[*]}"
    agent_pid                         # if it runs, it was started without these libraries
    [[ -z $pid ]] || kill -HUP "$pid" || true
}

fetch_tools() { # -> made
    local file pins=$source_dir/shared/cli
    workspace "$lib_dir"
    "$tools_python" -I -m venv "$made/tools" >"$made/log" 2>&1 ||
        die "the plugins are installed, the tools are not: $tools_python cannot make a virtual environment (Debian: apt-get install python3-venv)"
    for file in tools-build.txt tools.txt; do
        "$made/tools/bin/python" -I -m pip --disable-pip-version-check --no-input install -q --no-deps --no-build-isolation --require-hashes \
            -r "$pins/$file" >"$made/log" 2>&1 ||
            die "the plugins are installed, the tools are not: $(grep -m1 ERROR "$made/log" || tail -n 1 "$made/log")"
    done
    chmod -R go-w -- "$made/tools"
}

# This precedes all else, so that a missing or wrong file changes nothing.
unpack_tools() { # -> unpacked
    local made answer interpreter=("${interpreter[@]}")
    [[ -n $tools_python ]] || die "nothing is installed, the tools need Python ${oldest_tools/, /.} or newer"
    [[ $own == yes ]] || interpreter=("$tools_python")
    workspace "$lib_dir"
    answer=$(python_runs "$tools" "$source_dir" "$offline" "$made/tools" "$lib_dir/tools" <<'EOF'
import sys

sys.path.insert(0, sys.argv[2])
from shared.build import libraries

libraries.unpack(*sys.argv[2:], keep=sys.argv[1] == "kept")
EOF
    ) || die "nothing is installed, cannot take the tools' libraries from $offline: ${answer##*$'\n'}"
    [[ ! -d $made/tools ]] || unpacked=$made
}

# An agent of another bin dir is none of this run's business.
agent_pid() { # -> pid, empty if no agent of this bin dir runs
    local number word
    pid=""
    { read -r number <"$run_dir/lock" && [[ -r /proc/$number/cmdline ]]; } 2>/dev/null || return 0
    while IFS= read -r -d '' word; do
        [[ $word == /* ]] || word=/proc/$number/cwd/$word
        [[ ! $word -ef $bin_dir/pycni-agent ]] || pid=$number
    done <"/proc/$number/cmdline"
}

unit_text() { # FILE EXECUTABLE
    local text path=\"${bin_dir//%/%%}/$2\"
    text=$(<"$source_dir/$1")
    printf '%s\n' "${text//"/opt/cni/bin/$2"/"$path"}"
}

has_unit() { # UNIT EXECUTABLE: of this bin dir
    [[ -f $1 && $(<"$1") == *"=\"${bin_dir//%/%%}/$2\""* ]]
}

write_unit() { # UNIT TEXT
    { printf '%s\n' "$2" >"$1.new"; } 2>/dev/null || die "pycni is installed, its $served is not started: cannot write $1"
    put_on_disk "${1%/*}"
    mv -fT -- "$1.new" "$1"
    run_systemctl daemon-reload
}

run_systemctl() { # ARGUMENT...
    local error
    error=$(systemctl --quiet "$@" 2>&1) || die "pycni is installed, its $served is not started: systemctl $*: ${error##*$'\n'}"
}

# No call fails while the agent starts or ends: a launcher that nobody answers starts Python. An administrator's `systemctl disable` holds.
start_agent() {
    local pid text libraries served=agent
    agent_pid
    if [[ $units == no ]]; then
        :
    elif [[ ! -d /run/systemd/system ]]; then
        [[ -n $pid ]] || printf '  agent   systemd does not run here: start %s/pycni-agent yourself, as root\n' "$bin_dir"
    elif [[ -e $unit || -L $unit ]] && ! has_unit "$unit" pycni-agent; then
        printf '  agent   %s is not of this installation and stays: start %s/pycni-agent yourself\n' "$unit" "$bin_dir"
    else
        text=$(unit_text shared/agent/pycni-agent.service pycni-agent)
        if [[ ! -e $unit ]]; then
            write_unit "$unit" "$text"
            run_systemctl enable pycni-agent.service
            if [[ -z $pid ]]; then
                run_systemctl start pycni-agent.service
                printf '  agent   started as pycni-agent.service\n'
            fi
        elif [[ $(<"$unit") != "$text" ]]; then
            write_unit "$unit" "$text"
            pid=""
            run_systemctl try-restart pycni-agent.service # only a new process has the new limits
        fi
    fi
    if [[ -n $pid ]] && kill -HUP "$pid"; then
        printf '  agent   process %s goes on with this release\n' "$pid"
    fi
    libraries=("$lib_dir"/tools/lib/python*/site-packages/prometheus_client)
    [[ $tools != no || ${#libraries[@]} != 0 ]] || printf '  note    the agent has no metrics without its library: run install.sh --with-tools\n'
}

stop_agent() {
    local pid deadline=$((SECONDS + stop_seconds))
    is_ours "$bin_dir/pycni-agent" || return 0
    if [[ $units == yes && -d /run/systemd/system ]] && has_unit "$unit" pycni-agent; then
        systemctl --quiet disable --now pycni-agent.service || die "cannot stop pycni-agent.service"
        rm -f -- "$unit"
        systemctl daemon-reload || true
    fi
    agent_pid
    if [[ $units == no && -n $pid && $(cat "/proc/$pid/cgroup" 2>/dev/null) == */pycni-agent.service* ]]; then
        return 0                      # with its unit
    fi
    [[ -z $pid ]] || kill -TERM "$pid" || true
    while [[ -n $pid ]] && ((SECONDS < deadline)); do
        sleep 0.1
        agent_pid
    done
    [[ -e $run_dir/agent.sock ]] || { rm -f -- "$run_dir"/{lock,cluster.json,metrics.sock} && rmdir -- "$run_dir"; } 2>/dev/null || true
}

# systemd holds the socket, so no call fails while the daemon starts again. The socket's file is the last: if it is there, both units are.
start_dhcp() {
    local kind text is_new="" stranger="" served="dhcp daemon"
    for kind in service socket; do
        [[ ! -e $dhcp_unit.$kind && ! -L $dhcp_unit.$kind ]] || has_unit "$dhcp_unit.service" dhcp || stranger=$dhcp_unit.$kind
    done
    if [[ $units == no ]]; then
        :
    elif [[ ! -d /run/systemd/system ]]; then
        printf '  dhcp    systemd does not run here: start %s/dhcp daemon yourself, as root\n' "$bin_dir"
    elif [[ -n $stranger ]]; then
        printf '  dhcp    %s is not of this installation and stays: start %s/dhcp daemon yourself\n' "$stranger" "$bin_dir"
    else
        [[ -e $dhcp_unit.socket ]] || is_new=yes
        for kind in service socket; do
            text=$(unit_text "shared/cli/dhcp/cni-dhcp.$kind" dhcp)
            [[ -e $dhcp_unit.$kind && $(<"$dhcp_unit.$kind") == "$text" ]] || write_unit "$dhcp_unit.$kind" "$text"
        done
        if [[ -n $is_new ]]; then
            run_systemctl enable --now cni-dhcp.socket
            printf '  dhcp    cni-dhcp.socket starts the daemon when a plugin asks for it\n'
        else
            run_systemctl try-restart cni-dhcp.service # a running daemon is of the release before
        fi
    fi
    [[ -d $lib_dir/tools ]] || printf '  note    the dhcp daemon does not start without its library: run install.sh --with-tools\n'
}

stop_dhcp() {
    [[ $units == yes && -d /run/systemd/system ]] && has_unit "$dhcp_unit.service" dhcp || return 0
    systemctl --quiet disable --now cni-dhcp.socket cni-dhcp.service || die "cannot stop cni-dhcp.service"
    rm -f -- "$dhcp_unit".{socket,service}
    systemctl daemon-reload || true
}

# An agent that ends keeps the routes for the pods' sake. They go with its installation, unless another one's agent runs.
leave_cluster() {
    local known=("$run_dir/cluster.json" /var/lib/pycni/agent/uid /sys/class/net/pycni.*) part answer
    is_ours "$bin_dir/cnitool" && [[ ! -e $run_dir/agent.sock ]] || return 0
    for part in "${known[@]}"; do
        [[ -e $part ]] || continue
        if answer=$("$bin_dir/cnitool" cluster clean $forget 2>&1); then
            printf '%s\n' "$answer"
        else
            printf '  note    routes with protocol 112 and links pycni.* of the cluster stay: %s\n' "${answer##*$'\n'}"
        fi
        return 0
    done
}

uninstall_plugins() {
    local file old removed=() links=() remaining=()
    stop_agent
    leave_cluster
    stop_dhcp
    for file in "$bin_dir"/*; do
        if [[ -L $file ]] && is_ours "$(readlink -f -- "$file" 2>/dev/null)"; then
            links+=("${file##*/}")
        fi
    done
    for file in "$bin_dir"/*; do
        if is_ours "$file"; then
            rm -f -- "$file" || die "cannot remove $file"
            removed+=("${file##*/}")
        fi
    done
    [[ ! -d $bin_dir ]] || put_on_disk "$bin_dir"
    if [[ -d $lib_dir ]]; then
        for old in "$lib_dir"/*; do
            if ! is_tree "$old"; then
                continue
            elif in_use "$old"; then
                remaining+=("$old")
            else
                remove_tree "$old" || die "cannot remove $old"
            fi
        done
        # If another bin dir still uses a tree here, the list of bin dirs, the tools and the directory stay.
        ((${#remaining[@]})) || rm -rf -- "$lib_dir/.bin-dirs" "$lib_dir/tools"
        if [[ ! -e $lib_dir/current ]]; then
            rm -f -- "$lib_dir/current"
            ((!${#remaining[@]})) || be_current "${remaining[0]}" "$lib_dir"
        fi
        unlock "$lib_dir"                 # nothing is done there after this
        rmdir --ignore-fail-on-non-empty -- "$lib_dir"
    fi
    printf 'removed from %s: %s\n' "$bin_dir" "${removed[*]:-nothing, no pycni there}"
    # Links are the administrator's, and work again after the next installation.
    for file in "${links[@]}"; do
        [[ -e $bin_dir/$file ]] || printf 'left in place, though it leads nowhere now: %s/%s\n' "$bin_dir" "$file"
    done
    printf 'Leases and other state under /var/lib/cni are left as they are.\n'
}

while (($#)); do
    case $1 in
        --bin-dir | --lib-dir | --python | --offline)
            (($# > 1)) || die "$1 needs a path" 2
            case $1 in
                --bin-dir) bin_dir=$2 ;;
                --lib-dir) lib_dir=$2 ;;
                --python) python=$2 ;;
                --offline) offline=$2 ;;
            esac
            [[ -n $2 ]] || die "$1 needs a path" 2
            shift ;;
        --force) force=yes ;;
        --demo) demo="command" ;;
        --demo-cluster) demo=cluster ;;
        --with-tools) tools=yes ;;
        --agent) agent=yes ;;
        --no-agent) agent=no ;;
        --dhcp) dhcp=yes ;;
        --no-dhcp) dhcp=no ;;
        --no-units) units=no ;;
        --uninstall) action=uninstall ;;
        --forget-node) forget=--forget ;;
        --help | -h)
            usage
            exit 0 ;;
        *) die "unknown option $1; --help lists the options" 2 ;;
    esac
    shift
done
[[ $action == install || $demo$tools$agent$dhcp == nono ]] ||
    die "--demo, --demo-cluster, --with-tools, --agent, --no-agent, --dhcp and --no-dhcp exclude --uninstall" 2
[[ $action == uninstall || -z $forget ]] || die "--forget-node needs --uninstall" 2
clean_path --bin-dir "$bin_dir"
bin_dir=$path
clean_path --lib-dir "$lib_dir"
lib_dir=$path
[[ ! $bin_dir/ == "$lib_dir"/* && ! $lib_dir/ == "$bin_dir"/* ]] || die "--bin-dir and --lib-dir cannot lie within each other" 2
[[ -n $python || ! -f $brought/bin/python3 ]] || own=yes
[[ -z $offline || $tools$own == *yes* ]] || die "--offline needs --with-tools" 2
((EUID == 0)) || die "only root can do this"

trap clean_up EXIT
check_directory "$bin_dir"
check_directory "$lib_dir"
if [[ $own == yes ]]; then
    use_brought_python
elif [[ $action == install ]]; then
    choose_python
    choose_tools_python
fi
if [[ $action == install ]]; then
    read_source
    [[ $own == no ]] || check_first_line "$lib_dir/$version-0123456789ab/python/bin/python3"
    [[ -n $offline || ! -d $source_dir/wheels ]] || offline=$source_dir/wheels
    [[ $own == no || -z $offline || $tools == yes ]] || tools=kept
    make_directory "$bin_dir"
    make_directory "$lib_dir"
fi
[[ ! -d $bin_dir ]] || lock "$bin_dir" 8
# An --uninstall may have removed it while this run waited for the first lock.
[[ $action != install ]] || make_directory "$lib_dir"
[[ ! -d $lib_dir ]] || lock "$lib_dir" 9
# bash handles a signal when the running command has ended, so that no command is still writing when clean_up runs.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
{ sweep "$bin_dir" && sweep "$lib_dir"; } || die "cannot remove what an earlier run left in $bin_dir and $lib_dir"
[[ $tools == no || -z $offline ]] || unpack_tools
"${action}_plugins"
[[ $action == uninstall || $agent != yes ]] || start_agent
[[ $tools == no ]] || install_tools
[[ $action == uninstall || $dhcp != yes ]] || start_dhcp
if [[ $demo != no ]]; then
    clean_up
    [[ -n $tools_python ]] || die "the plugins are installed, the demo needs Python ${oldest_tools/, /.} or newer"
    exec "$tools_python" -I -B "$tree/shared/cli/demo/$demo.py" --bin-dir "$bin_dir" 8<&- 9<&-
fi
