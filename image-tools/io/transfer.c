/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read, write, readv, writev and their aio_ forms: one request each. All are described by a struct transfer, which is
 * built from the command line and then carried out, in place or in a coroutine of its own.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/loop.h"
#include "image-tools/io/io.h"

#define DEFAULT_PATTERN 0xcd
#define MISALIGNMENT 16
#define SECTOR 512

struct transfer_options {
    const char *pattern, *source; /* -P, and -s of write */
    const char *verify_start, *verify_length;
    bool machine_readable, quiet, verbose, fua, zero, unmap, no_fallback, compressed, ignored, vm_state, invalid;
};

struct transfer {
    struct io *io;
    bool is_write, is_async;
    bool machine_readable, quiet, verbose, zero, compressed;
    int pattern; /* -1: none */
    uint32_t flags;
    uint64_t offset, length;
    uint64_t verify_start, verify_length;
    uint8_t *allocation, *buffer;
    struct iovec *iov;
    unsigned iov_count;
};

static void transfer_free(struct transfer *transfer)
{
    free(transfer->allocation);
    free(transfer->iov);
    free(transfer);
}

static void transfer_cleanup(struct transfer **transfer)
{
    if (*transfer)
        transfer_free(*transfer);
}
#define auto_transfer __attribute__((cleanup(transfer_cleanup))) struct transfer

/* Building -------------------------------------------------------------------------------------------------------- */

static bool allocate(struct transfer *transfer)
{
    size_t shift = transfer->io->misalign ? MISALIGNMENT : 0;
    transfer->allocation = try_aligned_alloc(4096, MAX(transfer->length, (uint64_t)1) + shift);
    if (!transfer->allocation) {
        printf("out of memory for a buffer of %" PRIu64 " bytes\n", transfer->length);
        return false;
    }
    transfer->buffer = transfer->allocation + shift;
    return true;
}

/* Repeats the content of a file over the buffer. */
static bool fill_from_file(struct transfer *transfer, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    size_t have = fread(transfer->buffer, 1, transfer->length, file);
    bool ok = have && !ferror(file);
    fclose(file);
    if (!ok) {
        fprintf(stderr, "%s: could not read anything from it\n", path);
        return false;
    }
    for (uint64_t at = have; at < transfer->length; at += have)
        memcpy(transfer->buffer + at, transfer->buffer, MIN((uint64_t)have, transfer->length - at));
    return true;
}

static bool fill(struct transfer *transfer, const struct transfer_options *options)
{
    if (options->source)
        return fill_from_file(transfer, options->source);
    int byte = transfer->is_write && transfer->pattern < 0 ? DEFAULT_PATTERN : transfer->pattern;
    memset(transfer->buffer, transfer->is_write ? byte : DEFAULT_PATTERN, transfer->length);
    return true;
}

/* Offset, then one length or several, each of which becomes an element of the vector. */
static bool read_place(struct transfer *transfer, const struct texts *arguments)
{
    if (!io_number(arguments->items[0], &transfer->offset))
        return false;
    transfer->iov = new_array(struct iovec, arguments->count - 1);
    for (size_t i = 1; i < arguments->count; i++) {
        uint64_t length;
        if (!io_request_length(arguments->items[i], &length))
            return false;
        transfer->iov[transfer->iov_count++].iov_len = length;
        transfer->length += length;
        if (!transfer->zero && transfer->length > INT32_MAX) {
            printf("the lengths together are too large\n");
            return false;
        }
    }
    return true;
}

static void place_vector(struct transfer *transfer)
{
    uint8_t *at = transfer->buffer;
    for (unsigned i = 0; i < transfer->iov_count; i++) {
        transfer->iov[i].iov_base = at;
        at += transfer->iov[i].iov_len;
    }
}

static bool check_write_options(const struct transfer_options *options)
{
    if ((options->zero != 0) + (options->pattern != NULL) + (options->source != NULL) > 1)
        printf("Only one of -z, -P, and -s can be specified at the same time\n");
    else if (options->no_fallback && !options->zero)
        printf("-n requires -z to be specified\n");
    else if (options->unmap && !options->zero)
        printf("-u requires -z to be specified\n");
    else if (options->vm_state && options->zero)
        printf("-b and -z cannot be specified at the same time\n");
    else if (options->compressed && options->zero)
        printf("-c and -z cannot be specified at the same time\n");
    else
        return true;
    return false;
}

