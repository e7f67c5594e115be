/* SPDX-License-Identifier: Apache-2.0 */
/* Secrets; see the header. Made in three steps: load (property, file, keyring), decode base64, unwrap. */
#include "crypto/secret.h"

#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <linux/keyctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "crypto/cipher.h"

enum { SECRET_MAX = 1 << 20 };

struct secret_state {
    struct secret_bytes *bytes;
};

void secret_wipe(void *data, size_t size)
{
    explicit_bzero(data, size);
}

static struct secret_bytes *bytes_new(const void *data, size_t size)
{
    struct secret_bytes *bytes = xcalloc(1, sizeof *bytes + size + 1);
    bytes->size = size;
    if (size && data)
        memcpy(bytes->data, data, size);
    return bytes;
}

void secret_bytes_free(struct secret_bytes *bytes)
{
    if (!bytes)
        return;
    secret_wipe(bytes->data, bytes->size);
    free(bytes);
}

/* Loading -------------------------------------------------------------------------------------------------------- */

static struct secret_bytes *load_file(const char *path, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return fail_errno_null(err, errno, "cannot open '%s'", path);
    auto_secret_bytes *room = bytes_new(NULL, SECRET_MAX + 1);
    size_t size = 0;
    while (size < room->size) {
        ssize_t got = read(fd, room->data + size, room->size - size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno_null(err, errno, "cannot read '%s'", path);
        if (!got)
            break;
        size += (size_t)got;
    }
    if (size > SECRET_MAX)
        return fail_null(err, EFBIG, "'%s': a secret has at most %d bytes", path, SECRET_MAX);
    return bytes_new(room->data, size);
}

static struct secret_bytes *load_key(int32_t serial, struct error *err)
{
    auto_secret_bytes *room = bytes_new(NULL, 64 << 10); /* more than the kernel lets users have */
    long got = syscall(SYS_keyctl, KEYCTL_READ, serial, room->data, room->size, 0);
    if (got < 0)
        return fail_errno_null(err, errno, "cannot read key %d of the kernel's keyring", serial);
    return bytes_new(room->data, MIN((size_t)got, room->size));
}

/* Decoding ------------------------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* White space around and between lines, as tools leave it, is taken out first. */
static struct secret_bytes *decode_base64(const char *text, size_t size, struct error *err)
{
    auto_secret_bytes *tight = bytes_new(NULL, size);
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        if (!is_space(text[i]))
            tight->data[count++] = text[i];
    gnutls_datum_t from = {(unsigned char *)tight->data, (unsigned)count}, to = {0};
    if (!count)
        return bytes_new(NULL, 0);
    if (gnutls_base64_decode2(&from, &to) < 0)
        return fail_null(err, EINVAL, "the data is not base64");
    struct secret_bytes *bytes = bytes_new(to.data, to.size);
    secret_wipe(to.data, to.size);
    gnutls_free(to.data);
    return bytes;
}

/* `wrapped` becomes what it holds. */
static struct secret_bytes *unwrap(struct object_set *set, const struct secret_common_properties *common,
                                   struct secret_bytes *wrapped, struct error *err)
{
    auto_secret_bytes *key = secret_lookup(set, common->keyid, err);
    if (!key)
        return NULL;
    if (key->size != 32)
        return fail_null(err, EINVAL, "keyid '%s': a key of %zu bytes, expected 32", common->keyid, key->size);
    if (!common->iv)
        return fail_null(err, EINVAL, "iv is missing: a secret that is encrypted (keyid) needs it");
    auto_secret_bytes *iv = decode_base64(common->iv, strlen(common->iv), err);
    if (!iv)
        return fail_prefix(err, "iv: "), NULL;
    if (iv->size != 16)
        return fail_null(err, EINVAL, "iv: %zu bytes, expected 16", iv->size);
    size_t size = wrapped->size;
    if (!crypto_unwrap((uint8_t *)key->data, (uint8_t *)iv->data, (uint8_t *)wrapped->data, &size, err))
        return NULL;
    return bytes_new(wrapped->data, size);
}

static bool finish(struct object *object, const struct secret_common_properties *common, struct secret_bytes *loaded,
                   struct error *err)
{
    struct secret_state *state = object->state;
    auto_secret_bytes *raw = loaded;
    if (!raw)
        return false;
    if (!common->keyid && common->iv)
        return fail(err, EINVAL, "iv is for secrets that are encrypted: keyid is missing");
    /* `format` is about what was loaded; what it decrypts to is the secret as it is. */
    auto_secret_bytes *decoded =
        common->format == SECRET_FORMAT_BASE64 ? decode_base64(raw->data, raw->size, err) : TAKE(raw);
    if (decoded)
        state->bytes = common->keyid ? unwrap(object->set, common, decoded, err) : TAKE(decoded);
    return state->bytes != NULL;
}

/* Objects -------------------------------------------------------------------------------------------------------- */

static bool secret_open(struct object *object, struct error *err)
{
    struct secret_properties *properties = &object->options->u.secret;
    if (!properties->data == !properties->file)
        return fail(err, EINVAL, "a secret needs exactly one of data and file");
    const struct secret_common_properties common = {
        .format = properties->format, .keyid = properties->keyid, .iv = properties->iv};
    struct secret_bytes *loaded =
        properties->file ? load_file(properties->file, err) : bytes_new(properties->data, strlen(properties->data));
    if (properties->data) { /* kept once only */
        secret_wipe(properties->data, strlen(properties->data));
        free(TAKE(properties->data));
    }
    return finish(object, &common, loaded, err);
}

static bool secret_keyring_open(struct object *object, struct error *err)
{
    const struct secret_keyring_properties *properties = &object->options->u.secret_keyring;
    const struct secret_common_properties common = {
        .format = properties->format, .keyid = properties->keyid, .iv = properties->iv};
    return finish(object, &common, load_key(properties->serial, err), err);
}

static void secret_close(struct object *object)
{
    struct secret_state *state = object->state;
    secret_bytes_free(state->bytes);
}

static const char *const hidden[] = {"data", NULL};

const struct object_kind secret_kind = {
    .type = OBJECT_TYPE_SECRET,
    .state_size = sizeof(struct secret_state),
    .open = secret_open,
    .close = secret_close,
    .hidden = hidden,
};

const struct object_kind secret_keyring_kind = {
    .type = OBJECT_TYPE_SECRET_KEYRING,
    .state_size = sizeof(struct secret_state),
    .open = secret_keyring_open,
    .close = secret_close,
};

struct secret_bytes *secret_lookup(struct object_set *set, const char *id, struct error *err)
{
    const struct object *object = set ? object_find(set, id) : NULL;
    if (!object)
        return fail_null(err, ENOENT, "there is no secret object '%s'", id);
    if (object->kind != &secret_kind && object->kind != &secret_keyring_kind)
        return fail_null(err, EINVAL, "object '%s' is of type '%s', expected a secret", id,
                         object_type_name(object->kind->type));
    const struct secret_state *state = object->state;
    return bytes_new(state->bytes->data, state->bytes->size);
}
