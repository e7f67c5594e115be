/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio block device whose queues are served by another process (vhost-user-blk). This side keeps registers, features
 * and the copy of the configuration space; requests never pass here. Each queue has two eventfds: the driver's
 * notification goes out through `kick`, interrupts come in through `call`.
 *
 * A peer that goes away leaves the guest waiting, not failing: when it is back, the queues are handed over again. It
 * goes on at the used index in guest memory and re-does what its record of requests in flight says.
 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/hw/vhost_backend.h"
#include "emulator/hw/virtio_device.h"
#include "virtio/virtio_blk.h"

#define DEFAULT_QUEUE_SIZE 128u

struct vhost_blk_queue {
    struct vhost_user_blk *blk;
    unsigned index;
    int kick_fd, call_fd;
    struct loop_watch watch;
    bool with_peer;
};

struct vhost_user_blk {
    struct virtio_device device;
    struct vhost_backend *backend;
    uint64_t peer_features;
    uint8_t config[VIRTIO_BLK_CONFIG_SIZE];
    struct vhost_blk_queue *queues;
};

/* What we know how to pass through. */
#define BLK_FEATURES                                                                                                   \
    (VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_GEOMETRY) |        \
     VIRTIO_BIT(VIRTIO_BLK_F_RO) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |                \
     VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) | VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |      \
     VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES))

/* --- handing queues over -------------------------------------------------------------------------------------------
 */

static bool share_memory(struct vhost_user_blk *blk, struct error *err)
{
    struct vhost_memory_region regions[64];
    size_t count = 0;
    const struct physmap *map = blk->device.hw->memory;
    for (size_t i = 0; i < physmap_count(map); i++) {
        const struct physmap_range *range = physmap_at(map, i);
        if (range->kind == PHYSMAP_RAM && count < ARRAY_SIZE(regions))
            regions[count++] = (struct vhost_memory_region){range->base, range->size, range->host, range->fd, 0};
    }
    return blk->backend->ops->set_memory(blk->backend, regions, count, err);
}

static bool start_queue(struct vhost_user_blk *blk, struct vhost_blk_queue *queue, struct error *err)
{
    struct virtqueue *ring = virtio_device_ring(&blk->device, queue->index);
    struct vhost_queue description = {
        .size = ring->size,
        .base = virtqueue_base_encode(ring, virtqueue_save(ring)),
        .descriptors = ring->descriptors,
        .driver = ring->driver,
        .device = ring->device,
        .kick_fd = queue->kick_fd,
        .call_fd = queue->call_fd,
    };
    queue->with_peer = blk->backend->ops->queue_start(blk->backend, (uint16_t)queue->index,
                                                      (uint16_t)blk->device.queue_count, &description, err);
    return queue->with_peer;
}

static void stop_queues(struct vhost_user_blk *blk)
{
    for (unsigned i = 0; i < blk->device.queue_count; i++) {
        struct vhost_blk_queue *queue = &blk->queues[i];
        struct virtqueue *ring = virtio_device_ring(&blk->device, i);
        struct error err = {0};
        uint32_t base;
        if (!queue->with_peer)
            continue;
        queue->with_peer = false;
        if (blk->backend->ops->queue_stop(blk->backend, (uint16_t)i, &base, &err))
            virtqueue_restore(ring, virtqueue_base_decode(ring->packed, base), NULL);
        else
            log_warning("vhost-user-blk: queue %u did not stop: %s", i, err.message);
        error_clear(&err);
    }
}

