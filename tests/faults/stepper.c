/* Runs a command and strikes it at its N-th system call of a class; stepper.py describes the arguments.
 *
 * A seccomp filter stops the command, and all that it starts, at the calls that matter only, so that it is hardly slower
 * than alone. Every call of the class is noted in the report, a line each, before it is struck. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MESSAGE = 1, FILES = 2, CONTENT = 4, OTHER = 8, RECEIVE = 16, WAIT = 32, OPEN = 64, EVERY = 128 };

static const struct call {
	int number;
	int class;
	const char *name;
} calls[] = {
#define CALL(name, class) { SYS_##name, class, #name },
	CALL(sendto, MESSAGE) CALL(sendmsg, MESSAGE) CALL(sendmmsg, MESSAGE)
	CALL(openat, OPEN) CALL(openat2, FILES)
	CALL(write, CONTENT) CALL(writev, CONTENT) CALL(pwrite64, CONTENT) CALL(ftruncate, CONTENT) CALL(fallocate, CONTENT)
	CALL(renameat2, FILES) CALL(linkat, FILES) CALL(symlinkat, FILES) CALL(unlinkat, FILES) CALL(mkdirat, FILES)
	CALL(mknodat, FILES) CALL(fchmod, FILES) CALL(fchmodat, FILES) CALL(fchown, FILES) CALL(fchownat, FILES)
	CALL(utimensat, FILES) CALL(fsync, FILES) CALL(fdatasync, FILES)
	CALL(setns, OTHER) CALL(unshare, OTHER) CALL(mount, OTHER) CALL(umount2, OTHER) CALL(ioctl, OTHER)
	CALL(recvfrom, RECEIVE) CALL(recvmsg, RECEIVE)
	CALL(flock, WAIT) CALL(read, WAIT) CALL(wait4, WAIT)
	CALL(execve, EVERY) CALL(socket, EVERY) CALL(connect, EVERY) CALL(ppoll, EVERY) CALL(close, EVERY)
	CALL(rt_sigaction, EVERY) CALL(rt_sigprocmask, EVERY) CALL(exit_group, EVERY)
#ifdef SYS_open
	CALL(open, OPEN) CALL(creat, FILES) CALL(rename, FILES) CALL(link, FILES) CALL(symlink, FILES) CALL(unlink, FILES)
	CALL(mkdir, FILES) CALL(rmdir, FILES) CALL(mknod, FILES) CALL(chmod, FILES) CALL(chown, FILES) CALL(utime, FILES)
#endif
#ifdef SYS_renameat
	CALL(renameat, FILES)
#endif
};
#define NUMBER_OF_CALLS (sizeof calls / sizeof *calls)

static int wanted_class, strike_at, error_number, seen, dumps_to_mark, has_begun;
static const char *action, *report_path;
static FILE *report;
static pid_t root, known[256];
static int number_known;

static void die(const char *what)
{
	perror(what);
	exit(125);
}

static const struct call *find(long number)
{
	static struct call unlisted = { .class = EVERY };
	static char name[24];

	for (size_t i = 0; i < NUMBER_OF_CALLS; i++)
		if (calls[i].number == number)
			return &calls[i];
	if (!(wanted_class & EVERY))
		return NULL;
	snprintf(name, sizeof name, "call %ld", number);
	unlisted.name = name;
	unlisted.number = (int)number;
	return &unlisted;
}

static void install_filter(void)
{
	struct sock_filter code[2 * NUMBER_OF_CALLS + 2];
	size_t at = 0;

	code[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < NUMBER_OF_CALLS && !(wanted_class & EVERY); i++) {
		int class = calls[i].class;
		if (!(class & wanted_class) && !(class == OPEN && wanted_class & FILES))
			continue;
		code[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].number, 0, 1);
		code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	}
	code[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, wanted_class & EVERY ? SECCOMP_RET_TRACE : SECCOMP_RET_ALLOW);
	struct sock_fprog program = { at, code };
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		die("seccomp");
}

/* Makes the call that has just been entered fail without being executed. */
static void refuse(pid_t pid, int number)
{
#if defined(__x86_64__)
	struct user_regs_struct registers;
	struct iovec all = { &registers, sizeof registers };
	if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all))
		die("registers");
	registers.orig_rax = -1;
	registers.rax = -number;
	if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all))
		die("registers");
