/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: growable arrays, strings or lists lose elements, or checked arithmetic lets an overflow pass.
 */
#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/endian.h"
#include "base/list.h"
#include "base/math.h"
#include "base/rng.h"
#include "base/strbuf.h"
#include "base/vec.h"

static void vec_keeps_elements(void **state)
{
    auto_free vec(int) v = {0};
    for (int i = 0; i < 1000; i++)
        vec_push(&v, i);
    assert_int_equal(v.count, 1000);
    vec_insert(&v, 0, -1);
    vec_insert(&v, v.count, 1000);
    vec_insert(&v, 500, 12345);
    assert_int_equal(v.items[500], 12345);
    vec_remove(&v, 500);
    int expected = -1, *at;
    vec_for_each (at, &v)
        assert_int_equal(*at, expected++);
    assert_int_equal(expected, 1001);
    assert_int_equal(vec_pop(&v), 1000);
    assert_int_equal(*vec_last(&v), 999);
    vec_remove_swap(&v, 0);
    assert_int_equal(v.items[0], 999);
    int more[3] = {7, 8, 9};
    vec_clear(&v);
    vec_append(&v, more, 3);
    vec_append(&v, more, 0);
    assert_int_equal(v.count, 3);
    assert_memory_equal(v.items, more, sizeof more);
    volatile size_t too_many = SIZE_MAX / 2;
    assert_false(vec_try_reserve(&v, too_many));
    assert_true(vec_try_reserve(&v, 5000));
    assert_memory_equal(v.items, more, sizeof more);
    vec_push(&v, v.items[0]); /* an element of itself */
    assert_int_equal(v.items[3], 7);
    vec_free(&v);
    vec_push(&v, 1);
}

static void strbuf_grows(void **state)
{
    auto_strbuf buf = {0};
    assert_string_equal(strbuf_text(&buf), "");
    for (int i = 0; i < 500; i++)
        strbuf_printf(&buf, "%d,", i);
    assert_int_equal(buf.length, strlen(buf.text));
    assert_int_equal(strncmp(buf.text, "0,1,2,", 6), 0);
    assert_string_equal(buf.text + buf.length - 4, "499,");
    strbuf_truncate(&buf, 3);
    strbuf_append(&buf, "x");
    strbuf_append_char(&buf, 'y');
    strbuf_append_bytes(&buf, "z\0w", 3);
    assert_int_equal(buf.length, 8);
    assert_memory_equal(buf.text, "0,1xyz\0w", 9);
    char *taken = strbuf_take(&buf);
    assert_memory_equal(taken, "0,1xyz\0w", 9);
    free(taken);
    taken = strbuf_take(&buf);
    assert_string_equal(taken, "");
    free(taken);
}

struct item {
    int value;
    struct list link;
};

static void list_orders_and_removes(void **state)
{
    struct list head;
    struct item items[5], *item;
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_first(&head, struct item, link));
    for (int i = 0; i < 5; i++) {
        items[i] = (struct item){.value = i};
        assert_false(list_linked(&items[i].link));
        list_append(&head, &items[i].link);
    }
    list_remove(&items[0].link);
    list_remove(&items[0].link); /* twice does nothing */
    list_prepend(&head, &items[0].link);
    int n = 0;
    list_for_each (item, &head, link)
        assert_int_equal(item->value, n++);
    list_for_each_safe (item, &head, link)
        if (item->value % 2)
            list_remove(&item->link);
    n = 0;
    list_for_each (item, &head, link)
        n = n * 10 + item->value;
    assert_int_equal(n, 24);
    assert_int_equal(list_last(&head, struct item, link)->value, 4);
    struct item unlinked = {0};
    list_remove(&unlinked.link);
}

static void arithmetic_is_checked(void **state)
{
    uint64_t r;
    assert_true(add_overflows(UINT64_MAX, 1, &r));
    assert_false(add_overflows(UINT64_MAX, 0, &r));
    assert_true(mul_overflows(1ull << 32, 1ull << 32, &r));
    assert_false(mul_overflows(1ull << 32, 1ull << 31, &r));
    assert_true(span_fits(0, 0, 0));
    assert_true(span_fits(5, 5, 10));
    assert_false(span_fits(5, 6, 10));
    assert_false(span_fits(11, 0, 10));
    assert_false(span_fits(UINT64_MAX, 2, 10));
    assert_true(spans_overlap(0, 2, 1, 1));
    assert_false(spans_overlap(0, 1, 1, 1));
    assert_false(spans_overlap(0, 0, 0, 5));
    assert_true(is_power_of_two(1ull << 63));
    assert_false(is_power_of_two(0));
    assert_false(is_power_of_two(6));
    assert_int_equal(round_up(4097, 4096), 8192);
    assert_int_equal(round_down(4097, 4096), 4096);
    assert_int_equal(lowest_bit(0x50), 4);
    assert_int_equal(highest_bit(0x50), 6);
    assert_int_equal(MIN(MAX(1, 2), MIN(4, 3)), 2);
    assert_int_equal(DIV_ROUND_UP(9, 4), 3);
}

static void numbers_have_an_order(void **state)
{
    unsigned char bytes[9];
    store_be32(bytes + 1, 0x12345678);
    assert_int_equal(bytes[1], 0x12);
    assert_int_equal(load_be32(bytes + 1), 0x12345678);
    assert_int_equal(load_le32(bytes + 1), 0x78563412);
    store_le64(bytes + 1, 0x0102030405060708);
    assert_int_equal(bytes[1], 8);
    assert_int_equal(load_be64(bytes + 1), 0x0807060504030201);
    store_be16(bytes, 0xabcd);
    assert_int_equal(load_le16(bytes), 0xcdab);
}

static void random_numbers_repeat(void **state)
{
    struct rng a, b;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    size_t counts[10] = {0};
    for (int i = 0; i < 10000; i++) {
        uint64_t value = rng_below(&a, 10);
        assert_int_equal(value, rng_below(&b, 10));
        counts[value]++;
    }
    for (int i = 0; i < 10; i++)
        assert_true(counts[i] > 800 && counts[i] < 1200);
    assert_int_equal(rng_between(&a, 7, 7), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vec_keeps_elements),      cmocka_unit_test(strbuf_grows),
        cmocka_unit_test(list_orders_and_removes), cmocka_unit_test(arithmetic_is_checked),
        cmocka_unit_test(numbers_have_an_order),   cmocka_unit_test(random_numbers_repeat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
