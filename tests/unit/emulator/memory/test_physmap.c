/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, guest accesses reach the wrong device, or memory beyond the guest's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include "emulator/memory/physmap.h"
#include <cmocka.h>

struct log {
    unsigned count;
    uint64_t offset[8], value[8];
    unsigned size[8];
};

static uint64_t log_read(void *device, uint64_t offset, unsigned size)
{
    struct log *log = device;
    log->offset[log->count] = offset;
    log->size[log->count++] = size;
    return 0xf0f1f2f3f4f5f6f7u + offset;
}
static void log_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct log *log = device;
    log->offset[log->count] = offset;
    log->value[log->count] = value;
    log->size[log->count++] = size;
}
static const struct mmio_ops words = {log_read, log_write, 4, 4}, any = {log_read, log_write};

static struct physmap *make(struct log *log)
{
    struct error err = {0};
    struct physmap *map = physmap_new();
    assert_true(physmap_add_ram(map, "ram", 0x80000000, 0x100000, &err));
    assert_true(physmap_add_rom(map, "rom", 0x1000, 0x1000, &err));
    assert_true(physmap_add_mmio(map, "words", 0x10000000, 0x100, &words, log, &err));
    assert_true(physmap_add_mmio(map, "any", 0x2000, 0x1000, &any, log, &err));
    return map;
}

static void test_table(void **state)
{
    struct log log = {0};
    struct error err = {0};
    struct physmap *map = make(&log);
    assert_int_equal(physmap_count(map), 4);
    for (size_t i = 1; i < 4; i++)
        assert_true(physmap_at(map, i - 1)->base < physmap_at(map, i)->base);
    assert_null(physmap_at(map, 4));
    assert_string_equal(physmap_find(map, 0x1fff)->name, "rom");
    assert_string_equal(physmap_find(map, 0x2000)->name, "any");
    assert_null(physmap_find(map, 0xfff));
    assert_null(physmap_find(map, 0x10000100));
    assert_null(physmap_find(map, UINT64_MAX));
    assert_false(physmap_add_ram(map, "twice", 0x800ff000, 0x2000, &err));
    error_clear(&err);
    assert_false(physmap_add_mmio(map, "wraps", UINT64_MAX - 1, 4, &any, &log, &err));
    error_clear(&err);
    assert_false(physmap_add_ram(map, "torn", 0x90000000, 0x1001, &err));
    error_clear(&err);
    physmap_free(map);
}

static void test_pointers(void **state)
{
    struct log log = {0};
    struct error err = {0};
    struct physmap *map = make(&log);
    uint8_t *ram = physmap_pointer(map, 0x80000000, 0x100000, true);
    assert_non_null(ram);
    assert_ptr_equal(physmap_pointer(map, 0x800fffff, 1, true), ram + 0xfffff);
    assert_null(physmap_pointer(map, 0x800fffff, 2, true));
    assert_null(physmap_pointer(map, 0x80000000, UINT64_MAX, true));
    assert_null(physmap_pointer(map, 0x1000, 4, true)); /* ROM is not for devices to write */
    assert_non_null(physmap_pointer(map, 0x1000, 4, false));
    assert_null(physmap_pointer(map, 0x10000000, 4, false));
    assert_true(physmap_load(map, 0x1ffe, "ab", 2, &err));
    assert_false(physmap_load(map, 0x1fff, "ab", 2, &err));
    error_clear(&err);

    /* The descriptor behind RAM shows the same bytes: another process can map it. */
    char bytes[4];
    memcpy(ram + 0x4000, "seen", 4);
    assert_int_equal(pread(physmap_find(map, 0x80000000)->fd, bytes, 4, 0x4000), 4);
    assert_memory_equal(bytes, "seen", 4);
    physmap_free(map);
}

static void test_access_sizes(void **state)
{
    struct log log = {0};
    uint64_t value;
    struct physmap *map = make(&log);
    assert_true(physmap_mmio_read(map, 0x10000008, 8, &value)); /* in two pieces, low half first */
    assert_int_equal(log.count, 2);
    assert_int_equal(log.offset[0], 8);
    assert_int_equal(log.offset[1], 12);
    assert_int_equal(log.size[1], 4);
    assert_int_equal(value, (0xf4f5f6f7u + 8) | (uint64_t)(0xf4f5f6f7u + 12) << 32);
    log.count = 0;
    assert_true(physmap_mmio_write(map, 0x10000000, 0x1122334455667788, 8));
    assert_int_equal(log.value[0], 0x55667788);
    assert_int_equal(log.value[1], 0x11223344);
    log.count = 0;
    assert_false(physmap_mmio_read(map, 0x10000000, 2, &value)); /* smaller than it takes */
    assert_false(physmap_mmio_read(map, 0x10000002, 4, &value)); /* not aligned */
    assert_false(physmap_mmio_read(map, 0x80000000, 4, &value)); /* not a device */
    assert_false(physmap_mmio_write(map, 0x3000, 1, 1));         /* nothing there */
    assert_int_equal(log.count, 0);
    assert_true(physmap_mmio_read(map, 0x2ffe, 2, &value));
    assert_int_equal(value, (0xf6f7 + 0xffe) & 0xffff);
    physmap_free(map);
}

static uint64_t noted_address, noted_length;
static void note(void *arg, uint64_t address, uint64_t length)
{
    noted_address = address;
    noted_length = length;
}

static void test_write_listener(void **state)
{
    struct log log = {0};
    struct error err = {0};
    struct physmap *map = make(&log);
    physmap_note_write(map, 1, 1); /* nobody listens yet */
    physmap_set_write_listener(map, note, NULL);
    assert_true(physmap_load(map, 0x80000010, "xyz", 3, &err));
    assert_int_equal(noted_address, 0x80000010);
    assert_int_equal(noted_length, 3);
    physmap_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_pointers),
                                       cmocka_unit_test(test_access_sizes), cmocka_unit_test(test_write_listener)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
