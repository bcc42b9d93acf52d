/* Hides AVX-512, VNNI, bf16 and AMX from the programs of this process: see as_avx2.py.
 *
 * Libraries ask the processor itself what it can, by the instruction CPUID, and no setting of theirs changes the answer.
 * as_avx2.py has put a breakpoint (INT3, NOP) in the place of each CPUID of their copies; this answers it. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

static void answer(int signal_number, siginfo_t *info, void *context)
{
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (*(unsigned char *)registers[REG_RIP] != 0x90) { /* another one's breakpoint */
        signal(signal_number, SIG_DFL);
        raise(signal_number);
        return;
    }
    unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* AVX-512 F to VL */
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));                /* VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25)); /* 4VNNIW to AMX and FP16 */
    }
    if (leaf == 7 && part == 1) {
        a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23)); /* AVX-VNNI, AVX-512 bf16, AMX fp16, AVX-IFMA */
        d = 0;                                       /* AVX-VNNI-INT8 and later */
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
}

__attribute__((constructor)) static void begin(void)
{
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTRAP, &action, NULL);
}

/* The system's table of what the processor can is a file: its copy has those words cut out. */
static const char *instead(const char *path)
{
    const char *copy = getenv("AS_AVX2_CPUINFO");
    return copy && path && strcmp(path, "/proc/cpuinfo") == 0 ? copy : path;
}

#define OPEN(name)                                                                   \
    int name(const char *path, int flags, ...)                                       \
    {                                                                                \
        va_list rest;                                                                \
        va_start(rest, flags);                                                       \
        const int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;      \
        va_end(rest);                                                                \
        return openat(AT_FDCWD, instead(path), flags, mode);                         \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name)                                                                  \
    FILE *name(const char *path, const char *mode)                                   \
    {                                                                                \
        FILE *(*original)(const char *, const char *) = dlsym(RTLD_NEXT, #name);     \
        return original(instead(path), mode);                                        \
    }
FOPEN(fopen)
FOPEN(fopen64)
