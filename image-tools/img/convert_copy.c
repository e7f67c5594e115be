/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying the content of images into another one.
 *
 * The target is cut into pieces that begin and end at its own granularity (a cluster, so that nothing has to be read
 * back and merged). A few workers, each a coroutine with a buffer, take one piece after the other: under a lock, the
 * maps of the sources are asked what comes next, so that zeroes are passed over without being read. What a map calls
 * data is read, looked through for zero blocks, and written.
 *
 *     sources  |data data|zero . . . . |data |zero|data        map says
 *     pieces   |  1 |  2 | - passed -  |  3 |  4  |            unit: granularity
 *
 * Writes start in the order of the pieces (unless out_of_order), so that a format which allocates as it is written lays
 * the target out in order; they need not end in order, several are in flight. Compressed clusters are packed on the
 * worker pool, one by each worker, and are stored as they get ready.
 */
#include "image-tools/img/convert.h"

#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/is_zero.h"
#include "base/log.h"
#include "block/create.h"
#include "block/request.h"
#include "image-tools/img/convert_resume.h"

#define PIECE (512 * KiB) /* small enough that a few of them stay in the processor's cache between read and write */
#define OFFLOAD_PIECE (16 * MiB) /* no buffer needed */
#define SALVAGE_UNIT 512
#define GROWTH (64 * MiB)

void conversion_fail(struct conversion *all, const char *doing, const char *name, uint64_t offset, int error)
{
    if (!all->failed)
        log_error("error while %s '%s' at byte %" PRIu64 ": %s", doing, name, offset, strerror(-error));
    all->failed = true;
    co_queue_wake_all(&all->turns);
}

void conversion_stop(struct conversion *all)
{
    all->stopped = true;
}

static bool is_over(const struct conversion *all)
{
    return all->failed || all->stopped;
}

/* Sources --------------------------------------------------------------------------------------------------------- */

static const struct source *source_at(const struct conversion *all, uint64_t offset)
{
    const struct source *source = vec_last(&all->sources);
    while (source->start > offset || source->edge->child->size == 0)
        source--;
    return source;
}

static int read_piece(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length);

/* Halves what cannot be read until only the broken sectors are left, which become zeroes. */
static int salvage(struct conversion *all, const struct source *source, uint64_t offset, uint8_t *buffer,
                   uint64_t length, int error)
{
    if (length <= SALVAGE_UNIT) {
        log_warning("error while reading '%s' at byte %" PRIu64 ": %s; the target gets zeroes there", source->name,
                    offset - source->start, strerror(-error));
        memset(buffer, 0, length);
        return 0;
    }
    uint64_t half = MAX(round_down(length / 2, SALVAGE_UNIT), (uint64_t)SALVAGE_UNIT);
    int result = read_piece(all, offset, buffer, half);
    return result < 0 ? result : read_piece(all, offset + half, buffer + half, length - half);
}

/* A span of the target, from as many sources as it touches. */
static int read_piece(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    while (length) {
        const struct source *source = source_at(all, offset);
        uint64_t inside = offset - source->start;
        uint64_t here = MIN(length, source->edge->child->size - inside);
        int result = block_read_buffer(source->edge, inside, buffer, here);
        if (result < 0 && all->salvage)
            result = salvage(all, source, offset, buffer, here, result);
        if (result < 0 && !all->peeking)
            conversion_fail(all, "reading", source->name, inside, result);
        if (result < 0)
            return result;
        offset += here;
        buffer += here;
        length -= here;
    }
    return 0;
}

/* Handing out ----------------------------------------------------------------------------------------------------- */

enum verdict { VERDICT_COPY, VERDICT_ZERO, VERDICT_SKIP, VERDICT_FAILED };