static void kick(struct vhost_blk_queue *queue)
{
    uint64_t one = 1;
    if (write(queue->kick_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        log_warning("vhost-user-blk: cannot notify queue %u: %s", queue->index, strerror(errno));
}

static bool start_all(struct vhost_user_blk *blk, struct error *err)
{
    uint64_t features = blk->device.negotiated & blk->peer_features;
    bool ok = blk->backend->ops->set_features(blk->backend, features, err) && share_memory(blk, err);
    for (unsigned i = 0; ok && i < blk->device.queue_count; i++)
        ok = !blk->device.queues[i].ready || start_queue(blk, &blk->queues[i], err);
    if (!ok) {
        stop_queues(blk);
        return false;
    }
    /* What was made available before the peer was there has nobody else to announce it. */
    for (unsigned i = 0; i < blk->device.queue_count; i++) {
        if (blk->queues[i].with_peer)
            kick(&blk->queues[i]);
    }
    return true;
}

/* A peer that goes away in the middle is no failure of the device: `connected` starts the queues again. */
static bool try_start(struct vhost_user_blk *blk, struct error *err)
{
    struct error problem = {0};
    if (start_all(blk, &problem))
        return true;
    if (problem.code == EPIPE || problem.code == ENOTCONN) {
        log_warning("vhost-user-blk: the queues wait for the peer: %s", problem.message);
        error_clear(&problem);
        return true;
    }
    error_move(err, &problem);
    return false;
}

static bool vhost_start(struct virtio_device *device, struct error *err)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    return !blk->backend->is_connected || try_start(blk, err);
}

static void vhost_stop(struct virtio_device *device, bool on_cpu)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    stop_queues(blk);
    blk->backend->ops->forget(blk->backend);
}

static void vhost_notify(struct virtio_device *device, unsigned index)
{
    kick(&((struct vhost_user_blk *)device)->queues[index]);
}

/* --- events from the peer; on the main loop without the machine lock -------------------------------------------------
 */

static void call_arrived(void *arg, uint32_t events)
{
    struct vhost_blk_queue *queue = arg;
    struct virtio_device *device = &queue->blk->device;
    uint64_t count;
    if (read(queue->call_fd, &count, sizeof count) < 0)
        return;
    machine_lock(device->hw->memory);
    if (device->started) {
        device->isr |= VIRTIO_ISR_QUEUE;
        device->update_interrupt(device->transport);
    }
    machine_unlock(device->hw->memory);
}

static bool load_config(struct vhost_user_blk *blk, struct error *err)
{
    return blk->backend->ops->get_config(blk->backend, blk->config, sizeof blk->config, err);
}

static void peer_config_changed(void *owner)
{
    struct vhost_user_blk *blk = owner;
    machine_lock(blk->device.hw->memory);
    if (load_config(blk, NULL))
        virtio_device_config_changed(&blk->device);
    machine_unlock(blk->device.hw->memory);
}

static void peer_disconnected(void *owner)
{
    struct vhost_user_blk *blk = owner;
    machine_lock(blk->device.hw->memory);
    for (unsigned i = 0; i < blk->device.queue_count; i++) {
        struct virtqueue *ring = virtio_device_ring(&blk->device, i);
        if (!blk->queues[i].with_peer)
            continue;
        blk->queues[i].with_peer = false;
        virtqueue_load_used(ring);
        struct virtqueue_state state = virtqueue_save(ring);
        state.last_avail = state.used;
        virtqueue_restore(ring, state, NULL);
    }
    machine_unlock(blk->device.hw->memory);
}

static void peer_connected(void *owner)
{
    struct vhost_user_blk *blk = owner;
    struct error err = {0};
    machine_lock(blk->device.hw->memory);
    uint64_t features;
    bool ok = blk->backend->ops->get_features(blk->backend, &features, &err);
    if (ok && blk->device.started) {
        uint64_t missing = blk->device.negotiated & blk->peer_features & ~features;
        if (missing)
            ok = fail(&err, EPROTO, "the new peer lacks features 0x%llx that the guest uses",
                      (unsigned long long)missing);
        ok = ok && try_start(blk, &err);
    }
    if (ok && load_config(blk, &err))
        virtio_device_config_changed(&blk->device);
    /* One that is gone again already will be back, too. */
    if (!ok && blk->backend->is_connected)
        virtio_device_failed(&blk->device, err.message);
    error_clear(&err);
    machine_unlock(blk->device.hw->memory);
}

static const struct vhost_backend_events backend_events = {peer_config_changed, peer_disconnected, peer_connected};

/* --- registers -------------------------------------------------------------------------------------------------------
 */

static uint64_t vhost_features(struct virtio_device *device)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    uint64_t features = blk->peer_features & BLK_FEATURES;
    if (device->queue_count > 1)
        features |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    return features;
}

