/* SPDX-License-Identifier: Apache-2.0 */
/* What all TLS credentials have in common, and the kinds without certificates: tls-creds-anon and tls-creds-psk. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "crypto/secret.h"
#include "crypto/tls_private.h"

enum { KEY_FILE_MAX = 1 << 20 };

static bool check_priority(const char *priority, struct error *err)
{
    gnutls_priority_t parsed;
    const char *bad = priority;
    int code = gnutls_priority_init(&parsed, priority, &bad);
    if (code < 0)
        return fail(err, EINVAL, "priority '%s': %s at '%s'", priority, gnutls_strerror(code), bad);
    gnutls_priority_deinit(parsed);
    return true;
}

bool tls_creds_begin(struct object *object, const struct tls_creds_properties *properties, const char *suffix,
                     struct error *err)
{
    struct tls_creds_state *state = object->state;
    state->is_server = properties->endpoint == TLS_CREDS_ENDPOINT_SERVER;
    state->verify_peer = properties->verify_peer;
    state->dir = xstrdup(properties->dir);
    state->priority = xasprintf("%s%s", properties->priority ? properties->priority : "NORMAL", suffix);
    return check_priority(state->priority, err);
}

void tls_creds_end(struct object *object)
{
    struct tls_creds_state *state = object->state;
    if (state->dh)
        gnutls_dh_params_deinit(state->dh);
    free(state->priority);
    free(state->dir);
}

char *tls_creds_file(const struct tls_creds_state *state, const char *name, bool mandatory, struct error *err)
{
    if (!state->dir)
        return mandatory ? fail_null(err, EINVAL, "dir is missing: the directory with %s", name) : NULL;
    auto_free char *path = xasprintf("%s/%s", state->dir, name);
    if (!access(path, R_OK))
        return TAKE(path);
    if (mandatory || errno != ENOENT)
        return fail_errno_null(err, errno, "cannot read '%s'", path);
    return NULL;
}

static bool read_whole(const char *path, char **text, size_t *size, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    auto_free char *room = xcalloc(1, KEY_FILE_MAX + 1);
    ssize_t got = fd < 0 ? -1 : read(fd, room, KEY_FILE_MAX);
    if (got < 0)
        return fail_errno(err, errno, "cannot read '%s'", path);
    *size = (size_t)got;
    *text = TAKE(room);
    return true;
}

bool tls_creds_load_dh(struct tls_creds_state *state, struct error *err)
{
    auto_error problem = {0};
    auto_free char *path = tls_creds_file(state, "dh-params.pem", false, &problem);
    if (!path) {
        bool good = !error_is_set(&problem);
        error_move(err, &problem);
        return good;
    }
    auto_free char *text = NULL;
    size_t size;
    if (!read_whole(path, &text, &size, err))
        return false;
    gnutls_datum_t datum = {(unsigned char *)text, (unsigned)size};
    int code = gnutls_dh_params_init(&state->dh);
    if (code >= 0)
        code = gnutls_dh_params_import_pkcs3(state->dh, &datum, GNUTLS_X509_FMT_PEM);
    return code >= 0 || fail(err, EINVAL, "'%s': %s", path, gnutls_strerror(code));
}

/* Anonymous ------------------------------------------------------------------------------------------------------ */

/* TLS 1.3 knows no anonymous key exchange. */
static bool anon_open(struct object *object, struct error *err)
{
    struct tls_creds_state *state = object->state;
    state->type = GNUTLS_CRD_ANON;
    if (!tls_creds_begin(object, &object->options->u.tls_creds_anon, ":+ANON-ECDH:+ANON-DH:-VERS-TLS1.3", err) ||
        !tls_creds_load_dh(state, err)) {
        tls_creds_end(object);
        return false;
    }
    if (!state->is_server) {
        gnutls_anon_allocate_client_credentials(&state->creds.anon_client);
        return true;
    }
    gnutls_anon_allocate_server_credentials(&state->creds.anon_server);
    if (state->dh)
        gnutls_anon_set_server_dh_params(state->creds.anon_server, state->dh);
    else
        gnutls_anon_set_server_known_dh_params(state->creds.anon_server, GNUTLS_SEC_PARAM_MEDIUM);
    return true;
}

static void anon_close(struct object *object)
{
    struct tls_creds_state *state = object->state;
    if (state->is_server)
        gnutls_anon_free_server_credentials(state->creds.anon_server);
    else
        gnutls_anon_free_client_credentials(state->creds.anon_client);
    tls_creds_end(object);
}

const struct object_kind tls_creds_anon_kind = {
    .type = OBJECT_TYPE_TLS_CREDS_ANON,
    .state_size = sizeof(struct tls_creds_state),
    .open = anon_open,
    .close = anon_close,
};

/* Pre-shared keys ------------------------------------------------------------------------------------------------ */

#define DEFAULT_USER "qemu" /* what the ecosystem takes when nobody gives a name */

