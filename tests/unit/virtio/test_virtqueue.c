/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, requests of honest drivers are mangled, lost or never announced. Hostile drivers: test_hostile.c. */
#include "tests/unit/virtio/driver.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PACKED VIRTIO_BIT(VIRTIO_F_RING_PACKED)
#define INDIRECT VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)
#define EVENT VIRTIO_BIT(VIRTIO_F_EVENT_IDX)

/* --- a driver that keeps its books ----------------------------------------------------------------------------- */

#define MAX_PIECES 6
struct request {
    bool busy;
    uint16_t slots, first;
    uint32_t count;
    struct piece pieces[MAX_PIECES];
    uint64_t in_bytes;
};
struct books {
    struct driver driver;
    struct request requests[256]; /* by head (split) or id (packed) */
    uint16_t free_slots;
    unsigned seed;
    bool slot_busy[256];
};

static unsigned draw(struct books *books, unsigned limit)
{
    return (unsigned)rand_r(&books->seed) % limit;
}

static void invent(struct books *books, struct request *request, unsigned id)
{
    request->count = 1 + draw(books, MAX_PIECES);
    unsigned readable = draw(books, request->count + 1);
    request->in_bytes = 0;
    for (unsigned i = 0; i < request->count; i++) {
        struct piece *piece = &request->pieces[i];
        piece->address = DATA_AT + (uint64_t)id * 1024 + i * 160;
        piece->length = draw(books, 160);
        piece->write = i >= readable;
        if (piece->write)
            request->in_bytes += piece->length;
        memset(guest(&books->driver, piece->address), (int)(id + i), 160);
    }
}

static bool packed(const struct books *books)
{
    return books->driver.features & PACKED;
}

static void write_table(struct books *books, uint64_t table, const struct request *request, uint16_t id)
{
    for (unsigned i = 0; i < request->count; i++) {
        const struct piece *piece = &request->pieces[i];
        uint16_t flags = piece->write ? 2 : 0;
        if (packed(books)) {
            put_packed(&books->driver, table + 16 * i, piece->address, piece->length, 0, flags);
        } else {
            /* entries stand in the table in reverse order, but for the first: `next` must be followed */
            unsigned at = i ? request->count - i : 0, next = request->count - i - 1;
            bool last = i == request->count - 1;
            put_split(&books->driver, table + 16 * at, piece->address, piece->length, flags | (last ? 0 : 1),
                      last ? 0xffff : next);
        }
    }
}

static int find_free(struct books *books)
{
    for (int i = 0; i < books->driver.size; i++) {
        if (!books->slot_busy[i])
            return i;
    }
    return -1;
}

static bool submit_split(struct books *books, bool indirect)
{
    struct driver *driver = &books->driver;
    int head = find_free(books);
    if (head < 0)
        return false;
    struct request *request = &books->requests[head];
    invent(books, request, (unsigned)head);
    if (indirect) {
        uint64_t table = TABLES_AT + (uint64_t)head * 16 * MAX_PIECES;
        write_table(books, table, request, 0);
        put_split(driver, DESC_AT + 16 * (uint64_t)head, table, 16 * request->count, 4, 0);
        books->slot_busy[head] = true;
        request->slots = 1;
    } else {
        uint16_t taken[MAX_PIECES];
        for (unsigned i = 0; i < request->count; i++) {
            int slot = find_free(books);
            if (slot < 0) {
                while (i--)
                    books->slot_busy[taken[i]] = false;
                return false;
            }
            taken[i] = (uint16_t)slot;
            books->slot_busy[slot] = true;
        }
        assert_int_equal(taken[0], head);
        for (unsigned i = 0; i < request->count; i++) {
            bool last = i == request->count - 1;
            put_split(driver, DESC_AT + 16u * taken[i], request->pieces[i].address, request->pieces[i].length,
                      (request->pieces[i].write ? 2 : 0) | (last ? 0 : 1), last ? 0 : taken[i + 1]);
        }
        request->slots = (uint16_t)request->count;
    }
    request->busy = true;
    offer(driver, (uint16_t)head);
    return true;
}

