"""Mistakes in shared/launcher.c."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

PATH, BARE = "shared/launcher.c", "shared/launcher_bare.h"
TESTS = "tests/agent/test_launcher.py -k bare and"
TABLE: tuple[Mutant, ...] = (
    Mutant(
        PATH, "volatile uintptr_t start", "uintptr_t start",
        "the compiler knows nothing of the names", "tests/agent/test_launcher.py -k number_of_system_calls and static",
    ),
    Mutant(
        PATH, "return *plugin && ", "return ",
        "a launcher that names nothing does nothing", f"{TESTS} names_nothing",
    ),
    Mutant(
        PATH, "connection <= STDERR_FILENO", "connection < 0",
        "a closed standard descriptor is never replaced by the socket", f"{TESTS} closed",
    ),
    Mutant(
        PATH, " && listener.uid == 0;", ";",
        "only root's agent learns of a call", f"{TESTS} another_user",
    ),
    Mutant(
        PATH, "SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK", "SOCK_SEQPACKET | SOCK_CLOEXEC",
        "a full queue costs no waiting", f"{TESTS} full_queue",
    ),
    Mutant(
        PATH, "SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK", "SOCK_SEQPACKET | SOCK_NONBLOCK",
        "the interpreter inherits no socket", f"{TESTS} inherits",
    ),
    Mutant(
        PATH, "if (message.msg_iovlen == MAX_PARTS)", "if (0)",
        "thousands of variables are no danger", "tests/agent/test_launcher.py -k number_of_strings and sanitized",
    ),
    Mutant(
        PATH, "ANSWER_MILLISECONDS = 200", "ANSWER_MILLISECONDS = -1",
        "a stopped agent holds no call", f"{TESTS} stopped",
    ),
    Mutant(
        PATH, "FOREVER = -1", "FOREVER = 200",
        "a long call is waited for", f"{TESTS} long_call",
    ),
    Mutant(
        PATH, "receive_byte(ANSWER_MILLISECONDS) == TAKEN", "receive_byte(ANSWER_MILLISECONDS) != 'D'",
        "any other answer declines", f"{TESTS} executed_if",
    ),
    Mutant(
        PATH, "if (length == 0 || (errno != EINTR && errno != EAGAIN))", "if (length <= 0)",
        "a signal ends no wait", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        PATH, "	shutdown(connection, SHUT_WR);", "	(void)connection;",
        "the worker learns of a signal", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        PATH, "SIGTERM, SIGINT, SIGHUP }", "SIGTERM, SIGINT }",
        "SIGHUP is passed on, too", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        PATH, "if (signal(numbers[i], pass_on_signal) == SIG_IGN)", "if (signal(numbers[i], pass_on_signal) == SIG_ERR)",
        "an ignored signal stays ignored", f"{TESTS} ignored",
    ),
    Mutant(
        PATH, "sigprocmask(SIG_BLOCK, &all, &inherited)", "sigprocmask(SIG_BLOCK, NULL, &inherited)",
        "a signal between GO and the handlers is not lost", "tests/agent/test_launcher.py -k strikes",
    ),
    Mutant(
        PATH, "sigprocmask(SIG_SETMASK, &inherited, NULL);", "(void)inherited;",
        "signals come again after GO", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        PATH, "O_PATH | O_DIRECTORY | O_CLOEXEC", "O_RDONLY | O_DIRECTORY | O_CLOEXEC",
        "the worker gets no right to read the directory", f"{TESTS} whole_call",
    ),
    Mutant(
        PATH, "return sendmsg(connection, &message, MSG_NOSIGNAL) == 1;", "sendmsg(connection, &message, MSG_NOSIGNAL);\n	return 1;",
        "a call that no worker got is executed", f"{TESTS} executed_if",
    ),
    Mutant(
        PATH, "return sendmsg(connection, &message, MSG_NOSIGNAL) == 1;", "return sendmsg(connection, &message, MSG_NOSIGNAL) == 2;",
        "no call is done twice", f"{TESTS} whole_call",
    ),
    Mutant(
        PATH, "		if (status != NOTHING)\n			_exit(status);", "		_exit(status == NOTHING ? 0 : status);",
        "a worker that dies is an error", f"{TESTS} dies",
    ),
    Mutant(
        PATH, "O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK", "O_WRONLY | O_APPEND | O_NONBLOCK",
        "the count follows no link", f"{TESTS} counted",
    ),
    Mutant(
        PATH, "O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK", "O_WRONLY | O_APPEND | O_NOFOLLOW",
        "the count waits for nobody", f"{TESTS} counted",
    ),
    Mutant(
        PATH, "inherited = signal(SIGXFSZ, SIG_IGN);", "inherited = SIG_DFL;",
        "a limit of the size of files ends no call", f"{TESTS} worth",
    ),
    Mutant(
        PATH, "	signal(SIGXFSZ, inherited);", "	(void)inherited;",
        "the interpreter inherits the signals", f"{TESTS} inherits",
    ),
    Mutant(
        PATH, "if (!access(launcher, R_OK))", "if (launcher[0])",
        "a missing tree is an error object", f"{TESTS} keeps_the_interpreter",
    ),
    Mutant(
        PATH, "	signal(SIGPIPE, SIG_IGN);", "	(void)0;",
        "a reader that is gone does not change the exit status", f"{TESTS} keeps_the_interpreter",
    ),
    Mutant(
        PATH, """if (*c == '"' || *c == '\\\\')""", "if (0)",
        "an error object is JSON with any path", f"{TESTS} keeps_the_interpreter",
    ),
    Mutant(
        PATH, '*verb ? "50" : "999"', '*verb ? "999" : "999"',
        "STATUS says that the plugin is not available", f"{TESTS} keeps_the_interpreter",
    ),
    Mutant(
        BARE, "if (result < 0)\n		last_error", "if (result > 0)\n		last_error",
        "a failed call without libc has its error", f"{TESTS} keeps_the_interpreter",
    ),
    Mutant(
        BARE, "#define END_HANDLER_FLAG 0x04000000", "#define END_HANDLER_FLAG 0",
        "a signal's handler returns", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        BARE, "SA_RESTART | END_HANDLER_FLAG", "SA_RESETHAND | END_HANDLER_FLAG",
        "each signal is passed on", f"{TESTS} signal_is_passed_on",
    ),
    Mutant(
        BARE, "milliseconds < 0 ? NULL : &time", "&time",
        "a long call is waited for", f"{TESTS} long_call",
    ),
    Mutant(
        BARE, "(intptr_t)*stack + 2", "(intptr_t)*stack + 3",
        "the whole environment is sent", f"{TESTS} whole_call",
    ),
    Mutant(
        BARE, "		*--end = (char)('0' + number % 10);", "		*end = (char)('0' + number % 10);",
        "an error without words has its number", "tests/agent/test_launcher.py -k words_of_errors",
    ),
)  # fmt: skip