#elif defined(__aarch64__)
	struct user_regs_struct registers;
	struct iovec all = { &registers, sizeof registers };
	int none = -1;
	struct iovec call = { &none, sizeof none };
	if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all) || ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &call))
		die("registers");
	registers.regs[0] = -number;
	if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all))
		die("registers");
#else
#error "this machine's registers are not known here"
#endif
}

static int is_write_open(const struct call *call, const uint64_t *arguments)
{
	int flags = strcmp(call->name, "open") ? (int)arguments[2] : (int)arguments[1];
	return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
}

static int counts(const struct call *call, const uint64_t *arguments)
{
	if (wanted_class & EVERY)
		return 1;
	if (call->class == OPEN)
		return wanted_class & OPEN || is_write_open(call, arguments);
	return call->class & wanted_class;
}

/* Says in the reply that has been received that the dump was interrupted. */
static int mark_interrupted(pid_t pid, uint64_t buffer, long length)
{
	struct nlmsghdr header;
	struct iovec here = { &header, sizeof header }, there = { (void *)(unsigned long)buffer, sizeof header };

	if (length < (long)sizeof header || process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof header)
		return 0;
	if (!(header.nlmsg_flags & NLM_F_MULTI))
		return 0;
	header.nlmsg_flags |= NLM_F_DUMP_INTR;
	return process_vm_writev(pid, &here, 1, &there, 1, 0) == sizeof header;
}

/* Turns the first request of a datagram into one of a kind that the kernel does not have. Not the beginning of a batch of
 * nf_tables, and no other question to it: that answer would say that the kernel has no nf_tables at all. */
static void spoil(pid_t pid, uint64_t buffer, uint64_t length)
{
	for (uint64_t at = 0; at + sizeof(struct nlmsghdr) <= length;) {
		struct nlmsghdr header;
		struct iovec here = { &header, sizeof header }, there = { (void *)(unsigned long)(buffer + at), sizeof header };
		if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof header || header.nlmsg_len < sizeof header)
			return;
		if (header.nlmsg_len != sizeof header + 4 || header.nlmsg_type != 16) {
			if (at == 0 && header.nlmsg_type >= 256)
				return;
			header.nlmsg_type = 0x7ff0;
			process_vm_writev(pid, &here, 1, &there, 1, 0);
			return;
		}
		at += NLMSG_ALIGN(header.nlmsg_len);
	}
}

static uint64_t buffer_of(pid_t pid, const struct call *call, const uint64_t *arguments)
{
	struct msghdr message;
	struct iovec vector;
	struct iovec here = { &message, sizeof message }, there = { (void *)(unsigned long)arguments[1], sizeof message };

	if (call->number == SYS_recvfrom)
		return arguments[1];
	if (process_vm_readv(pid, &here, 1, &there, 1, 0) != sizeof message)
		return 0;
	here = (struct iovec){ &vector, sizeof vector };
	there = (struct iovec){ message.msg_iov, sizeof vector };
	return process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof vector ? (uint64_t)(unsigned long)vector.iov_base : 0;
}

struct receiving {
	pid_t pid;
	uint64_t buffer;
} receivers[64];

static struct receiving *receiver(pid_t pid)
{
	for (size_t i = 0; i < sizeof receivers / sizeof *receivers; i++)
		if (receivers[i].pid == pid)
			return &receivers[i];
	return NULL;
}

static void note(pid_t pid)
{
	for (int i = 0; i < number_known; i++)
		if (known[i] == pid)
			return;
	if (number_known < (int)(sizeof known / sizeof *known))
		known[number_known++] = pid;
}

