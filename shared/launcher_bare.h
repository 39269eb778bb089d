/* The few functions of libc that launcher.c calls, for a program without libc.
 *
 * Before main, a static program of glibc executes dozens of CPUID instructions, each of which leaves a virtual machine,
 * and relocates itself. That takes several times as long as all that the launcher does.
 *
 * Types and constants are those of libc's headers. The build with libc shows that the arguments have the right types. */
#include <sys/syscall.h>
#include <time.h>

enum { MASK_BYTES = 8 }; /* of the kernel's signal mask; libc's type is longer */

int main(int count, char **words);
char **environ;
static int last_error;
#undef errno
#define errno last_error

/* -- the machine: its first instructions, a system call, and the return from a signal's handler */

#if defined __x86_64__ && defined __LP64__

__asm__(".text\n"
	".globl _start\n"
	"_start: mov %rsp, %rdi\n"
	"	call start_bare\n"
	"end_handler: mov $15, %eax\n" /* rt_sigreturn */
	"	syscall\n");
void end_handler(void);
#define END_HANDLER end_handler
#define END_HANDLER_FLAG 0x04000000 /* SA_RESTORER, which the headers hide */

static long enter_kernel(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "+a"(number)
			 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return number;
}

#elif defined __aarch64__ && defined __LP64__

__asm__(".text\n"
	".globl _start\n"
	"_start: mov x0, sp\n"
	"	bl start_bare\n");
#define END_HANDLER NULL /* the kernel has the instructions */
#define END_HANDLER_FLAG 0

static long enter_kernel(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
		      x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}

#else
#error "this machine needs the launcher with libc"
#endif

/* -- system calls; missing arguments are 0 */

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	long result = enter_kernel(number, a, b, c, d, e, f);

	if (result < 0)
		last_error = (int)-result;
	return result < 0 ? -1 : result;
}

#define CALL(...) CALL_WITH(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_WITH(number, a, b, c, d, e, f, ...) \
	call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

#define access(...) CALL(SYS_faccessat, AT_FDCWD, __VA_ARGS__)
#define close(...) CALL(SYS_close, __VA_ARGS__)
#define connect(...) CALL(SYS_connect, __VA_ARGS__)
#define execve(...) CALL(SYS_execve, __VA_ARGS__)
#define getsockopt(...) CALL(SYS_getsockopt, __VA_ARGS__)
#define open(...) (int)CALL(SYS_openat, AT_FDCWD, __VA_ARGS__)
#define recv(...) CALL(SYS_recvfrom, __VA_ARGS__)
#define sendmsg(...) CALL(SYS_sendmsg, __VA_ARGS__)
#define shutdown(...) CALL(SYS_shutdown, __VA_ARGS__)
#define sigfillset(set) memset(set, 0xff, MASK_BYTES)
#define sigprocmask(...) CALL(SYS_rt_sigprocmask, __VA_ARGS__, MASK_BYTES)
#define socket(...) (int)CALL(SYS_socket, __VA_ARGS__)
#define write(...) CALL(SYS_write, __VA_ARGS__)

/* A negative time waits without limit. */
static int poll_bare(struct pollfd *files, nfds_t number, int milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000L };

	return (int)CALL(SYS_ppoll, files, number, milliseconds < 0 ? NULL : &time);
}
#define poll poll_bare

static sighandler_t signal_bare(int number, sighandler_t handler)
{
	struct kernel_sigaction {
		sighandler_t handler;
		unsigned long flags;
		void (*end_handler)(void);
		unsigned long mask;
	} wanted = { handler, SA_RESTART | END_HANDLER_FLAG, END_HANDLER, 0 }, former;

	return CALL(SYS_rt_sigaction, number, &wanted, &former, MASK_BYTES) ? SIG_ERR : former.handler;
}
#define signal signal_bare

static _Noreturn void exit_bare(int status)
{
	for (;;)
		CALL(SYS_exit_group, status);
}
#define _exit exit_bare

/* The code before main: the stack has the number of arguments, these, NULL, and the environment. */
__attribute__((used)) static _Noreturn void start_bare(char **stack)
{
	environ = stack + (intptr_t)*stack + 2;
	_exit(main((int)(intptr_t)*stack, stack + 1));
}

/* -- strings; volatile, since compilers replace such loops by calls of memcpy, memset and strlen: of this very function */

void *memcpy(void *restrict target, const void *restrict source, size_t length)
{
	volatile char *to = target;

	for (const char *from = source; length; length--)
		*to++ = *from++;
	return target;
}

void *memset(void *target, int byte, size_t length)
{
	for (volatile char *to = target; length; length--)
		*to++ = (char)byte;
	return target;
}

size_t strlen(const char *string)
{
	const volatile char *end = string;

	while (*end)
		end++;
	return (size_t)(end - string);
}

int strcmp(const char *one, const char *other)
{
	for (; *one && *one == *other; one++)
		other++;
	return *one - *other;
}

char *stpcpy(char *restrict target, const char *restrict source)
{
	while ((*target = *source++))
		target++;
	return target;
}

/* The words of libc for the errors of access and execve that a user may mend; others by their numbers. */
char *strerror(int number)
{
	static const char *const words[] = {
		[ENOENT] = "No such file or directory", [ENOTDIR] = "Not a directory", [EACCES] = "Permission denied",
		[EPERM] = "Operation not permitted", [ELOOP] = "Too many levels of symbolic links", [EIO] = "Input/output error",
		[ENAMETOOLONG] = "File name too long", [E2BIG] = "Argument list too long", [ENOEXEC] = "Exec format error",
		[ENOMEM] = "Cannot allocate memory", [EMFILE] = "Too many open files", [ETXTBSY] = "Text file busy",
	};
	static char text[64];
	char *end = stpcpy(text, "error 0000");

	if (number < (int)(sizeof words / sizeof *words) && words[number])
		stpcpy(text, words[number]);
	else
		for (; number; number /= 10)
			*--end = (char)('0' + number % 10);
	return text;
}
