/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of `io`, a tool that sends single requests to an image: for tests, and for looking at what a format
 * does.
 *
 * A command is a row with its options, its number of arguments and a function, which runs in the one main coroutine and
 * returns whether it succeeded; the program's exit status tells whether all of them did. aio_* commands start a
 * coroutine and return; it prints its result when it is done, and a failure is one of the next aio_flush, or of the
 * program's end.
 */
#ifndef IMAGE_TOOLS_IO_IO_H
#define IMAGE_TOOLS_IO_IO_H

#include "base/co.h"
#include "base/math.h"
#include "block/request.h"
#include "image-tools/options.h"
#include "image-tools/tool.h"

struct io {
    struct tool *tool;
    struct edge *edge; /* the open image, or NULL */
    bool read_only;
    bool misalign; /* give the request path buffers that direct I/O cannot use */
    bool quit;
    struct co_group requests; /* aio_* in flight */
    bool request_failed;      /* one of them, since the last aio_flush */
};

struct io_command {
    const char *name, *alias; /* alias may be NULL */
    const char *arguments;    /* behind the options: "OFFSET LENGTH" */
    const char *summary;
    const char *details; /* may be NULL */
    const struct tool_option *options;
    size_t values_size;
    int min_arguments, max_arguments; /* max -1: any number */
    bool needs_image, writes;
    bool (*run)(struct io *io, void *values, const struct texts *arguments);
};

extern const struct tool_option io_no_options[];
extern const struct io_command *const io_commands[]; /* ends with NULL */

extern const struct io_command io_read, io_write, io_readv, io_writev;
extern const struct io_command io_aio_read, io_aio_write, io_aio_discard, io_aio_flush;
extern const struct io_command io_flush, io_discard, io_length, io_truncate, io_map, io_alloc, io_info;
extern const struct io_command io_open, io_close, io_help, io_quit, io_sleep, io_reopen, io_abort, io_sigraise;
extern const struct io_command io_break, io_remove_break, io_resume, io_wait_break;
extern const struct io_command io_zone_append, io_zone_close, io_zone_finish, io_zone_open, io_zone_report,
    io_zone_reset;

/* Runs one line. false: it failed, and said why. YIELDS. */
bool io_run_line(struct io *io, const char *line);

/* How an image is opened: program options and those of the command `open`. */
struct io_open_options {
    const char *format, *aio, *cache, *discard;
    struct texts options; /* -o */
    bool read_only, snapshot, no_cache, native_aio, force_share, image_opts, copy_on_read;
};
/* `path` may be NULL when the options name the file. false: said why. YIELDS. */
bool io_open_image(struct io *io, const struct io_open_options *options, const char *path);
void io_close_image(struct io *io); /* waits for requests in flight. YIELDS */

/* Arguments. false: said why. */
bool io_number(const char *text, uint64_t *value);
bool io_request_length(const char *text, uint64_t *length); /* limited to what one request can have */
bool io_pattern(const char *text, int *pattern);

/* Results ("wrote 512/512 bytes at offset 0" and the rate), as text filters of tests know them. */
struct io_timing {
    uint64_t start_ns, end_ns;
};
void io_report(const char *verb, const struct io_timing *timing, uint64_t offset, uint64_t asked, uint64_t done,
               bool machine_readable);
void io_failed(const char *verb, int error);
void io_dump(const uint8_t *buffer, uint64_t offset, uint64_t length);
/* "64 KiB", "1.500 KiB", "0 bytes". */
#define IO_SIZE_MAX 64
const char *io_format_size(char text[IO_SIZE_MAX], double value);

#endif
