/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a simulated run cannot be repeated from its seed, or a power cut keeps and loses the wrong
 * data. */
#include "tests/unit/base/loops.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include "base/alloc.h"
#include "base/io_file.h"
#include "base/rng.h"
#include "base/sim.h"
#include "base/strbuf.h"
#include "base/stream.h"

static struct loop *new_simulation(uint64_t seed)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_SIMULATED, seed, &err);
    assert_non_null(loop);
    return loop;
}

/* --- the same seed gives the same run --- */

static void work(void *arg)
{
}

static void wanderer(void *arg)
{
    struct strbuf *trail = arg;
    struct loop *loop = loop_current();
    for (int i = 0; i < 5; i++) {
        strbuf_printf(trail, "%p@%llu ", (void *)(uintptr_t)sim_random(loop, 100),
                      (unsigned long long)loop_now_ns(loop));
        switch (sim_random(loop, 3)) {
        case 0: co_sleep_ns(sim_random(loop, 1000)); break;
        case 1: co_yield (); break;
        case 2: co_offload(work, NULL); break;
        }
    }
}

static char *wander(uint64_t seed)
{
    struct strbuf trail = {0};
    struct loop *loop = new_simulation(seed);
    for (int i = 0; i < 50; i++)
        co_spawn(loop, NULL, wanderer, &trail);
    loop_run_until_idle(loop);
    loop_free(loop);
    return strbuf_take(&trail);
}

static void seed_decides(void **state)
{
    char *first = wander(1), *again = wander(1), *other = wander(2);
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
    free(first);
    free(again);
    free(other);
}

static int long_sleep(void *arg)
{
    uint64_t before = loop_now_ns(loop_current());
    for (int i = 0; i < 365; i++)
        assert_int_equal(co_sleep_ns(86400ull * 1000000000), 0);
    assert_int_equal(loop_now_ns(loop_current()) - before, 365 * 86400ull * 1000000000);
    return 0;
}

static void a_year_passes_at_once(void **state)
{
    struct loop *loop = new_simulation(1);
    loop_run_main(loop, long_sleep, NULL);
    loop_free(loop);
}

/* --- power cuts --- */

#define SECTORS 64

struct disk_test {
    struct loop *loop;
    struct io_file *file;
    int code;
};

static struct io_file *open_file(struct loop *loop, int flags)
{
    struct error err = {0};
    struct io_file *file = io_file_open(loop, "disk", O_RDWR | flags, 0, IO_ENGINE_AUTO, &err);
    assert_non_null(file);
    return file;
}

static int64_t write_pattern(struct io_file *file, int byte, uint64_t offset, size_t size, bool durable)
{
    void *data = xmalloc(size);
    memset(data, byte, size);
    struct iovec iov = {data, size};
    int64_t n = io_file_writev(file, &iov, 1, offset, durable);
    free(data);
    return n;
}

static int write_flush_write(void *arg)
{
    struct disk_test *t = arg;
    t->file = open_file(t->loop, O_CREAT);
    assert_int_equal(write_pattern(t->file, 'a', 0, SECTORS * 512, false), SECTORS * 512);
    assert_int_equal(io_file_datasync(t->file), 0);
    assert_int_equal(write_pattern(t->file, 'b', 0, SECTORS * 512, false), SECTORS * 512);
    assert_int_equal(write_pattern(t->file, 'd', 10 * 512, 512, true), 512); /* durable on its own */
    return 0;
}

static int after_cut(void *arg)
{
    struct disk_test *t = arg;
    assert_int_equal(write_pattern(t->file, 'x', 0, 512, false), -EIO); /* open since before: dead */
    assert_int_equal(io_file_datasync(t->file), -EIO);
    io_file_close(t->file);
    t->file = open_file(t->loop, 0);
    assert_int_equal(io_file_datasync(t->file), 0);
    io_file_close(t->file);
    return 0;
}

