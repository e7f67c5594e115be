/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output as the place of an image: '-' on the command line. Bytes come and go in order. System calls
 * that could wait are made by a worker thread, so that the rest of the program goes on. All functions YIELD and return
 * 0 or -errno, except where it says otherwise.
 */
#ifndef IMAGE_TOOLS_IMG_STREAM_H
#define IMAGE_TOOLS_IMG_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define STREAM_NAME "-"
bool stream_is_meant(const char *name);

struct stream {
    int fd;
    uint64_t position; /* bytes that went through */
    bool can_seek;     /* output: a regular file that ends here. Zeroes become holes */
    bool in_hole;
    bool knows_size; /* input: a regular file */
    uint64_t size;
};

void stream_open_input(struct stream *stream);                     /* does not yield */
bool stream_open_output(struct stream *stream, struct error *err); /* refuses a terminal. Does not yield */

/* As many bytes as were asked for, but at the end of the input. Or -errno. */
int64_t stream_read(struct stream *stream, void *buffer, size_t length);
int stream_skip(struct stream *stream, uint64_t length); /* reads and forgets; -ENODATA when there is not that much */
int stream_write(struct stream *stream, const void *buffer, size_t length);
int stream_write_zeroes(struct stream *stream, uint64_t length);
int stream_finish(struct stream *stream); /* a file ends where the last hole does */

#endif
