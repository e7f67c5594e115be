/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile virtio drivers. The input is the guest's memory, rings included, and a script of what both sides do: the
 * device pops, parses as virtio-blk, pushes in another order and asks whether to notify; the driver scribbles. Every
 * piece that the queue hands out must lie inside of the guest's memory (ASan guards its ends), and every loop must end.
 *
 * links: virtio base
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/math.h"
#include "virtio/features.h"
#include "virtio/virtio_blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { REGION = 8192, HELD = 8 };
#define BASE_A 0x1000u
#define BASE_B (BASE_A + REGION) /* neighbours for the guest, apart in the host */

struct fuzz {
    uint8_t *a, *b;
    struct guest_regions regions;
    struct virtqueue queue;
    struct virtqueue_element held[HELD];
    unsigned holding;
};

static void check_inside(const struct fuzz *fuzz, const struct virtqueue_element *element)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < element->out_count + element->in_count; i++) {
        const uint8_t *start = element->iov[i].iov_base;
        size_t length = element->iov[i].iov_len;
        bool in_a = start >= fuzz->a && length <= (size_t)(fuzz->a + REGION - start) && start < fuzz->a + REGION;
        bool in_b = start >= fuzz->b && length <= (size_t)(fuzz->b + REGION - start) && start < fuzz->b + REGION;
        if (!length || (!in_a && !in_b))
            abort();
        total += length;
    }
    if (total != element->in_bytes + element->out_bytes)
        abort();
}

static const struct virtio_blk_limits limits = {
    .capacity_bytes = 1 << 20,
    .block_size = 512,
    .max_discard_sectors = 64,
    .max_discard_ranges = VIRTIO_BLK_MAX_RANGES,
    .max_zeroes_sectors = 64,
    .max_zeroes_ranges = 2,
};

static void check_request(struct virtqueue_element *element)
{
    struct virtio_blk_request request;
    int verdict = virtio_blk_parse(element, &limits, &request);
    if (verdict == -EPROTO)
        return;
    if (!verdict && (request.type == VIRTIO_BLK_T_IN || request.type == VIRTIO_BLK_T_OUT)) {
        uint64_t total = 0;
        for (uint32_t i = 0; i < request.data_count; i++)
            total += request.data[i].iov_len;
        if (total != request.length || !span_fits(request.offset, request.length, limits.capacity_bytes))
            abort();
    }
    for (uint32_t i = 0; !verdict && i < request.range_count; i++) {
        if (!span_fits(request.ranges[i].offset, request.ranges[i].length, limits.capacity_bytes))
            abort();
    }
    virtio_blk_finish(&request, VIRTIO_BLK_S_OK);
}

static void pop(struct fuzz *fuzz)
{
    if (fuzz->holding == HELD)
        return;
    struct virtqueue_element *element = &fuzz->held[fuzz->holding];
    int result = virtqueue_pop(&fuzz->queue, element);
    if (result < 0 && result != -ENOMEM && !fuzz->queue.broken)
        abort();
    if (result == 1) {
        check_inside(fuzz, element);
        check_request(element);
        fuzz->holding++;
    }
}

static void push(struct fuzz *fuzz, unsigned which)
{
    if (!fuzz->holding)
        return;
    unsigned pick = which % fuzz->holding;
    struct virtqueue_element element = fuzz->held[pick];
    virtqueue_push(&fuzz->queue, &element, which * 100);
    fuzz->held[pick] = fuzz->held[--fuzz->holding];
    fuzz->held[fuzz->holding] = element;
}

static void nothing(void *arg, uint64_t address, uint64_t length)
{
    if (address < BASE_A || length > 2 * REGION || address + length > BASE_B + REGION)
        abort();
}

static void play(struct fuzz *fuzz, const uint8_t *script, size_t size)
{
    for (size_t i = 0; i + 3 < size && i < 400; i += 4) {
        switch (script[i] % 6) {
        case 0:
        case 1: pop(fuzz); break;
        case 2: push(fuzz, script[i + 1]); break;
        case 3: virtqueue_should_notify(&fuzz->queue); break;
        case 4:
            virtqueue_disable_notify(&fuzz->queue);
            virtqueue_enable_notify(&fuzz->queue);
            break;
        case 5: fuzz->a[(script[i + 1] | script[i + 2] << 8) % REGION] = script[i + 3]; break;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz fuzz = {.a = calloc(1, REGION), .b = calloc(1, REGION)};
    if (size < 8)
        goto out;
    uint64_t features = (data[0] & 1 ? VIRTIO_BIT(VIRTIO_F_RING_PACKED) : 0) |
                        (data[0] & 2 ? VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) : 0) |
                        (data[0] & 4 ? VIRTIO_BIT(VIRTIO_F_EVENT_IDX) : 0);
    uint16_t ring = data[0] & 1 ? 1 + data[1] % 64 : 1 << data[1] % 7;
    size_t script = MIN((size_t)data[2] * 4, size - 8), memory = size - 8 - script;
    memcpy(fuzz.a, data + 8 + script, MIN(memory, (size_t)REGION));
    if (memory > REGION)
        memcpy(fuzz.b, data + 8 + script + REGION, MIN(memory - REGION, (size_t)REGION));
    guest_regions_init(&fuzz.regions);
    guest_regions_add(&fuzz.regions, &(struct guest_region){BASE_A, REGION, 0x100000, fuzz.a}, NULL);
    guest_regions_add(&fuzz.regions, &(struct guest_region){BASE_B, REGION, 0x200000, fuzz.b}, NULL);
    if (data[0] & 8)
        guest_regions_set_written(&fuzz.regions, nothing, NULL);
    virtqueue_init(&fuzz.queue, &fuzz.regions.memory);
    /* data area first: descriptors at 0, driver at 0x800, device at 0xc00 of the first region */
    if (virtqueue_configure(&fuzz.queue, features, ring, BASE_A, BASE_A + 0x800, BASE_A + 0xc00, NULL))
        play(&fuzz, data + 8, script);
    virtqueue_destroy(&fuzz.queue);
    for (unsigned i = 0; i < HELD; i++)
        virtqueue_element_release(&fuzz.held[i]);
out:
    free(fuzz.a);
    free(fuzz.b);
    return 0;
}