static bool check_verify_options(const struct transfer_options *options, struct transfer *transfer)
{
    transfer->verify_length = transfer->length;
    if ((options->verify_start || options->verify_length) && !options->pattern) {
        printf("-s and -l only make sense with -P\n");
        return false;
    }
    if (options->verify_start && !io_number(options->verify_start, &transfer->verify_start))
        return false;
    if (options->verify_length && !io_number(options->verify_length, &transfer->verify_length))
        return false;
    if (!options->verify_length && transfer->verify_start <= transfer->length)
        transfer->verify_length = transfer->length - transfer->verify_start;
    if (span_fits(transfer->verify_start, transfer->verify_length, transfer->length))
        return true;
    printf("pattern verification range exceeds end of read data\n");
    return false;
}

static bool check_compressed(const struct transfer *transfer, const struct texts *arguments)
{
    if (!transfer->compressed || (is_aligned(transfer->offset, SECTOR) && is_aligned(transfer->length, SECTOR)))
        return true;
    bool is_offset = !is_aligned(transfer->offset, SECTOR);
    printf("%s is not a sector-aligned value for '%s'\n", arguments->items[is_offset ? 0 : 1],
           is_offset ? "offset" : "count");
    return false;
}

static struct transfer *build(struct io *io, bool is_write, const struct transfer_options *options,
                              const struct texts *arguments)
{
    auto_transfer *transfer = new (struct transfer);
    transfer->io = io;
    transfer->is_write = is_write;
    transfer->machine_readable = options->machine_readable;
    transfer->quiet = options->quiet;
    transfer->verbose = options->verbose;
    transfer->zero = options->zero;
    transfer->compressed = options->compressed;
    transfer->pattern = -1;
    transfer->flags = (options->fua ? (uint32_t)REQUEST_FUA : 0) | (options->unmap ? (uint32_t)REQUEST_MAY_UNMAP : 0) |
                      (options->no_fallback ? (uint32_t)REQUEST_NO_FALLBACK : 0) |
                      (options->compressed ? (uint32_t)REQUEST_COMPRESSED : 0);
    if (is_write && !check_write_options(options))
        return NULL;
    if (options->pattern && !io_pattern(options->pattern, &transfer->pattern))
        return NULL;
    if (!read_place(transfer, arguments) || !check_compressed(transfer, arguments))
        return NULL;
    if (!is_write && !check_verify_options(options, transfer))
        return NULL;
    if (!transfer->zero) {
        if (!allocate(transfer) || !fill(transfer, options))
            return NULL;
        place_vector(transfer);
    }
    return TAKE(transfer);
}

/* Carrying out ---------------------------------------------------------------------------------------------------- */

static int request(struct transfer *transfer)
{
    struct edge *edge = transfer->io->edge;
    struct buffers buffers = buffers_of(transfer->iov, transfer->iov_count);
    if (transfer->zero)
        return block_zero(edge, transfer->offset, transfer->length, transfer->flags);
    if (transfer->is_write)
        return block_write(edge, transfer->offset, transfer->length, buffers, transfer->flags);
    return block_read(edge, transfer->offset, transfer->length, buffers, 0);
}

static bool verify(const struct transfer *transfer)
{
    if (transfer->is_write || transfer->pattern < 0)
        return true;
    for (uint64_t i = 0; i < transfer->verify_length; i++) {
        if (transfer->buffer[transfer->verify_start + i] == transfer->pattern)
            continue;
        printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes\n",
               transfer->offset + transfer->verify_start, transfer->verify_length);
        return false;
    }
    return true;
}

static bool carry_out(struct transfer *transfer)
{
    const char *async = transfer->is_async ? "aio_" : "";
    struct loop *loop = transfer->io->tool->loop;
    struct io_timing timing = {.start_ns = loop_now_ns(loop)};
    int result = request(transfer);
    timing.end_ns = loop_now_ns(loop);
    if (result < 0) {
        auto_free char *verb = xasprintf("%s%s", async, transfer->is_write ? "write" : "read");
        io_failed(verb, result);
        return false;
    }
    bool good = verify(transfer);
    if (transfer->verbose && !transfer->is_write)
        io_dump(transfer->buffer, transfer->offset, transfer->length);
    if (!transfer->quiet)
        io_report(transfer->is_write ? "wrote" : "read", &timing, transfer->offset, transfer->length, transfer->length,
                  transfer->machine_readable);
    return good;
}