static bool submit_packed(struct books *books, bool indirect)
{
    struct driver *driver = &books->driver;
    int id = -1;
    for (int i = 0; i < driver->size && id < 0; i++)
        id = books->requests[i].busy ? -1 : i;
    if (id < 0)
        return false;
    struct request *request = &books->requests[id];
    invent(books, request, (unsigned)id);
    request->slots = indirect ? 1 : (uint16_t)request->count;
    if (request->slots > books->free_slots)
        return false;
    books->free_slots -= request->slots;
    uint64_t table = TABLES_AT + (uint64_t)id * 16 * MAX_PIECES;
    if (indirect)
        write_table(books, table, request, (uint16_t)id);
    uint16_t first = driver->place, first_flags = 0;
    for (unsigned i = 0; i < request->slots; i++) {
        struct piece piece = indirect ? (struct piece){table, 16 * request->count, false} : request->pieces[i];
        uint16_t flags = (piece.write ? 2 : 0) | (indirect ? 4 : 0) | (i + 1 < request->slots ? 1 : 0);
        flags |= driver->wrap ? 1 << 7 : 1 << 15;
        if (!i)
            first_flags = flags;
        /* the head's flags last: until then it shows the other lap's */
        put_packed(driver, DESC_AT + 16u * driver->place, piece.address, piece.length, (uint16_t)id,
                   i ? flags : (uint16_t)(flags ^ (1 << 7 | 1 << 15)));
        if (++driver->place == driver->size) {
            driver->place = 0;
            driver->wrap = !driver->wrap;
        }
    }
    request->busy = true;
    uint8_t *head = guest(driver, DESC_AT + 16u * first);
    __atomic_store_n((uint16_t *)(head + 14), htole16(first_flags), __ATOMIC_RELEASE);
    return true;
}

static bool submit(struct books *books)
{
    bool indirect = (books->driver.features & INDIRECT) && draw(books, 2);
    return packed(books) ? submit_packed(books, indirect) : submit_split(books, indirect);
}

/* One completion, if there is one. */
static bool reap(struct books *books, uint16_t *id, uint32_t *length)
{
    struct driver *driver = &books->driver;
    if (packed(books)) {
        uint8_t *at = guest(driver, DESC_AT + 16u * driver->used_place);
        uint16_t flags = le16toh(__atomic_load_n((uint16_t *)(at + 14), __ATOMIC_ACQUIRE));
        if (!!(flags & 1 << 15) != driver->used_wrap || !!(flags & 1 << 7) != driver->used_wrap)
            return false;
        *id = load_le16(at + 12);
        *length = load_le32(at + 8);
        assert_true(*id < driver->size);
        driver->used_place += books->requests[*id].slots;
        books->free_slots += books->requests[*id].slots;
        if (driver->used_place >= driver->size) {
            driver->used_place -= driver->size;
            driver->used_wrap = !driver->used_wrap;
        }
    } else {
        uint8_t *used = guest(driver, USED_AT);
        if (le16toh(__atomic_load_n((uint16_t *)(used + 2), __ATOMIC_ACQUIRE)) == driver->seen_used)
            return false;
        uint8_t *entry = used + 4 + 8 * (driver->seen_used % driver->size);
        *id = (uint16_t)load_le32(entry);
        *length = load_le32(entry + 4);
        driver->seen_used++;
        assert_true(*id < driver->size);
        uint16_t slot = *id;
        for (unsigned i = 0; i < books->requests[*id].slots; i++) {
            books->slot_busy[slot] = false;
            slot = load_le16((uint8_t *)guest(driver, DESC_AT + 16u * slot) + 14);
        }
    }
    assert_true(books->requests[*id].busy);
    books->requests[*id].busy = false;
    return true;
}

/* --- the device's view must be the driver's -------------------------------------------------------------------- */

static void check_element(struct books *books, struct virtqueue_element *element)
{
    const struct request *request = &books->requests[element->id];
    assert_true(request->busy);
    uint32_t at = 0;
    for (unsigned i = 0; i < request->count; i++) {
        const struct piece *piece = &request->pieces[i];
        if (!piece->length)
            continue; /* empty pieces are dropped */
        assert_ptr_equal(element->iov[at].iov_base, guest(&books->driver, piece->address));
        assert_int_equal(element->iov[at].iov_len, piece->length);
        assert_int_equal(piece->write, at >= element->out_count);
        at++;
    }
    assert_int_equal(at, element->out_count + element->in_count);
    assert_int_equal(element->in_bytes, request->in_bytes);
}

