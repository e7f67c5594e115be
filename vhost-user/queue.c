/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues and requests: a kick makes us pop what is there; each chain becomes a request in a coroutine, whose data goes
 * straight between the guest's memory and the block graph.
 *
 * While a queue is being emptied the driver is asked not to kick; it is asked again once the ring is empty, and then
 * looked at once more, so no chain is missed. Interrupts go out through the call descriptor, as seldom as the event
 * index allows.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/log.h"
#include "base/trace.h"
#include "vhost-user/internal.h"

/* What one queue may have in flight: each request costs a coroutine, and a ring may have 32768 entries. */
enum { QUEUE_MAX_IN_FLIGHT = 1024 };

static void queue_process(struct queue *queue);

/* Requests ------------------------------------------------------------------------------------------------------- */

static struct request *request_new(struct queue *queue)
{
    struct request *request = list_first(&queue->device->free_requests, struct request, link);
    if (request)
        list_remove(&request->link);
    else
        request = new (struct request);
    request->queue = queue;
    return request;
}

static void request_recycle(struct request *request)
{
    list_prepend(&request->queue->device->free_requests, &request->link);
}

static void signal_fd(int fd)
{
    if (fd >= 0)
        eventfd_write(fd, 1);
}

static void request_finish(struct request *request, enum virtio_blk_status status)
{
    struct queue *queue = request->queue;
    virtqueue_push(&queue->ring, &request->element, virtio_blk_finish(&request->blk, status));
    if (virtqueue_should_notify(&queue->ring))
        signal_fd(queue->call_fd);
    request_recycle(request);
    if (--queue->in_flight == 0)
        co_queue_wake_all(&queue->idle);
    if (queue->held && queue->started && !queue->ring.broken && queue->in_flight <= QUEUE_MAX_IN_FLIGHT / 2)
        queue_process(queue);
}

static int run_ranges(struct device *device, const struct virtio_blk_request *blk, uint32_t durable)
{
    int result = 0;
    for (uint32_t i = 0; result >= 0 && i < blk->range_count; i++) {
        const struct virtio_blk_range *range = &blk->ranges[i];
        if (blk->type == VIRTIO_BLK_T_DISCARD)
            result = block_discard(device->edge, range->offset, range->length);
        else
            result = block_zero(device->edge, range->offset, range->length,
                                durable | (range->unmap ? REQUEST_MAY_UNMAP : 0));
    }
    return result;
}

/* What a request asks of the graph, done at its home. */
struct graph_call {
    struct device *device;
    const struct virtio_blk_request *blk;
    uint32_t durable;
    int result;
};

static int run_at_home(const struct graph_call *call)
{
    struct edge *edge = call->device->edge;
    const struct virtio_blk_request *blk = call->blk;
    struct buffers data = buffers_of(blk->data, blk->data_count);
    switch (blk->type) {
    case VIRTIO_BLK_T_IN: return block_read(edge, blk->offset, blk->length, data, 0);
    case VIRTIO_BLK_T_OUT: return block_write(edge, blk->offset, blk->length, data, call->durable);
    case VIRTIO_BLK_T_FLUSH: return block_flush(edge);
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES: return run_ranges(call->device, blk, call->durable);
    default: return -EOPNOTSUPP;
    }
}

static void at_home(void *arg)
{
    struct graph_call *call = arg;
    call->result = run_at_home(call);
}

static int run(struct device *device, struct virtio_blk_request *blk)
{
    if (blk->type == VIRTIO_BLK_T_GET_ID) {
        virtio_blk_fill_id(blk, device->serial);
        return 0;
    }
    struct graph_call call = {
        .device = device, .blk = blk, .durable = device->limits.writeback ? 0 : REQUEST_FUA, .result = 0};
    if (likely(device->loop == device->home))
        at_home(&call);
    else
        co_call_on(device->home, at_home, &call);
    return call.result;
}

static void request_run(void *arg)
{
    struct request *request = arg;
    struct virtio_blk_request *blk = &request->blk;
    trace(vhost_user_blk_request, "queue %u type %u offset %llu length %llu", request->queue->index, blk->type,
          (unsigned long long)blk->offset, (unsigned long long)blk->length);
    request_finish(request, virtio_blk_status_of(run(request->queue->device, blk)));
}

/* The ring ------------------------------------------------------------------------------------------------------- */

static void queue_broken(struct queue *queue)
{
    if (device_may_warn(queue->device))
        log_warning("export '%s': queue %u is stopped, the guest broke it: %s", queue->device->export->id, queue->index,
                    queue->ring.broken ? queue->ring.broken : "out of memory");
    loop_unwatch(&queue->kick);
    signal_fd(queue->error_fd);
}

/* A chain has been popped into the request's element. false: the queue is broken. */
static bool request_start(struct request *request)
{
    struct queue *queue = request->queue;
    int status = virtio_blk_parse(&request->element, &queue->device->limits, &request->blk);
    if (status < 0) {
        queue->ring.broken = "a request without room for its header or status";
        request_recycle(request);
        return false;
    }
    queue->in_flight++;
    if (status > 0)
        request_finish(request, (enum virtio_blk_status)status);
    else
        co_spawn(queue->device->loop, &queue->device->requests, request_run, request);
    return true;
}

