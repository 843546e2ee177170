/* Moves CLOCK_BOOTTIME for the process that it is preloaded into: by as many seconds as stand in the file of
 * FAKE_BOOT_CLOCK (eight bytes, this machine's order), from the moment that they are written there.
 *
 * A suspended machine's boot-time clock goes on while the monotonic one stands still. Overriding clock_gettime of the C
 * library does not do it here: the sidecar asks the kernel itself, through the vDSO. So the vDSO is left out of what
 * the program is told of its start, and the system calls that it makes instead are trapped and answered here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#define ARGUMENT_0(context) ((context)->uc_mcontext.gregs[REG_RDI])
#define ARGUMENT_1(context) ((context)->uc_mcontext.gregs[REG_RSI])
#define ARGUMENT_2(context) ((context)->uc_mcontext.gregs[REG_RDX])
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#define ARGUMENT_0(context) ((context)->uc_mcontext.regs[0])
#define ARGUMENT_1(context) ((context)->uc_mcontext.regs[1])
#define ARGUMENT_2(context) ((context)->uc_mcontext.regs[2])
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#else
#error "not known: how system calls are answered here"
#endif

#define GET_AUXV 0x41555856u
#define VDSO 33
#define IGNORED 1
/* A third argument that clock_gettime does not have: the call is ours. */
#define OURS 0x600dc10cu

static volatile int64_t *moved_by;
static unsigned long auxv[128];
static size_t auxv_size;

static void answer(int signal, siginfo_t *info, void *raw) {
    ucontext_t *context = raw;
    (void)signal;
    if (info->si_syscall == SYS_prctl) {
        size_t room = ARGUMENT_2(context);
        memcpy((void *)ARGUMENT_1(context), auxv, room < auxv_size ? room : auxv_size);
        RESULT(context) = (long)auxv_size;
        return;
    }
    struct timespec *time = (struct timespec *)ARGUMENT_1(context);
    int before = errno;
    long result = syscall(SYS_clock_gettime, CLOCK_BOOTTIME, time, OURS);
    errno = before;
    if (result == 0)
        time->tv_sec += *moved_by;
    RESULT(context) = result;
}

static void fail(const char *what) {
    perror(what);
    _exit(70);
}

static void read_auxv(void) {
    int file = open("/proc/self/auxv", O_RDONLY | O_CLOEXEC);
    ssize_t count = file < 0 ? -1 : read(file, auxv, sizeof auxv);
    if (count <= 0)
        fail("the boot clock cannot be moved: /proc/self/auxv");
    close(file);
    auxv_size = (size_t)count;
    for (size_t at = 0; at + 1 < auxv_size / sizeof auxv[0]; at += 2)
        if (auxv[at] == VDSO)
            auxv[at] = IGNORED;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAKE_BOOT_CLOCK");
    if (path == NULL)
        return;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved_by, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        fail("the boot clock cannot be moved: its file");
    close(file);
    moved_by = memory;
    read_auxv();

    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGSYS, &action, NULL) != 0)
        fail("the boot clock cannot be moved: sigaction");
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define UNLESS(value, skipped) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skipped)
    struct sock_filter filter[] = {
        LOAD(arch), UNLESS(ARCH, 10),
        LOAD(nr), UNLESS(SYS_clock_gettime, 4),
        LOAD(args[0]), UNLESS(CLOCK_BOOTTIME, 6),
        LOAD(args[2]), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 4, 3),
        UNLESS(SYS_prctl, 3),
        LOAD(args[0]), UNLESS(GET_AUXV, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    /* The last one in: what comes before it would be trapped. Threads do not exist yet. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        fail("the boot clock cannot be moved: seccomp");
}
