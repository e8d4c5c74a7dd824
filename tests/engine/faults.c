/* Preloaded into a process: counts the calls that change files below a folder, and fails the n-th of them.
 *
 * BEFORE: the process is gone before the call; AFTER: right after it; TORN: a write is done by half, then it is gone;
 * FULL: from the n-th call on nothing can be written or made (ENOSPC), what removes still works.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, BEFORE, AFTER, TORN, FULL };
enum { KILLED = 77, FDS = 4096 };

static char below[1024];
static int mode = OFF;
static long wanted;
static atomic_long calls;
static char ours[FDS];

void fault_arm(const char *folder, long n, int how) {
    snprintf(below, sizeof below, "%s", folder);
    wanted = n;
    atomic_store(&calls, 0);
    mode = how;
}

long fault_count(void) { return atomic_load(&calls); }

static void gone(void) { syscall(SYS_exit_group, KILLED); }

static int inside(const char *path) { return mode != OFF && path && strstr(path, below) != NULL; }

static int mine(int fd) { return mode != OFF && fd >= 0 && fd < FDS && ours[fd]; }

/* Count one call; tell whether it is to be refused. */
static int refused(int makes) {
    long n = atomic_fetch_add(&calls, 1) + 1;
    if (mode == BEFORE && n == wanted) gone();
    if (mode == FULL && n >= wanted && makes) {
        errno = ENOSPC;
        return 1;
    }
    return 0;
}

static void done(void) {
    if (mode == AFTER && atomic_load(&calls) >= wanted) gone();
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define CALL(type, name, params, args, where, makes)                                                                   \
    type name params {                                                                                                 \
        static __typeof__(&name) next;                                                                                 \
        if (!next) next = NEXT(name);                                                                                  \
        if (!(where)) return next args;                                                                                \
        if (refused(makes)) return -1;                                                                                 \
        type out = next args;                                                                                          \
        done();                                                                                                        \
        return out;                                                                                                    \
    }

CALL(int, rename, (const char *a, const char *b), (a, b), inside(a) || inside(b), 1)
CALL(int, renameat, (int x, const char *a, int y, const char *b), (x, a, y, b), inside(a) || inside(b), 1)
CALL(int, link, (const char *a, const char *b), (a, b), inside(a) || inside(b), 1)
CALL(int, linkat, (int x, const char *a, int y, const char *b, int f), (x, a, y, b, f), inside(a) || inside(b), 1)
CALL(int, unlink, (const char *a), (a), inside(a), 0)
CALL(int, unlinkat, (int x, const char *a, int f), (x, a, f), inside(a), 0)
CALL(int, mkdir, (const char *a, mode_t m), (a, m), inside(a), 1)
CALL(int, rmdir, (const char *a), (a), inside(a), 0)
CALL(int, fsync, (int fd), (fd), mine(fd), 0)
CALL(int, fdatasync, (int fd), (fd), mine(fd), 0)
CALL(int, ftruncate, (int fd, off_t n), (fd, n), mine(fd), 0)
CALL(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), mine(fd), 1)

#define WRITE(name, params, args, half)                                                                                \
    ssize_t name params {                                                                                              \
        static __typeof__(&name) next;                                                                                 \
        if (!next) next = NEXT(name);                                                                                  \
        if (!mine(fd)) return next args;                                                                               \
        if (refused(1)) return -1;                                                                                     \
        if (mode == TORN && atomic_load(&calls) == wanted) {                                                           \
            next half;                                                                                                 \
            gone();                                                                                                    \
        }                                                                                                              \
        ssize_t out = next args;                                                                                       \
        done();                                                                                                        \
        return out;                                                                                                    \
    }

WRITE(write, (int fd, const void *p, size_t n), (fd, p, n), (fd, p, n / 2))
WRITE(pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), (fd, p, n / 2, at))
WRITE(pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at), (fd, p, n / 2, at))

static int opened(int fd, int ask) {
    if (fd >= 0 && fd < FDS) ours[fd] = (char)ask;
    return fd;
}

#define OPEN(name, params, args)                                                                                       \
    int name params {                                                                                                  \
        static int (*next) params;                                                                                     \
        if (!next) next = (int (*) params)dlsym(RTLD_NEXT, #name);                                                     \
        mode_t m = 0;                                                                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list list;                                                                                              \
            va_start(list, flags);                                                                                     \
            m = (mode_t)va_arg(list, int);                                                                             \
            va_end(list);                                                                                              \
        }                                                                                                              \
        int ask = inside(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC));                                   \
        if (ask && refused((flags & O_CREAT) != 0)) return -1;                                                         \
        int fd = opened(next args, ask);                                                                               \
        if (ask) done();                                                                                               \
        return fd;                                                                                                     \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, m))
OPEN(open64, (const char *path, int flags, ...), (path, flags, m))
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, m))
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, m))