/* What is at all->next, and for how many bytes. */
static enum verdict ask_map(struct conversion *all, uint64_t *length)
{
    const struct source *source = source_at(all, all->next);
    uint64_t inside = all->next - source->start;
    *length = source->edge->child->size - inside;
    if (!all->sparse_size && !all->keep_backing)
        return VERDICT_COPY;
    struct block_status status;
    uint32_t flags = BLOCK_STATUS_PRECISE | (all->keep_backing ? (uint32_t)BLOCK_STATUS_TOP_ONLY : 0);
    int result = block_status(source->edge, inside, *length, flags, &status);
    if (result < 0 && all->salvage)
        return VERDICT_COPY;
    if (result < 0) {
        conversion_fail(all, "reading the map of", source->name, inside, result);
        return VERDICT_FAILED;
    }
    *length = status.length;
    if (all->keep_backing && !status.allocated)
        return VERDICT_SKIP;
    return status.zero && all->sparse_size ? VERDICT_ZERO : VERDICT_COPY;
}

static void add_done(struct conversion *all, uint64_t length)
{
    all->done += length;
    uint64_t total = !all->input ? all->size : all->input->knows_size ? all->input->size : PROGRESS_UNKNOWN;
    progress_set(&all->progress, all->done, total);
}

/* Under the lock. true: there is something to do. false: some bytes were passed over, or it failed. */
static bool find_piece(struct conversion *all, struct piece *piece)
{
    uint64_t length, rest = all->size - all->next;
    enum verdict verdict = ask_map(all, &length);
    if (verdict == VERDICT_FAILED)
        return false;
    /* Whole units only, but for the end. What shares a unit with data is data. */
    if (verdict != VERDICT_COPY && length < rest)
        length -= length % all->granularity;
    if (verdict != VERDICT_COPY && !length) {
        verdict = VERDICT_COPY;
        length = 1;
    }
    if (verdict == VERDICT_COPY)
        length = MIN(DIV_ROUND_UP(MIN(length, all->piece_size), all->granularity) * all->granularity, rest);
    bool pass = verdict == VERDICT_SKIP || (verdict == VERDICT_ZERO && all->target_is_zero);
    *piece = (struct piece){verdict == VERDICT_ZERO ? PIECE_ZERO : PIECE_DATA, all->next, length, all->next_ticket};
    all->next += length;
    if (pass)
        add_done(all, length);
    else
        all->next_ticket++;
    return !pass;
}

/* The next bytes of the plan. */
static bool planned_piece(struct conversion *all, struct piece *piece)
{
    if (all->next_planned == all->plan->count)
        return false;
    const struct piece *run = &all->plan->items[all->next_planned];
    uint64_t end = run->offset + run->length;
    if (run->kind == PIECE_ZERO) { /* the plan is all that is stored of it */
        all->next_planned++;
        return false;
    }
    uint64_t offset = MAX(all->next, run->offset);
    *piece = (struct piece){PIECE_DATA, offset, MIN(end - offset, all->piece_size), all->next_ticket++};
    add_done(all, offset - all->next);
    all->next = offset + piece->length;
    all->next_planned += all->next == end;
    return true;
}

/* The next bytes of the input stream. */
static bool streamed_piece(struct conversion *all, struct piece *piece, uint8_t *buffer)
{
    int64_t got = stream_read(all->input, buffer, all->piece_size);
    if (got < 0)
        conversion_fail(all, "reading", "standard input", all->next, (int)got);
    if (got <= 0 || all->failed)
        return false;
    uint64_t length = (uint64_t)got;
    all->size = MAX(all->size, all->next + length);
    /* Only whole clusters can be packed. What is behind the end is cut off, or reads as zeroes. */
    if (all->compress && all->may_grow) {
        length = DIV_ROUND_UP(length, all->granularity) * all->granularity;
        memset(buffer + got, 0, length - (uint64_t)got);
    }
    *piece = (struct piece){PIECE_DATA, all->next, length, all->next_ticket++};
    all->next += length;
    return true;
}

