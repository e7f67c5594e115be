/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures on order, for tests: "let the 17th write fail with EIO". Built in only with the CMake option SPINDLE_FAULTS,
 * as the dev preset has it; without it every function here is an empty inline one.
 *
 * Two environment variables:
 *
 *     SPINDLE_FAULT=KIND:N[+][:HOW]    KIND is a name of the table in fault.c; N counts from 1; "+": and all after it;
 *                                      HOW is EIO (default), ENOSPC, ENOMEM, EINTR, ..., "after:" and one of these (the
 *                                      work is done, but reported as failed), or "short" (a transfer moves less than it
 *                                      was asked to)
 *     SPINDLE_FAULT_LOG=PATH           a line is appended for each failure that happened, and at the end of the process
 *                                      one for each kind: how many operations there were
 *
 * tests/faults runs every operation of every program with each of its operations failing once. Nothing here yields;
 * all of it may be called from any thread.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_kind {
    FAULT_ALLOC,  /* the allocator that may fail, base/alloc.h */
    FAULT_XALLOC, /* the one that aborts */
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_SYNC,
    FAULT_FALLOCATE,
    FAULT_TRUNCATE,
    FAULT_COPY, /* copy_file_range(2) */
    FAULT_STAT,
    FAULT_SEEK, /* SEEK_DATA and SEEK_HOLE */
    FAULT_LOCK,
    FAULT_RECV,
    FAULT_SEND,
    FAULT_LISTEN,
    FAULT_ACCEPT,
    FAULT_CONNECT,
    FAULT_KINDS
};

#ifdef SPINDLE_FAULTS

/* What is to become of this operation: 0 in nearly all cases. */
struct fault {
    int error;     /* -errno: it fails with this */
    bool is_late;  /* ... after it was done */
    bool is_short; /* it moves less than it was asked to */
};
struct fault fault_next(enum fault_kind kind);

/* For operations that only succeed or fail. */
static inline int fault_error(enum fault_kind kind)
{
    return fault_next(kind).error;
}

#else

struct fault {
    int error;
    bool is_late, is_short;
};
static inline struct fault fault_next(enum fault_kind kind)
{
    return (struct fault){0};
}
static inline int fault_error(enum fault_kind kind)
{
    return 0;
}

#endif

/* FAULTY(WRITE, call): the value of `call`, or a failure in its place or after it. `call` is an expression of a signed
 * integer type that is negative on failure. */
#define FAULTY(kind, call)                                                                                             \
    ({                                                                                                                 \
        struct fault fault_ = fault_next(FAULT_##kind);                                                                \
        typeof(call) result_ = fault_.error && !fault_.is_late ? fault_.error : (call);                                \
        result_ >= 0 && fault_.error ? fault_.error : result_;                                                         \
    })

#endif