static void check_random_order(uint64_t features, uint16_t size, unsigned rounds)
{
    static struct books books; /* large */
    memset(&books, 0, sizeof books);
    driver_start(&books.driver, features, size);
    books.free_slots = size;
    books.seed = size + (unsigned)features;
    struct virtqueue_element *held = calloc(size, sizeof *held);
    unsigned holding = 0, done = 0;
    while (done < rounds) {
        for (unsigned n = draw(&books, 4); n; n--)
            submit(&books);
        for (unsigned n = draw(&books, 4); n && holding < size; n--) {
            int result = virtqueue_pop(&books.driver.queue, &held[holding]);
            if (result < 0)
                fail_msg("%s", books.driver.queue.broken);
            if (!result)
                break;
            check_element(&books, &held[holding]);
            holding++;
        }
        for (unsigned n = draw(&books, 4); n && holding; n--) {
            unsigned pick = draw(&books, holding);
            struct virtqueue_element element = held[pick];
            uint16_t id = 0;
            uint32_t length = 0;
            uint64_t expected = element.in_bytes;
            virtqueue_push(&books.driver.queue, &element, UINT64_MAX); /* clamped to what there is */
            held[pick] = held[--holding];
            held[holding] = element;
            assert_true(reap(&books, &id, &length));
            assert_int_equal(id, element.id);
            assert_int_equal(length, expected);
            done++;
        }
    }
    for (unsigned i = 0; i < size; i++)
        virtqueue_element_release(&held[i]);
    free(held);
    driver_stop(&books.driver);
}

static void test_random_order(void **state)
{
    check_random_order(0, 8, 3000);
    check_random_order(INDIRECT, 128, 3000);
    check_random_order(PACKED, 8, 3000);
    check_random_order(PACKED, 13, 3000); /* packed rings need not be powers of two */
    check_random_order(PACKED | INDIRECT, 128, 3000);
    check_random_order(INDIRECT, 1, 500);
}

/* The 16-bit indexes of a split ring wrap; a queue resumed from its saved state goes on where it stood. */
static void test_save_restore(void **state)
{
    for (int kind = 0; kind < 2; kind++) {
        static struct books books;
        memset(&books, 0, sizeof books);
        uint64_t features = (kind ? PACKED : 0) | EVENT;
        driver_start(&books.driver, features, 8);
        books.free_slots = 8;
        struct virtqueue_element element = {0};
        for (unsigned i = 0; i < 70000; i++) {
            uint16_t id;
            uint32_t length;
            assert_true(submit(&books));
            assert_int_equal(virtqueue_pop(&books.driver.queue, &element), 1);
            virtqueue_push(&books.driver.queue, &element, 0);
            assert_true(reap(&books, &id, &length));
            if (i % 7777 == 0) {
                struct virtqueue *queue = &books.driver.queue;
                uint32_t base = virtqueue_base_encode(queue, virtqueue_save(queue));
                struct error err = {0};
                assert_true(virtqueue_configure(queue, features, 8, DESC_AT, AVAIL_AT, USED_AT, &err));
                assert_true(virtqueue_restore(queue, virtqueue_base_decode(kind, base), &err));
                virtqueue_load_used(queue);
            }
        }
        virtqueue_element_release(&element);
        driver_stop(&books.driver);
    }
}

/* --- notifications between two threads --------------------------------------------------------------------------
 * Driver and device sleep whenever the rules allow it; one missed notification and a poll times out. */

struct pair {
    struct books books;
    int kick, call;
    unsigned rounds;
    _Atomic bool stop;
    unsigned calls, kicks;
    const char *failure;
};

static bool wait_event(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    uint64_t count;
    return poll(&poll_fd, 1, 5000) == 1 && read(fd, &count, sizeof count) == sizeof count;
}

static void *device_thread(void *arg)
{
    struct pair *pair = arg;
    struct virtqueue *queue = &pair->books.driver.queue;
    struct virtqueue_element element = {0};
    uint64_t one = 1;
    virtqueue_disable_notify(queue);
    while (!pair->stop) {
        int result = virtqueue_pop(queue, &element);
        if (result == 1) {
            virtqueue_push(queue, &element, 0);
            if (virtqueue_should_notify(queue)) {
                pair->calls++;
                if (write(pair->call, &one, sizeof one) < 0)
                    break;
            }
            continue;
        }
        if (result < 0) {
            pair->failure = queue->broken;
            break;
        }
        if (virtqueue_enable_notify(queue))
            continue;
        if (!wait_event(pair->kick)) {
            pair->failure = "the device was not notified";
            break;
        }
        virtqueue_disable_notify(queue);
    }
    virtqueue_element_release(&element);
    return NULL;
}