static bool run_now(struct io *io, bool is_write, const void *values, const struct texts *arguments)
{
    const struct transfer_options *options = values;
    auto_transfer *transfer = build(io, is_write, options, arguments);
    if (transfer && options->vm_state) {
        io_failed(is_write ? "write" : "read", -ENOTSUP);
        return false;
    }
    return transfer && carry_out(transfer);
}

static void async_entry(void *arg)
{
    struct transfer *transfer = arg;
    if (!carry_out(transfer))
        transfer->io->request_failed = true;
    fflush(stdout);
    transfer_free(transfer);
}

static bool run_async(struct io *io, bool is_write, const void *values, const struct texts *arguments)
{
    const struct transfer_options *options = values;
    if (options->invalid) {
        struct block_stats *stats = &io->edge->child->stats;
        printf("injecting invalid %s request\n", is_write ? "write" : "read");
        *(is_write ? &stats->invalid_writes : &stats->invalid_reads) += 1;
        return true;
    }
    struct transfer *transfer = build(io, is_write, options, arguments);
    if (!transfer)
        return false;
    transfer->is_async = true;
    co_spawn(io->tool->loop, &io->requests, async_entry, transfer);
    return true;
}

static bool read_run(struct io *io, void *values, const struct texts *arguments)
{
    return run_now(io, false, values, arguments);
}

static bool write_run(struct io *io, void *values, const struct texts *arguments)
{
    return run_now(io, true, values, arguments);
}

static bool aio_read_run(struct io *io, void *values, const struct texts *arguments)
{
    return run_async(io, false, values, arguments);
}

static bool aio_write_run(struct io *io, void *values, const struct texts *arguments)
{
    return run_async(io, true, values, arguments);
}

/* aio_flush waits for what was started, and then flushes. */
static bool aio_flush_run(struct io *io, void *values, const struct texts *arguments)
{
    co_group_wait(&io->requests);
    bool good = !io->request_failed;
    io->request_failed = false;
    int result = block_flush(io->edge);
    if (result < 0)
        io_failed("aio_flush", result);
    return good && result >= 0;
}

/* Rows ------------------------------------------------------------------------------------------------------------ */

#define ROW_MACHINE                                                                                                    \
    OPTION_ROW_FLAG('C', NULL, struct transfer_options, machine_readable, "report in a form for programs")
#define ROW_QUIET OPTION_ROW_FLAG('q', NULL, struct transfer_options, quiet, "do not report what was done")
#define ROW_VERBOSE OPTION_ROW_FLAG('v', NULL, struct transfer_options, verbose, "dump the data")
#define ROW_EXPECT OPTION_ROW_TEXT('P', NULL, "BYTE", struct transfer_options, pattern, "all data must be this byte")
#define ROW_PATTERN                                                                                                    \
    OPTION_ROW_TEXT('P', NULL, "BYTE", struct transfer_options, pattern, "the byte to write (default: 0xcd)")
#define ROW_FUA OPTION_ROW_FLAG('f', NULL, struct transfer_options, fua, "on stable storage when it is done")
#define ROW_ZERO OPTION_ROW_FLAG('z', NULL, struct transfer_options, zero, "write zeroes, by a request made for it")
#define ROW_UNMAP OPTION_ROW_FLAG('u', NULL, struct transfer_options, unmap, "with -z: may deallocate")
#define ROW_VM_STATE                                                                                                   \
    OPTION_ROW_FLAG('b', NULL, struct transfer_options, vm_state, "machine state instead of the disk: no format has it")
#define ROW_REGISTERED OPTION_ROW_FLAG('r', NULL, struct transfer_options, ignored, "ignored: no buffer needs it")
#define ROW_INVALID                                                                                                    \
    OPTION_ROW_FLAG('i', NULL, struct transfer_options, invalid, "only count an invalid request in the statistics")

static const struct tool_option read_options[] = {
    ROW_MACHINE,
    ROW_EXPECT,
    OPTION_ROW_TEXT('s', NULL, "OFFSET", struct transfer_options, verify_start, "with -P: where to begin to compare"),
    OPTION_ROW_TEXT('l', NULL, "LENGTH", struct transfer_options, verify_length, "with -P: how much to compare"),
    ROW_QUIET,
    ROW_VERBOSE,
    OPTION_ROW_FLAG('p', NULL, struct transfer_options, ignored, "ignored"),
    OPTION_ROW_FLAG('a', NULL, struct transfer_options, ignored, "ignored"),
    ROW_REGISTERED,
    ROW_VM_STATE,
    OPTIONS_END,
};

