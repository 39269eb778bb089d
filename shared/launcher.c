/* The executable of a plugin on a node with pycni-agent.
 *
 * It hands the call to a worker of the agent, which has Python running already. If there is no agent, or the worker
 * declines, it executes the interpreter, as the executables without an agent do. The messages on the socket:
 *
 *     1. launcher: the request: MAGIC, the directory of the code, the plugin, the environment; each string with its NUL
 *     2. worker:   TAKEN; any other answer declines
 *     3. launcher: GO, with four descriptors: 0, 1, 2 and the working directory
 *     4. worker:   the exit status of the call, one byte
 *
 * The worker begins when it has received GO. So the sending of GO alone decides who does the call: if it succeeds, the
 * launcher never executes the interpreter; if it fails, or the launcher never gets there, the worker has not begun.
 *
 * Descriptors travel with GO and not earlier: a runtime reads a plugin's output until nobody holds the other end. An agent
 * that is stopped would hold it, unread in its queue, long after the launcher has executed the interpreter instead. */
#define _GNU_SOURCE /* environ, O_PATH, struct ucred */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#if !__STDC_HOSTED__
#include "launcher_bare.h" /* libc's start takes longer than all that is done here */
#endif

#define SOCKET_PATH "/run/pycni/agent.sock"
#define FALLBACKS_PATH "/run/pycni/fallbacks" /* the agent reads its length */
#define MAGIC "pycni 1"                       /* with the version of this protocol */

enum {
	TAKEN = 'T',
	GO = 'G',
	NOTHING = -1, /* no byte came */
	ANSWER_MILLISECONDS = 200,
	FOREVER = -1,
	DESCRIPTORS = 4,
	MAX_PARTS = 1000, /* of a request; the kernel takes 1,024 */
	PLACE_BYTES = 4096,
	MAX_ERROR_BYTES = 2 * PLACE_BYTES,
};

/* install.sh writes "\n# pycni launcher: …\n", the plugin, the directory of the code and the interpreter here, each with
 * its NUL. The last four bytes stay NUL, so that each of four strings has an end. */
static const char place[PLACE_BYTES + 4] = "@pycni-launcher@";

static char *plugin, *tree, *python;
static volatile sig_atomic_t connection; /* sig_atomic_t: the signal handler reads it */

static char *string_after(char *string) { return string + strlen(string) + 1; }

/* Returns 0 if install.sh has not filled in the place. */
static int read_place(void)
{
	volatile uintptr_t start = (uintptr_t)place; /* volatile: the compiler must not use the text that is here before */

	plugin = string_after((char *)start); /* iovec and execve want no const; nothing writes there */
	tree = string_after(plugin);
	python = string_after(tree);
	return *plugin && *tree == '/' && *python == '/';
}

static void print(int descriptor, const char *text)
{
	signal(SIGPIPE, SIG_IGN); /* a reader that is gone does not change the exit status */
	while (write(descriptor, text, strlen(text)) < 0 && errno == EINTR)
		;
}

/* Prints the error object of the CNI specification and ends. */
static _Noreturn void fail(const char *code, const char *message, char *details)
{
	static char answer[2 * MAX_ERROR_BYTES];
	const char *const parts[] = { "{\"cniVersion\": \"1.1.0\", \"code\": ", code, ", \"msg\": \"pycni ", plugin, message,
				      "\", \"details\": \"", details, "\"}\n" };
	char *end = answer;

	for (char *c = details; *c; c++)
		if (*c == '"' || *c == '\\')
			*c = '\''; /* a JSON string would end there */
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		end = stpcpy(end, parts[i]);
	print(STDOUT_FILENO, answer);
	_exit(1);
}

/* Returns 0 if no agent of root's takes connections now. */
static int connect_to_worker(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET_PATH };
	struct ucred listener;
	socklen_t length = sizeof listener;

	connection = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* It has the lowest free number: 0 to 2 means that a standard descriptor is closed and cannot be passed. */
	if (connection <= STDERR_FILENO)
		return 0;
	/* The socket does not block: if the queue for the workers is full, the interpreter is faster. */
	return !connect(connection, (struct sockaddr *)&address, sizeof address) &&
	       !getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &listener, &length) && listener.uid == 0;
}

/* Returns 0 if the environment is too large for one message. */
static int send_request(void)
{
	char magic[] = MAGIC, *head[] = { magic, tree, plugin };
	struct iovec parts[MAX_PARTS]; /* the kernel gathers the strings, so nothing is copied or allocated here */
	struct msghdr message = { .msg_iov = parts };

	for (size_t i = 0; i < sizeof head / sizeof *head; i++)
		parts[message.msg_iovlen++] = (struct iovec){ head[i], strlen(head[i]) + 1 };
	for (char **string = environ; *string; string++) {
		if (message.msg_iovlen == MAX_PARTS)
			return 0;
		parts[message.msg_iovlen++] = (struct iovec){ *string, strlen(*string) + 1 };
	}
	return sendmsg(connection, &message, MSG_NOSIGNAL) > 0;
}

