/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that every virtio device shares: feature bits, status bits and device types (virtio 1.3, sections 2.1, 5 and
 * 6). */
#ifndef VIRTIO_FEATURES_H
#define VIRTIO_FEATURES_H

#include <stdint.h>

#define VIRTIO_BIT(number) (UINT64_C(1) << (number))

/* Feature bit numbers, section 6. */
enum virtio_feature {
    VIRTIO_F_NOTIFY_ON_EMPTY = 24, /* legacy */
    VIRTIO_F_ANY_LAYOUT = 27,      /* legacy */
    VIRTIO_F_INDIRECT_DESC = 28,
    VIRTIO_F_EVENT_IDX = 29,
    VIRTIO_F_VERSION_1 = 32,
    VIRTIO_F_ACCESS_PLATFORM = 33,
    VIRTIO_F_RING_PACKED = 34,
    VIRTIO_F_IN_ORDER = 35,
    VIRTIO_F_ORDER_PLATFORM = 36,
    VIRTIO_F_NOTIFICATION_DATA = 38,
    VIRTIO_F_RING_RESET = 40,
};

/* Device status, section 2.1. */
enum virtio_status {
    VIRTIO_STATUS_ACKNOWLEDGE = 1,
    VIRTIO_STATUS_DRIVER = 2,
    VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8,
    VIRTIO_STATUS_NEEDS_RESET = 64,
    VIRTIO_STATUS_FAILED = 128,
};

/* Device types, section 5. */
enum virtio_device_id {
    VIRTIO_ID_NET = 1,
    VIRTIO_ID_BLOCK = 2,
    VIRTIO_ID_CONSOLE = 3,
    VIRTIO_ID_RNG = 4,
};

#endif
