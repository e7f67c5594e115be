/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encrypted images. The guest's data is encrypted in sectors of 512 bytes; metadata is what it is in any other image,
 * so that everything which only moves clusters about (snapshots, checks, refcounts, the write log) needs no key.
 *
 *   aes    AES-128-CBC; the key is the passphrase; a sector's number is where the guest has it
 *   luks   as the LUKS header says; a sector's number is where it lies in the file that holds it
 *
 * So a cluster that moves is encrypted anew under LUKS: copy on write decrypts and encrypts, like any other write.
 *
 *     | header --extension--> offset, length |  ...  | LUKS header, 8 key slots |  ...  data, tables, data ...
 *                                                      in clusters of its own, counted like all others
 *
 * The LUKS header's own "payload offset" means nothing here. Changes of key slots are ordered in crypto/luks_amend.c:
 * at every moment some passphrase opens the image. They write to the header's clusters alone.
 *
 * What is written when. A new image says last that it is encrypted, when the LUKS header with its first slot is there
 * (create.c). The header's area is counted like any table, and guarded (overlap.c). Data and its count come before the
 * entry that names it, as in any image. One order is only here: zero bytes in the file are zeroes to a guest elsewhere,
 * but noise when they are decrypted. So no place is taken for fresh, preallocated places are those of zero clusters, and
 * a hole is made in a place that stays after the entries that read from it are gone for good (zero_discard.c).
 *
 * Data passes through buffers of ours, in pieces of at most PIECE bytes: what a guest wrote stays as it is in its
 * memory, and what it reads is never there as ciphertext. What is large is spread over worker threads.
 *
 * There is no compression: compressed clusters would be stored in clear. (Those that are there can be read.) Zeroes are
 * metadata and not data: who reads the image file sees which parts of the disk are in use.
 */
#include "formats/qcow2/encryption.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/create.h"
#include "crypto/luks.h"
#include "qmp/schema/types.h"

enum { PIECE = 1 << 20, AES_KEY = 16 };

static const char *method_name(uint32_t method)
{
    return method == CRYPT_LUKS ? "luks" : method == CRYPT_AES ? "aes" : "none";
}

/* Where the LUKS header lies ---------------------------------------------------------------------------------------
 */

static int read_area(void *opaque, uint64_t offset, void *data, size_t size)
{
    struct qcow2 *q = opaque;
    if (!span_fits(offset, size, q->header.crypt_length))
        return -EIO;
    return qcow2_read_file(q->file, q->header.crypt_offset + offset, data, size);
}

static int write_area(void *opaque, uint64_t offset, const void *data, size_t size)
{
    struct qcow2 *q = opaque;
    if (!span_fits(offset, size, q->header.crypt_length) || q->broken)
        return -EIO;
    int result = overlap_check(q, q->header.crypt_offset + offset, size, OVERLAP_ENCRYPTION);
    return result ? result : block_write_buffer(q->file, q->header.crypt_offset + offset, data, size, 0);
}

static int flush_area(void *opaque)
{
    return qcow2_barrier(opaque);
}

static struct luks_storage storage_of(struct qcow2 *q)
{
    return (struct luks_storage){q, read_area, write_area, flush_area};
}

/* An image from elsewhere may name any place. */
static bool check_area(struct qcow2 *q, struct error *err)
{
    const struct header *h = &q->header;
    uint64_t file_size = q->file->child->size;
    if (!span_fits(h->crypt_offset, h->crypt_length, file_size))
        return fail(err, EINVAL,
                    "the LUKS header at 0x%" PRIx64 " has %" PRIu64
                    " bytes: it does not lie inside the file of %" PRIu64 " bytes",
                    h->crypt_offset, h->crypt_length, file_size);
    const char *other = overlap_name(q, h->crypt_offset, h->crypt_length, OVERLAP_ENCRYPTION);
    return !other || fail(err, EINVAL, "the LUKS header at 0x%" PRIx64 " (%" PRIu64 " bytes) lies over %s",
                          h->crypt_offset, h->crypt_length, other);
}

/* Opening ---------------------------------------------------------------------------------------------------------- */

static bool set_aes(struct qcow2 *q, const struct secret_bytes *passphrase, struct error *err)
{
    uint8_t key[AES_KEY] = {0};
    memcpy(key, passphrase->data, MIN(passphrase->size, sizeof key));
    const struct sector_cipher_options options = {.algorithm = CRYPTO_CIPHER_ALGORITHM_AES_128,
                                                  .mode = CRYPTO_CIPHER_MODE_CBC,
                                                  .iv = CRYPTO_IV_GENERATOR_PLAIN64,
                                                  .key = key,
                                                  .key_size = sizeof key};
    q->cipher = sector_cipher_new(&options, err);
    secret_wipe(key, sizeof key);
    return q->cipher != NULL;
}

static bool set_luks(struct qcow2 *q, struct luks *luks)
{
    q->luks = luks;
    q->cipher = luks ? luks_cipher(luks) : NULL;
    return luks != NULL;
}