/* Returns the worker's next byte, or NOTHING after the time, at the worker's end and on an error. */
static int receive_byte(int milliseconds)
{
	struct pollfd readable = { .fd = connection, .events = POLLIN };
	unsigned char byte;

	for (;;) {
		int ready = poll(&readable, 1, milliseconds);
		ssize_t length = ready > 0 ? recv(connection, &byte, 1, MSG_DONTWAIT) : ready;
		if (length == 1)
			return byte;
		if (length == 0 || (errno != EINTR && errno != EAGAIN))
			return NOTHING;
	}
}

/* Tells the worker, which undoes the call at its next safe point. The end of the launcher tells it the same. */
static void pass_on_signal(int number)
{
	int saved = errno; /* the code that the signal interrupts may be about to look at it */

	(void)number;
	shutdown(connection, SHUT_WR);
	errno = saved;
}

/* Signals are blocked meanwhile. */
static void pass_on_signals(void)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };

	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (signal(numbers[i], pass_on_signal) == SIG_IGN)
			signal(numbers[i], SIG_IGN); /* a signal that the caller ignores stays ignored, as nohup wants it */
}

static int send_go(int directory)
{
	int descriptors[DESCRIPTORS] = { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, directory };
	char go = GO;
	struct iovec part = { &go, sizeof go };
	union {
		struct cmsghdr header; /* aligns the bytes */
		char bytes[CMSG_SPACE(sizeof descriptors)];
	} control = { 0 };
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes
	};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof descriptors);
	memcpy(CMSG_DATA(&control.header), descriptors, sizeof descriptors);
	return sendmsg(connection, &message, MSG_NOSIGNAL) == 1;
}

/* Gives the call to the worker. Returns 0 if the worker has not got it and never will. */
static int hand_over(void)
{
	int directory = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), sent = 0;
	sigset_t all, inherited;

	if (directory < 0)
		return 0;
	sigfillset(&all);
	/* Until GO is sent a signal ends the launcher, afterwards it is the worker's. A signal in between waits here. */
	if (!sigprocmask(SIG_BLOCK, &all, &inherited)) {
		sent = send_go(directory);
		if (sent)
			pass_on_signals();
		sigprocmask(SIG_SETMASK, &inherited, NULL);
	}
	close(directory);
	return sent;
}

/* Adds a byte to the file if the agent has made it; its length is the number of calls without a worker. */
static void count_fall_back(void)
{
	int file = open(FALLBACKS_PATH, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	void (*inherited)(int);

	if (file < 0)
		return;
	inherited = signal(SIGXFSZ, SIG_IGN); /* a caller may limit the size of files, and this signal would end the call */
	if (write(file, "+", 1) < 0) {
		/* A count that is one too low harms nobody. */
	}
	signal(SIGXFSZ, inherited);
	close(file);
}

static _Noreturn void execute_interpreter(int count, char **words)
{
	char launcher[PLACE_BYTES + sizeof "/launcher"], details[MAX_ERROR_BYTES], *missing = launcher, **verb = environ;

	stpcpy(stpcpy(launcher, tree), "/launcher");
	/* Without the file the interpreter would end with a text that is no answer. */
	if (!access(launcher, R_OK)) {
		char flags[] = "-IS", *arguments[MAX_PARTS] = { python, flags, launcher, plugin };
		for (int i = 0; i < count && i < MAX_PARTS - 5; i++)
			arguments[4 + i] = words[i];
		execve(python, arguments, environ);
		missing = python;
	}
	stpcpy(stpcpy(stpcpy(stpcpy(stpcpy(stpcpy(details, missing), ": "), strerror(errno)), " (code "), tree), ")");
	while (*verb && strcmp(*verb, "CNI_COMMAND=STATUS"))
		verb++;
	fail(*verb ? "50" : "999", " cannot start: run install.sh again", details);
}

int main(int count, char **words)
{
	if (!read_place()) {
		print(STDERR_FILENO, "pycni: this launcher names no plugin; install.sh makes the executables of it\n");
		return 1;
	}
	if (count > 1)
		execute_interpreter(count - 1, words + 1); /* `dhcp daemon`: a call has no arguments */
	if (connect_to_worker() && send_request() && receive_byte(ANSWER_MILLISECONDS) == TAKEN && hand_over()) {
		char advice[] = "The call may be half done: a DEL removes its traces. See the log of pycni-agent.";
		int status = receive_byte(FOREVER);
		if (status != NOTHING)
			_exit(status);
		fail("11", ": the worker of pycni-agent ended without an answer", advice);
	}
	count_fall_back();
	execute_interpreter(0, words);
}