static void cuts_tear_what_was_not_flushed(void **state)
{
    int old = 0, new_ones = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct disk_test t = {.loop = new_simulation(seed)};
        loop_run_main(t.loop, write_flush_write, &t);
        assert_int_equal(sim_file_unflushed(t.loop, "disk"), SECTORS * 512);
        sim_crash(t.loop, seed);
        size_t size;
        char *data = sim_file_get(t.loop, "disk", &size);
        assert_int_equal(size, SECTORS * 512);
        for (int sector = 0; sector < SECTORS; sector++) {
            char byte = data[sector * 512];
            for (int i = 0; i < 512; i++)
                assert_int_equal(data[sector * 512 + i], byte); /* a sector is whole */
            assert_true(sector == 10 ? byte == 'd' : byte == 'a' || byte == 'b');
            old += byte == 'a';
            new_ones += byte == 'b';
        }
        free(data);
        loop_run_main(t.loop, after_cut, &t);
        assert_int_equal(sim_file_unflushed(t.loop, "disk"), 0);
        loop_free(t.loop);
    }
    assert_true(old > 300 && new_ones > 300); /* both happen, about equally */
}

/* A sync covers only what was complete when it began. */
static void late_writer(void *arg)
{
    struct disk_test *t = arg;
    assert_int_equal(write_pattern(t->file, 'L', 4096, 4096, false), 4096);
}

static int sync_beside_write(void *arg)
{
    struct disk_test *t = arg;
    t->file = open_file(t->loop, O_CREAT);
    assert_int_equal(write_pattern(t->file, 'a', 0, 4096, false), 4096);
    struct co_group group;
    co_group_init(&group);
    co_spawn(t->loop, &group, late_writer, t);
    co_sleep_ns(1); /* it has begun */
    assert_int_equal(io_file_datasync(t->file), 0);
    co_group_wait(&group);
    return 0;
}

static void sync_covers_completed_writes_only(void **state)
{
    struct disk_test t = {.loop = new_simulation(3)};
    loop_run_main(t.loop, sync_beside_write, &t);
    assert_int_equal(sim_file_unflushed(t.loop, "disk"), 4096);
    io_file_close(t.file);
    loop_free(t.loop);
}

/* A random workload, cut at every operation: what a sync promised must be there, whatever else is. */
struct promise {
    struct loop *loop;
    unsigned char sure[SECTORS]; /* content promised by the last sync */
    bool written[SECTORS][256];  /* values written since then */
    uint64_t cut_at;
    bool cut;
};

static void cut(void *arg)
{
    struct promise *p = arg;
    p->cut = true;
    sim_crash(p->loop, p->cut_at);
}

static int promising_workload(void *arg)
{
    struct promise *p = arg;
    struct io_file *file = open_file(p->loop, O_CREAT);
    unsigned char current[SECTORS] = {0};
    assert_int_equal(io_file_truncate(file, SECTORS * 512), 0);
    assert_int_equal(io_file_datasync(file), 0);
    sim_at_operation(p->loop, p->cut_at, cut, p);
    for (int i = 1; i < 60 && !p->cut; i++) {
        uint64_t sector = sim_random(p->loop, SECTORS), count = sim_random(p->loop, SECTORS - sector) + 1;
        for (uint64_t s = sector; s < sector + count; s++)
            p->written[s][i] = true;
        if (write_pattern(file, i, sector * 512, count * 512, false) < 0)
            break;
        memset(current + sector, i, count);
        if (sim_random(p->loop, 3) == 0 && io_file_datasync(file) == 0) {
            memcpy(p->sure, current, sizeof current);
            memset(p->written, 0, sizeof p->written);
        }
    }
    io_file_close(file);
    return 0;
}

static void what_was_synced_survives_any_cut(void **state)
{
    for (uint64_t at = 1; at < 80; at++) {
        struct promise *p = xcalloc(1, sizeof *p);
        p->loop = new_simulation(at);
        p->cut_at = at;
        loop_run_main(p->loop, promising_workload, p);
        if (!p->cut)
            sim_crash(p->loop, at);
        size_t size;
        unsigned char *data = sim_file_get(p->loop, "disk", &size);
        assert_int_equal(size, SECTORS * 512);
        for (int s = 0; s < SECTORS; s++)
            assert_true(data[s * 512] == p->sure[s] || p->written[s][data[s * 512]]);
        free(data);
        loop_free(p->loop);
        free(p);
    }
}