/* The driver's half of 2.7.10 and 2.8.10: is the device to be told of what was made available since `before`? */
static bool driver_should_kick(struct driver *driver, uint16_t before_index)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint8_t *used = guest(driver, USED_AT);
    if (driver->features & PACKED)
        return le16toh(__atomic_load_n((uint16_t *)(used + 2), __ATOMIC_ACQUIRE)) != 1;
    if (!(driver->features & EVENT))
        return !(le16toh(__atomic_load_n((uint16_t *)used, __ATOMIC_ACQUIRE)) & 1);
    uint16_t event = le16toh(__atomic_load_n((uint16_t *)(used + 4 + 8 * driver->size), __ATOMIC_ACQUIRE));
    return (uint16_t)(driver->avail_index - event - 1) < (uint16_t)(driver->avail_index - before_index);
}

/* Ask to be told of the next completion; true when there is one already. */
static void driver_want_call(struct driver *driver)
{
    uint8_t *avail = guest(driver, AVAIL_AT);
    if (driver->features & PACKED) {
        uint16_t at = driver->used_place | (driver->used_wrap ? 0x8000 : 0);
        __atomic_store_n((uint16_t *)avail, htole16(at), __ATOMIC_RELAXED);
        __atomic_store_n((uint16_t *)(avail + 2), htole16(driver->features & EVENT ? 2 : 0), __ATOMIC_RELEASE);
    } else if (driver->features & EVENT) {
        __atomic_store_n((uint16_t *)(avail + 4 + 2 * driver->size), htole16(driver->seen_used), __ATOMIC_RELEASE);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void check_notifications(uint64_t features)
{
    static struct pair pair;
    memset(&pair, 0, sizeof pair);
    driver_start(&pair.books.driver, features, 16);
    pair.books.free_slots = 16;
    pair.kick = eventfd(0, EFD_CLOEXEC);
    pair.call = eventfd(0, EFD_CLOEXEC);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, device_thread, &pair), 0);
    uint64_t one = 1;
    unsigned done = 0;
    bool lost = false;
    while (done < 20000 && !lost && !pair.failure) {
        uint16_t id, before = pair.books.driver.avail_index;
        uint32_t length;
        unsigned added = 0;
        for (unsigned burst = 1 + draw(&pair.books, 5); burst; burst--)
            added += submit(&pair.books);
        if (added && driver_should_kick(&pair.books.driver, before)) {
            pair.kicks++;
            assert_int_equal(write(pair.kick, &one, sizeof one), sizeof one);
        }
        bool any = false;
        while (reap(&pair.books, &id, &length)) {
            done++;
            any = true;
        }
        if (any)
            continue;
        driver_want_call(&pair.books.driver);
        if (reap(&pair.books, &id, &length))
            done++;
        else
            lost = !wait_event(pair.call);
    }
    pair.stop = true;
    assert_int_equal(write(pair.kick, &one, sizeof one), sizeof one);
    pthread_join(thread, NULL);
    if (pair.failure)
        fail_msg("%s", pair.failure);
    assert_false(lost);
    close(pair.kick);
    close(pair.call);
    driver_stop(&pair.books.driver);
}

static void test_notifications(void **state)
{
    check_notifications(0);
    check_notifications(EVENT);
    check_notifications(PACKED);
    check_notifications(PACKED | EVENT);
    check_notifications(PACKED | EVENT | INDIRECT);
}

/* With event indexes, a driver that wants to hear of the fifth completion only hears of the fifth. */
static void test_event_suppression(void **state)
{
    for (int kind = 0; kind < 2; kind++) {
        static struct books books;
        memset(&books, 0, sizeof books);
        driver_start(&books.driver, EVENT | INDIRECT | (kind ? PACKED : 0), 64);
        books.free_slots = 64;
        uint8_t *avail = guest(&books.driver, AVAIL_AT);
        if (kind) {
            store_le16(avail, 4 | 0x8000);
            store_le16(avail + 2, 2);
        } else {
            store_le16(avail + 4 + 2 * 64, 4);
        }
        struct virtqueue_element element = {0};
        for (unsigned i = 0; i < 8; i++) {
            bool ok = kind ? submit_packed(&books, true) : submit_split(&books, true);
            assert_true(ok);
            assert_int_equal(virtqueue_pop(&books.driver.queue, &element), 1);
            virtqueue_push(&books.driver.queue, &element, 0);
            assert_int_equal(virtqueue_should_notify(&books.driver.queue), i == 4);
            assert_false(virtqueue_should_notify(&books.driver.queue)); /* nothing new */
        }
        virtqueue_element_release(&element);
        driver_stop(&books.driver);
    }
}

