/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, drivers do not find their virtio devices, requests get lost, or a reset leaves I/O running into freed
 * guest memory. A driver in the test goes through virtio 1.3, section 3.1.1, register by register. */
#include "tests/unit/emulator/hw/bench.h"

#include <pthread.h>
#include <unistd.h>
#include "emulator/hw/disk.h"
#include "emulator/hw/virtio_device.h"
#include "virtio/virtio_blk.h"

#define BASE 0x10001000u
#define DESC (RAM + 0x1000)
#define AVAIL (RAM + 0x2000)
#define USED (RAM + 0x3000)
#define DATA (RAM + 0x8000)
enum { R_FEATURES = 0x10, R_FEATURES_SEL = 0x14, R_DRIVER = 0x20, R_DRIVER_SEL = 0x24, R_QSEL = 0x30, R_QMAX = 0x34 };
enum {
    R_QSIZE = 0x38,
    R_QREADY = 0x44,
    R_NOTIFY = 0x50,
    R_ISR = 0x60,
    R_ACK = 0x64,
    R_STATUS = 0x70,
    R_CONFIG = 0x100
};

/* --- the driver
 * -------------------------------------------------------------------------------------------------------- */

static uint64_t offered(struct bench *b)
{
    poke32(b, BASE + R_FEATURES_SEL, 1);
    uint64_t high = peek32(b, BASE + R_FEATURES);
    poke32(b, BASE + R_FEATURES_SEL, 0);
    return high << 32 | peek32(b, BASE + R_FEATURES);
}

static bool negotiate(struct bench *b, uint64_t features)
{
    poke32(b, BASE + R_STATUS, 0);
    poke32(b, BASE + R_STATUS, 1);
    poke32(b, BASE + R_STATUS, 3);
    poke32(b, BASE + R_DRIVER_SEL, 0);
    poke32(b, BASE + R_DRIVER, (uint32_t)features);
    poke32(b, BASE + R_DRIVER_SEL, 1);
    poke32(b, BASE + R_DRIVER, (uint32_t)(features >> 32));
    poke32(b, BASE + R_STATUS, 3 | 8);
    return peek32(b, BASE + R_STATUS) & 8;
}

static void set_address(struct bench *b, uint32_t reg, uint64_t address)
{
    poke32(b, BASE + reg, (uint32_t)address);
    poke32(b, BASE + reg + 4, (uint32_t)(address >> 32));
}

static bool set_queue(struct bench *b, uint32_t size)
{
    memset(ram(b, DESC), 0, 0x3000);
    poke32(b, BASE + R_QSEL, 0);
    poke32(b, BASE + R_QSIZE, size);
    set_address(b, 0x80, DESC);
    set_address(b, 0x90, AVAIL);
    set_address(b, 0xa0, USED);
    poke32(b, BASE + R_QREADY, 1);
    return peek32(b, BASE + R_QREADY);
}

static void start_driver(struct bench *b, uint64_t features)
{
    assert_true(negotiate(b, features | VIRTIO_BIT(VIRTIO_F_VERSION_1)));
    assert_true(set_queue(b, 8));
    poke32(b, BASE + R_STATUS, 0xf);
}

static void put_descriptor(struct bench *b, unsigned index, uint64_t address, uint32_t length, uint16_t flags,
                           uint16_t next)
{
    uint8_t *at = (uint8_t *)ram(b, DESC) + 16 * index;
    store_le64(at, address);
    store_le32(at + 8, length);
    store_le16(at + 12, flags);
    store_le16(at + 14, next);
}

static void offer(struct bench *b, uint16_t head)
{
    uint8_t *avail = ram(b, AVAIL);
    uint16_t index = load_le16(avail + 2);
    store_le16(avail + 4 + 2 * (index % 8), head);
    store_le16(avail + 2, index + 1);
    poke32(b, BASE + R_NOTIFY, 0);
}

static uint16_t used(struct bench *b)
{
    return load_le16((uint8_t *)ram(b, USED) + 2);
}

/* --- the transport
 * ------------------------------------------------------------------------------------------------------- */

static struct device *start(struct bench *b)
{
    struct error err = {0};
    bench_start(b);
    struct device *slot = virtio_mmio_create(&b->hw, BASE, b->input, &err);
    assert_non_null(slot);
    return slot;
}

