/* A child that writes one file from the memory of its parent as it was, and ends.
 *
 *   parent: signals off ─▶ clone ─▶ signals on            child: no signals of the parent's, no files but its own,
 *                                                           write, fdatasync, _exit(errno)
 *
 * The child has one thread, and whatever lock another thread of the parent held is held in it for ever: so it runs
 * nothing but system calls and `write`, which keeps to the same. It is made by the bare system call, for the handlers
 * that libraries hang on fork() (stop a thread pool, take the heap's locks) would lengthen the parent's pause for nothing.
 */
#ifndef BYLINE_FORK_H
#define BYLINE_FORK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "engine/stream.h"

typedef void (*WriteBody)(void *context, Stream *out);

/* The child dies with its parent: a lock that both hold must not outlive the parent, and the half file is of no use. */
static inline int fork_detach(pid_t parent, int descriptor) {
    struct sigaction action;
    struct rlimit none = {0, 0};
    cpu_set_t all;
    int number, file;
    memset(&action, 0, sizeof action);
    for (number = 1; number < NSIG; number++) {
        action.sa_handler = number == SIGINT || number == SIGPIPE || number == SIGXFSZ ? SIG_IGN : SIG_DFL;
        sigaction(number, &action, NULL); /* of some it cannot be set: those are default already */
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) return ECHILD;
    setrlimit(RLIMIT_CORE, &none); /* a core file would be as large as the parent */
    file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file >= 0) { /* out of memory, the snapshot goes before the exchange */
        ssize_t ignored = write(file, "1000", 4);
        (void)ignored;
    }
    /* Sockets, locks and epoll sets of the parent. */
    if ((descriptor > 0 && syscall(SYS_close_range, 0, descriptor - 1, 0))
        || syscall(SYS_close_range, descriptor + 1, ~0U, 0)) {
        struct rlimit most;
        if (getrlimit(RLIMIT_NOFILE, &most)) return errno;
        for (rlim_t other = 0; other < most.rlim_cur; other++)
            if ((int)other != descriptor) close((int)other);
    }
    /* A parent pinned to one core must not share it with the child. Both are favours, not needs. */
    memset(&all, 0xFF, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    setpriority(PRIO_PROCESS, 0, 10);
    return 0;
}

/* Fork a child that has `write` put the body at `offset` of the file, with its SHA-256 behind it, and makes it durable.
 * Returns its pid; its exit status is 0 or an errno. -1: there is no child, errno says why. */
static inline pid_t fork_writer(int descriptor, uint64_t offset, WriteBody body, void *context) {
    sigset_t all, before;
    Stream out;
    pid_t parent = getpid(), child;
    int error;
    sigfillset(&all);
    if ((error = pthread_sigmask(SIG_SETMASK, &all, &before))) {
        errno = error;
        return -1;
    }
    child = (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, 0UL, 0UL, 0UL, 0UL);
    if (child == 0) {
        error = fork_detach(parent, descriptor);
        sigemptyset(&all);
        pthread_sigmask(SIG_SETMASK, &all, NULL);
        if (!error) error = stream_open(&out, descriptor, offset);
        if (!error) {
            body(context, &out);
            error = stream_finish(&out);
        }
        if (!error && fdatasync(descriptor)) error = errno;
        _exit(error);
    }
    error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return child;
}

#endif
