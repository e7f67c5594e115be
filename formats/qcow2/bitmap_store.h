/* SPDX-License-Identifier: Apache-2.0 */
/* Persistent dirty bitmaps of an open image; see bitmap_store.c. All functions YIELD. */
#ifndef FORMATS_QCOW2_BITMAP_STORE_H
#define FORMATS_QCOW2_BITMAP_STORE_H

#include "formats/qcow2/state.h"

/* An entry of the bitmap directory, and the bitmap of the node that it became. */
struct stored_bitmap {
    struct dirty_bitmap *live;
    char *name;
    uint8_t *extra;
    uint32_t extra_size, flags;
    uint8_t type, granularity_bits;
    struct disk_table table; /* offset 0: has no place yet */
    bool is_new_table;       /* its place has never been written */
    uint64_t *saved;         /* the bits on disk, as words; NULL: not known */
    uint64_t saved_words;
};

/* Makes node->bitmaps. `trusted`: bitmaps in use are good, since it is known which writes they may miss. A damaged
 * directory fails, a damaged bitmap is inconsistent. */
bool bitmaps_load(struct qcow2 *q, bool trusted, struct error *err);
void bitmaps_release(struct qcow2 *q);
/* Writes contents, flags, and the directory where it changed. Clean: others may trust them. */
bool bitmaps_store(struct qcow2 *q, bool clean, struct error *err);
int bitmaps_store_locked(struct qcow2 *q, bool clean);
bool bitmaps_begin_use(struct qcow2 *q, struct error *err);
void bitmaps_set_read_only(struct qcow2 *q);
struct qcow2_bitmap_info;
struct qcow2_bitmap_info **bitmaps_info(const struct qcow2 *q, size_t *count); /* owned by the caller */
/* Bytes that the bitmaps of an image would take in a new one with clusters of `cluster_size`. */
uint64_t bitmaps_measure(const struct qcow2 *q, uint64_t cluster_size);

#endif
