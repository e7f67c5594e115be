/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert --checksum: when everything is written and flushed, the target is read back and compared with the sources,
 * byte by byte, so that nothing between them (a cable, a controller, a bug of ours) has changed what a guest will read.
 * With a target cache that bypasses the host's (-t none) the bytes come from the device itself.
 *
 * What both maps call zeroes is not read.
 */
#include "image-tools/img/convert.h"

#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "base/size.h"
#include "block/request.h"

#define PIECE (2 * MiB)

struct verification {
    struct conversion *all;
    uint8_t *wanted, *found;
};

/* How far from `offset` on both sides are known to read as zeroes; 0: not at all. */
static uint64_t zero_run(struct edge *source, uint64_t inside, struct edge *target, uint64_t offset, uint64_t length)
{
    struct block_status from, to;
    if (block_status(source, inside, length, BLOCK_STATUS_PRECISE, &from) < 0 || !from.zero ||
        block_status(target, offset, from.length, BLOCK_STATUS_PRECISE, &to) < 0 || !to.zero)
        return 0;
    return to.length;
}

static bool same_bytes(struct verification *v, const struct source *source, uint64_t inside, uint64_t length,
                       struct error *err)
{
    uint64_t offset = source->start + inside;
    int result = block_read_buffer(source->edge, inside, v->wanted, length);
    if (result < 0)
        return fail_errno(err, -result, "Could not read '%s' again at byte %" PRIu64, source->name, inside);
    result = block_read_buffer(v->all->target, offset, v->found, length);
    if (result < 0)
        return fail_errno(err, -result, "Could not read '%s' back at byte %" PRIu64, v->all->target_name, offset);
    if (!memcmp(v->wanted, v->found, length))
        return true;
    uint64_t at = 0;
    while (v->wanted[at] == v->found[at])
        at++;
    return fail(err, EIO, "'%s' has other content than '%s' at byte %" PRIu64, v->all->target_name, source->name,
                offset + at);
}

static bool verify_source(struct verification *v, const struct source *source, struct error *err)
{
    uint64_t size = source->edge->child->size;
    for (uint64_t at = 0, length; at < size; at += length) {
        length = zero_run(source->edge, at, v->all->target, source->start + at, size - at);
        if (length)
            continue;
        length = MIN(size - at, (uint64_t)PIECE);
        if (!same_bytes(v, source, at, length, err))
            return false;
    }
    return true;
}

bool conversion_verify(struct conversion *all, struct error *err)
{
    auto_free uint8_t *wanted = block_alloc_buffer(all->target, PIECE);
    auto_free uint8_t *found = block_alloc_buffer(all->target, PIECE);
    struct verification v = {all, wanted, found};
    struct source *source;
    if (!wanted || !found)
        return fail(err, ENOMEM, "out of memory for buffers");
    vec_for_each (source, &all->sources) {
        if (!verify_source(&v, source, err))
            return fail_prefix(err, "The copy is not good: ");
    }
    return true;
}