static void vhost_read_config(struct virtio_device *device, void *config)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    memcpy(config, blk->config, sizeof blk->config);
    /* num_queues is ours to say: the peer may offer more than the user asked for. */
    ((uint8_t *)config)[34] = (uint8_t)device->queue_count;
    ((uint8_t *)config)[35] = (uint8_t)(device->queue_count >> 8);
}

static void vhost_write_config(struct virtio_device *device, unsigned offset, const void *data, unsigned size)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    struct error err = {0};
    if (offset != VIRTIO_BLK_CONFIG_WRITEBACK || size != 1)
        return;
    if (blk->backend->ops->set_config(blk->backend, offset, data, size, &err))
        blk->config[offset] = *(const uint8_t *)data;
    else
        log_warning("vhost-user-blk: cannot change the cache mode: %s", err.message);
    error_clear(&err);
}

/* --- life ------------------------------------------------------------------------------------------------------------
 */

static void vhost_destroy(struct virtio_device *device)
{
    struct vhost_user_blk *blk = (struct vhost_user_blk *)device;
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (blk->queues[i].watch.loop)
            loop_unwatch(&blk->queues[i].watch);
        if (blk->queues[i].kick_fd >= 0)
            close(blk->queues[i].kick_fd);
        if (blk->queues[i].call_fd >= 0)
            close(blk->queues[i].call_fd);
    }
    blk->backend->ops->close(blk->backend);
    virtio_device_finish(device);
    free(blk->queues);
    free(blk);
}

static const struct virtio_device_ops vhost_ops = {
    .name = "vhost-user-blk",
    .device_id = VIRTIO_ID_BLOCK,
    .features = vhost_features,
    .start = vhost_start,
    .stop = vhost_stop,
    .notify = vhost_notify,
    .config_size = VIRTIO_BLK_CONFIG_SIZE,
    .read_config = vhost_read_config,
    .write_config = vhost_write_config,
    .destroy = vhost_destroy,
};

static bool make_queues(struct vhost_user_blk *blk, struct error *err)
{
    for (unsigned i = 0; i < blk->device.queue_count; i++)
        blk->queues[i] = (struct vhost_blk_queue){.blk = blk, .index = i, .kick_fd = -1, .call_fd = -1};
    for (unsigned i = 0; i < blk->device.queue_count; i++) {
        struct vhost_blk_queue *queue = &blk->queues[i];
        queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        queue->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (queue->kick_fd < 0 || queue->call_fd < 0)
            return fail_errno(err, errno, "cannot make an eventfd");
        loop_watch(blk->device.hw->loop, &queue->watch, queue->call_fd, EPOLLIN, call_arrived, queue);
    }
    return true;
}

struct virtio_device *vhost_user_blk_create(struct hw *hw, struct vhost_backend *backend,
                                            const struct virtio_blk_options *options, struct error *err)
{
    uint16_t most = backend->ops->max_queues(backend), queues = options->num_queues ? options->num_queues : 1;
    uint16_t size = options->queue_size ? options->queue_size : DEFAULT_QUEUE_SIZE;
    uint64_t features = 0;
    bool ok = backend->ops->get_features(backend, &features, err);
    if (ok && queues > most)
        ok = fail(err, EINVAL, "num-queues=%u: the peer has %u", queues, most);
    if (ok && (!is_power_of_two(size) || size > 1024))
        ok = fail(err, EINVAL, "queue-size=%u: must be a power of two up to 1024", size);
    if (ok && !(features & VIRTIO_BIT(VIRTIO_F_VERSION_1)))
        ok = fail(err, EINVAL, "the peer does not offer virtio 1.0");
    if (!ok) {
        backend->ops->close(backend);
        return NULL;
    }
    struct vhost_user_blk *blk = new (struct vhost_user_blk);
    blk->backend = backend;
    blk->peer_features = features;
    blk->queues = new_array(struct vhost_blk_queue, queues);
    virtio_device_init(&blk->device, hw, &vhost_ops, options->id, queues, size, options->packed);
    blk->device.ring_features &= features;
    backend->owner = blk;
    backend->events = &backend_events;
    if (make_queues(blk, err) && load_config(blk, err))
        return &blk->device;
    vhost_destroy(&blk->device);
    return NULL;
}
