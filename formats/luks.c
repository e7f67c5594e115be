/* SPDX-License-Identifier: Apache-2.0 */
/*
 * luks: a disk encrypted by LUKS version 1 (crypto/luks.h has the format and the keys).
 *
 *      | header, 8 key slots |  sector 0  |  sector 1  | ...        encrypted, 512 bytes each, with its number as
 *      0                payload offset                               the initialization vector
 *
 * With a detached header (option `header`) the file has nothing but the encrypted sectors.
 *
 * Requests go through a buffer of our own: what is read is decrypted there and copied out, so that ciphertext never
 * lies in the memory of a guest, and what a guest writes meanwhile cannot get between encryption and file. Pieces of a
 * large request are on their way one after another; encryption of each is spread over worker threads.
 *
 * Nothing is known about holes: a hole of the file is not a sector of zeroes, it decrypts to noise. So every byte is
 * data, zero requests are written, and discards are ignored (they would tell where the disk is empty).
 *
 * For information alone (node->metadata_only) no secret is needed: the header tells everything but the data.
 */
#include <inttypes.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "block/create.h"
#include "block/request.h"
#include "crypto/luks.h"
#include "formats/table.h"

#define PIECE (1u << 20)

struct luks_state {
    struct luks *luks;
    struct edge *header; /* the file that holds the header: node->file, or the one of the option `header` */
    uint64_t payload;    /* offset of sector 0 in node->file */
};

/* Header storage ------------------------------------------------------------------------------------------------- */

static int read_header(void *opaque, uint64_t offset, void *data, size_t size)
{
    return block_read_buffer(opaque, offset, data, size);
}

static int write_header(void *opaque, uint64_t offset, const void *data, size_t size)
{
    return block_write_buffer(opaque, offset, data, size, 0);
}

static int flush_header(void *opaque)
{
    return block_flush(opaque);
}

static struct luks_storage storage_of(struct edge *edge)
{
    return (struct luks_storage){edge, read_header, write_header, flush_header};
}

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool open_files(struct node *node, struct error *err)
{
    const struct blockdev_options_luks *options = &node->options->u.luks;
    struct luks_state *state = node->state;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (node->read_only ? 0 : BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    uint32_t shared = node->force_share ? BLOCK_PERM_ALL : BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    struct edge *file = node_open_child(node, "file", options->file, perm, shared, err);
    if (!file)
        return false;
    state->header = options->header ? node_open_child(node, "header", options->header, perm, shared, err) : file;
    if (!state->header)
        return fail_prefix(err, "detached header: ");
    if (file->child->read_only) {
        node->read_only = true;
        node->auto_read_only |= file->child->auto_read_only;
    }
    if (file->child->filename)
        node->filename = xstrdup(file->child->filename);
    return true;
}

static struct luks *unlock(struct node *node, const char *secret, struct error *err)
{
    struct luks_state *state = node->state;
    struct luks_storage storage = storage_of(state->header);
    if (!secret && !node->metadata_only)
        return fail_null(err, EINVAL, "Parameter 'key-secret' is required for cipher");
    auto_secret_bytes *passphrase = secret ? secret_lookup(graph_objects(node->graph), secret, err) : NULL;
    if (secret && !passphrase)
        return NULL;
    return luks_open(&storage, state->header->child->size, passphrase, err);
}

static bool luks_node_open(struct node *node, struct error *err)
{
    const struct blockdev_options_luks *options = &node->options->u.luks;
    struct luks_state *state = node->state;
    if (!open_files(node, err))
        return false;
    state->luks = unlock(node, options->key_secret, err);
    if (!state->luks)
        return false;
    /* A header that says where its data is belongs in front of it; apart from it, it says 0. */
    state->payload = options->header ? 0 : luks_payload_offset(state->luks);
    uint64_t size = node->file->child->size;
    bool header_only = !options->header && !state->payload;
    if (header_only && !node->metadata_only) {
        luks_free(TAKE(state->luks));
        return fail(err, EINVAL, "'%s' is a detached LUKS header: give it as 'header', and the data as 'file'",
                    node->filename ? node->filename : node->name);
    }
    node_set_size(node, header_only ? 0 : round_down(size - MIN(size, state->payload), CRYPTO_SECTOR));
    node->limits.request_alignment = CRYPTO_SECTOR;
    node->write_flags = REQUEST_FUA;
    return true;
}

static void luks_node_close(struct node *node)
{
    struct luks_state *state = node->state;
    luks_free(state->luks);
}

static int luks_node_probe(const uint8_t *head, size_t size, const char *filename)
{
    unsigned version;
    (void)filename;
    return luks_probe(head, size, &version) && version == 1 ? 100 : 0;
}

/* Data ----------------------------------------------------------------------------------------------------------- */

static int luks_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct luks_state *state = node->state;
    struct sector_cipher *cipher = luks_cipher(state->luks);
    if (flags & REQUEST_PREFETCH)
        return block_read(node->file, state->payload + offset, length, to, flags);
    auto_free uint8_t *piece = cipher ? block_alloc_buffer(node->file, MIN(length, (uint64_t)PIECE)) : NULL;
    if (!piece)
        return cipher ? -ENOMEM : -EKEYREJECTED;
    int error = 0;
    for (uint64_t done = 0; done < length && !error; done += PIECE) {
        size_t size = MIN(length - done, (uint64_t)PIECE);
        error = block_read_buffer(node->file, state->payload + offset + done, piece, size);
        if (!error)
            error = sector_cipher_decrypt_co(cipher, (offset + done) / CRYPTO_SECTOR, piece, size);
        if (!error)
            iov_from_buffer(to.iov, (int)to.count, to.skip + done, piece, size);
    }
    return error;
}