/* The key of `user` in lines of USER:HEXKEY. Owned; NULL: not there. */
static char *find_key(const char *text, const char *user)
{
    size_t length = strlen(user);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, user, length) && line[length] == ':')
            return xstrndup(line + length + 1, strcspn(line + length + 1, "\r\n"));
    }
    return NULL;
}

static bool psk_open_client(struct tls_creds_state *state, const char *user, const char *path, struct error *err)
{
    auto_free char *text = NULL;
    size_t size;
    if (!read_whole(path, &text, &size, err))
        return false;
    char *key = find_key(text, user);
    secret_wipe(text, size);
    if (!key)
        return fail(err, ENOENT, "'%s' has no key of user '%s'", path, user);
    gnutls_datum_t datum = {(unsigned char *)key, (unsigned)strlen(key)};
    gnutls_psk_allocate_client_credentials(&state->creds.psk_client);
    int code = gnutls_psk_set_client_credentials(state->creds.psk_client, user, &datum, GNUTLS_PSK_KEY_HEX);
    secret_wipe(key, datum.size);
    free(key);
    if (code >= 0)
        return true;
    gnutls_psk_free_client_credentials(state->creds.psk_client);
    return fail(err, EINVAL, "'%s': the key of user '%s': %s", path, user, gnutls_strerror(code));
}

/* The library looks into the file with every client: keys can be added while the server runs. */
static bool psk_open_server(struct tls_creds_state *state, const char *user, const char *path, struct error *err)
{
    if (user)
        return fail(err, EINVAL, "username is for endpoint=client: a server takes every user of '%s'", path);
    if (!tls_creds_load_dh(state, err))
        return false;
    gnutls_psk_allocate_server_credentials(&state->creds.psk_server);
    int code = gnutls_psk_set_server_credentials_file(state->creds.psk_server, path);
    if (code < 0) {
        gnutls_psk_free_server_credentials(state->creds.psk_server);
        return fail(err, EINVAL, "'%s': %s", path, gnutls_strerror(code));
    }
    if (state->dh)
        gnutls_psk_set_server_dh_params(state->creds.psk_server, state->dh);
    else
        gnutls_psk_set_server_known_dh_params(state->creds.psk_server, GNUTLS_SEC_PARAM_MEDIUM);
    return true;
}

static bool psk_load(struct object *object, struct error *err)
{
    const struct tls_creds_psk_properties *options = &object->options->u.tls_creds_psk;
    struct tls_creds_state *state = object->state;
    const struct tls_creds_properties common = {.dir = options->dir,
                                                .endpoint = options->endpoint,
                                                .verify_peer = options->verify_peer,
                                                .priority = options->priority};
    state->type = GNUTLS_CRD_PSK;
    if (!tls_creds_begin(object, &common, ":+ECDHE-PSK:+DHE-PSK:+PSK", err))
        return false;
    auto_free char *path = tls_creds_file(state, "keys.psk", true, err);
    if (!path)
        return false;
    return state->is_server ? psk_open_server(state, options->username, path, err)
                            : psk_open_client(state, options->username ? options->username : DEFAULT_USER, path, err);
}

static bool psk_open(struct object *object, struct error *err)
{
    bool good = psk_load(object, err);
    if (!good)
        tls_creds_end(object);
    return good;
}

static void psk_close(struct object *object)
{
    struct tls_creds_state *state = object->state;
    if (state->is_server)
        gnutls_psk_free_server_credentials(state->creds.psk_server);
    else
        gnutls_psk_free_client_credentials(state->creds.psk_client);
    tls_creds_end(object);
}

const struct object_kind tls_creds_psk_kind = {
    .type = OBJECT_TYPE_TLS_CREDS_PSK,
    .state_size = sizeof(struct tls_creds_state),
    .open = psk_open,
    .close = psk_close,
};

/* Users ---------------------------------------------------------------------------------------------------------- */

struct object *tls_creds_hold(struct object_set *set, const char *id, enum tls_creds_endpoint endpoint,
                              struct error *err)
{
    struct object *object = object_hold(set, id, NULL, err);
    if (!object)
        return NULL;
    bool is_creds = object->kind == &tls_creds_anon_kind || object->kind == &tls_creds_psk_kind ||
                    object->kind == &tls_creds_x509_kind;
    bool is_server = endpoint == TLS_CREDS_ENDPOINT_SERVER;
    if (is_creds && tls_creds_state(object)->is_server == is_server)
        return object;
    object_release(object);
    if (!is_creds)
        return fail_null(err, EINVAL, "object '%s' is of type '%s', expected TLS credentials (tls-creds-x509, ...)", id,
                         object_type_name(object->kind->type));
    return fail_null(err, EINVAL, "TLS credentials '%s' are for endpoint=%s, expected endpoint=%s", id,
                     is_server ? "client" : "server", is_server ? "server" : "client");
}

bool tls_creds_verify_name(const struct object *creds)
{
    return creds->kind == &tls_creds_x509_kind && tls_creds_state(creds)->verify_peer;
}
