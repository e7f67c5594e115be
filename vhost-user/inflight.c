/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record of requests in flight ("Inflight I/O tracking" of the vhost-user specification). It lies in memory that
 * the front end keeps while our process dies and comes back, so that a restarted daemon finds the chains it had popped
 * and not answered, and takes them up again: the guest never loses a request.
 *
 *     region:  queue 0's area | queue 1's area | ...        each: a head, then an entry a ring slot
 *
 * The steps around each chain follow the specification's lists; what makes them safe at every instant is that
 * `inflight` is set after the entry is complete, and that the used index is kept twice (record and ring), so the last
 * unfinished step shows. Everything in the region may have been changed by the front end: indexes are checked when they
 * are read.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/log.h"
#include "vhost-user/internal.h"

enum { INFLIGHT_VERSION = 1, AREA_ALIGNMENT = 64 };
#define NO_ENTRY UINT16_MAX

/* One load, which the compiler must not repeat: what is checked is what is used, whatever the front end does meanwhile.
 */
#define shared_read(field) (*(const volatile __typeof__(field) *)&(field))

static uint64_t area_size(uint16_t queue_size, bool packed)
{
    uint64_t size = packed
                        ? offsetof(struct inflight_packed, entries) + queue_size * sizeof(struct inflight_packed_entry)
                        : offsetof(struct inflight_split, entries) + queue_size * sizeof(struct inflight_split_entry);
    return round_up(size, AREA_ALIGNMENT);
}

static bool is_packed(const struct device *device)
{
    return device->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
}

/* The region ----------------------------------------------------------------------------------------------------- */

bool inflight_attach(struct device *device, const struct vhost_user_inflight *description, int fd, struct error *err)
{
    struct mapping mapping;
    if (!description->num_queues || description->num_queues > device->queue_count || !description->queue_size ||
        description->queue_size > VIRTQUEUE_MAX_SIZE)
        return fail(err, EINVAL, "record of requests in flight for %u queues of %u: the device has %u queues",
                    description->num_queues, description->queue_size, device->queue_count);
    uint64_t area = area_size(description->queue_size, is_packed(device));
    if (description->mmap_size < area * description->num_queues)
        return fail(err, EINVAL, "record of requests in flight has %llu bytes: %u queues of %u need %llu",
                    (unsigned long long)description->mmap_size, description->num_queues, description->queue_size,
                    (unsigned long long)(area * description->num_queues));
    if (!is_aligned(description->mmap_offset, sizeof(uint64_t)))
        return fail(err, EINVAL, "record of requests in flight at offset %llu: must be a multiple of 8",
                    (unsigned long long)description->mmap_offset);
    if (!mapping_open(&mapping, fd, description->mmap_offset, description->mmap_size, err))
        return fail_prefix(err, "record of requests in flight: ");
    inflight_detach(device);
    device->inflight_region = mapping;
    for (unsigned i = 0; i < description->num_queues; i++) {
        device->queues[i].inflight.area = mapping.start + i * area;
        device->queues[i].inflight.size = description->queue_size;
    }
    return true;
}

bool inflight_create(struct device *device, struct vhost_user_inflight *description, int *fd, struct error *err)
{
    if (description->num_queues > device->queue_count || description->queue_size > VIRTQUEUE_MAX_SIZE)
        return fail(err, EINVAL, "record of requests in flight for %u queues of %u: the device has %u queues",
                    description->num_queues, description->queue_size, device->queue_count);
    uint64_t size = area_size(description->queue_size, is_packed(device)) * description->num_queues;
    int memory = memfd_create("vhost-user-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0 || ftruncate(memory, (off_t)size) < 0) {
        fail_errno(err, errno, "cannot make the record of requests in flight");
        if (memory >= 0)
            close(memory);
        return false;
    }
    description->mmap_size = size;
    description->mmap_offset = 0;
    *fd = memory;
    return true;
}

void inflight_detach(struct device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        free(device->queues[i].inflight.entry_of_id);
        free(device->queues[i].inflight.left);
        device->queues[i].inflight = (struct inflight_queue){0};
    }
    mapping_close(&device->inflight_region);
}

