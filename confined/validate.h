/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this answer one that an honest worker could give? Pure functions: no state, no memory, nothing is followed. What
 * passes may be used without another look; what does not pass is a lie, and the error names it.
 */
#ifndef CONFINED_VALIDATE_H
#define CONFINED_VALIDATE_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"
#include "confined/protocol.h"

/* What the owner knows for itself. */
struct confined_limits {
    uint64_t file_size;
    uint64_t size; /* of the guest's disk, as it was told (and accepted) at OPEN; 0 before */
};

/* `length`: bytes received. */
bool confined_validate(const struct confined_question *question, const struct confined_answer *answer, size_t length,
                       const struct confined_limits *limits, struct error *err);

/* Text that people and log files may see: UTF-8 without control characters, ended within `size`. */
bool confined_validate_text(const char *text, size_t size);

#endif