/* Returns the ptrace request with which the process goes on. */
static int entered(pid_t pid)
{
	struct __ptrace_syscall_info info;
	if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0)
		return PTRACE_CONT;
	const struct call *call = find((long)info.seccomp.nr);
	if (!call || !counts(call, info.seccomp.args))
		return PTRACE_CONT;
	/* the dynamic linker and the interpreter do not take a signal while they start, and nobody catches one then */
	if (wanted_class & WAIT && !has_begun) {
		if (pid != root || call->number != SYS_read || info.seccomp.args[0] != STDIN_FILENO)
			return PTRACE_CONT;
		has_begun = 1;
	}
	if (pid == root ? !strcmp(action, "child") : !strcmp(action, "own") || !strcmp(action, "spoil"))
		return PTRACE_CONT;
	if (!strcmp(action, "interrupt")) {
		struct receiving *free = receiver(0);
		if (pid == root && call->class == RECEIVE && free && dumps_to_mark > 0) {
			*free = (struct receiving){ pid, buffer_of(pid, call, info.seccomp.args) };
			return PTRACE_SYSCALL;
		}
		return PTRACE_CONT;
	}
	seen++;
	fprintf(report, "%s %s\n", pid == root ? "plugin" : "child", call->name);
	fflush(report);
	if (seen != strike_at)
		return PTRACE_CONT;
	if (!strcmp(action, "error") || !strcmp(action, "own")) {
		refuse(pid, error_number);
	} else if (!strcmp(action, "spoil")) {
		if (call->number == SYS_sendto)
			spoil(pid, info.seccomp.args[1], info.seccomp.args[2]);
	} else if (!strcmp(action, "plugin")) {
		kill(root, SIGKILL);
	} else if (!strcmp(action, "signal")) {
		kill(root, error_number);
	} else if (!strcmp(action, "child")) {
		kill(pid, SIGKILL);
	} else if (!strcmp(action, "tree")) {
		for (int i = 0; i < number_known; i++)
			kill(known[i], SIGKILL);
	}
	return PTRACE_CONT;
}

static int left(pid_t pid)
{
	struct receiving *mine = receiver(pid);
	struct __ptrace_syscall_info info;

	if (mine && ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0 && info.op == PTRACE_SYSCALL_INFO_EXIT) {
		if (!info.exit.is_error && mark_interrupted(pid, mine->buffer, info.exit.rval)) {
			dumps_to_mark--;
			fprintf(report, "plugin marked\n");
			fflush(report);
		}
		mine->pid = 0;
		return PTRACE_CONT;
	}
	return mine ? PTRACE_SYSCALL : PTRACE_CONT;
}

int main(int argc, char **argv)
{
	int status, root_status = 0;
	long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK |
		       PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;

	if (argc < 7)
		return fputs("stepper REPORT CLASS NUMBER ACTION ERRNO COMMAND...\n", stderr), 125;
	report_path = argv[1];
	wanted_class = atoi(argv[2]);
	strike_at = dumps_to_mark = atoi(argv[3]);
	action = argv[4];
	error_number = atoi(argv[5]);
	report = fopen(report_path, "we");
	if (!report)
		die(report_path);
	root = fork();
	if (root < 0)
		die("fork");
	if (!root) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		install_filter();
		execv(argv[6], argv + 6);
		die(argv[6]);
	}
	if (waitpid(root, &status, 0) < 0 || ptrace(PTRACE_SETOPTIONS, root, NULL, options))
		die("ptrace");
	ptrace(PTRACE_CONT, root, NULL, 0);
	for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
		int how = PTRACE_CONT, signal = 0;
		if (pid < 0)
			continue;
		if (!WIFSTOPPED(status)) {
			if (pid == root)
				root_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			continue;
		}
		note(pid); /* before it runs: a child is stopped when it is born */
		if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
			how = entered(pid);
		else if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			how = left(pid);
		else if (status >> 16 == 0 && WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP)
			signal = WSTOPSIG(status);
		ptrace(how, pid, NULL, signal);
	}
	return root_status;
}
