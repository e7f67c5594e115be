/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing key slots. The order of writes, so that a power cut at any moment leaves an image that opens:
 *
 *   fill:   key material, flush; description of the slot, still inactive, flush; the word "active", flush.
 *   erase:  the word "inactive", flush; random bytes over the key material, flush.
 *
 * The word is written alone: a descriptor of slot 6 lies across two sectors, which a power cut may tear apart.
 * One pass of random bytes is enough: the splitter needs every bit of the old material.
 */
#include <stdlib.h>
#include "base/alloc.h"
#include "base/endian.h"
#include "crypto/luks_header.h"

static bool write_state(struct luks_header *header, unsigned number, const struct luks_storage *storage, bool active,
                        struct error *err)
{
    uint8_t word[4];
    store_be32(word, active ? LUKS_SLOT_ACTIVE : LUKS_SLOT_INACTIVE);
    if (!luks_write(storage, LUKS_SLOT_OFFSET + number * LUKS_SLOT_SIZE, word, sizeof word, err) ||
        !luks_flush(storage, err))
        return false;
    header->slots[number].active = active;
    return true;
}

static unsigned count_active(const struct luks_header *header)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        count += header->slots[i].active;
    return count;
}

/* Filling -------------------------------------------------------------------------------------------------------- */

static bool choose_slot(const struct luks_header *header, const struct luks_amend_options *options, bool force,
                        unsigned *number, struct error *err)
{
    if (options->has_keyslot) {
        *number = (unsigned)options->keyslot;
        if (header->slots[*number].active && !force)
            return fail(err, EBUSY, "Refusing to overwrite active keyslot %u - please erase it first", *number);
        return true;
    }
    for (*number = 0; *number < LUKS_KEY_SLOTS; ++*number)
        if (!header->slots[*number].active)
            return true;
    return fail(err, ENOSPC, "Can't add a keyslot - all keyslots are in use");
}

/* The key that is to go into the slot: the image was opened with it, or `secret` opens it now. */
static bool find_key(struct luks *luks, const struct luks_storage *storage, const char *secret,
                     struct object_set *secrets, uint8_t *key, struct error *err)
{
    auto_secret_bytes *passphrase = secret ? secret_lookup(secrets, secret, err) : NULL;
    if (!secret)
        return fail(err, EINVAL, "the passphrase of the image is not known: 'secret' is missing");
    if (!passphrase)
        return false;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++) {
        bool found = false;
        if (luks->header.slots[i].active && !luks_slot_try(&luks->header, i, storage, passphrase, key, &found, err))
            return false;
        if (found)
            return true;
    }
    return fail(err, EPERM, "secret '%s' opens none of the key slots", secret);
}

static bool fill_slot(struct luks_header *header, unsigned number, const struct luks_storage *storage,
                      const struct secret_bytes *passphrase, const uint8_t *key, uint32_t iter_time_ms,
                      struct error *err)
{
    uint8_t wire[LUKS_SLOT_SIZE];
    if (header->slots[number].active && !write_state(header, number, storage, false, err))
        return false;
    struct luks_header next = *header;
    if (!luks_slot_fill(&next, number, storage, passphrase, key, iter_time_ms, err))
        return false;
    *header = next;
    luks_slot_encode(&header->slots[number], wire);
    return luks_write(storage, LUKS_SLOT_OFFSET + number * LUKS_SLOT_SIZE, wire, sizeof wire, err) &&
           luks_flush(storage, err) && write_state(header, number, storage, true, err);
}

static bool activate(struct luks *luks, const struct luks_storage *storage, const struct luks_amend_options *options,
                     struct object_set *secrets, const char *open_secret, bool force, struct error *err)
{
    unsigned number;
    uint8_t key[CRYPTO_MAX_KEY];
    if (!options->new_secret)
        return fail(err, EINVAL, "'new-secret' is required to activate a keyslot");
    if (options->old_secret)
        return fail(err, EINVAL, "'old-secret' must not be given when activating keyslots");
    if (!choose_slot(&luks->header, options, force, &number, err))
        return false;
    auto_secret_bytes *passphrase = secret_lookup(secrets, options->new_secret, err);
    bool good = passphrase &&
                find_key(luks, storage, options->secret ? options->secret : open_secret, secrets, key, err) &&
                fill_slot(&luks->header, number, storage, passphrase, key, (uint32_t)options->iter_time, err);
    secret_wipe(key, sizeof key);
    return good;
}

