/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zoned devices: a disk whose zones are written from their beginning to their end, each at its write pointer, and are
 * emptied as a whole. Requests reach the device through nodes that pass bytes on one to one (raw without an offset);
 * everything else answers -ENOTSUP, as a device that is not zoned does. All YIELD and return 0 or -errno.
 */
#ifndef BLOCK_ZONES_H
#define BLOCK_ZONES_H

#include "block/driver.h"

/* Values are those of the kernel's interface, and of the standards behind it (ZBC, ZAC, ZNS). */
enum zone_kind { ZONE_CONVENTIONAL = 1, ZONE_SEQUENTIAL = 2, ZONE_SEQUENTIAL_PREFERRED = 3 };
enum zone_order { ZONE_OPEN, ZONE_CLOSE, ZONE_FINISH, ZONE_RESET };

struct zone {
    uint64_t start, length, capacity, write_pointer; /* bytes */
    enum zone_kind kind;
    unsigned condition; /* 0 no write pointer, 1 empty, 2 implicitly open, 3 open, 4 closed, 13 to 15 read only, full,
                           offline */
};

/* What a protocol driver offers. Spans are inside the node. */
struct zone_ops {
    /* Zones from the one that `offset` is in; *count: room, then how many there are. */
    int (*report)(struct node *node, uint64_t offset, struct zone *zones, size_t *count);
    int (*order)(struct node *node, enum zone_order order, uint64_t offset, uint64_t length);
    /* Writes at the write pointer of the zone that begins at *offset, which becomes the place of the data; durable. */
    int (*append)(struct node *node, uint64_t *offset, uint64_t length, struct buffers from);
};

int block_zone_report(struct edge *edge, uint64_t offset, struct zone *zones, size_t *count);
int block_zone_order(struct edge *edge, enum zone_order order, uint64_t offset, uint64_t length);
int block_zone_append(struct edge *edge, uint64_t *offset, uint64_t length, struct buffers from);

#endif
