/* SPDX-License-Identifier: Apache-2.0 */
/* The versions of every sector; see the header. */
#include "tests/sim/model.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"
#include "base/strbuf.h"

enum { VERSIONS_MAX = 20, ROOM = 6 };

enum version_state { VERSION_SURE, VERSION_PENDING, VERSION_MAYBE };

struct version {
    uint64_t answered; /* number of the answer; sure ones only */
    uint32_t stamp;
    enum version_state state;
};

struct sector {
    struct version versions[VERSIONS_MAX];
    uint8_t count, readers;
    bool changing, lost;
};

struct size_version {
    uint64_t answered, size;
    enum version_state state;
};

struct model {
    uint64_t max_size, answers;
    struct sector *sectors;
    struct size_version sizes[VERSIONS_MAX];
    unsigned size_count;
    /* Of the resize under way: everything behind `start` may become zero, everything behind `certain` will (between the
     * two lie the sizes that the disk has perhaps had since an earlier resize failed). */
    uint64_t resize_start, resize_certain;
    bool any_size_between;
};

struct model *model_new(uint64_t size, uint64_t max_size, bool any_size_between)
{
    struct model *model = new (struct model);
    model->max_size = max_size;
    model->any_size_between = any_size_between;
    model->sectors = xcalloc(max_size / SECTOR, sizeof *model->sectors);
    for (uint64_t s = 0; s < max_size / SECTOR; s++)
        model->sectors[s].count = 1; /* zeroes, sure, answered before everything */
    model->sizes[model->size_count++] = (struct size_version){.size = size};
    return model;
}

void model_free(struct model *model)
{
    if (!model)
        return;
    free(model->sectors);
    free(model);
}

uint64_t model_size(const struct model *model)
{
    uint64_t size = UINT64_MAX;
    for (unsigned i = model->size_count; i-- > 0;) {
        size = MIN(size, model->sizes[i].size);
        if (model->sizes[i].state == VERSION_SURE)
            break;
    }
    return size;
}

uint64_t model_max_size(const struct model *model)
{
    return model->max_size;
}

static uint64_t word_of(uint64_t sector, uint32_t stamp)
{
    return stamp ? (uint64_t)stamp << 32 | (uint32_t)sector : 0;
}

void model_fill(void *buffer, uint64_t offset, uint64_t length, uint32_t stamp)
{
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = word_of((offset + at) / SECTOR, stamp);
        memcpy((char *)buffer + at, &word, 8);
    }
}

/* The stamp of a sector's bytes; false when no write of anybody can have left them there. */
static bool stamp_of(const unsigned char *data, uint64_t sector, uint32_t *stamp)
{
    uint64_t word;
    memcpy(&word, data, 8);
    *stamp = (uint32_t)(word >> 32);
    return word == word_of(sector, *stamp) && !memcmp(data, data + 8, SECTOR - 8);
}

/* --- changes --- */

static bool is_free(const struct sector *sector)
{
    return !sector->changing && !sector->lost && !sector->readers && sector->count <= VERSIONS_MAX - ROOM;
}

static bool span_is_free(const struct model *model, uint64_t offset, uint64_t length)
{
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++) {
        if (!is_free(&model->sectors[s]))
            return false;
    }
    return true;
}

bool model_begin_change(struct model *model, uint64_t offset, uint64_t length, uint32_t stamp)
{
    assert(offset % SECTOR == 0 && length % SECTOR == 0 && offset + length <= model->max_size);
    if (!span_is_free(model, offset, length))
        return false;
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++) {
        struct sector *sector = &model->sectors[s];
        sector->changing = true;
        sector->versions[sector->count++] = (struct version){.stamp = stamp, .state = VERSION_PENDING};
    }
    return true;
}

static void forget_before(struct sector *sector, unsigned first)
{
    memmove(sector->versions, sector->versions + first, (sector->count - first) * sizeof *sector->versions);
    sector->count -= (uint8_t)first;
}

/* A wish that adds nothing to what the sector may hold already is not noted. */
static void end_maybe(struct sector *sector)
{
    struct version *last = &sector->versions[sector->count - 1];
    last->state = VERSION_MAYBE;
    for (unsigned i = sector->count - 1; i-- > 0;) {
        if (sector->versions[i].stamp == last->stamp) {
            sector->count--;
            return;
        }
        if (sector->versions[i].state == VERSION_SURE)
            return;
    }
}