static bool is_at_end(const struct conversion *all)
{
    if (all->plan)
        return all->next_planned == all->plan->count;
    return !all->input && all->next >= all->size;
}

/* `buffer` gets the data if it comes from a stream. */
static bool next_piece(struct conversion *all, struct piece *piece, uint8_t *buffer, unsigned number)
{
    bool found = false;
    co_mutex_lock(&all->lock);
    while (!found && !is_over(all) && !is_at_end(all)) {
        found = all->plan    ? planned_piece(all, piece)
                : all->input ? streamed_piece(all, piece, buffer)
                             : find_piece(all, piece);
        if (!found && all->input)
            break;
    }
    all->in_work[number] = found ? piece->offset : UINT64_MAX;
    co_mutex_unlock(&all->lock);
    return found;
}

uint64_t conversion_stored(const struct conversion *all)
{
    uint64_t lowest = all->next;
    for (unsigned i = 0; i < all->workers && all->in_work; i++)
        lowest = MIN(lowest, all->in_work[i]);
    return lowest;
}

bool conversion_peek(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    all->peeking = true;
    int result = read_piece(all, offset, buffer, length);
    all->peeking = false;
    return result >= 0;
}

/* Writing --------------------------------------------------------------------------------------------------------- */

/* Our turn has come when all earlier pieces have begun to write. It is passed on at once: whoever is woken runs after
 * our write was given to the target. */
static void take_turn(struct conversion *all, uint64_t ticket)
{
    if (all->out_of_order)
        return;
    while (all->turn != ticket && !all->failed)
        co_queue_wait_uncancellable(&all->turns);
    all->turn++;
    co_queue_wake_all(&all->turns);
}

/* A stream has one place to write at: the turn is passed on when the bytes are out. */
static int write_to_stream(struct conversion *all, const struct piece *piece, const uint8_t *buffer)
{
    int result = 0;
    while (all->turn != piece->ticket && !all->failed)
        co_queue_wait_uncancellable(&all->turns);
    for (uint64_t at = 0, length; at < piece->length && !result && !all->failed; at += length) {
        bool is_zero = piece->kind == PIECE_ZERO;
        length = piece->length - at;
        if (!is_zero && all->sparse_size && all->output->can_seek)
            length = buffer_zero_run(buffer + at, length, all->granularity, &is_zero);
        result = is_zero ? stream_write_zeroes(all->output, length) : stream_write(all->output, buffer + at, length);
    }
    if (result < 0)
        conversion_fail(all, "writing", all->target_name, piece->offset, result);
    all->turn++;
    co_queue_wake_all(&all->turns);
    return result;
}

/* What came from a stream may need a larger target. Growing waits until nothing is in flight there, so it is done in
 * large steps; the end is cut off later. */
static int grow_target(struct conversion *all, uint64_t end)
{
    auto_error err = {0};
    int result = 0;
    co_mutex_lock(&all->growing);
    uint64_t size = all->target->child->size;
    if (end > size && !all->may_grow)
        fail(&err, ENOSPC, "standard input has more than the %" PRIu64 " bytes of '%s'", size, all->target_name);
    else if (end > size)
        node_resize(all->target, round_up(MAX(end, size + size / 4), GROWTH), PREALLOCATION_OFF, false, &err);
    if (error_is_set(&err)) {
        result = -err.code;
        if (!all->failed)
            log_failure(&err);
        all->failed = true;
        co_queue_wake_all(&all->turns);
    }
    co_mutex_unlock(&all->growing);
    return result;
}