static bool check_format(uint32_t method, const struct blockdev_qcow2_encryption *options, struct error *err)
{
    if (!options || !options->has_format)
        return true;
    uint32_t wanted = options->format == BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS ? CRYPT_LUKS : CRYPT_AES;
    return wanted == method || fail(err, EINVAL, "encrypt.format is %s, and the encryption of the image is: %s",
                                    method_name(wanted), method_name(method));
}

bool encryption_open(struct qcow2 *q, const struct blockdev_qcow2_encryption *options, struct error *err)
{
    const char *secret = options ? options->key_secret : NULL;
    if (!check_format(q->header.crypt_method, options, err))
        return false;
    if (!is_encrypted(q))
        return true;
    if (!secret && !q->node->metadata_only)
        return fail(err, EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
    auto_secret_bytes *passphrase = secret ? secret_lookup(graph_objects(q->node->graph), secret, err) : NULL;
    if (secret && !passphrase)
        return false;
    if (q->header.crypt_method == CRYPT_AES)
        return !passphrase || set_aes(q, passphrase, err);
    struct luks_storage storage = storage_of(q);
    return check_area(q, err) && set_luks(q, luks_open(&storage, q->header.crypt_length, passphrase, err));
}

void encryption_release(struct qcow2 *q)
{
    if (q->luks)
        luks_free(q->luks);
    else
        sector_cipher_free(q->cipher);
    q->luks = NULL;
    q->cipher = NULL;
}

/* Making ----------------------------------------------------------------------------------------------------------- */

static bool is_luks(const struct qcow2_encryption_create_options *options)
{
    return options->has_format && options->format == QCOW2_ENCRYPTION_CREATE_FORMAT_LUKS;
}

bool encryption_check_options(const struct qcow2_create_options *o, struct error *err)
{
    const struct qcow2_encryption_create_options *e = o->encrypt;
    bool old_way = o->has_encryption && o->encryption;
    if (!e && old_way)
        return fail(err, EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
    if (!e)
        return true;
    if (e->has_format && o->has_encryption)
        return fail(err, EINVAL, "'encrypt.format' and its alias 'encryption' can't be used at the same time");
    if (!e->has_format && !old_way)
        return fail(err, EINVAL, "Parameter 'encrypt.format' is missing");
    const char *extra = e->has_cipher_alg       ? "cipher-alg"
                        : e->has_cipher_mode    ? "cipher-mode"
                        : e->has_ivgen_alg      ? "ivgen-alg"
                        : e->has_ivgen_hash_alg ? "ivgen-hash-alg"
                        : e->has_hash_alg       ? "hash-alg"
                        : e->has_iter_time      ? "iter-time"
                                                : NULL;
    if (extra && !is_luks(e))
        return fail(err, EINVAL, "Parameter 'encrypt.%s' is unexpected: it is for encrypt.format=luks", extra);
    if (o->data_file_raw)
        return fail(err, EINVAL,
                    "data_file_raw=on and encryption exclude each other: the data file would not read as "
                    "the disk does");
    bool v2 = o->compat == QCOW2_COMPAT_V2 || o->compat == QCOW2_COMPAT_0_10;
    if (v2 && o->preallocation != PREALLOC_MODE_OFF)
        return fail(err, EINVAL, "preallocation of an encrypted image needs compat=1.1 (version 3) or newer");
    return true;
}

bool encryption_header_size(const struct qcow2_create_options *o, uint64_t *bytes, struct error *err)
{
    *bytes = 0;
    if (!o->encrypt || !is_luks(o->encrypt))
        return true;
    /* The base of the C struct comes first and has the same members. */
    *bytes = luks_header_size((const struct luks_create_options *)o->encrypt, err);
    return *bytes != 0;
}

/* Clusters for the LUKS header, zero. */
static int reserve(struct qcow2 *q, uint64_t size)
{
    uint64_t offset, length = cluster_end(q, size);
    co_mutex_lock(&q->lock);
    int result = alloc_contiguous(q, length >> q->cluster_bits, &offset);
    co_mutex_unlock(&q->lock);
    if (result)
        return result;
    q->header.crypt_offset = offset;
    q->header.crypt_length = size;
    uint64_t end = q->file->child->size;
    bool is_fresh = q->file->child->growable && offset >= end;
    auto_error err = {0};
    if (offset + length > end && !node_resize(q->file, offset + length, PREALLOCATION_OFF, false, &err))
        return -err.code;
    return is_fresh ? 0 : block_zero(q->file, offset, length, 0);
}

bool encryption_create(struct qcow2 *q, struct object_set *secrets, const struct qcow2_create_options *o,
                       struct error *err)
{
    const struct qcow2_encryption_create_options *e = o->encrypt;
    if (!e)
        return true;
    if (!e->key_secret)
        return fail(err, EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
    auto_secret_bytes *passphrase = secret_lookup(secrets, e->key_secret, err);
    uint64_t size;
    if (!passphrase || !encryption_header_size(o, &size, err))
        return false;
    q->header.crypt_method = size ? CRYPT_LUKS : CRYPT_AES;
    if (!size)
        return set_aes(q, passphrase, err);
    int result = reserve(q, size);
    if (result)
        return fail_errno(err, result, "cannot make room for the LUKS header");
    struct luks_storage storage = storage_of(q);
    return set_luks(q, luks_create(&storage, (const struct luks_create_options *)e, passphrase, false, err));
}

/* Data ------------------------------------------------------------------------------------------------------------- */

static uint64_t sector_of(const struct qcow2 *q, uint64_t offset, uint64_t child_offset)
{
    return (q->luks ? child_offset : offset) / CRYPTO_SECTOR;
}

/* The last sector of a disk may be asked for in part. */
int encryption_read(struct qcow2 *q, uint64_t offset, uint64_t length, const struct extent *extent, struct buffers to)
{
    if (!q->cipher)
        return -EKEYREJECTED;
    if ((offset | extent->child_offset) % CRYPTO_SECTOR)
        return -EINVAL;
    auto_free uint8_t *piece = block_alloc_buffer(extent->child, MIN(round_up(length, CRYPTO_SECTOR), (uint64_t)PIECE));
    if (!piece)
        return -ENOMEM;
    int result = 0;
    for (uint64_t done = 0; done < length && !result; done += PIECE) {
        uint64_t from = extent->child_offset + done;
        size_t wanted = MIN(length - done, (uint64_t)PIECE), size = round_up(wanted, CRYPTO_SECTOR);
        result = qcow2_read_file(extent->child, from, piece, size);
        if (!result)
            result = sector_cipher_decrypt_co(q->cipher, sector_of(q, offset + done, from), piece, size);
        if (!result)
            iov_from_buffer(to.iov, (int)to.count, to.skip + done, piece, wanted);
    }
    return result;
}

int qcow2_write_encoded(struct node *node, const struct write_plan *plan, uint64_t offset, uint64_t child_offset,
                        uint64_t length, struct buffers from, uint32_t flags)
{
    struct qcow2 *q = node->state;
    if (!q->cipher)
        return -EKEYREJECTED;
    if ((offset | child_offset | length) % CRYPTO_SECTOR)
        return -EINVAL;
    auto_free uint8_t *piece = block_alloc_buffer(plan->child, MIN(length, (uint64_t)PIECE));
    if (!piece)
        return -ENOMEM;
    int result = 0;
    for (uint64_t done = 0; done < length && !result; done += PIECE) {
        uint64_t to = child_offset + done;
        size_t size = MIN(length - done, (uint64_t)PIECE);
        iov_to_buffer(from.iov, (int)from.count, from.skip + done, piece, size);
        result = sector_cipher_encrypt_co(q->cipher, sector_of(q, offset + done, to), piece, size);
        if (!result)
            result = block_write_buffer(plan->child, to, piece, size, flags & REQUEST_FUA);
    }
    return result;
}

/* Looking, and changing keys --------------------------------------------------------------------------------------- */

struct image_info_specific_qcow2_encryption *encryption_info(const struct qcow2 *q)
{
    if (!is_encrypted(q))
        return NULL;
    struct image_info_specific_qcow2_encryption *info = image_info_specific_qcow2_encryption_new();
    bool has_header = q->header.crypt_method == CRYPT_LUKS;
    info->format = has_header ? BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS : BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_AES;
    if (has_header) {
        struct luks_info *luks = luks_describe(q->luks);
        info->u.luks = *luks;
        free(luks); /* what it owned is in `info` now */
    }
    return info;
}

bool encryption_amend(struct qcow2 *q, const struct qcow2_encryption_amend_options *options, bool force,
                      struct error *err)
{
    const struct blockdev_qcow2_encryption *opened = q->node->options->u.qcow2.encrypt;
    struct luks_storage storage = storage_of(q);
    /* The base of the C struct comes first and has the same members. */
    return luks_amend(q->luks, &storage, (const struct luks_amend_options *)options, graph_objects(q->node->graph),
                      opened ? opened->key_secret : NULL, force, err);
}

bool encryption_check_amend(const struct qcow2 *q, const struct qcow2_encryption_amend_options *options,
                            struct error *err)
{
    if (!options)
        return true;
    if (!is_encrypted(q))
        return fail(err, ENOTSUP, "the image is not encrypted: it has no key slots that could be changed");
    if (q->header.crypt_method != CRYPT_LUKS)
        return fail(err, ENOTSUP, "only images encrypted by LUKS have key slots, this one is encrypted by %s",
                    method_name(q->header.crypt_method));
    return !options->has_format || options->format == BLOCKDEV_QCOW2_ENCRYPTION_FORMAT_LUKS ||
           fail(err, EINVAL, "encrypt.format cannot be changed");
}
