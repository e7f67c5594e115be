/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LUKS version 1 (the on-disk format specification of the cryptsetup project, 1.2.3): a header with eight key slots in
 * front of encrypted data. Each slot holds the one master key, encrypted by a key that is derived from a passphrase.
 *
 * This part knows the header and its keys. Where the header lies is the caller's business, who lends functions that
 * read and write it: at the start of a file (formats/luks), in clusters of an image (formats/qcow2), or in a file of
 * its own (detached header). The data itself is encrypted and decrypted by the caller, with luks_cipher().
 *
 * A header is untrusted until luks_open() has checked it. All functions marked YIELDS derive keys on worker threads.
 */
#ifndef CRYPTO_LUKS_H
#define CRYPTO_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "crypto/cipher.h"
#include "crypto/secret.h"
#include "qmp/schema/types.h"

struct luks;

enum { LUKS_KEY_SLOTS = 8 };

/* Where a header lies: bytes from its first one on. 0 or -errno; may yield. */
struct luks_storage {
    void *opaque;
    int (*read)(void *opaque, uint64_t offset, void *data, size_t size);
    int (*write)(void *opaque, uint64_t offset, const void *data, size_t size); /* NULL: read-only */
    int (*flush)(void *opaque);                                                 /* NULL: writes are durable enough */
};

/* Do these bytes begin a LUKS header? Its version is told, too; 1 is what we can read. */
bool luks_probe(const uint8_t *head, size_t size, unsigned *version);

/* Bytes from the start of the header to the data: what must be reserved before luks_create(). 0 with an error for
 * options that make no sense together. */
uint64_t luks_header_size(const struct luks_create_options *options, struct error *err);

/* Writes a new header with the passphrase in slot 0. `detached`: the data begins at offset 0 of another file. YIELDS.
 */
struct luks *luks_create(const struct luks_storage *storage, const struct luks_create_options *options,
                         const struct secret_bytes *passphrase, bool detached, struct error *err);

/* Reads and checks a header. `passphrase` NULL: it is only described (info, check), there is no key and no cipher.
 * `container_size` bounds what the header may speak of: bytes of what holds it, UINT64_MAX: not known. YIELDS. */
struct luks *luks_open(const struct luks_storage *storage, uint64_t container_size,
                       const struct secret_bytes *passphrase, struct error *err);
void luks_free(struct luks *luks); /* wipes the keys. NULL is allowed */

/* NULL when it was opened without a passphrase. */
struct sector_cipher *luks_cipher(const struct luks *luks);
/* Bytes from the start of the header to the data; 0 when the header is detached. */
uint64_t luks_payload_offset(const struct luks *luks);
struct luks_info *luks_describe(const struct luks *luks);

/* Changes key slots. The slots are written so that at every moment some passphrase opens the image: a slot's key
 * material lies on the disk before the header says that it is active, and is overwritten after the header says that it
 * is not. The last active slot is erased, and an active one replaced, only with `force`. `secrets` are where the ids in
 * `options` are looked up; `open_secret` is the id of the passphrase that the image was opened with. YIELDS. */
bool luks_amend(struct luks *luks, const struct luks_storage *storage, const struct luks_amend_options *options,
                struct object_set *secrets, const char *open_secret, bool force, struct error *err);

#endif
