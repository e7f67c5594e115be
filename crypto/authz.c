/* SPDX-License-Identifier: Apache-2.0 */
/* Authorization; see the header. A list in a file is looked at (its stat) with every question, and read when it
 * changed. */
#include "crypto/authz.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/schema/json.h"

enum { LIST_FILE_MAX = 1 << 20 };

struct listfile_state {
    struct authz_list_properties *list;
    struct stat seen; /* of the file that `list` was read from */
};

/* Lists ---------------------------------------------------------------------------------------------------------- */

static bool matches(const struct authz_list_rule *rule, const char *identity)
{
    return rule->format == AUTHZ_LIST_FORMAT_GLOB ? !fnmatch(rule->match, identity, 0) : !strcmp(rule->match, identity);
}

static bool list_allows(const struct authz_list_properties *list, const char *identity)
{
    for (size_t i = 0; i < list->n_rules; i++)
        if (matches(list->rules[i], identity))
            return list->rules[i]->policy == AUTHZ_LIST_POLICY_ALLOW;
    return list->policy == AUTHZ_LIST_POLICY_ALLOW;
}

static bool nothing_to_open(struct object *object, struct error *err)
{
    (void)object, (void)err;
    return true;
}

/* The options themselves are the state: what replaces them is in force at once. */
static bool take_over(struct object *object, const struct object_options *options, struct error *err)
{
    (void)object, (void)options, (void)err;
    return true;
}

const struct object_kind authz_list_kind = {
    .type = OBJECT_TYPE_AUTHZ_LIST, .open = nothing_to_open, .change = take_over};
const struct object_kind authz_simple_kind = {
    .type = OBJECT_TYPE_AUTHZ_SIMPLE, .open = nothing_to_open, .change = take_over};

/* A list in a file ----------------------------------------------------------------------------------------------- */

static char *read_text(const char *path, struct stat *seen, struct error *err)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, seen) < 0)
        return fail_errno_null(err, errno, "cannot open '%s'", path);
    auto_free char *text = xcalloc(1, LIST_FILE_MAX + 1);
    size_t size = 0;
    for (ssize_t got = 1; got > 0 && size < LIST_FILE_MAX; size += (size_t)got) {
        got = read(fd, text + size, LIST_FILE_MAX - size);
        if (got < 0)
            return fail_errno_null(err, errno, "cannot read '%s'", path);
    }
    if (size == LIST_FILE_MAX)
        return fail_null(err, EFBIG, "'%s': a list has less than %d bytes", path, LIST_FILE_MAX);
    return TAKE(text);
}

static bool listfile_read(struct object *object, struct error *err)
{
    struct listfile_state *state = object->state;
    const char *path = object->options->u.authz_listfile.filename;
    struct stat seen;
    auto_free char *text = read_text(path, &seen, err);
    if (!text)
        return false;
    auto_json *json = json_parse(text, strlen(text), err);
    struct authz_list_properties *list;
    if (!json || !authz_list_properties_from_json(json, &list, err))
        return fail_prefix(err, "'%s': ", path);
    authz_list_properties_free(state->list);
    state->list = list;
    state->seen = seen;
    return true;
}

static bool has_changed(const struct object *object)
{
    const struct listfile_state *state = object->state;
    struct stat now;
    return stat(object->options->u.authz_listfile.filename, &now) < 0 || now.st_ino != state->seen.st_ino ||
           now.st_dev != state->seen.st_dev || now.st_size != state->seen.st_size ||
           now.st_mtim.tv_sec != state->seen.st_mtim.tv_sec || now.st_mtim.tv_nsec != state->seen.st_mtim.tv_nsec;
}

static void listfile_close(struct object *object)
{
    struct listfile_state *state = object->state;
    authz_list_properties_free(state->list);
}

const struct object_kind authz_listfile_kind = {
    .type = OBJECT_TYPE_AUTHZ_LISTFILE,
    .state_size = sizeof(struct listfile_state),
    .open = listfile_read,
    .close = listfile_close,
};

static bool listfile_allows(struct object *object, const char *identity, bool *allowed, struct error *err)
{
    struct listfile_state *state = object->state;
    if (object->options->u.authz_listfile.refresh && has_changed(object) && !listfile_read(object, err))
        return fail_prefix(err, "authorization '%s': ", object->id);
    *allowed = list_allows(state->list, identity);
    return true;
}

/* The question --------------------------------------------------------------------------------------------------- */

struct object *authz_hold(struct object_set *set, const char *id, struct error *err)
{
    struct object *object = object_hold(set, id, NULL, err);
    if (!object || object->kind == &authz_list_kind || object->kind == &authz_listfile_kind ||
        object->kind == &authz_simple_kind)
        return object;
    object_release(object);
    return fail_null(err, EINVAL, "object '%s' is of type '%s', expected an authorization (authz-list, ...)", id,
                     object_type_name(object->kind->type));
}

bool authz_allows(struct object *authz, const char *identity, struct error *err)
{
    bool allowed = false;
    if (!identity)
        return fail(err, EACCES, "authorization '%s': the peer has not proven who it is", authz->id);
    if (authz->kind == &authz_simple_kind)
        allowed = !strcmp(authz->options->u.authz_simple.identity, identity);
    else if (authz->kind == &authz_list_kind)
        allowed = list_allows(&authz->options->u.authz_list, identity);
    else if (!listfile_allows(authz, identity, &allowed, err))
        return false;
    return allowed || fail(err, EACCES, "authorization '%s' does not let '%s' in", authz->id, identity);
}