/* Chains that an earlier process left ----------------------------------------------------------------------------- */

static bool left_reserve(struct inflight_queue *record, struct error *err)
{
    record->left = try_calloc(record->size, sizeof *record->left);
    record->left_count = record->left_next = 0;
    return record->left || fail(err, ENOMEM, "out of memory");
}

static void left_add(struct inflight_queue *record, uint16_t head, uint64_t counter)
{
    record->left[record->left_count++] = (struct inflight_left){counter, head};
}

static int older_first(const void *a, const void *b)
{
    const struct inflight_left *x = a, *y = b;
    return (x->counter > y->counter) - (x->counter < y->counter);
}

static void left_sort(struct inflight_queue *record)
{
    if (!record->left_count)
        return;
    qsort(record->left, record->left_count, sizeof *record->left, older_first);
    record->counter = record->left[record->left_count - 1].counter + 1;
}

/* Split rings ---------------------------------------------------------------------------------------------------- */

static struct inflight_split *split_area(const struct inflight_queue *record)
{
    return (struct inflight_split *)record->area;
}

static void split_popped(void *arg, uint16_t id, const struct virtqueue_descriptor *descriptors, uint16_t count)
{
    struct inflight_queue *record = arg;
    (void)descriptors, (void)count;
    struct inflight_split_entry *entry = &split_area(record)->entries[id]; /* id < ring size == record->size */
    entry->counter = record->counter++;
    atomic_thread_fence(memory_order_release);
    entry->inflight = 1;
}

static void split_completing(void *arg, uint16_t id)
{
    struct inflight_split *area = split_area(arg);
    area->entries[id].next = area->last_batch_head;
    atomic_thread_fence(memory_order_release);
    area->last_batch_head = id;
    atomic_thread_fence(memory_order_release);
}

static void split_completed(void *arg, uint16_t id, uint16_t used_index, bool used_wrap)
{
    struct inflight_split *area = split_area(arg);
    (void)used_wrap;
    atomic_thread_fence(memory_order_release);
    area->entries[id].inflight = 0;
    atomic_thread_fence(memory_order_release);
    area->used_index = used_index;
}

static const struct virtqueue_inflight_ops split_ops = {
    .popped = split_popped, .completing = split_completing, .completed = split_completed};

static bool split_start(struct queue *queue, struct error *err)
{
    struct inflight_queue *record = &queue->inflight;
    struct inflight_split *area = split_area(record);
    struct virtqueue_state state = virtqueue_save(&queue->ring);
    if (area->version == 0) { /* fresh */
        area->features = queue->device->features;
        area->entry_count = record->size;
        area->used_index = state.used;
        area->version = INFLIGHT_VERSION;
        return true;
    }
    if (area->version != INFLIGHT_VERSION || area->entry_count != record->size)
        return fail(err, EINVAL, "record of requests in flight has version %u and %u entries, expected %u and %u",
                    area->version, area->entry_count, INFLIGHT_VERSION, record->size);
    /* Died between publishing a used entry and noting it: that chain is not in flight any more. */
    uint16_t last = shared_read(area->last_batch_head);
    if (area->used_index != state.used && last < record->size) {
        area->entries[last].inflight = 0;
        area->used_index = state.used;
    }
    for (uint16_t i = 0; i < record->size; i++) {
        if (shared_read(area->entries[i].inflight))
            left_add(record, i, shared_read(area->entries[i].counter));
    }
    state.last_avail = (uint16_t)(state.used + record->left_count);
    return virtqueue_restore(&queue->ring, state, err);
}

/* Packed rings --------------------------------------------------------------------------------------------------- */

static struct inflight_packed *packed_area(const struct inflight_queue *record)
{
    return (struct inflight_packed *)record->area;
}

/* An index out of the shared region, made harmless. */
static uint16_t checked(const struct inflight_queue *record, uint16_t index)
{
    return index < record->size ? index : 0;
}

