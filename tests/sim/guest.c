/* SPDX-License-Identifier: Apache-2.0 */
/* What guests do: requests through their ports, entered in the model before and left with what they were answered. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "tests/sim/operations.h"

struct span {
    uint64_t offset, length;
};

/* Sectors anywhere, up to two clusters and a bit. */
static bool draw_span(struct actor *actor, struct span *span)
{
    struct world *world = actor->world;
    uint64_t size = model_size(world->model), most = 2 * world->kind->cluster / SECTOR + 2;
    if (!size)
        return false;
    span->offset = world_random(world, size / SECTOR) * SECTOR;
    span->length = MIN(MIN((1 + world_random(world, most)) * SECTOR, size - span->offset), actor->port->max_request);
    return true;
}

static bool draw_clusters(struct actor *actor, struct span *span)
{
    struct world *world = actor->world;
    uint64_t size = model_size(world->model), cluster = MAX(world->kind->cluster, (uint32_t)SECTOR);
    if (size < cluster)
        return false;
    uint64_t count = 1 + world_random(world, world_random(world, 4) ? 2 : 12);
    span->offset = world_random(world, size / cluster) * cluster;
    span->length = MIN(MIN(count * cluster, size - span->offset), actor->port->max_request);
    return true;
}

/* Outcome of a change by its answer. Errors are mistakes where nothing is made to fail. */
static enum model_outcome outcome_of(struct actor *actor, int result, enum model_outcome good, const char *what)
{
    struct world *world = actor->world;
    if (result == -ENOTCONN)
        return MODEL_LOST;
    if (!result)
        return good;
    if (!world->faulty && !world->vanishing && !world->is_cut)
        world_fail(world, "%s: %s is refused: %s", actor->port->name, what, strerror(-result));
    return MODEL_FAILED;
}

static bool change(struct actor *actor, enum io_kind kind, unsigned flags, struct span span, enum model_outcome good,
                   const char *what)
{
    struct world *world = actor->world;
    uint32_t stamp = kind == IO_WRITE ? world_stamp(world) : 0;
    if (!model_begin_change(world->model, span.offset, span.length, stamp))
        return false;
    auto_free uint8_t *data = kind == IO_WRITE ? xmalloc(span.length) : NULL;
    if (data)
        model_fill(data, span.offset, span.length, stamp);
    world_trace(world, "%s %s %#" PRIx64 "+%#" PRIx64 " stamp %u", actor->port->name, what, span.offset, span.length,
                stamp);
    int result = actor->port->ops->io(actor->port, kind, flags, span.offset, span.length, data);
    world_trace(world, "%s %s %#" PRIx64 " -> %d", actor->port->name, what, span.offset, result);
    if (world->is_cut)
        return true;
    if (world->kind->writethrough && good == MODEL_DONE)
        good = MODEL_DURABLE;
    model_end_change(world->model, span.offset, span.length, outcome_of(actor, result, good, what));
    return true;
}

bool guest_write(struct actor *actor)
{
    struct span span;
    return draw_span(actor, &span) && change(actor, IO_WRITE, 0, span, MODEL_DONE, "write");
}

bool guest_write_clusters(struct actor *actor)
{
    struct span span;
    return draw_clusters(actor, &span) && change(actor, IO_WRITE, 0, span, MODEL_DONE, "write");
}

bool guest_write_durable(struct actor *actor)
{
    struct span span;
    return actor->port->flags & IO_FUA && draw_span(actor, &span) &&
           change(actor, IO_WRITE, IO_FUA, span, MODEL_DURABLE, "durable write");
}

static bool draw_either(struct actor *actor, struct span *span)
{
    return world_random(actor->world, 2) ? draw_span(actor, span) : draw_clusters(actor, span);
}

bool guest_zero(struct actor *actor)
{
    struct span span;
    return draw_either(actor, &span) && change(actor, IO_ZERO, IO_MAY_UNMAP, span, MODEL_DONE, "zero");
}

bool guest_zero_keep(struct actor *actor)
{
    struct span span;
    unsigned flags = actor->port->flags & IO_FUA && world_random(actor->world, 3) == 0 ? IO_FUA : 0;
    return draw_either(actor, &span) &&
           change(actor, IO_ZERO, flags, span, flags ? MODEL_DURABLE : MODEL_DONE, "zero in place");
}

bool guest_discard(struct actor *actor)
{
    struct span span;
    return draw_either(actor, &span) && change(actor, IO_DISCARD, 0, span, MODEL_MAYBE, "discard");
}

bool guest_read(struct actor *actor)
{
    struct world *world = actor->world;
    struct span span;
    if (!draw_either(actor, &span) || !model_begin_read(world->model, span.offset, span.length))
        return false;
    auto_free uint8_t *data = xmalloc(span.length);
    int result = actor->port->ops->io(actor->port, IO_READ, 0, span.offset, span.length, data);
    if (world->is_cut)
        return true;
    if (result)
        outcome_of(actor, result, MODEL_DONE, "read");
    uint64_t wrong = model_end_read(world->model, span.offset, span.length, result ? NULL : data);
    if (wrong != UINT64_MAX) {
        auto_free char *text = model_describe(world->model, wrong, data + (wrong - span.offset));
        world_fail(world, "%s reads what it may not: %s", actor->port->name, text);
    }
    return true;
}

bool guest_flush(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t flush = model_begin_flush(world->model);
    world_trace(world, "%s flush", actor->port->name);
    int result = actor->port->ops->io(actor->port, IO_FLUSH, 0, 0, 0, NULL);
    world_trace(world, "%s flush -> %d", actor->port->name, result);
    if (world->is_cut)
        return true;
    if (!result)
        model_end_flush(world->model, flush);
    else
        outcome_of(actor, result, MODEL_DONE, "flush");
    return true;
}

bool guest_break(struct actor *actor)
{
    world_trace(actor->world, "%s breaks", actor->port->name);
    actor->port->ops->break_line(actor->port);
    return true;
}