/* Pops with `pop` until nothing is left or `limit` requests are in flight. false: the queue is broken. */
static bool take_all(struct queue *queue, int (*pop)(struct queue *queue, struct virtqueue_element *element),
                     size_t limit)
{
    while (queue->in_flight < limit) {
        struct request *request = request_new(queue);
        int got = pop(queue, &request->element);
        if (got <= 0) {
            request_recycle(request);
            return got == 0;
        }
        if (!request_start(request))
            return false;
    }
    queue->held = true;
    return true;
}

static int pop_new(struct queue *queue, struct virtqueue_element *element)
{
    return virtqueue_pop(&queue->ring, element);
}

static void queue_process(struct queue *queue)
{
    bool good;
    queue->held = false;
    virtqueue_disable_notify(&queue->ring);
    do {
        good = take_all(queue, pop_new, QUEUE_MAX_IN_FLIGHT);
    } while (good && !queue->held && virtqueue_enable_notify(&queue->ring));
    if (!good)
        queue_broken(queue);
}

static void on_kick(void *arg, uint32_t events)
{
    struct queue *queue = arg;
    eventfd_t count;
    (void)events;
    ssize_t got = read(queue->kick_fd, &count, sizeof count);
    if (got > 0 && !queue->held) {
        queue_process(queue);
    } else if (!got || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        if (device_may_warn(queue->device))
            log_warning("export '%s': queue %u is stopped: its kick descriptor is closed at the other end",
                        queue->device->export->id, queue->index);
        loop_unwatch(&queue->kick); /* it would be ready for ever */
    }
}

/* Life ----------------------------------------------------------------------------------------------------------- */

void queue_init(struct queue *queue, struct device *device, unsigned index)
{
    queue->device = device;
    queue->index = index;
    queue->kick_fd = queue->call_fd = queue->error_fd = -1;
    co_queue_init(&queue->idle);
    virtqueue_init(&queue->ring, &device->regions.memory);
}

void queue_set_fd(int *slot, int fd)
{
    if (*slot >= 0)
        close(*slot);
    *slot = fd;
}

static bool configure(struct queue *queue, struct error *err)
{
    struct device *device = queue->device;
    bool packed = device->features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    struct virtqueue_layout layout = virtqueue_layout(queue->size, packed);
    const uint64_t addresses[3] = {queue->addresses.descriptors, queue->addresses.available, queue->addresses.used};
    void *areas[3];
    for (int i = 0; i < 3; i++) {
        areas[i] = guest_regions_user_pointer(&device->regions, addresses[i], layout.size[i]);
        if (!areas[i] || !is_aligned((uintptr_t)areas[i], layout.alignment[i]))
            return fail(err, EFAULT, "ring area %d at %#llx: not %llu aligned bytes inside the memory table", i,
                        (unsigned long long)addresses[i], (unsigned long long)layout.size[i]);
    }
    uint64_t guest_descriptors = 0, guest_used = 0;
    guest_regions_user_to_guest(&device->regions, addresses[0], layout.size[0], &guest_descriptors);
    guest_regions_user_to_guest(&device->regions, addresses[2], layout.size[2], &guest_used);
    if (!virtqueue_configure_pointers(&queue->ring, device->features, queue->size, areas[0], areas[1], areas[2],
                                      guest_descriptors, guest_used, err))
        return false;
    struct virtqueue_state state = virtqueue_base_decode(packed, queue->base);
    if (!virtqueue_restore(&queue->ring, state, err))
        return false;
    if (!packed)
        virtqueue_load_used(&queue->ring);
    return inflight_start(queue, err);
}

bool queue_update(struct queue *queue, struct error *err)
{
    if (queue->started || !queue->enabled || !queue->has_addresses || !queue->size || queue->kick_fd < 0)
        return true;
    if (!configure(queue, err))
        return fail_prefix(err, "queue %u: ", queue->index);
    queue->started = true;
    loop_watch(queue->device->loop, &queue->kick, queue->kick_fd, EPOLLIN, on_kick, queue);
    if (!take_all(queue, inflight_resubmit, SIZE_MAX))
        queue_broken(queue);
    else
        queue_process(queue); /* kicks from before we listened */
    return true;
}

void queue_stop(struct queue *queue)
{
    if (!queue->started)
        return;
    queue->started = false;
    loop_unwatch(&queue->kick);
    while (queue->in_flight)
        co_queue_wait_uncancellable(&queue->idle);
    queue->base = virtqueue_base_encode(&queue->ring, virtqueue_save(&queue->ring));
    queue->held = false;
    virtqueue_destroy(&queue->ring);
    virtqueue_init(&queue->ring, &queue->device->regions.memory);
}

void queue_reset(struct queue *queue)
{
    queue_stop(queue);
    queue_set_fd(&queue->kick_fd, -1);
    queue_set_fd(&queue->call_fd, -1);
    queue_set_fd(&queue->error_fd, -1);
    queue->enabled = queue->has_addresses = false;
    queue->size = 0;
    queue->base = 0;
}