static void test_empty_slot(void **state)
{
    struct bench b;
    start(&b);
    bench_reset_devices(&b);
    assert_int_equal(peek32(&b, BASE), 0x74726976);
    assert_int_equal(peek32(&b, BASE + 4), 2);
    assert_int_equal(peek32(&b, BASE + 8), 0);
    poke32(&b, BASE + R_STATUS, 1);
    poke32(&b, BASE + R_NOTIFY, 0);
    poke32(&b, BASE + R_CONFIG, 0);
    assert_int_equal(peek32(&b, BASE + R_STATUS), 0);
    bench_stop(&b);
}

static void test_negotiation(void **state)
{
    struct bench b;
    struct error err = {0};
    struct device *slot = start(&b);
    assert_true(virtio_mmio_plug(slot, virtio_rng_create(&b.hw, NULL, &err)));
    bench_reset_devices(&b);
    assert_int_equal(peek32(&b, BASE + 8), VIRTIO_ID_RNG);
    assert_true(offered(&b) & VIRTIO_BIT(VIRTIO_F_VERSION_1));
    assert_false(negotiate(&b, 0)); /* a driver from before virtio 1.0 */
    assert_false(negotiate(&b, VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(63)));
    assert_true(negotiate(&b, offered(&b)));

    poke32(&b, BASE + R_QSEL, 5);
    assert_int_equal(peek32(&b, BASE + R_QMAX), 0); /* no such queue */
    assert_false(set_queue(&b, 3));                 /* refused: the device wants a reset */
    assert_true(peek32(&b, BASE + R_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    assert_true(negotiate(&b, offered(&b)));
    assert_false(set_queue(&b, 1u << 20));
    bench_stop(&b);
}

static void test_rng(void **state)
{
    struct bench b;
    struct error err = {0};
    struct device *slot = start(&b);
    assert_true(virtio_mmio_plug(slot, virtio_rng_create(&b.hw, NULL, &err)));
    bench_reset_devices(&b);
    put_descriptor(&b, 0, DATA, 64, 2, 0);
    poke32(&b, BASE + R_NOTIFY, 0); /* before DRIVER_OK: nothing happens */
    start_driver(&b, 0);
    memset(ram(&b, DATA), 0, 80);
    put_descriptor(&b, 0, DATA, 64, 2, 0);
    offer(&b, 0);
    assert_int_equal(used(&b), 1);
    assert_true(b.irq);
    assert_int_equal(peek32(&b, BASE + R_ISR), 1);
    poke32(&b, BASE + R_ACK, 1);
    assert_false(b.irq);
    const uint8_t *bytes = ram(&b, DATA);
    unsigned zeros = 0;
    for (int i = 0; i < 64; i++)
        zeros += !bytes[i];
    assert_true(zeros < 10);
    assert_int_equal(bytes[64], 0);

    put_descriptor(&b, 0, 0x1234, 64, 2, 0); /* a lie: the device asks for a reset and says so */
    offer(&b, 0);
    assert_true(peek32(&b, BASE + R_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(peek32(&b, BASE + R_ISR), 2);
    offer(&b, 0);
    poke32(&b, BASE + R_STATUS, 0);
    assert_int_equal(peek32(&b, BASE + R_STATUS), 0);
    assert_false(b.irq);
    start_driver(&b, 0);
    put_descriptor(&b, 0, DATA, 8, 2, 0);
    offer(&b, 0);
    assert_int_equal(used(&b), 1); /* as new */
    bench_stop(&b);
}

/* --- a disk in memory, which completes when the test says so
 * ------------------------------------------------------------- */

struct memory_disk {
    struct disk disk;
    uint8_t bytes[65536];
    struct disk_request *waiting[16];
    unsigned waiting_count, flushes, closes, durable;
    int result;
    bool hold;
    struct loop *loop;
};

static void complete_one(struct memory_disk *m)
{
    struct disk_request *request = m->waiting[0];
    memmove(m->waiting, m->waiting + 1, --m->waiting_count * sizeof m->waiting[0]);
    uint64_t at = request->offset;
    for (uint32_t i = 0; i < request->iov_count && !m->result; i++) {
        if (request->operation == DISK_READ)
            memcpy(request->iov[i].iov_base, m->bytes + at, request->iov[i].iov_len);
        else
            memcpy(m->bytes + at, request->iov[i].iov_base, request->iov[i].iov_len);
        at += request->iov[i].iov_len;
    }
    if (request->operation == DISK_WRITE_ZEROES || request->operation == DISK_DISCARD)
        memset(m->bytes + request->offset, 0, request->length);
    m->flushes += request->operation == DISK_FLUSH;
    m->durable += request->durable;
    request->done(request, m->result);
}

static void complete_posted(void *arg)
{
    struct memory_disk *m = arg;
    while (!m->hold && m->waiting_count)
        complete_one(m);
}

static void memory_submit(struct disk *disk, struct disk_request *request)
{
    struct memory_disk *m = (struct memory_disk *)disk;
    assert_true(span_fits(request->offset, request->length, sizeof m->bytes));
    assert_true(request->length <= 4096 || request->operation == DISK_DISCARD);
    m->waiting[m->waiting_count++] = request;
    if (!m->hold)
        loop_post(m->loop, complete_posted, m);
}
static void memory_close(struct disk *disk)
{
    ((struct memory_disk *)disk)->closes++;
}
static const struct disk_ops memory_ops = {memory_submit, memory_close};

static void start_disk(struct bench *b, struct memory_disk *m)
{
    struct error err = {0};
    struct device *slot = start(b);
    *m = (struct memory_disk){.disk = {.ops = &memory_ops,
                                       .id = "m",
                                       .size_bytes = sizeof m->bytes,
                                       .block_size = 512,
                                       .max_transfer = 4096,
                                       .can_discard = true,
                                       .can_write_zeroes = true,
                                       .can_flush = true,
                                       .serial = "S-1"},
                              .loop = b->loop};
    struct virtio_blk_options options = {0};
    assert_true(virtio_mmio_plug(slot, virtio_blk_create(&b->hw, &m->disk, &options, &err)));
    bench_reset_devices(b);
}

/* Descriptors 0 header, 1 data, 2 status. */
static void request(struct bench *b, uint32_t type, uint64_t sector, uint32_t length, bool to_guest)
{
    uint8_t *header = ram(b, DATA);
    store_le32(header, type);
    store_le64(header + 8, sector);
    header[0x100] = 0xff;
    put_descriptor(b, 0, DATA, 16, 1, length ? 1 : 2);
    put_descriptor(b, 1, DATA + 0x1000, length, to_guest ? 3 : 1, 2);
    put_descriptor(b, 2, DATA + 0x100, 1, 2, 0);
    offer(b, 0);
}
static uint8_t status(struct bench *b)
{
    return *((uint8_t *)ram(b, DATA) + 0x100);
}

static void test_blk(void **state)
{
    struct bench b;
    static struct memory_disk m;
    start_disk(&b, &m);
    assert_int_equal(peek32(&b, BASE + 8), VIRTIO_ID_BLOCK);
    assert_int_equal(peek(&b, BASE + R_CONFIG, 8), 128);
    assert_int_equal(peek(&b, BASE + R_CONFIG + 20, 4), 512);
    assert_int_equal(peek(&b, BASE + R_CONFIG + 200, 4), 0);
    start_driver(&b, VIRTIO_BIT(VIRTIO_BLK_F_FLUSH));
    for (int i = 0; i < 16384; i++)
        ((uint8_t *)ram(&b, DATA + 0x1000))[i] = (uint8_t)(i * 31 + i / 256);
    request(&b, VIRTIO_BLK_T_OUT, 2, 16384, false); /* four of the disk's requests */
    bench_run_until(&b, used(&b) == 1);
    assert_int_equal(status(&b), VIRTIO_BLK_S_OK);
    assert_memory_equal(m.bytes + 1024, ram(&b, DATA + 0x1000), 16384);
    assert_int_equal(m.durable, 0);

    memset(ram(&b, DATA + 0x1000), 0, 16384);
    request(&b, VIRTIO_BLK_T_IN, 2, 16384, true);
    bench_run_until(&b, used(&b) == 2);
    assert_memory_equal(m.bytes + 1024, ram(&b, DATA + 0x1000), 16384);
    assert_int_equal(load_le32((uint8_t *)ram(&b, USED) + 4 + 8 + 4), 16385);

    request(&b, VIRTIO_BLK_T_FLUSH, 0, 0, false);
    bench_run_until(&b, used(&b) == 3);
    assert_int_equal(m.flushes, 1);

    uint8_t *ranges = ram(&b, DATA + 0x1000);
    memset(ranges, 0, 32);
    store_le64(ranges, 2);
    store_le32(ranges + 8, 1);
    store_le64(ranges + 16, 10);
    store_le32(ranges + 24, 2);
    request(&b, VIRTIO_BLK_T_DISCARD, 0, 32, false);
    bench_run_until(&b, used(&b) == 4);
    assert_int_equal(status(&b), VIRTIO_BLK_S_OK);
    assert_int_equal(m.bytes[1024], 0);
    assert_int_equal(m.bytes[6143], 0);
    assert_int_not_equal(m.bytes[6144 + 1], 0);

    request(&b, VIRTIO_BLK_T_GET_ID, 0, 20, true);
    bench_run_until(&b, used(&b) == 5);
    assert_string_equal((char *)ram(&b, DATA + 0x1000), "S-1");

    m.result = -EIO;
    request(&b, VIRTIO_BLK_T_OUT, 0, 512, false);
    bench_run_until(&b, used(&b) == 6);
    assert_int_equal(status(&b), VIRTIO_BLK_S_IOERR);
    request(&b, VIRTIO_BLK_T_IN, 128, 512, true); /* behind the end: the disk does not hear of it */
    bench_run_until(&b, used(&b) == 7);
    assert_int_equal(status(&b), VIRTIO_BLK_S_IOERR);
    bench_stop(&b);
    assert_int_equal(m.closes, 1);
}

/* A driver that does not know of caches gets durable writes; so does one that switches the cache off. */
static void test_blk_durable(void **state)
{
    struct bench b;
    static struct memory_disk m;
    start_disk(&b, &m);
    start_driver(&b, 0);
    request(&b, VIRTIO_BLK_T_OUT, 0, 512, false);
    bench_run_until(&b, used(&b) == 1);
    assert_int_equal(m.durable, 1);
    start_driver(&b, VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE));
    poke(&b, BASE + R_CONFIG + VIRTIO_BLK_CONFIG_WRITEBACK, 0, 1);
    request(&b, VIRTIO_BLK_T_OUT, 0, 512, false);
    bench_run_until(&b, used(&b) == 1);
    assert_int_equal(m.durable, 2);
    bench_stop(&b);
}

static void *reset_on_cpu(void *arg)
{
    struct bench *b = arg;
    poke32(b, BASE + R_STATUS, 0); /* waits for the request */
    memset(ram(b, DATA + 0x1000), 0x55, 4096);
    loop_stop(b->loop);
    return NULL;
}

static void release(void *arg)
{
    struct memory_disk *m = arg;
    m->hold = false;
    complete_posted(m);
}

static void test_blk_reset_in_flight(void **state)
{
    struct bench b;
    static struct memory_disk m;
    pthread_t cpu;
    struct loop_timer timer = {.fn = release, .arg = &m};
    start_disk(&b, &m);
    start_driver(&b, 0);
    memset(m.bytes, 0xaa, sizeof m.bytes);
    m.hold = true;
    request(&b, VIRTIO_BLK_T_IN, 0, 4096, true);
    bench_run_until(&b, m.waiting_count == 1);
    loop_timer_arm(b.loop, &timer, loop_now_ns(b.loop) + 50000000);
    pthread_create(&cpu, NULL, reset_on_cpu, &b);
    loop_run(b.loop);
    pthread_join(cpu, NULL);
    bench_run_ms(&b, 20);
    /* what the guest wrote after the reset has not been overwritten by the old read */
    assert_int_equal(*(uint8_t *)ram(&b, DATA + 0x1000), 0x55);
    assert_int_equal(*(uint8_t *)ram(&b, DATA + 0x1fff), 0x55);
    assert_false(b.irq);
    bench_stop(&b);
}

static void test_blk_resize(void **state)
{
    struct bench b;
    static struct memory_disk m;
    start_disk(&b, &m);
    start_driver(&b, 0);
    uint32_t generation = peek32(&b, BASE + 0xfc);
    m.disk.size_bytes = 32768;
    m.disk.resized(m.disk.owner);
    assert_int_equal(peek(&b, BASE + R_CONFIG, 8), 64);
    assert_int_not_equal(peek32(&b, BASE + 0xfc), generation);
    assert_int_equal(peek32(&b, BASE + R_ISR), 2);
    request(&b, VIRTIO_BLK_T_IN, 64, 512, true);
    bench_run_until(&b, used(&b) == 1);
    assert_int_equal(status(&b), VIRTIO_BLK_S_IOERR);
    bench_stop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_slot),  cmocka_unit_test(test_negotiation),
        cmocka_unit_test(test_rng),         cmocka_unit_test(test_blk),
        cmocka_unit_test(test_blk_durable), cmocka_unit_test(test_blk_reset_in_flight),
        cmocka_unit_test(test_blk_resize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
