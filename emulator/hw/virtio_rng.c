/* SPDX-License-Identifier: Apache-2.0 */
/* virtio entropy device (virtio 1.3, section 5.4): fills every buffer that the driver offers with random bytes. */
#include "base/alloc.h"
#include "base/math.h"
#include "emulator/hw/virtio_device.h"

#define QUEUE_SIZE 8u
#define MOST_AT_ONCE 65536u /* of one buffer: filling happens under the machine lock */

struct virtio_rng {
    struct virtio_device device;
    struct virtqueue_element element;
};

static uint64_t rng_features(struct virtio_device *device)
{
    return 0;
}

static uint64_t fill(struct virtio_rng *rng)
{
    struct iovec *in = virtqueue_element_in(&rng->element);
    uint64_t filled = 0;
    for (uint32_t i = 0; i < rng->element.in_count && filled < MOST_AT_ONCE; i++) {
        size_t size = MIN(in[i].iov_len, MOST_AT_ONCE - filled);
        clock_random(rng->device.hw->clock, in[i].iov_base, size);
        filled += size;
    }
    return filled;
}

static void rng_notify(struct virtio_device *device, unsigned queue)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    struct virtqueue *ring = virtio_device_ring(device, queue);
    int result;
    while ((result = virtqueue_pop(ring, &rng->element)) > 0)
        virtqueue_push(ring, &rng->element, fill(rng));
    virtqueue_enable_notify(ring);
    virtio_device_interrupt(device, queue);
    if (result < 0)
        virtio_device_failed(device, ring->broken ? ring->broken : "out of memory");
}

static void rng_destroy(struct virtio_device *device)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    virtqueue_element_release(&rng->element);
    virtio_device_finish(device);
    free(rng);
}

static const struct virtio_device_ops rng_ops = {
    .name = "virtio-rng-device",
    .device_id = VIRTIO_ID_RNG,
    .features = rng_features,
    .notify = rng_notify,
    .destroy = rng_destroy,
};

struct virtio_device *virtio_rng_create(struct hw *hw, const char *id, struct error *err)
{
    struct virtio_rng *rng = new (struct virtio_rng);
    virtio_device_init(&rng->device, hw, &rng_ops, id, 1, QUEUE_SIZE, false);
    return &rng->device;
}
