/* SPDX-License-Identifier: Apache-2.0 */
/* Images that are written from the first byte to the last, as into a pipe. The idea is told in stream.c. */
#ifndef FORMATS_QCOW2_STREAM_H
#define FORMATS_QCOW2_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct qcow2_create_options;

/* A part of the disk that the image stores, in whole clusters but for the disk's end. */
struct qcow2_stream_run {
    uint64_t offset, length;
    bool is_zero; /* stored as zeroes, without data: over a backing file */
};

struct qcow2_stream {
    const struct qcow2_create_options *options;
    uint64_t size; /* of the disk */
    const struct qcow2_stream_run *runs;
    size_t count;
    /* Takes bytes of the image, in order. 0 or -errno. */
    int (*emit)(void *user, const void *data, size_t length);
    void *user;
};

/* Can an image with these options be written in order? The error names the option. */
bool qcow2_stream_check(const struct qcow2_create_options *options, struct error *err);

/* Everything in front of the data. The caller adds the data of all runs, in their order, and zeroes up to the end of
 * the last cluster. YIELDS if emit() does. */
bool qcow2_stream_head(const struct qcow2_stream *stream, struct error *err);

#endif
