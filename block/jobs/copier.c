/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several chunks at a time. The job's coroutine finds chunks and starts a coroutine for each; how many is limited by
 * their number and by the memory that they may need. Pace and pauses hold back new chunks; those in flight come to
 * their end.
 */
#include "block/jobs/private.h"

#include <string.h>
#include "base/alloc.h"
#include "base/loop.h"
#include "block/request.h"

#define DEFAULT_LIMIT 16
#define DEFAULT_BYTES (16 * MiB)
#define ZERO_CHUNK (1 * GiB) /* nothing is moved, but users want to see progress */
#define RETRY_AFTER_NS 100000000ull

struct chunk {
    struct copier *copier;
    uint64_t offset, length, weight;
};

void copier_init(struct copier *copier, struct job *job)
{
    *copier = (struct copier){.job = job, .limit = DEFAULT_LIMIT, .most_bytes = DEFAULT_BYTES};
}

static void handle_error(struct copier *copier, int result, bool read_failed)
{
    enum blockdev_on_error policy = read_failed ? copier->on_read_error : copier->on_write_error;
    copier->failed = true;
    if (job_io_error(copier->job, policy, read_failed, result) == BLOCK_ERROR_ACTION_REPORT && !copier->result)
        copier->result = result;
}

static void run_chunk(void *arg)
{
    struct chunk *chunk = arg;
    struct copier *copier = chunk->copier;
    bool read_failed = false;
    int result = copier->copy(copier, chunk->offset, chunk->length, &read_failed);
    if (result < 0 && !copier->job->cancelled)
        handle_error(copier, result, read_failed);
    copier->in_flight--;
    copier->bytes_in_flight -= chunk->weight;
    job_kick(copier->job);
    free(chunk);
}

static bool has_room(const struct copier *copier, uint64_t weight)
{
    return !copier->in_flight ||
           (copier->in_flight < copier->limit && copier->bytes_in_flight + weight <= copier->most_bytes);
}

bool copier_start(struct copier *copier, uint64_t offset, uint64_t length)
{
    uint64_t weight = MIN(length, copier->most_bytes);
    while (!copier->result && !copier->job->cancelled && !has_room(copier, weight))
        job_rest(copier->job, UINT64_MAX);
    if (copier->result || !job_pace(copier->job, length) || copier->result)
        return false;
    struct chunk *chunk = new (struct chunk);
    *chunk = (struct chunk){copier, offset, length, weight};
    copier->in_flight++;
    copier->bytes_in_flight += weight;
    co_spawn(job_set_loop(copier->job->set), NULL, run_chunk, chunk);
    return true;
}

void copier_wait(struct copier *copier)
{
    while (copier->in_flight)
        job_rest(copier->job, UINT64_MAX);
}

void copier_pause_after_failure(struct copier *copier)
{
    if (!copier->failed)
        return;
    copier->failed = false;
    if (!copier->result && !copier->job->pauses)
        job_rest(copier->job, RETRY_AFTER_NS);
}

int copier_end(struct copier *copier, struct error *err)
{
    copier_wait(copier);
    if (copier->job->cancelled)
        return -ECANCELED;
    if (copier->result)
        fail(err, -copier->result, "%s", strerror(-copier->result));
    return copier->result;
}

uint64_t chunk_length(struct edge *source, uint64_t offset, uint64_t length, uint64_t cluster, uint64_t most)
{
    struct block_status status;
    if (block_status(source, offset, length, 0, &status) < 0)
        return MIN(length, most); /* whoever copies it meets the error */
    uint64_t limit = status.zero ? MAX(ZERO_CHUNK, most) : most;
    uint64_t chunk = MIN(round_up(status.length, cluster), limit);
    return MIN(length, MAX(chunk, cluster));
}

bool reads_as_zero(struct edge *edge)
{
    uint64_t offset = 0;
    while (offset < edge->child->size) {
        struct block_status status;
        if (block_status(edge, offset, edge->child->size - offset, BLOCK_STATUS_PRECISE, &status) < 0 || !status.zero)
            return false;
        offset += status.length;
    }
    return true;
}

struct node *find_node(struct graph *graph, const char *name, struct error *err)
{
    struct node *node = graph_find(graph, name);
    return node ? node : fail_null(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", name, name);
}

struct edge *job_use(struct job *job, const char *what, struct node *node, uint32_t perm, uint32_t shared,
                     struct error *err)
{
    char *role = xasprintf("job '%s' (%s)", job->id, what);
    struct edge *edge = edge_attach(NULL, role, node, perm, shared, err);
    free(role);
    return edge;
}
