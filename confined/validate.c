/* SPDX-License-Identifier: Apache-2.0 */
/* The border between a worker and its owner: see the header. One function a kind of answer; each looks at every field
 * that anybody reads later, and at those that must be zero. */
#include "confined/validate.h"

#include <inttypes.h>
#include <string.h>
#include "base/math.h"
#include "block/driver.h"
#include "qmp/schema/utf8.h"

#define MAX_ERRNO 4095

bool confined_validate_text(const char *text, size_t size)
{
    struct utf8_state state = {0};
    for (size_t i = 0; i < size; i++) {
        if (!text[i])
            return !state.missing;
        if (!utf8_feed(&state, (uint8_t)text[i]) ||
            (!state.missing && (state.character < 32 || state.character == 127)) ||
            (!state.missing && state.character >= 0x80 && state.character < 0xa0))
            return false;
    }
    return false;
}

/* Names of formats and the like: what an identifier may have. */
static bool is_word(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    return length < size && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_") == length;
}

static bool check_facts(const struct confined_facts *facts, struct error *err)
{
    if (facts->size > INT64_MAX)
        return fail(err, EPROTO, "a disk of %" PRIu64 " bytes", facts->size);
    if (facts->cluster_size > UINT32_MAX)
        return fail(err, EPROTO, "clusters of %" PRIu64 " bytes", facts->cluster_size);
    if (facts->flags & ~(uint32_t)CONFINED_FACT_FLAGS)
        return fail(err, EPROTO, "facts with unknown flags 0x%x", facts->flags);
    if (!is_word(facts->format, sizeof facts->format) || !facts->format[0])
        return fail(err, EPROTO, "a format that is not a name");
    if (!confined_validate_text(facts->backing_format, sizeof facts->backing_format))
        return fail(err, EPROTO, "a backing format that is not a name");
    if (!confined_validate_text(facts->backing_name, sizeof facts->backing_name))
        return fail(err, EPROTO, "a backing file name that is not text");
    if (!(facts->flags & CONFINED_HAS_BACKING) != !facts->backing_name[0])
        return fail(err, EPROTO, "a backing file without a name");
    return true;
}

static bool check_extent(const struct confined_extent *extent, const struct confined_limits *limits, struct error *err)
{
    if (extent->kind > EXTENT_ENCODED)
        return fail(err, EPROTO, "an extent of kind %u", extent->kind);
    if (extent->flags & ~(uint32_t)CONFINED_EXTENT_FLAGS)
        return fail(err, EPROTO, "an extent with unknown flags 0x%x", extent->flags);
    bool is_placed = extent->flags & CONFINED_PLACED;
    bool may_be_placed = extent->kind == EXTENT_DATA || extent->kind == EXTENT_ZERO;
    if (extent->kind == EXTENT_DATA && !is_placed)
        return fail(err, EPROTO, "data that lies nowhere");
    if (is_placed && !may_be_placed)
        return fail(err, EPROTO, "a place for an extent of kind %u", extent->kind);
    if (!is_placed && extent->host_offset)
        return fail(err, EPROTO, "an offset for an extent that lies nowhere");
    if (is_placed && !span_fits(extent->host_offset, extent->length, limits->file_size + CONFINED_SLACK))
        return fail(err, EPROTO, "data at offset %" PRIu64 " of a file of %" PRIu64 " bytes", extent->host_offset,
                    limits->file_size);
    if ((extent->flags & CONFINED_FOLLOW) && extent->kind != EXTENT_DATA)
        return fail(err, EPROTO, "an extent of kind %u that is to be followed", extent->kind);
    if (extent->kind == EXTENT_BACKING && (extent->flags & CONFINED_ALLOCATED))
        return fail(err, EPROTO, "an extent of the backing file that is allocated");
    return true;
}

static bool check_extents(const struct confined_question *question, const struct confined_answer *answer,
                          const struct confined_limits *limits, struct error *err)
{
    if (!answer->count || answer->count > CONFINED_EXTENTS)
        return fail(err, EPROTO, "%u extents", answer->count);
    uint64_t at = question->offset;
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct confined_extent *extent = &answer->u.extents[i];
        if (!extent->length || !span_fits(at, extent->length, limits->size))
            return fail(err, EPROTO, "an extent of %" PRIu64 " bytes at offset %" PRIu64 " of a disk of %" PRIu64,
                        extent->length, at, limits->size);
        if (!check_extent(extent, limits, err))
            return false;
        at += extent->length;
    }
    return true;
}

static bool check_counters(const struct confined_answer *answer, struct error *err)
{
    for (int i = 0; i < CONFINED_COUNTERS; i++) {
        if (answer->u.counters[i] < 0)
            return fail(err, EPROTO, "counter %d of the check is %" PRId64, i, answer->u.counters[i]);
    }
    return true;
}

static bool check_success(const struct confined_question *question, const struct confined_answer *answer,
                          const struct confined_limits *limits, struct error *err)
{
    bool has_count = question->op == CONFINED_MAP || question->op == CONFINED_READ || question->op == CONFINED_INFO;
    if (!has_count && answer->count)
        return fail(err, EPROTO, "a count of %u where none belongs", answer->count);
    switch ((enum confined_op)question->op) {
    case CONFINED_OPEN: return check_facts(&answer->u.facts, err);
    case CONFINED_MAP: return check_extents(question, answer, limits, err);
    case CONFINED_READ:
        return answer->count == question->length ||
               fail(err, EPROTO, "%u bytes where %" PRIu64 " were asked", answer->count, question->length);
    case CONFINED_INFO:
        return answer->count <= CONFINED_BUFFER_SIZE || fail(err, EPROTO, "a text of %u bytes", answer->count);
    case CONFINED_CHECK: return check_counters(answer, err);
    }
    return fail(err, EPROTO, "an answer to no question");
}

bool confined_validate(const struct confined_question *question, const struct confined_answer *answer, size_t length,
                       const struct confined_limits *limits, struct error *err)
{
    if (length != sizeof *answer)
        return fail(err, EPROTO, "an answer of %zu bytes instead of %zu", length, sizeof *answer);
    if (answer->sequence != question->sequence || answer->op != question->op)
        return fail(err, EPROTO, "an answer to question %u/%u while %u/%u was asked", answer->sequence, answer->op,
                    question->sequence, question->op);
    if (answer->result > 0 || answer->result < -MAX_ERRNO)
        return fail(err, EPROTO, "a result of %d", answer->result);
    if (!answer->result)
        return check_success(question, answer, limits, err);
    if (answer->count || !confined_validate_text(answer->u.message, sizeof answer->u.message))
        return fail(err, EPROTO, "a reason that is not text");
    return true;
}
