/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio block device (virtio 1.3, section 5.2) on a `struct disk`. Requests are parsed by virtio/virtio_blk.c, which
 * the storage daemon's vhost-user export uses too.
 *
 * A notification on a vCPU's thread only posts a look at the queues to the main loop, where disks live. A request of
 * several ranges (discard, write zeroes) is carried out one range after the other. When a driver resets the device
 * while requests are in flight, its vCPU waits for them: afterwards nobody touches its memory.
 */
#include "virtio/virtio_blk.h"

#include <errno.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/hw/disk.h"
#include "emulator/hw/virtio_device.h"

#define DEFAULT_QUEUE_SIZE 256u
#define MAX_QUEUES 256u
#define MAX_RANGE_SECTORS (1u << 21) /* 1 GiB */

struct blk_request {
    struct virtio_blk *blk;
    unsigned queue;
    struct virtqueue_element element;
    struct virtio_blk_request parsed;
    struct disk_request io;
    uint32_t range;      /* the one in progress */
    uint64_t done;       /* IN, OUT: bytes that are through; the disk may not take all at once */
    struct iovec *piece; /* what of the data is in flight, when that is not all; owned */
    struct blk_request *next_free;
};

struct virtio_blk {
    struct virtio_device device;
    struct disk *disk;
    char *serial;
    struct virtio_blk_limits limits;
    bool look_posted, stopping;
    bool dead; /* destroyed, but for a look that is still posted */
    unsigned in_flight;
    pthread_cond_t idle; /* with the machine lock: in_flight has become 0 */
    struct blk_request *free_requests;
};

/* --- requests ------------------------------------------------------------------------------------------------------
 */

static struct blk_request *take_request(struct virtio_blk *blk)
{
    struct blk_request *request = blk->free_requests;
    if (request)
        blk->free_requests = request->next_free;
    else
        request = try_calloc(1, sizeof *request);
    return request;
}

static void give_request(struct virtio_blk *blk, struct blk_request *request)
{
    request->next_free = blk->free_requests;
    blk->free_requests = request;
}

static void finish(struct blk_request *request, enum virtio_blk_status status)
{
    struct virtio_blk *blk = request->blk;
    uint64_t written = virtio_blk_finish(&request->parsed, status);
    virtqueue_push(virtio_device_ring(&blk->device, request->queue), &request->element, written);
    if (!blk->stopping)
        virtio_device_interrupt(&blk->device, request->queue);
    give_request(blk, request);
}

/* The next part of the data, as large as the disk takes. False: out of memory. */
static bool submit_piece(struct blk_request *request)
{
    const struct virtio_blk_request *parsed = &request->parsed;
    struct disk *disk = request->blk->disk;
    uint64_t length = parsed->length - request->done;
    request->io.iov = parsed->data;
    request->io.iov_count = parsed->data_count;
    if (disk->max_transfer && parsed->length > disk->max_transfer) {
        length = MIN(length, round_down(disk->max_transfer, disk->block_size));
        if (!request->piece)
            request->piece = try_calloc(parsed->data_count, sizeof *request->piece);
        if (!request->piece)
            return false;
        request->io.iov = request->piece;
        request->io.iov_count =
            (uint32_t)iov_slice(request->piece, parsed->data, (int)parsed->data_count, request->done, length);
    }
    request->io.offset = parsed->offset + request->done;
    request->io.length = length;
    request->done += length;
    disk->ops->submit(disk, &request->io);
    return true;
}

static void submit_range(struct blk_request *request)
{
    const struct virtio_blk_range *range = &request->parsed.ranges[request->range];
    request->io.offset = range->offset;
    request->io.length = range->length;
    request->io.may_unmap = range->unmap;
    request->blk->disk->ops->submit(request->blk->disk, &request->io);
}

static bool is_transfer(const struct virtio_blk_request *parsed)
{
    return parsed->type == VIRTIO_BLK_T_IN || parsed->type == VIRTIO_BLK_T_OUT;
}

/* Another part of the request, when there is one; 0 when nothing is left to do. */
static int go_on(struct blk_request *request)
{
    if (is_transfer(&request->parsed) && request->done < request->parsed.length)
        return submit_piece(request) ? 1 : -ENOMEM;
    if (request->parsed.range_count && ++request->range < request->parsed.range_count) {
        submit_range(request);
        return 1;
    }
    return 0;
}

static void end(struct blk_request *request, int result)
{
    struct virtio_blk *blk = request->blk;
    free(TAKE(request->piece));
    finish(request, virtio_blk_status_of(result));
    if (!--blk->in_flight)
        pthread_cond_broadcast(&blk->idle);
}

