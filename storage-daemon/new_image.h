/* SPDX-License-Identifier: Apache-2.0 */
/* Images that commands make in files of their own: overlays, and targets of copies. */
#ifndef STORAGE_DAEMON_NEW_IMAGE_H
#define STORAGE_DAEMON_NEW_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

struct node;

struct new_image {
    const char *filename;
    const char *format;    /* NULL: that of `like`; qcow2 for an overlay */
    const char *node_name; /* NULL: one is made up */
    struct node *like;     /* size, cache and discard behaviour are its own */
    uint64_t size; /* bytes; 0: as large as that one */
    bool exists;           /* it is opened, not made */
    bool is_overlay;       /* of `like`, which its image names as the backing file */
};

/* The node has no backing node yet: that is the caller's to set. One reference for the caller. YIELDS. */
struct node *new_image_open(const struct new_image *image, struct error *err);

#endif
