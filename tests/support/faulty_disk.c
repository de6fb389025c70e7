/* Preloaded into a real process: makes its disk fail or stall, as a page of control words says at that moment.
 *
 * FAULTY_DISK names a file of 64 bytes that the test maps too. Only files whose path holds FAULTY_NAME are met.
 *   word 0  errno of the next fdatasync/fsync; cleared when it was given, unless word 1 is set
 *   word 1  keep failing syncs
 *   word 2  microseconds that each sync takes longer
 *   word 3  most bytes that one pwrite writes (short writes); 0: all
 *   word 4  how many of the coming pwrites are interrupted (EINTR) before one works
 *   word 5  errno of each open for reading; 0: none
 *   word 6  counts the syncs that were met, 7 the failed ones, 8 the interrupted or short writes, 9 the refused opens
 *   word 10 errno of each pwrite; 0: none
 *   word 11 microseconds that each sync takes to return once it is done, word 12 counts the done ones
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static volatile int32_t *words;
static const char *name;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTY_DISK");
    name = getenv("FAULTY_NAME");
    if (!path || !name) return;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) abort();
    void *page = mmap(NULL, 64, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) abort();
    words = page;
    close(fd);
}

static int met(int fd) {
    char link[64], path[4096];
    if (!words) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return strstr(path, name) != NULL;
}

static int sync_with(int fd, const char *call) {
    int (*real)(int) = dlsym(RTLD_NEXT, call);
    if (!met(fd)) return real(fd);
    __atomic_add_fetch(&words[6], 1, __ATOMIC_SEQ_CST);
    if (words[2]) {
        struct timespec rest = {words[2] / 1000000, (words[2] % 1000000) * 1000L};
        nanosleep(&rest, NULL);
    }
    int code = words[0];
    if (code) {
        if (!words[1]) words[0] = 0;
        __atomic_add_fetch(&words[7], 1, __ATOMIC_SEQ_CST);
        errno = code;
        return -1;
    }
    int result = real(fd);
    __atomic_add_fetch(&words[12], 1, __ATOMIC_SEQ_CST);
    if (words[11]) {
        struct timespec rest = {words[11] / 1000000, (words[11] % 1000000) * 1000L};
        nanosleep(&rest, NULL);
    }
    return result;
}

int fdatasync(int fd) { return sync_with(fd, "fdatasync"); }
int fsync(int fd) { return sync_with(fd, "fsync"); }

static ssize_t write_with(int fd, const void *data, size_t size, off_t at, const char *call) {
    ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, call);
    if (!words || !met(fd)) return real(fd, data, size, at);
    if (words[10]) {
        errno = words[10];
        return -1;
    }
    if (words[4] > 0) {
        words[4]--;
        __atomic_add_fetch(&words[8], 1, __ATOMIC_SEQ_CST);
        errno = EINTR;
        return -1;
    }
    if (words[3] > 0 && size > (size_t)words[3]) {
        size = (size_t)words[3];
        __atomic_add_fetch(&words[8], 1, __ATOMIC_SEQ_CST);
    }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return write_with(fd, data, size, at, "pwrite"); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return write_with(fd, data, size, at, "pwrite64"); }

static int open_with(const char *call, const char *path, int flags, mode_t mode) {
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, call);
    if (words && words[5] && !(flags & O_CREAT) && strstr(path, name)) {
        __atomic_add_fetch(&words[9], 1, __ATOMIC_SEQ_CST);
        errno = words[5];
        return -1;
    }
    return real(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_with("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_with("open64", path, flags, mode);
}