/* On the main loop, without the machine lock. */
static void disk_done(struct disk_request *io, int result)
{
    struct blk_request *request = io->owner;
    struct physmap *memory = request->blk->device.hw->memory;
    machine_lock(memory);
    if (!result)
        result = go_on(request);
    if (result <= 0)
        end(request, result);
    machine_unlock(memory);
}

/* Without a volatile cache, as the driver sees it, every write must be on stable storage when it is finished. */
static bool writes_are_durable(const struct virtio_blk *blk)
{
    return !virtio_device_has(&blk->device, VIRTIO_BLK_F_FLUSH) || !blk->limits.writeback;
}

static void submit(struct blk_request *request)
{
    struct virtio_blk *blk = request->blk;
    struct virtio_blk_request *parsed = &request->parsed;
    request->range = 0;
    request->done = 0;
    request->io = (struct disk_request){.done = disk_done, .owner = request};
    blk->in_flight++;
    switch (parsed->type) {
    case VIRTIO_BLK_T_FLUSH: request->io.operation = DISK_FLUSH; break;
    case VIRTIO_BLK_T_DISCARD: request->io.operation = DISK_DISCARD; break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        request->io.operation = DISK_WRITE_ZEROES;
        request->io.durable = writes_are_durable(blk);
        break;
    default:
        request->io.operation = parsed->type == VIRTIO_BLK_T_IN ? DISK_READ : DISK_WRITE;
        request->io.durable = parsed->type == VIRTIO_BLK_T_OUT && writes_are_durable(blk);
        if (!submit_piece(request))
            end(request, -ENOMEM);
        return;
    }
    if (parsed->range_count)
        submit_range(request);
    else
        blk->disk->ops->submit(blk->disk, &request->io);
}

/* False: the queue is broken. */
static bool begin(struct virtio_blk *blk, struct blk_request *request)
{
    int verdict = virtio_blk_parse(&request->element, &blk->limits, &request->parsed);
    if (verdict < 0) {
        give_request(blk, request);
        virtio_device_failed(&blk->device, "a request has no room for its header or status");
        return false;
    }
    if (verdict > 0) {
        finish(request, (enum virtio_blk_status)verdict);
    } else if (request->parsed.type == VIRTIO_BLK_T_GET_ID) {
        virtio_blk_fill_id(&request->parsed, blk->serial);
        finish(request, VIRTIO_BLK_S_OK);
    } else if ((is_transfer(&request->parsed) && !request->parsed.length) ||
               (request->parsed.type == VIRTIO_BLK_T_FLUSH && !blk->disk->can_flush)) {
        finish(request, VIRTIO_BLK_S_OK);
    } else {
        submit(request);
    }
    return true;
}

/* --- queues --------------------------------------------------------------------------------------------------------
 */

static void serve(struct virtio_blk *blk, unsigned queue)
{
    struct virtqueue *ring = virtio_device_ring(&blk->device, queue);
    for (;;) {
        struct blk_request *request = take_request(blk);
        int result = request ? virtqueue_pop(ring, &request->element) : -ENOMEM;
        if (result > 0) {
            request->blk = blk;
            request->queue = queue;
            if (!begin(blk, request))
                return;
            continue;
        }
        if (request)
            give_request(blk, request);
        if (result < 0)
            virtio_device_failed(&blk->device, ring->broken ? ring->broken : "out of memory");
        if (result < 0 || !virtqueue_enable_notify(ring))
            return;
    }
}

static void look_at_queues(void *arg)
{
    struct virtio_blk *blk = arg;
    if (blk->dead) {
        free(blk);
        return;
    }
    machine_lock(blk->device.hw->memory);
    blk->look_posted = false;
    for (unsigned i = 0; i < blk->device.queue_count && blk->device.started; i++) {
        if (blk->device.queues[i].ready)
            serve(blk, i);
    }
    machine_unlock(blk->device.hw->memory);
}

static void blk_notify(struct virtio_device *device, unsigned queue)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    virtqueue_disable_notify(virtio_device_ring(device, queue));
    if (!blk->look_posted)
        loop_post(device->hw->loop, look_at_queues, blk);
    blk->look_posted = true;
}

static bool blk_busy(struct virtio_device *device)
{
    return ((struct virtio_blk *)device)->in_flight;
}

static void blk_stop(struct virtio_device *device, bool on_cpu)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    blk->stopping = true;
    while (on_cpu && blk->in_flight)
        machine_wait(device->hw->memory, &blk->idle);
    assert(!blk->in_flight);
    blk->stopping = false;
    blk->limits.writeback = true;
}

/* --- configuration ---------------------------------------------------------------------------------------------------
 */

static uint64_t blk_features(struct virtio_device *device)
{
    return virtio_blk_features(&((struct virtio_blk *)device)->limits);
}