/* Bytes that the device wrote are reported, no more and no less: migration copies just those pages. */
static uint64_t logged;
static void log_write(void *arg, uint64_t address, uint64_t length)
{
    if (address >= DATA_AT)
        logged += length;
}

static void test_written_notice(void **state)
{
    struct driver driver;
    driver_start(&driver, 0, 8);
    guest_regions_set_written(&driver.regions, log_write, NULL);
    put_split(&driver, DESC_AT, DATA_AT, 10, 1, 1);
    put_split(&driver, DESC_AT + 16, DATA_AT + 100, 10, 3, 2);
    put_split(&driver, DESC_AT + 32, DATA_AT + 200, 10, 2, 0);
    struct virtqueue_element element = {0};
    for (unsigned written = 0; written <= 20; written += 5) {
        offer(&driver, 0);
        assert_int_equal(virtqueue_pop(&driver.queue, &element), 1);
        logged = 0;
        element.iov[2].iov_len = 0; /* an owner that trims its pieces does not shorten the notice */
        virtqueue_push(&driver.queue, &element, written);
        assert_int_equal(logged, written);
    }
    virtqueue_element_release(&element);
    driver_stop(&driver);
}

/* The record of requests in flight hears of each chain before and after, and a new process can take it up again. */
struct record {
    uint16_t id, count;
    struct virtqueue_descriptor descriptors[16];
    unsigned popped, completing, completed;
    uint16_t used_index;
};
static void on_popped(void *arg, uint16_t id, const struct virtqueue_descriptor *descriptors, uint16_t count)
{
    struct record *record = arg;
    record->id = id;
    record->count = count;
    memcpy(record->descriptors, descriptors, count * sizeof *descriptors);
    record->popped++;
}
static void on_completing(void *arg, uint16_t id)
{
    ((struct record *)arg)->completing++;
}
static void on_completed(void *arg, uint16_t id, uint16_t used_index, bool used_wrap)
{
    ((struct record *)arg)->completed++;
    ((struct record *)arg)->used_index = used_index;
}

static void test_inflight(void **state)
{
    static const struct virtqueue_inflight_ops ops = {on_popped, on_completing, on_completed};
    for (int kind = 0; kind < 2; kind++) {
        static struct books books;
        struct record record = {0};
        struct virtqueue_element element = {0};
        struct error err = {0};
        uint64_t features = INDIRECT | (kind ? PACKED : 0);
        memset(&books, 0, sizeof books);
        driver_start(&books.driver, features, 16);
        books.free_slots = 16;
        struct virtqueue *queue = &books.driver.queue;
        assert_true(virtqueue_set_inflight(queue, &ops, &record));
        assert_true(submit(&books));
        assert_int_equal(virtqueue_pop(queue, &element), 1);
        assert_int_equal(record.popped, 1);
        assert_int_equal(record.id, element.id);
        /* the process dies here; its successor knows the ring positions and the record */
        struct virtqueue_state saved = virtqueue_save(queue);
        assert_true(virtqueue_configure(queue, features, 16, DESC_AT, AVAIL_AT, USED_AT, &err));
        assert_true(virtqueue_restore(queue, saved, &err));
        assert_true(virtqueue_set_inflight(queue, &ops, &record));
        int result = kind ? virtqueue_pop_recorded(queue, record.descriptors, record.count, &element)
                          : virtqueue_pop_head(queue, record.id, &element);
        assert_int_equal(result, 1);
        check_element(&books, &element);
        virtqueue_push(queue, &element, 1);
        assert_int_equal(record.completing, 1);
        assert_int_equal(record.completed, 1);
        uint16_t id;
        uint32_t length;
        assert_true(reap(&books, &id, &length));
        virtqueue_element_release(&element);
        driver_stop(&books.driver);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_order),   cmocka_unit_test(test_save_restore),
        cmocka_unit_test(test_notifications),  cmocka_unit_test(test_event_suppression),
        cmocka_unit_test(test_written_notice), cmocka_unit_test(test_inflight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