static void packed_popped(void *arg, uint16_t id, const struct virtqueue_descriptor *descriptors, uint16_t count)
{
    struct inflight_queue *record = arg;
    struct inflight_packed *area = packed_area(record);
    uint16_t head = checked(record, shared_read(area->free_head)), at = head, last = head;
    for (uint16_t i = 0; i < count; i++) {
        struct inflight_packed_entry *entry = &area->entries[at];
        entry->address = descriptors[i].address;
        entry->length = descriptors[i].length;
        entry->flags = descriptors[i].flags;
        entry->id = descriptors[i].id_or_next;
        last = at;
        at = checked(record, shared_read(entry->next));
    }
    area->entries[head].count = count;
    area->entries[head].last = last;
    area->entries[head].counter = record->counter++;
    record->entry_of_id[id] = head;
    atomic_thread_fence(memory_order_release);
    area->entries[head].inflight = 1;
    area->free_head = at;
    atomic_thread_fence(memory_order_release);
    area->old_free_head = at;
}

static void packed_completing(void *arg, uint16_t id)
{
    struct inflight_queue *record = arg;
    struct inflight_packed *area = packed_area(record);
    uint16_t head = record->entry_of_id[id];
    if (head == NO_ENTRY)
        return;
    uint16_t count = shared_read(area->entries[head].count);
    area->entries[checked(record, shared_read(area->entries[head].last))].next = area->free_head;
    area->free_head = head;
    uint32_t used = (uint32_t)shared_read(area->used_index) + count;
    if (used >= record->size) {
        used -= record->size;
        area->used_wrap = !area->used_wrap;
    }
    area->used_index = checked(record, (uint16_t)used);
    atomic_thread_fence(memory_order_release);
}

static void packed_completed(void *arg, uint16_t id, uint16_t used_index, bool used_wrap)
{
    struct inflight_queue *record = arg;
    struct inflight_packed *area = packed_area(record);
    uint16_t head = record->entry_of_id[id];
    atomic_thread_fence(memory_order_release);
    if (head != NO_ENTRY)
        area->entries[head].inflight = 0;
    record->entry_of_id[id] = NO_ENTRY;
    atomic_thread_fence(memory_order_release);
    area->used_index = area->old_used_index = used_index;
    area->used_wrap = area->old_used_wrap = used_wrap;
    area->old_free_head = area->free_head;
}

static const struct virtqueue_inflight_ops packed_ops = {
    .popped = packed_popped, .completing = packed_completing, .completed = packed_completed};

static bool packed_fresh(struct queue *queue, struct inflight_packed *area, struct virtqueue_state state)
{
    area->features = queue->device->features;
    area->entry_count = queue->inflight.size;
    for (uint16_t i = 0; i < queue->inflight.size; i++)
        area->entries[i].next = (uint16_t)(i + 1 < queue->inflight.size ? i + 1 : 0);
    area->used_index = area->old_used_index = state.used;
    area->used_wrap = area->old_used_wrap = state.used_wrap;
    area->version = INFLIGHT_VERSION;
    return true;
}

/* Did the used descriptor at the old position get its flags? Then the last completion was published. */
static bool packed_published(const struct queue *queue, const struct inflight_packed *area, uint16_t position)
{
    uint16_t flags = load_le16((const uint8_t *)queue->ring.descriptors + 16u * position + 14);
    bool available = flags & 1u << 7, used = flags & 1u << 15;
    return available == used && used == !!area->old_used_wrap;
}

