/* A machine whose resolver is away, for the process that this is preloaded into: a name that is no address is not
 * found. NO_NAMES names a file that grows by a byte for each that was looked up. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

typedef int Lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    Lookup *real = (Lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    struct addrinfo numeric = {0};
    if (hints) numeric = *hints;
    numeric.ai_flags |= AI_NUMERICHOST;
    int error = real(node, service, &numeric, found);
    if (error != EAI_NONAME || !node) return error;
    const char *path = getenv("NO_NAMES");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (file < 0 || write(file, "x", 1) != 1) abort();
    close(file);
    return EAI_AGAIN;
}
