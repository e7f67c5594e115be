/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken if this fails: an answer that no honest worker gives is believed, or an honest one is not.
 * For every field there is an honest answer and lies that differ from it in that field alone.
 */
#include <string.h>
#include "base/cleanup.h"
#include "block/driver.h"
#include "confined/validate.h"
#include "tests/unit/base/check.h"

static const struct confined_limits limits = {.file_size = 10 << 20, .size = 100 << 20};

static bool believed(const struct confined_question *question, const struct confined_answer *answer)
{
    auto_error err = {0};
    bool good = confined_validate(question, answer, sizeof *answer, &limits, &err);
    assert_true(good == !err.message); /* a lie is named */
    return good;
}

static struct confined_answer answer_to(const struct confined_question *question)
{
    return (struct confined_answer){.sequence = question->sequence, .op = question->op};
}

/* Applies `change` to a copy of the honest answer. */
#define LIE(change)                                                                                                    \
    do {                                                                                                               \
        struct confined_answer lie = honest;                                                                           \
        change;                                                                                                        \
        bool is_believed = believed(&question, &lie);                                                                  \
        if (is_believed)                                                                                               \
            print_error("believed: %s\n", #change);                                                                    \
        assert_false(is_believed);                                                                                     \
    } while (0)
#define TRUTH(change)                                                                                                  \
    do {                                                                                                               \
        struct confined_answer lie = honest;                                                                           \
        change;                                                                                                        \
        assert_true(believed(&question, &lie));                                                                        \
    } while (0)

static void test_frame(void **state)
{
    const struct confined_question question = {.sequence = 7, .op = CONFINED_CHECK};
    const struct confined_answer honest = answer_to(&question);
    TRUTH((void)lie);
    LIE(lie.sequence = 6);
    LIE(lie.op = CONFINED_MAP);
    LIE(lie.result = 1);
    LIE(lie.result = -5000);
    LIE(lie.result = INT32_MIN);
    LIE(lie.count = 1);
    for (size_t length = 0; length < sizeof honest; length += 61)
        assert_false(confined_validate(&question, &honest, length, &limits, NULL));
    assert_false(confined_validate(&question, &honest, sizeof honest + 1, &limits, NULL));
}

static void test_reasons(void **state)
{
    const struct confined_question question = {.sequence = 7, .op = CONFINED_MAP, .length = 4096};
    struct confined_answer honest = answer_to(&question);
    honest.result = -EIO;
    TRUTH((void)lie);
    TRUTH(strcpy(lie.u.message, "the L1 table lies beyond the end \xc3\xa4"));
    LIE(lie.count = 1);
    LIE(memset(lie.u.message, 'x', sizeof lie.u.message)); /* without an end */
    LIE(strcpy(lie.u.message, "\x1b[2J"));                 /* a terminal's orders */
    LIE(strcpy(lie.u.message, "two\nlines"));
    LIE(strcpy(lie.u.message, "\xff"));
    LIE(strcpy(lie.u.message, "\xc3"));
    LIE(strcpy(lie.u.message, "\xc2\x9b"
                              "2J"));
    LIE(strcpy(lie.u.message, "\x7f"));
}

static void test_facts(void **state)
{
    const struct confined_question question = {.sequence = 1, .op = CONFINED_OPEN};
    struct confined_answer honest = answer_to(&question);
    honest.u.facts = (struct confined_facts){.size = 1 << 30, .cluster_size = 65536, .format = "qcow2"};
    TRUTH((void)lie);
    TRUTH(lie.u.facts.size = 0);
    LIE(lie.u.facts.size = UINT64_MAX);
    LIE(lie.u.facts.size = 1ull << 63);
    LIE(lie.u.facts.cluster_size = 1ull << 32);
    LIE(lie.u.facts.flags = 64);
    LIE(lie.u.facts.flags = 0x80000000);
    LIE(lie.u.facts.format[0] = '\0');
    LIE(strcpy(lie.u.facts.format, "qcow2\n"));
    LIE(strcpy(lie.u.facts.format, "../raw"));
    LIE(memset(lie.u.facts.format, 'a', sizeof lie.u.facts.format));
    LIE(strcpy(lie.u.facts.backing_name, "base.img")); /* a name, but no flag */
    LIE(lie.u.facts.flags = CONFINED_HAS_BACKING);     /* a flag, but no name */
    honest.u.facts.flags = CONFINED_HAS_BACKING;
    strcpy(honest.u.facts.backing_name, "base.img");
    TRUTH((void)lie);
    LIE(strcpy(lie.u.facts.backing_name, "a\nb"));
    LIE(memset(lie.u.facts.backing_name, 'a', sizeof lie.u.facts.backing_name));
    LIE(strcpy(lie.u.facts.backing_format, "\x01"));
    LIE(memset(lie.u.facts.backing_format, 'a', sizeof lie.u.facts.backing_format));
}

static void test_extents(void **state)
{
    const struct confined_question question = {.sequence = 9, .op = CONFINED_MAP, .offset = 1 << 20, .length = 4096};
    struct confined_answer honest = answer_to(&question);
    struct confined_extent *e = honest.u.extents;
    e[0] = (struct confined_extent){65536, 4 << 20, EXTENT_DATA, CONFINED_ALLOCATED | CONFINED_PLACED};
    e[1] = (struct confined_extent){65536, 0, EXTENT_BACKING, 0};
    e[2] = (struct confined_extent){65536, 0, EXTENT_ENCODED, CONFINED_ALLOCATED};
    e[3] = (struct confined_extent){98 << 20, 0, EXTENT_ZERO, CONFINED_ALLOCATED};
    honest.count = 4;
    TRUTH((void)lie);
    TRUTH(lie.count = 1);
    LIE(lie.count = 0);
    LIE(lie.count = CONFINED_EXTENTS + 1);
    LIE(lie.count = UINT32_MAX);
    LIE(lie.u.extents[0].length = 0);
    LIE(lie.u.extents[1].length = 0);
    LIE(lie.u.extents[0].length = UINT64_MAX); /* wraps */
    LIE(lie.u.extents[3].length = 99 << 20);   /* beyond the disk */
    LIE(lie.u.extents[1].length = 0 - (uint64_t)(1 << 20));
    for (int i = 0; i < 4; i++) {
        LIE(lie.u.extents[i].kind = EXTENT_ENCODED + 1);
        LIE(lie.u.extents[i].kind = UINT32_MAX);
        LIE(lie.u.extents[i].flags |= 8);
        LIE(lie.u.extents[i].flags |= 0x80000000);
    }
    LIE(lie.u.extents[0].flags = CONFINED_ALLOCATED); /* data that lies nowhere */
    LIE(lie.u.extents[0].host_offset = 13 << 20);     /* behind the end of the file and the slack */
    LIE(lie.u.extents[0].host_offset = UINT64_MAX);
    LIE(lie.u.extents[0].host_offset = UINT64_MAX - 65535);
    LIE(lie.u.extents[1].flags = CONFINED_PLACED);
    LIE(lie.u.extents[1].flags = CONFINED_ALLOCATED);
    LIE(lie.u.extents[1].flags = CONFINED_FOLLOW);
    LIE(lie.u.extents[1].host_offset = 1);
    LIE(lie.u.extents[2].flags |= CONFINED_PLACED);
    LIE(lie.u.extents[2].flags |= CONFINED_FOLLOW);
    LIE(lie.u.extents[3].host_offset = 512);
}

static void test_bytes_and_counters(void **state)
{
    struct confined_question question = {.sequence = 2, .op = CONFINED_READ, .length = 65536};
    struct confined_answer honest = answer_to(&question);
    honest.count = 65536;
    TRUTH((void)lie);
    LIE(lie.count = 65535);
    LIE(lie.count = 65537);
    LIE(lie.count = 0);
    question.op = honest.op = CONFINED_INFO;
    TRUTH(lie.count = CONFINED_BUFFER_SIZE);
    LIE(lie.count = CONFINED_BUFFER_SIZE + 1);
    question.op = honest.op = CONFINED_CHECK;
    honest.count = 0;
    TRUTH((void)lie);
    for (int i = 0; i < CONFINED_COUNTERS; i++) {
        TRUTH(lie.u.counters[i] = INT64_MAX);
        LIE(lie.u.counters[i] = -1);
    }
    question.op = honest.op = 99;
    LIE((void)lie);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_bytes_and_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
