/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encryption of an image's data. Who opens an image for its metadata alone (node->metadata_only) needs no secret: then
 * q->cipher is NULL, and data is neither read nor written. Functions that return bool YIELD (keys are derived on worker
 * threads), and so do the data functions.
 */
#ifndef FORMATS_QCOW2_ENCRYPTION_H
#define FORMATS_QCOW2_ENCRYPTION_H

#include "formats/qcow2/state.h"

struct blockdev_qcow2_encryption;
struct qcow2_encryption_amend_options;
struct image_info_specific_qcow2_encryption;
struct object_set;

/* The keys of an image whose metadata is loaded. `options` may be NULL. */
bool encryption_open(struct qcow2 *q, const struct blockdev_qcow2_encryption *options, struct error *err);
void encryption_release(struct qcow2 *q);

/* A new image: what can be said before anything is written; bytes of the LUKS header, 0: none; key and header. */
bool encryption_check_options(const struct qcow2_create_options *o, struct error *err);
bool encryption_header_size(const struct qcow2_create_options *o, uint64_t *bytes, struct error *err);
bool encryption_create(struct qcow2 *q, struct object_set *secrets, const struct qcow2_create_options *o,
                       struct error *err);

/* Data of an EXTENT_ENCODED with a place. */
int encryption_read(struct qcow2 *q, uint64_t offset, uint64_t length, const struct extent *extent, struct buffers to);

/* Owned by the caller; NULL: not encrypted. */
struct image_info_specific_qcow2_encryption *encryption_info(const struct qcow2 *q);

/* Key slots. check: before anything changes; `options` may be NULL then. */
bool encryption_check_amend(const struct qcow2 *q, const struct qcow2_encryption_amend_options *options,
                            struct error *err);
bool encryption_amend(struct qcow2 *q, const struct qcow2_encryption_amend_options *options, bool force,
                      struct error *err);

#endif
