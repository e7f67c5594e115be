/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locals that release themselves at the end of their scope.
 *
 *     auto_free char *path = xasprintf("%s/%s", dir, name);
 *     auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
 *     ...
 *     return TAKE(path);            // hands over: the local becomes NULL
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *pointer)
{
    free(*(void **)pointer);
}

static inline void cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

#define auto_free __attribute__((cleanup(cleanup_free)))
#define auto_close __attribute__((cleanup(cleanup_close)))

/* Yields the value of a pointer variable and leaves NULL in it. */
#define TAKE(pointer)                                                                                                  \
    ({                                                                                                                 \
        __typeof__(pointer) take_value = (pointer);                                                                    \
        (pointer) = NULL;                                                                                              \
        take_value;                                                                                                    \
    })

/* The same for a file descriptor, which becomes -1. */
#define TAKE_FD(fd)                                                                                                    \
    ({                                                                                                                 \
        int take_fd = (fd);                                                                                            \
        (fd) = -1;                                                                                                     \
        take_fd;                                                                                                       \
    })

#endif