/* Makes a span of the target read as zeroes; what does so already is left alone. */
static int zero_target(struct conversion *all, uint64_t offset, uint64_t length)
{
    while (length && !all->target_is_zero) {
        /* On a backing file, zeroes are stored even where it reads as zeroes too: that is what the source says. */
        struct block_status status = {.length = length};
        int result = 0;
        if (!all->keep_backing)
            result = block_status(all->target, offset, length, BLOCK_STATUS_PRECISE, &status);
        if (result < 0)
            status = (struct block_status){.length = length};
        if (!status.zero) {
            result = block_zero(all->target, offset, status.length,
                                REQUEST_MAY_UNMAP | (all->writethrough ? (uint32_t)REQUEST_FUA : 0));
            if (result < 0)
                return result;
        }
        offset += status.length;
        length -= status.length;
    }
    return 0;
}

static int write_data(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    uint32_t flags =
        (all->compress ? (uint32_t)REQUEST_COMPRESSED : 0) | (all->writethrough ? (uint32_t)REQUEST_FUA : 0);
    return block_write_buffer(all->target, offset, buffer, length, flags);
}

/* Runs of data and of zeroes, by units of the granularity. */
static int write_runs(struct conversion *all, const struct piece *piece, uint8_t *buffer)
{
    uint64_t at = 0;
    while (at < piece->length) {
        bool is_zero = false;
        uint64_t length = piece->length - at;
        if (all->sparse_size)
            length = buffer_zero_run(buffer + at, length, all->granularity, &is_zero);
        int result = is_zero ? zero_target(all, piece->offset + at, length)
                             : write_data(all, piece->offset + at, buffer + at, length);
        if (result < 0) {
            conversion_fail(all, "writing", all->target_name, piece->offset + at, result);
            return result;
        }
        at += length;
    }
    return 0;
}

/* Lets the kernel copy, where the piece lies in one source. */
static bool try_offload(struct conversion *all, const struct piece *piece)
{
    if (!all->offload)
        return false;
    const struct source *source = source_at(all, piece->offset);
    uint64_t inside = piece->offset - source->start;
    if (!span_fits(inside, piece->length, source->edge->child->size))
        return false;
    uint32_t flags = BLOCK_COPY_OFFLOAD | (all->target_is_zero ? (uint32_t)BLOCK_COPY_TARGET_IS_ZERO : 0);
    return block_copy(source->edge, inside, all->target, piece->offset, piece->length, flags) >= 0;
}

static void limit_rate(struct conversion *all, uint64_t length)
{
    if (!all->rate)
        return;
    uint64_t now = loop_now_ns(all->loop);
    uint64_t start = MAX(now, all->rate_deadline_ns);
    all->rate_deadline_ns = start + (uint64_t)((double)length * 1e9 / (double)all->rate);
    if (start > now)
        co_sleep_ns(start - now);
}

static int copy_data(struct conversion *all, const struct piece *piece, uint8_t *buffer)
{
    limit_rate(all, piece->length);
    if (try_offload(all, piece)) {
        take_turn(all, piece->ticket);
        return 0;
    }
    int result = all->input ? 0 : read_piece(all, piece->offset, buffer, piece->length);
    if (result >= 0 && all->output)
        return write_to_stream(all, piece, buffer);
    if (result >= 0 && all->input)
        result = grow_target(all, piece->offset + piece->length);
    if (result < 0)
        return result;
    take_turn(all, piece->ticket);
    return all->failed ? -ECANCELED : write_runs(all, piece, buffer);
}

static int copy_zeroes(struct conversion *all, const struct piece *piece)
{
    if (all->output)
        return write_to_stream(all, piece, NULL);
    take_turn(all, piece->ticket);
    int result = all->failed ? -ECANCELED : zero_target(all, piece->offset, piece->length);
    if (result < 0)
        conversion_fail(all, "writing zeroes to", all->target_name, piece->offset, result);
    return result;
}

/* A piece that fails stays in work: what is behind it is not yet stored without a gap. */
static void worker(void *arg)
{
    struct conversion *all = arg;
    auto_free uint8_t *buffer = try_aligned_alloc(4096, all->piece_size);
    unsigned number = all->started++;
    struct piece piece;
    if (!buffer) {
        conversion_fail(all, "allocating a buffer for", all->target_name, 0, -ENOMEM);
        return;
    }
    while (next_piece(all, &piece, buffer, number)) {
        if ((piece.kind == PIECE_DATA ? copy_data(all, &piece, buffer) : copy_zeroes(all, &piece)) < 0)
            return;
        add_done(all, piece.length);
    }
}