static const struct tool_option write_options[] = {
    OPTION_ROW_FLAG('c', NULL, struct transfer_options, compressed, "compress the data"),
    ROW_MACHINE,
    ROW_FUA,
    OPTION_ROW_FLAG('n', NULL, struct transfer_options, no_fallback, "with -z: fail where this would be slow"),
    ROW_PATTERN,
    OPTION_ROW_TEXT('s', NULL, "FILE", struct transfer_options, source, "write the content of this file, repeated"),
    ROW_QUIET,
    ROW_UNMAP,
    ROW_ZERO,
    OPTION_ROW_FLAG('p', NULL, struct transfer_options, ignored, "ignored"),
    ROW_REGISTERED,
    ROW_VM_STATE,
    OPTIONS_END,
};

static const struct tool_option readv_options[] = {ROW_MACHINE, ROW_EXPECT,     ROW_QUIET,
                                                   ROW_VERBOSE, ROW_REGISTERED, OPTIONS_END};
static const struct tool_option writev_options[] = {ROW_MACHINE, ROW_FUA,        ROW_PATTERN,
                                                    ROW_QUIET,   ROW_REGISTERED, OPTIONS_END};
static const struct tool_option aio_read_options[] = {ROW_MACHINE, ROW_EXPECT,     ROW_QUIET,  ROW_VERBOSE,
                                                      ROW_INVALID, ROW_REGISTERED, OPTIONS_END};
static const struct tool_option aio_write_options[] = {ROW_MACHINE, ROW_FUA,     ROW_PATTERN,    ROW_QUIET,  ROW_UNMAP,
                                                       ROW_ZERO,    ROW_INVALID, ROW_REGISTERED, OPTIONS_END};

#define TRANSFER_ROW(options_table, max, is_write, function)                                                           \
    .options = options_table, .values_size = sizeof(struct transfer_options), .min_arguments = 2,                      \
    .max_arguments = max, .needs_image = true, .writes = is_write, .run = function

const struct io_command io_read = {
    .name = "read",
    .alias = "r",
    .arguments = "OFFSET LENGTH",
    .summary = "read, and compare with a pattern or dump",
    .details = "Example: 'read -v 512 1k' dumps one kilobyte that begins at byte 512.\n",
    TRANSFER_ROW(read_options, 2, false, read_run),
};

const struct io_command io_write = {
    .name = "write",
    .alias = "w",
    .arguments = "OFFSET LENGTH",
    .summary = "write a pattern, a file's content or zeroes",
    .details = "Example: 'write -P 0x55 512 1k' fills one kilobyte that begins at byte 512.\n",
    TRANSFER_ROW(write_options, 2, true, write_run),
};

const struct io_command io_readv = {
    .name = "readv",
    .alias = "rv",
    .arguments = "OFFSET LENGTH...",
    .summary = "read into several buffers by one request",
    TRANSFER_ROW(readv_options, -1, false, read_run),
};

const struct io_command io_writev = {
    .name = "writev",
    .alias = "wv",
    .arguments = "OFFSET LENGTH...",
    .summary = "write from several buffers by one request",
    TRANSFER_ROW(writev_options, -1, true, write_run),
};

#define ASYNC_DETAILS                                                                                                  \
    "The result is printed when it is there. The command succeeds when the request was started; aio_flush waits for\n" \
    "it, and fails if it has failed.\n"

const struct io_command io_aio_read = {
    .name = "aio_read",
    .arguments = "OFFSET LENGTH...",
    .summary = "start reading",
    .details = ASYNC_DETAILS,
    TRANSFER_ROW(aio_read_options, -1, false, aio_read_run),
};

const struct io_command io_aio_write = {
    .name = "aio_write",
    .arguments = "OFFSET LENGTH...",
    .summary = "start writing",
    .details = ASYNC_DETAILS,
    TRANSFER_ROW(aio_write_options, -1, true, aio_write_run),
};

const struct io_command io_aio_flush = {
    .name = "aio_flush",
    .arguments = "",
    .summary = "wait for all requests that were started, then flush",
    .options = io_no_options,
    .needs_image = true,
    .run = aio_flush_run,
};