static void end_sector(struct sector *sector, enum model_outcome outcome, uint64_t answer)
{
    struct version *last = &sector->versions[sector->count - 1];
    assert(sector->changing && last->state == VERSION_PENDING);
    sector->changing = false;
    switch (outcome) {
    case MODEL_DONE:
    case MODEL_DURABLE:
        last->state = VERSION_SURE;
        last->answered = answer;
        if (outcome == MODEL_DURABLE)
            forget_before(sector, sector->count - 1u);
        break;
    case MODEL_LOST: sector->lost = true; /* fall through */
    case MODEL_FAILED:
    case MODEL_MAYBE: end_maybe(sector); break;
    }
}

void model_end_change(struct model *model, uint64_t offset, uint64_t length, enum model_outcome outcome)
{
    uint64_t answer = ++model->answers;
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++)
        end_sector(&model->sectors[s], outcome, answer);
}

/* --- reads --- */

bool model_begin_read(struct model *model, uint64_t offset, uint64_t length)
{
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++) {
        if (model->sectors[s].changing || model->sectors[s].lost)
            return false;
    }
    for (uint64_t s = offset / SECTOR; s < (offset + length) / SECTOR; s++)
        model->sectors[s].readers++;
    return true;
}

static bool may_read(const struct sector *sector, uint32_t stamp)
{
    for (unsigned i = sector->count; i-- > 0;) {
        if (sector->versions[i].stamp == stamp)
            return true;
        if (sector->versions[i].state == VERSION_SURE)
            return false;
    }
    return false;
}

uint64_t model_end_read(struct model *model, uint64_t offset, uint64_t length, const void *data)
{
    uint64_t wrong = UINT64_MAX;
    for (uint64_t at = 0; at < length; at += SECTOR) {
        struct sector *sector = &model->sectors[(offset + at) / SECTOR];
        uint32_t stamp;
        sector->readers--;
        if (data && wrong == UINT64_MAX &&
            (!stamp_of((const unsigned char *)data + at, (offset + at) / SECTOR, &stamp) || !may_read(sector, stamp)))
            wrong = offset + at;
    }
    return wrong;
}

/* --- flushes --- */

uint64_t model_begin_flush(const struct model *model)
{
    return model->answers;
}

void model_end_flush(struct model *model, uint64_t flush)
{
    for (uint64_t s = 0; s < model->max_size / SECTOR; s++) {
        struct sector *sector = &model->sectors[s];
        for (unsigned i = sector->count; i-- > 1;) {
            if (sector->versions[i].state == VERSION_SURE && sector->versions[i].answered <= flush) {
                forget_before(sector, i);
                break;
            }
        }
    }
    for (unsigned i = model->size_count; i-- > 1;) {
        if (model->sizes[i].state == VERSION_SURE && model->sizes[i].answered <= flush) {
            model->size_count -= i;
            memmove(model->sizes, model->sizes + i, model->size_count * sizeof *model->sizes);
            break;
        }
    }
}

void model_break_promises(struct model *model)
{
    for (uint64_t s = 0; s < model->max_size / SECTOR; s++) {
        for (unsigned i = 1; i < model->sectors[s].count; i++)
            model->sectors[s].versions[i].state = VERSION_MAYBE;
    }
    for (unsigned i = 1; i < model->size_count; i++)
        model->sizes[i].state = VERSION_MAYBE;
}

/* --- sizes --- */

/* The largest size that it may have at present. */
static uint64_t largest_size(const struct model *model)
{
    uint64_t size = 0;
    for (unsigned i = model->size_count; i-- > 0;) {
        size = MAX(size, model->sizes[i].size);
        if (model->sizes[i].state == VERSION_SURE)
            break;
    }
    return size;
}

bool model_begin_resize(struct model *model, uint64_t size)
{
    uint64_t start = MIN(model_size(model), size), largest = largest_size(model);
    assert(size <= model->max_size && size % SECTOR == 0);
    if (model->size_count > VERSIONS_MAX - ROOM || !model_begin_change(model, start, model->max_size - start, 0))
        return false;
    model->sizes[model->size_count++] = (struct size_version){.size = size, .state = VERSION_PENDING};
    model->resize_start = start;
    model->resize_certain = MIN(size, largest);
    return true;
}