/* Frame ----------------------------------------------------------------------------------------------------------- */

uint64_t conversion_granularity(const struct conversion *all)
{
    uint64_t unit = all->cluster_size ? all->cluster_size : 4096;
    return all->sparse_size > unit && !all->compress ? DIV_ROUND_UP(all->sparse_size, unit) * unit : unit;
}

static void choose_sizes(struct conversion *all)
{
    all->granularity = conversion_granularity(all);
    uint64_t piece = all->compress ? all->granularity : all->offload ? OFFLOAD_PIECE : PIECE;
    all->piece_size = DIV_ROUND_UP(MAX(piece, all->granularity), all->granularity) * all->granularity;
}

bool conversion_plan(struct conversion *all, struct pieces *plan)
{
    bool target_is_zero = all->target_is_zero;
    choose_sizes(all);
    all->target_is_zero = !all->keep_backing;
    while (all->next < all->size && !all->failed) {
        struct piece piece;
        if (!find_piece(all, &piece))
            continue;
        struct piece *last = plan->count ? vec_last(plan) : NULL;
        if (last && last->kind == piece.kind && last->offset + last->length == piece.offset)
            last->length += piece.length;
        else
            vec_push(plan, piece);
    }
    all->target_is_zero = target_is_zero;
    all->next = all->done = all->next_ticket = 0;
    return !all->failed;
}

/* Of what came from a stream. Formats count in sectors. */
static uint64_t final_size(const struct conversion *all)
{
    return all->target->child->driver->create->create_format ? round_up(all->size, 512) : all->size;
}

/* The last cluster of a planned image is a whole one, if the image has it. */
static int pad_last_cluster(struct conversion *all)
{
    const struct piece *last = all->plan && all->plan->count ? vec_last(all->plan) : NULL;
    uint64_t used = last ? all->size % all->cluster_size : 0;
    if (!used || last->kind != PIECE_DATA || last->offset + last->length < all->size)
        return 0;
    return stream_write_zeroes(all->output, all->cluster_size - used);
}

/* The target is complete when this is done. */
static void finish_target(struct conversion *all)
{
    auto_error err = {0};
    int result = 0;
    if (all->output) {
        result = pad_last_cluster(all);
        result = result ? result : stream_finish(all->output);
    } else if (all->may_grow && !node_resize(all->target, final_size(all), PREALLOCATION_OFF, true, &err)) {
        result = -err.code;
    }
    if (!result && !all->output)
        result = block_flush(all->target);
    if (result < 0)
        conversion_fail(all, all->output ? "ending" : "flushing", all->target_name, all->size, result);
}

bool conversion_run(struct conversion *all, struct resume *resume, bool show_progress, bool quiet)
{
    struct co_group group;
    choose_sizes(all);
    co_mutex_init(&all->lock);
    co_mutex_init(&all->growing);
    co_queue_init(&all->turns);
    co_group_init(&group);
    auto_free uint64_t *in_work = all->in_work = new_array(uint64_t, all->workers);
    memset(in_work, 0xff, all->workers * sizeof *in_work);
    progress_start(&all->progress, all->loop, show_progress, !quiet && !all->output);
    add_done(all, 0);
    if (resume)
        resume_watch(resume);
    for (unsigned i = 0; i < all->workers; i++)
        co_spawn(all->loop, &group, worker, all);
    co_group_wait(&group);
    if (resume)
        resume_stop_watching(resume);
    if (!is_over(all))
        finish_target(all);
    all->in_work = NULL;
    progress_end(&all->progress, !is_over(all));
    return !is_over(all);
}