/* --- failures --- */

static int failing_main(void *arg)
{
    struct loop *loop = loop_current();
    struct io_file *file = open_file(loop, O_CREAT);
    sim_fail(loop, "disk", SIM_WRITE, 3, 2, EIO);
    sim_fail(loop, "other", SIM_ANY, 1, 100, EIO);
    assert_int_equal(write_pattern(file, 1, 0, 512, false), 512);
    assert_int_equal(write_pattern(file, 2, 0, 512, false), 512);
    assert_int_equal(write_pattern(file, 3, 0, 512, false), -EIO);
    assert_int_equal(write_pattern(file, 4, 0, 512, false), -EIO);
    assert_int_equal(write_pattern(file, 5, 0, 512, false), 512);
    sim_fail(loop, NULL, SIM_SYNC, 1, 1, EIO);
    assert_int_equal(io_file_datasync(file), -EIO);
    assert_true(sim_file_unflushed(loop, "disk") > 0); /* a failed sync promises nothing */
    assert_int_equal(io_file_datasync(file), 0);
    assert_int_equal(sim_file_unflushed(loop, "disk"), 0);
    sim_fail(loop, NULL, SIM_READ | SIM_TRUNCATE, 1, 2, ENOMEDIUM);
    assert_int_equal(io_file_truncate(file, 100), -ENOMEDIUM);
    sim_fail_clear(loop);
    assert_int_equal(io_file_truncate(file, 100), 0);

    sim_config(loop)->disk_capacity = 64 * KiB;
    assert_int_equal(write_pattern(file, 1, 4096, 56 * KiB, false), 56 * KiB);
    assert_int_equal(write_pattern(file, 1, 128 * KiB, 8 * KiB, false), -ENOSPC);
    assert_int_equal(write_pattern(file, 2, 4096, 56 * KiB, false), 56 * KiB); /* in place */
    assert_int_equal(io_file_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192), 0);
    assert_int_equal(write_pattern(file, 1, 128 * KiB, 8 * KiB, false), 8 * KiB);
    io_file_close(file);
    return 0;
}

static void failures_come_when_ordered(void **state)
{
    struct loop *loop = new_simulation(5);
    loop_run_main(loop, failing_main, NULL);
    loop_free(loop);
}

static int broken_line_main(void *arg)
{
    struct stream *pair[2];
    struct error err = {0};
    char byte;
    stream_pair(loop_current(), pair, &err);
    assert_int_equal(stream_send_all(pair[0], "abc", 3), 0);
    sim_stream_break(pair[1]);
    assert_int_equal(stream_recv(pair[1], &byte, 1), -ECONNRESET);
    assert_int_equal(stream_recv(pair[0], &byte, 1), -ECONNRESET);
    assert_int_equal(stream_send_all(pair[0], "abc", 3), -EPIPE);
    stream_close(pair[0]);
    stream_close(pair[1]);
    return 0;
}

static void lines_break(void **state)
{
    struct loop *loop = new_simulation(5);
    loop_run_main(loop, broken_line_main, NULL);
    loop_free(loop);
}

static void files_from_outside(void **state)
{
    struct loop *loop = new_simulation(1);
    size_t size;
    assert_false(sim_file_exists(loop, "a"));
    assert_null(sim_file_get(loop, "a", &size));
    sim_file_put(loop, "a", "one", 3);
    sim_file_put(loop, "a", "four", 4);
    sim_crash(loop, 1); /* put is durable */
    char *data = sim_file_get(loop, "a", &size);
    assert_int_equal(size, 4);
    assert_memory_equal(data, "four", 4);
    free(data);
    assert_true(sim_file_remove(loop, "a"));
    assert_false(sim_file_remove(loop, "a"));
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seed_decides),
        cmocka_unit_test(a_year_passes_at_once),
        cmocka_unit_test(cuts_tear_what_was_not_flushed),
        cmocka_unit_test(sync_covers_completed_writes_only),
        cmocka_unit_test(what_was_synced_survives_any_cut),
        cmocka_unit_test(failures_come_when_ordered),
        cmocka_unit_test(lines_break),
        cmocka_unit_test(files_from_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