/* Erasing -------------------------------------------------------------------------------------------------------- */

static bool erase_slot(struct luks_header *header, unsigned number, const struct luks_storage *storage,
                       struct error *err)
{
    size_t size = luks_material_size(header);
    uint8_t *noise = try_aligned_alloc(4096, round_up(size, 4096));
    if (!noise)
        return fail(err, ENOMEM, "no memory to overwrite the key material with");
    bool good = write_state(header, number, storage, false, err) && crypto_random(noise, size, err) &&
                luks_write(storage, header->slots[number].offset, noise, size, err) && luks_flush(storage, err);
    free(noise);
    return good;
}

static bool find_matching(struct luks *luks, const struct luks_storage *storage, const struct secret_bytes *passphrase,
                          bool chosen[LUKS_KEY_SLOTS], struct error *err)
{
    uint8_t key[CRYPTO_MAX_KEY];
    bool good = true;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS && good; i++)
        if (luks->header.slots[i].active)
            good = luks_slot_try(&luks->header, i, storage, passphrase, key, &chosen[i], err);
    secret_wipe(key, sizeof key);
    return good;
}

/* Which slots the options mean. */
static bool choose_victims(struct luks *luks, const struct luks_storage *storage,
                           const struct luks_amend_options *options, struct object_set *secrets,
                           bool chosen[LUKS_KEY_SLOTS], struct error *err)
{
    if (!options->has_keyslot && !options->old_secret)
        return fail(err, EINVAL,
                    "To erase keyslot(s), either explicit keyslot index or the password currently "
                    "contained in them must be given");
    bool matching[LUKS_KEY_SLOTS] = {0};
    if (options->old_secret) {
        auto_secret_bytes *passphrase = secret_lookup(secrets, options->old_secret, err);
        if (!passphrase || !find_matching(luks, storage, passphrase, matching, err))
            return false;
    }
    unsigned count = 0;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++) {
        chosen[i] = options->has_keyslot ? i == (unsigned)options->keyslot && (!options->old_secret || matching[i])
                                         : matching[i];
        count += chosen[i];
    }
    if (count)
        return true;
    if (options->has_keyslot)
        return fail(err, EPERM, "Given keyslot %lld doesn't contain the given (old) password",
                    (long long)options->keyslot);
    return fail(err, EPERM, "No keyslots match given (old) password for erase operation");
}

static bool deactivate(struct luks *luks, const struct luks_storage *storage, const struct luks_amend_options *options,
                       struct object_set *secrets, bool force, struct error *err)
{
    bool chosen[LUKS_KEY_SLOTS] = {0};
    if (options->new_secret)
        return fail(err, EINVAL, "'new-secret' must not be given when erasing keyslots");
    if (options->has_iter_time)
        return fail(err, EINVAL, "'iter-time' must not be given when erasing keyslots");
    if (options->has_keyslot && !options->old_secret && !luks->header.slots[options->keyslot].active) {
        if (force)
            return erase_slot(&luks->header, (unsigned)options->keyslot, storage, err);
        return fail(err, EINVAL, "Given keyslot %lld is already erased (inactive)", (long long)options->keyslot);
    }
    if (!choose_victims(luks, storage, options, secrets, chosen, err))
        return false;
    unsigned victims = 0;
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        victims += chosen[i];
    if (victims == count_active(&luks->header) && !force) {
        fail(err, EPERM,
             "Attempt to erase all the active keyslots, which will erase all the data in the image "
             "irreversibly - refusing operation");
        return fail_hint(err, "with --force (force=true) it is done");
    }
    for (unsigned i = 0; i < LUKS_KEY_SLOTS; i++)
        if (chosen[i] && !erase_slot(&luks->header, i, storage, err))
            return false;
    return true;
}

bool luks_amend(struct luks *luks, const struct luks_storage *storage, const struct luks_amend_options *options,
                struct object_set *secrets, const char *open_secret, bool force, struct error *err)
{
    if (!storage->write)
        return fail(err, EROFS, "the LUKS header cannot be written");
    return options->state == LUKS_SLOT_STATE_ACTIVE ? activate(luks, storage, options, secrets, open_secret, force, err)
                                                    : deactivate(luks, storage, options, secrets, force, err);
}
