"""Execute another plugin or program with a time limit; it dies with this process."""

from __future__ import annotations

import posix

from shared import libc, signals
from shared.cni.errors import CniError, DelegateError, InternalError
from shared.cni.fastjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shared.cni.call import Call

TIME_LIMIT = 55.0  # seconds; runtimes give up after a minute or more
OUTPUT_LIMIT = 4 << 20  # bytes
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def execute(path: str, call: Call, command: str) -> bytes:
    """Execute a plugin and return its stdout.

    Raise DelegateError with the plugin's error. Raise InternalError if it hangs, crashes or prints too much.
    """
    environment = {**posix.environ, b"CNI_COMMAND": command.encode()}
    try:
        status, output = run([path], call.stdin, environment, seconds=TIME_LIMIT)
    except signals.DeadlineExpired:
        raise InternalError(f"plugin {path} did not answer {command} within {TIME_LIMIT:.0f} seconds") from None
    if status != 0:
        raise _failure(path, command, status, output)
    return output


def run(
    argv: list[str], stdin: bytes, environment: dict[bytes, bytes], *, seconds: float, limit: int = OUTPUT_LIMIT,
    with_stderr: bool = False,
) -> tuple[int, bytes]:  # fmt: skip
    """Run a program. Return its status, as wait(2) has it, and its stdout (`with_stderr`: and stderr).

    Raise DeadlineExpired after `seconds`, and InternalError beyond `limit` bytes: both kill the program. Raise
    InternalError, too, if it cannot be started.
    """
    parent = posix.getpid()
    try:
        given = posix.memfd_create("stdin", posix.MFD_CLOEXEC)
        while stdin:
            stdin = stdin[posix.write(given, stdin) :]
        posix.lseek(given, 0, 0)
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        child = posix.fork()
    except OSError as error:
        raise InternalError(f"cannot start {argv[0]}", str(error)) from None
    if child == 0:
        if with_stderr:
            posix.dup2(writer, 2)
        _become(argv, environment, given, writer, parent)
    posix.close(given)
    posix.close(writer)
    output = b""
    try:
        with signals.interruptible(seconds):
            while chunk := posix.read(reader, 65536):
                output += chunk
                if len(output) > limit:
                    raise InternalError(f"{argv[0]} printed more than {limit} bytes")
            _, status = posix.waitpid(child, 0)
            child = 0
    finally:
        posix.close(reader)
        if child:
            _kill(child)
    return status, output


def _become(argv: list[str], environment: dict[bytes, bytes], stdin: int, stdout: int, parent: int) -> None:
    """Turn the forked child into the program, which dies with its parent. Never return."""
    try:
        libc.call("prctl", PR_SET_PDEATHSIG, signals.SIGKILL, 0, 0, 0)
        if posix.getppid() == parent:
            posix.setpgid(0, 0)
            signals.restore()
            posix.dup2(stdin, 0)
            posix.dup2(stdout, 1)
            posix.execve(argv[0], argv, environment)
    except OSError as error:
        posix.write(2, f"pycni: cannot execute {argv[0]}: {error}\n".encode())
    finally:
        posix._exit(127)


def _kill(child: int) -> None:
    for kill, number in ((posix.killpg, child), (posix.kill, child)):
        try:
            kill(number, signals.SIGKILL)
        except OSError:  # the child has no group of its own yet, or has ended
            continue
    posix.waitpid(child, 0)


def _failure(path: str, command: str, status: int, output: bytes) -> CniError:
    try:
        raw = loads(output)
        code, msg, details = raw.get("code"), str(raw["msg"]), str(raw.get("details") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        ending = f"signal {status & 0x7F}" if status & 0x7F else f"exit status {status >> 8}"
        return InternalError(f"plugin {path} failed on {command} with {ending} and no error JSON")
    known = isinstance(code, int) and not isinstance(code, bool) and 0 < code < 1 << 32
    return DelegateError(code if known else InternalError.code, msg, details)