static int luks_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct luks_state *state = node->state;
    struct sector_cipher *cipher = luks_cipher(state->luks);
    auto_free uint8_t *piece = cipher ? block_alloc_buffer(node->file, MIN(length, (uint64_t)PIECE)) : NULL;
    if (!piece)
        return cipher ? -ENOMEM : -EKEYREJECTED;
    int error = 0;
    for (uint64_t done = 0; done < length && !error; done += PIECE) {
        size_t size = MIN(length - done, (uint64_t)PIECE);
        iov_to_buffer(from.iov, (int)from.count, from.skip + done, piece, size);
        error = sector_cipher_encrypt_co(cipher, (offset + done) / CRYPTO_SECTOR, piece, size);
        if (!error)
            error = block_write_buffer(node->file, state->payload + offset + done, piece, size, flags & REQUEST_FUA);
    }
    return error;
}

static bool luks_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                        struct error *err)
{
    const struct luks_state *state = node->state;
    uint64_t end;
    if (add_overflows(state->payload, round_up(size, CRYPTO_SECTOR), &end) || end > INT64_MAX)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large", size);
    if (!node_resize(node->file, end, preallocation, exact, err))
        return false;
    node_set_size(node, round_up(size, CRYPTO_SECTOR));
    return true;
}

/* Making --------------------------------------------------------------------------------------------------------- */

static bool create_image(struct graph *graph, struct edge *file, const char *filename, void *opaque, struct error *err)
{
    const struct luks_image_create_options *image = opaque;
    struct luks_storage storage = storage_of(file);
    (void)filename;
    if (!image->key_secret)
        return fail(err, EINVAL, "Parameter 'key-secret' is required for cipher");
    auto_secret_bytes *passphrase = secret_lookup(graph_objects(graph), image->key_secret, err);
    if (!passphrase)
        return false;
    /* The base of the C struct comes first and has the same members. */
    auto_luks_create_options *options = luks_create_options_clone((const struct luks_create_options *)image);
    uint64_t header = luks_header_size(options, err), end;
    if (!header)
        return false;
    if (image->detached_header && image->has_preallocation)
        return fail(err, EINVAL, "preallocation is about the data, which a detached header is not made with");
    uint64_t size = image->detached_header ? 0 : round_up(image->size, CRYPTO_SECTOR);
    if (image->size > INT64_MAX - CRYPTO_SECTOR || add_overflows(header, size, &end) || end > INT64_MAX)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large", image->size);
    if (!node_resize(file, end, (enum preallocation)image->preallocation, true, err))
        return false;
    struct luks *luks = luks_create(&storage, options, passphrase, image->detached_header, err);
    luks_free(luks);
    return luks != NULL;
}

static bool luks_measure(const void *opaque, struct edge *source, struct image_measure *result, struct error *err)
{
    const struct luks_image_create_options *image = opaque;
    auto_luks_create_options *options = luks_create_options_clone((const struct luks_create_options *)image);
    uint64_t header = luks_header_size(options, err);
    (void)source;
    if (!header)
        return false;
    if (image->size > INT64_MAX - header)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large", image->size);
    result->required = result->fully_allocated = header + round_up(image->size, CRYPTO_SECTOR);
    return true;
}

/* Looking, and changing keys ------------------------------------------------------------------------------------- */

static bool luks_node_info(struct node *node, struct image_facts *facts, struct error *err)
{
    const struct luks_state *state = node->state;
    (void)err;
    facts->encrypted = true;
    facts->specific = image_info_specific_new();
    facts->specific->type = IMAGE_INFO_SPECIFIC_KIND_LUKS;
    facts->specific->u.luks.data = luks_describe(state->luks);
    return true;
}

static bool amend_slots(struct node *node, void *opaque, bool force,
                        void (*progress)(void *user, uint64_t done, uint64_t total), void *user, struct error *err)
{
    struct luks_state *state = node->state;
    struct luks_storage storage = storage_of(state->header);
    progress(user, 0, 1);
    if (!luks_amend(state->luks, &storage, opaque, graph_objects(node->graph), node->options->u.luks.key_secret, force,
                    err))
        return false;
    progress(user, 1, 1);
    return true;
}

static const struct create_ops luks_create_ops = {
    .options_type = &luks_image_create_options_type,
    .create_format = create_image,
};

static const struct amend_ops luks_amend_ops = {
    .options_type = &luks_amend_options_type,
    .amend = amend_slots,
};

const struct block_driver luks_driver = {
    .name = "luks",
    .kind = DRIVER_FORMAT,
    .instance_size = sizeof(struct luks_state),
    .open = luks_node_open,
    .close = luks_node_close,
    .probe = luks_node_probe,
    .read = luks_read,
    .write = luks_write,
    .create = &luks_create_ops,
    .measure = luks_measure,
    .resize = luks_resize,
    .amend = &luks_amend_ops,
    .info = luks_node_info,
};
