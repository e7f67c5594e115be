/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links: confined
 *
 * Answers of a confined worker that somebody has taken over. What is believed must be safe to use: extents that lie one
 * behind the other inside the disk, places inside the file, text that ends, counts inside the buffer.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "block/driver.h"
#include "confined/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

static void check_extents(const struct confined_question *question, const struct confined_answer *answer,
                          const struct confined_limits *limits)
{
    uint64_t at = question->offset;
    MUST(answer->count && answer->count <= CONFINED_EXTENTS);
    for (uint32_t i = 0; i < answer->count; i++) {
        const struct confined_extent *extent = &answer->u.extents[i];
        MUST(extent->length && extent->length <= limits->size - at && extent->kind <= EXTENT_ENCODED);
        if (extent->flags & CONFINED_PLACED)
            MUST(extent->host_offset <= limits->file_size + CONFINED_SLACK &&
                 extent->length <= limits->file_size + CONFINED_SLACK - extent->host_offset);
        at += extent->length;
    }
}

static void check_text(const char *text, size_t size)
{
    size_t length = strnlen(text, size);
    MUST(length < size);
    for (size_t i = 0; i < length; i++)
        MUST((unsigned char)text[i] >= ' ' && text[i] != 127);
}

static void check_believed(const struct confined_question *question, const struct confined_answer *answer,
                           const struct confined_limits *limits)
{
    MUST(answer->sequence == question->sequence && answer->op == question->op && answer->result <= 0);
    if (answer->result) {
        check_text(answer->u.message, sizeof answer->u.message);
    } else if (question->op == CONFINED_OPEN) {
        MUST(answer->u.facts.size <= INT64_MAX);
        check_text(answer->u.facts.format, sizeof answer->u.facts.format);
        check_text(answer->u.facts.backing_format, sizeof answer->u.facts.backing_format);
        check_text(answer->u.facts.backing_name, sizeof answer->u.facts.backing_name);
    } else if (question->op == CONFINED_MAP) {
        check_extents(question, answer, limits);
    } else {
        MUST(answer->count <= CONFINED_BUFFER_SIZE);
    }
}

/* The first bytes are the question and what the owner knows, in ranges that occur; the rest is the answer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct confined_question question = {.sequence = 1};
    struct confined_limits limits;
    uint8_t head[4];
    if (size < sizeof head)
        return 0;
    memcpy(head, data, sizeof head);
    question.op = head[0] % 7;
    limits.size = 1ull << (12 + head[1] % 50);
    limits.file_size = 1ull << (head[2] % 62);
    question.offset = limits.size / 256 * head[3];
    question.length = MIN(limits.size - question.offset, CONFINED_BUFFER_SIZE);
    auto_free struct confined_answer *answer = calloc(1, sizeof *answer);
    *answer = (struct confined_answer){.sequence = question.sequence, .op = question.op};
    memcpy(&answer->result, data + sizeof head,
           MIN(size - sizeof head, sizeof *answer - offsetof(struct confined_answer, result)));
    auto_error err = {0};
    if (confined_validate(&question, answer, sizeof *answer, &limits, &err))
        check_believed(&question, answer, &limits);
    else
        MUST(err.message);
    return 0;
}
