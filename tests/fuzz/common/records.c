/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs made of records (fuzz.h): reading them, and mutators that insert, remove, repeat, exchange and change steps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/math.h"
#include "tests/fuzz/common/fuzz.h"

enum { RECORDS_MAX = 256 };

void fuzz_fail(const char *file, int line, const char *condition)
{
    if (dprintf(FUZZ_REPORT_FD, "%s:%d: does not hold: %s\n", file, line, condition) < 0)
        fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

uint64_t fuzz_draw(struct fuzz_random *random, uint64_t limit)
{
    random->state += 0x9e3779b97f4a7c15ull;
    uint64_t z = random->state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return limit ? z % limit : z;
}

uint64_t fuzz_interesting(struct fuzz_random *random)
{
    unsigned shift = (unsigned)fuzz_draw(random, 64);
    switch (fuzz_draw(random, 6)) {
    case 0: return fuzz_draw(random, 16);
    case 1: return 1ull << shift;
    case 2: return (1ull << shift) - 1;
    case 3: return 0 - fuzz_draw(random, 16);
    case 4: return fuzz_draw(random, 256) * 512;
    default: return fuzz_draw(random, 0) >> shift;
    }
}

struct records records_after(const uint8_t *data, size_t size, size_t head)
{
    size_t skip = MIN(head, size);
    return (struct records){data + skip, size - skip};
}

bool record_next(struct records *records, struct record *record)
{
    if (!records->left)
        return false;
    size_t size = MIN((size_t)records->at[0], records->left - 1);
    *record = (struct record){records->at + 1, size};
    records->at += 1 + size;
    records->left -= 1 + size;
    return true;
}

uint64_t record_number(const struct record *record, size_t at, unsigned bytes)
{
    uint64_t number = 0;
    for (unsigned i = 0; i < bytes && at + i < record->size; i++)
        number |= (uint64_t)record->bytes[at + i] << 8 * i;
    return number;
}

/* An input taken apart; the bytes stand in `room`, so that records can grow. */
struct parts {
    size_t count;
    struct {
        uint8_t size, bytes[RECORD_MAX];
    } record[RECORDS_MAX];
};

static void take_apart(struct parts *parts, const uint8_t *data, size_t size, size_t head)
{
    struct records records = records_after(data, size, head);
    struct record record;
    parts->count = 0;
    while (parts->count < RECORDS_MAX && record_next(&records, &record)) {
        parts->record[parts->count].size = (uint8_t)record.size;
        memcpy(parts->record[parts->count++].bytes, record.bytes, record.size);
    }
}

static size_t put_together(const struct parts *parts, uint8_t *out, size_t at, size_t max_size)
{
    for (size_t i = 0; i < parts->count; i++) {
        size_t size = parts->record[i].size;
        if (at + 1 + size > max_size)
            break;
        out[at] = (uint8_t)size;
        memcpy(out + at + 1, parts->record[i].bytes, size);
        at += 1 + size;
    }
    return at;
}

static void open_gap(struct parts *parts, size_t at)
{
    memmove(&parts->record[at + 1], &parts->record[at], (parts->count - at) * sizeof parts->record[0]);
    parts->count++;
}

static void insert(const struct record_shape *shape, struct parts *parts, struct fuzz_random *random)
{
    if (parts->count == RECORDS_MAX)
        return;
    size_t at = fuzz_draw(random, parts->count + 1);
    open_gap(parts, at);
    parts->record[at].size = (uint8_t)shape->fresh(random, parts->record[at].bytes);
}

static void repeat(struct parts *parts, struct fuzz_random *random)
{
    size_t from = fuzz_draw(random, parts->count), at = fuzz_draw(random, parts->count + 1);
    if (parts->count == RECORDS_MAX)
        return;
    open_gap(parts, at);
    parts->record[at] = parts->record[from >= at ? from + 1 : from];
}

static void erase(struct parts *parts, struct fuzz_random *random)
{
    size_t at = fuzz_draw(random, parts->count);
    parts->count--;
    memmove(&parts->record[at], &parts->record[at + 1], (parts->count - at) * sizeof parts->record[0]);
}

static void change(struct parts *parts, struct fuzz_random *random)
{
    size_t at = fuzz_draw(random, parts->count);
    parts->record[at].size = (uint8_t)LLVMFuzzerMutate(parts->record[at].bytes, parts->record[at].size, RECORD_MAX);
}

/* A number inside of a record becomes one that is likely to matter. */
static void change_number(struct parts *parts, struct fuzz_random *random)
{
    size_t which = fuzz_draw(random, parts->count), size = parts->record[which].size;
    uint64_t number = fuzz_interesting(random);
    if (!size)
        return;
    size_t at = fuzz_draw(random, size), bytes = (size_t)1 << fuzz_draw(random, 4);
    memcpy(parts->record[which].bytes + at, &number, MIN(bytes, size - at));
}

static void exchange(struct parts *parts, struct fuzz_random *random)
{
    size_t one = fuzz_draw(random, parts->count), other = fuzz_draw(random, parts->count);
    __typeof__(parts->record[0]) kept = parts->record[one];
    parts->record[one] = parts->record[other];
    parts->record[other] = kept;
}

static void mutate_once(const struct record_shape *shape, struct parts *parts, struct fuzz_random *random)
{
    unsigned kind = (unsigned)fuzz_draw(random, 10);
    if (!parts->count || kind < 4)
        insert(shape, parts, random);
    else if (kind == 4)
        erase(parts, random);
    else if (kind == 5)
        repeat(parts, random);
    else if (kind == 6)
        exchange(parts, random);
    else if (kind == 7)
        change(parts, random);
    else
        change_number(parts, random);
}

size_t records_mutate(const struct record_shape *shape, uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    struct fuzz_random random = {seed};
    size_t head = shape->head;
    if (max_size <= head)
        return LLVMFuzzerMutate(data, size, max_size);
    if (size < head) {
        memset(data + size, 0, head - size);
        size = head;
    }
    if (head && !fuzz_draw(&random, 8)) {
        data[fuzz_draw(&random, head)] = (uint8_t)fuzz_draw(&random, 256);
        return size;
    }
    struct parts *parts = malloc(sizeof *parts);
    if (!parts)
        return size;
    take_apart(parts, data, size, head);
    for (uint64_t left = 1 + fuzz_draw(&random, 4); left; left--)
        mutate_once(shape, parts, &random);
    size = put_together(parts, data, head, max_size);
    free(parts);
    return size;
}

size_t records_cross(const struct record_shape *shape, const uint8_t *one, size_t one_size, const uint8_t *other,
                     size_t other_size, uint8_t *out, size_t max_size, unsigned seed)
{
    struct fuzz_random random = {seed};
    size_t head = MIN(MIN(shape->head, one_size), max_size);
    struct parts *first = malloc(sizeof *first), *second = malloc(sizeof *second);
    memcpy(out, one, head);
    if (first && second) {
        take_apart(first, one, one_size, shape->head);
        take_apart(second, other, other_size, shape->head);
        size_t keep = fuzz_draw(&random, first->count + 1), from = fuzz_draw(&random, second->count + 1);
        first->count = keep;
        for (; from < second->count && first->count < RECORDS_MAX; from++)
            first->record[first->count++] = second->record[from];
        head = put_together(first, out, head, max_size);
    }
    free(first);
    free(second);
    return head;
}