static bool packed_start(struct queue *queue, struct error *err)
{
    struct inflight_queue *record = &queue->inflight;
    struct inflight_packed *area = packed_area(record);
    struct virtqueue_state state = virtqueue_save(&queue->ring);
    record->entry_of_id = try_calloc(UINT16_MAX + 1u, sizeof *record->entry_of_id);
    if (!record->entry_of_id)
        return fail(err, ENOMEM, "out of memory");
    for (unsigned id = 0; id <= UINT16_MAX; id++)
        record->entry_of_id[id] = NO_ENTRY;
    if (area->version == 0)
        return packed_fresh(queue, area, state);
    if (area->version != INFLIGHT_VERSION || area->entry_count != record->size)
        return fail(err, EINVAL, "record of requests in flight has version %u and %u entries, expected %u and %u",
                    area->version, area->entry_count, INFLIGHT_VERSION, record->size);
    if (area->used_index != area->old_used_index || area->free_head != area->old_free_head) {
        if (packed_published(queue, area, checked(record, shared_read(area->old_used_index)))) {
            uint16_t last = shared_read(area->free_head);
            if (last < record->size)
                area->entries[last].inflight = 0; /* the chain that was completed last */
            area->old_free_head = area->free_head;
            area->old_used_index = area->used_index;
            area->old_used_wrap = area->used_wrap;
        } else {
            area->free_head = area->old_free_head;
            area->used_index = area->old_used_index;
            area->used_wrap = area->old_used_wrap;
        }
    }
    uint32_t slots = 0;
    for (uint16_t i = 0; i < record->size; i++) {
        if (!shared_read(area->entries[i].inflight))
            continue;
        slots += MIN(shared_read(area->entries[i].count), record->size);
        left_add(record, i, shared_read(area->entries[i].counter));
    }
    /* The position, too, is the record's: unlike the split ring's used index it cannot be read from the ring, and a
     * front end that has lost its daemon does not know it. */
    state.used = checked(record, shared_read(area->used_index));
    state.used_wrap = area->used_wrap;
    uint32_t available = state.used + slots;
    state.avail_wrap = available >= record->size ? !state.used_wrap : state.used_wrap;
    state.last_avail = (uint16_t)(available % record->size);
    return virtqueue_restore(&queue->ring, state, err);
}

static int packed_pop_recorded(struct queue *queue, uint16_t head, struct virtqueue_element *element)
{
    struct inflight_queue *record = &queue->inflight;
    struct inflight_packed *area = packed_area(record);
    uint16_t recorded = shared_read(area->entries[head].count), count = MIN(recorded, record->size), at = head;
    struct virtqueue_descriptor *descriptors = try_calloc(count, sizeof *descriptors);
    if (!descriptors)
        return -ENOMEM;
    for (uint16_t i = 0; i < count; i++) {
        const struct inflight_packed_entry *entry = &area->entries[at];
        descriptors[i] = (struct virtqueue_descriptor){entry->address, entry->length, entry->flags, entry->id};
        at = checked(record, shared_read(entry->next));
    }
    int result = virtqueue_pop_recorded(&queue->ring, descriptors, count, element);
    if (result == 1)
        record->entry_of_id[element->id] = head;
    free(descriptors);
    return result;
}

/* Both ----------------------------------------------------------------------------------------------------------- */

/* Hooks must not run for chains that are taken up again (they stand in the record), so resubmission happens before they
 * are set: inflight_start() only prepares, the last inflight_resubmit() call switches the hooks on. */
bool inflight_start(struct queue *queue, struct error *err)
{
    struct inflight_queue *record = &queue->inflight;
    if (!record->area)
        return true;
    if (record->size < queue->size) {
        /* QEMU's virtio-mmio lets a driver choose a larger ring than it made the record for. */
        if (device_may_warn(queue->device))
            log_warning(
                "export '%s': queue %u has %u entries, its record of requests in flight only %u: a restart will not "
                "find its requests",
                queue->device->export->id, queue->index, queue->size, record->size);
        record->area = NULL;
        return true;
    }
    record->size = queue->ring.packed ? queue->size : record->size;
    free(TAKE(record->entry_of_id));
    free(TAKE(record->left));
    record->counter = 0;
    if (!left_reserve(record, err) || !(queue->ring.packed ? packed_start(queue, err) : split_start(queue, err)))
        return false;
    left_sort(record);
    return true;
}

int inflight_resubmit(struct queue *queue, struct virtqueue_element *element)
{
    struct inflight_queue *record = &queue->inflight;
    if (!record->area)
        return 0;
    bool packed = queue->ring.packed;
    if (record->left_next == record->left_count) {
        free(TAKE(record->left));
        return virtqueue_set_inflight(&queue->ring, packed ? &packed_ops : &split_ops, record) ? 0 : -ENOMEM;
    }
    uint16_t head = record->left[record->left_next++].head;
    return packed ? packed_pop_recorded(queue, head, element) : virtqueue_pop_head(&queue->ring, head, element);
}