void model_end_resize(struct model *model, enum model_outcome outcome)
{
    struct size_version *last = &model->sizes[model->size_count - 1];
    assert(last->state == VERSION_PENDING);
    uint64_t start = model->resize_start, certain = model->resize_certain;
    bool good = outcome == MODEL_DONE || outcome == MODEL_DURABLE;
    model_end_change(model, start, certain - start, good ? MODEL_MAYBE : outcome);
    model_end_change(model, certain, model->max_size - certain, outcome);
    last->answered = model->answers;
    last->state = good ? VERSION_SURE : VERSION_MAYBE;
    if (outcome == MODEL_DURABLE) {
        model->sizes[0] = *last;
        model->size_count = 1;
    }
}

/* --- after a cut --- */

bool model_size_is_possible(const struct model *model, uint64_t size)
{
    uint64_t low = UINT64_MAX, high = 0;
    for (unsigned i = 0; i < model->size_count; i++) {
        if (model->sizes[i].size == size)
            return true;
        low = MIN(low, model->sizes[i].size);
        high = MAX(high, model->sizes[i].size);
    }
    return model->any_size_between && low < size && size < high;
}

static bool may_hold(const struct sector *sector, uint32_t stamp)
{
    for (unsigned i = 0; i < sector->count; i++) {
        if (sector->versions[i].stamp == stamp)
            return true;
    }
    return false;
}

uint64_t model_examine(const struct model *model, const void *data, uint64_t offset, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += SECTOR) {
        uint32_t stamp;
        uint64_t s = (offset + at) / SECTOR;
        if (!stamp_of((const unsigned char *)data + at, s, &stamp) || !may_hold(&model->sectors[s], stamp))
            return offset + at;
    }
    return UINT64_MAX;
}

uint64_t model_examine_answered(const struct model *model, const void *data, uint64_t offset, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += SECTOR) {
        uint32_t stamp;
        uint64_t s = (offset + at) / SECTOR;
        if (!stamp_of((const unsigned char *)data + at, s, &stamp) || !may_read(&model->sectors[s], stamp))
            return offset + at;
    }
    return UINT64_MAX;
}

char *model_describe(const struct model *model, uint64_t offset, const void *found)
{
    static const char *const states[] = {"sure", "pending", "maybe"};
    const struct sector *sector = &model->sectors[offset / SECTOR];
    struct strbuf text = {0};
    uint64_t word;
    memcpy(&word, found, 8);
    strbuf_printf(&text, "sector at %#" PRIx64 " holds stamp %u of sector %#" PRIx64 "; possible:", offset,
                  (unsigned)(word >> 32), (word & UINT32_MAX) * SECTOR);
    for (unsigned i = 0; i < sector->count; i++)
        strbuf_printf(&text, " %u (%s)", sector->versions[i].stamp, states[sector->versions[i].state]);
    return strbuf_take(&text);
}

static void observe_sector(struct sector *sector, uint32_t stamp, uint64_t answer)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < sector->count; i++) {
        if (sector->versions[i].stamp == stamp)
            continue;
        sector->versions[kept] = sector->versions[i];
        sector->versions[kept++].state = VERSION_MAYBE;
    }
    sector->versions[kept] = (struct version){.stamp = stamp, .answered = answer};
    sector->count = (uint8_t)(kept + 1);
    sector->readers = 0;
    sector->changing = sector->lost = false;
}

bool model_observe(struct model *model, const void *data, uint64_t size)
{
    uint64_t answer = ++model->answers;
    if (model->size_count > VERSIONS_MAX - ROOM)
        return false;
    for (uint64_t s = 0; s < model->max_size / SECTOR; s++) {
        if (model->sectors[s].count > VERSIONS_MAX - ROOM + 2)
            return false;
    }
    for (uint64_t s = 0; s < model->max_size / SECTOR; s++) {
        uint32_t stamp = 0;
        if (s < size / SECTOR)
            (void)stamp_of((const unsigned char *)data + s * SECTOR, s, &stamp);
        observe_sector(&model->sectors[s], stamp, answer);
    }
    for (unsigned i = 0; i < model->size_count; i++)
        model->sizes[i].state = VERSION_MAYBE;
    model->sizes[model->size_count++] = (struct size_version){.size = size, .answered = answer};
    return true;
}

void model_settle(struct model *model, const void *data, uint64_t size)
{
    for (uint64_t s = 0; s < model->max_size / SECTOR; s++) {
        uint32_t stamp = 0;
        if (s < size / SECTOR)
            (void)stamp_of((const unsigned char *)data + s * SECTOR, s, &stamp);
        model->sectors[s] = (struct sector){.count = 1, .versions = {{.stamp = stamp}}};
    }
    model->sizes[0] = (struct size_version){.size = size};
    model->size_count = 1;
}