static void blk_read_config(struct virtio_device *device, void *config)
{
    virtio_blk_config_encode(&((struct virtio_blk *)device)->limits, config);
}

static void blk_write_config(struct virtio_device *device, unsigned offset, const void *data, unsigned size)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    if (offset == VIRTIO_BLK_CONFIG_WRITEBACK && size == 1)
        blk->limits.writeback = *(const uint8_t *)data & 1;
}

static void describe_disk(struct virtio_blk *blk, uint16_t num_queues, uint16_t queue_size)
{
    const struct disk *disk = blk->disk;
    uint32_t physical = MAX(disk->physical_block_size, disk->block_size);
    uint32_t granularity = MAX(disk->discard_granularity, disk->block_size);
    blk->limits = (struct virtio_blk_limits){
        .capacity_bytes = disk->size_bytes,
        .block_size = disk->block_size,
        .seg_max = queue_size > 2 ? queue_size - 2u : 1u, /* header and status take a descriptor each */
        .physical_block_exponent = (uint8_t)highest_bit(physical / disk->block_size),
        .min_io_blocks = (uint16_t)(physical / disk->block_size),
        .opt_io_blocks = disk->optimal_io_size / disk->block_size,
        .num_queues = num_queues,
        .read_only = disk->read_only,
        .writeback = true,
        .max_discard_sectors = disk->can_discard ? MAX_RANGE_SECTORS : 0,
        .max_discard_ranges = disk->can_discard ? VIRTIO_BLK_MAX_RANGES : 0,
        .discard_alignment = granularity / VIRTIO_BLK_SECTOR_SIZE,
        .max_zeroes_sectors = disk->can_write_zeroes ? MAX_RANGE_SECTORS : 0,
        .max_zeroes_ranges = disk->can_write_zeroes ? VIRTIO_BLK_MAX_RANGES : 0,
        .zeroes_may_unmap = disk->can_write_zeroes,
    };
}

static void disk_resized(void *owner)
{
    struct virtio_blk *blk = owner;
    machine_lock(blk->device.hw->memory);
    blk->limits.capacity_bytes = blk->disk->size_bytes;
    virtio_device_config_changed(&blk->device);
    machine_unlock(blk->device.hw->memory);
}

/* --- life ------------------------------------------------------------------------------------------------------------
 */

static void blk_destroy(struct virtio_device *device)
{
    struct virtio_blk *blk = (struct virtio_blk *)device;
    for (struct blk_request *request = blk->free_requests, *next; request; request = next) {
        next = request->next_free;
        virtqueue_element_release(&request->element);
        free(request);
    }
    blk->disk->ops->close(blk->disk);
    pthread_cond_destroy(&blk->idle);
    virtio_device_finish(device);
    free(blk->serial);
    blk->dead = true;
    if (!blk->look_posted)
        free(blk);
}

static const struct virtio_device_ops blk_ops = {
    .name = "virtio-blk-device",
    .device_id = VIRTIO_ID_BLOCK,
    .features = blk_features,
    .stop = blk_stop,
    .notify = blk_notify,
    .config_size = VIRTIO_BLK_CONFIG_SIZE,
    .read_config = blk_read_config,
    .write_config = blk_write_config,
    .busy = blk_busy,
    .destroy = blk_destroy,
};

static bool check_options(const struct virtio_blk_options *options, struct error *err)
{
    if (options->num_queues > MAX_QUEUES)
        return fail(err, EINVAL, "num-queues=%u: at most %u", options->num_queues, MAX_QUEUES);
    if (options->queue_size &&
        (!is_power_of_two(options->queue_size) || options->queue_size > 1024 || options->queue_size < 4))
        return fail(err, EINVAL, "queue-size=%u: must be a power of two from 4 to 1024", options->queue_size);
    return true;
}

struct virtio_device *virtio_blk_create(struct hw *hw, struct disk *disk, const struct virtio_blk_options *options,
                                        struct error *err)
{
    if (!check_options(options, err)) {
        disk->ops->close(disk);
        return NULL;
    }
    uint16_t queues = options->num_queues ? options->num_queues : 1;
    uint16_t size = options->queue_size ? options->queue_size : DEFAULT_QUEUE_SIZE;
    struct virtio_blk *blk = new (struct virtio_blk);
    pthread_cond_init(&blk->idle, NULL);
    blk->disk = disk;
    blk->serial = xstrdup(options->serial ? options->serial : disk->serial ? disk->serial : "");
    disk->owner = blk;
    disk->resized = disk_resized;
    describe_disk(blk, queues, size);
    virtio_device_init(&blk->device, hw, &blk_ops, options->id, queues, size, options->packed);
    return &blk->device;
}
