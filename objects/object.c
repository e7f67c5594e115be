/* SPDX-License-Identifier: Apache-2.0 */
/* The set of objects of a program; see the header. */
#include "objects/object.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/vec.h"
#include "objects/fds.h"

struct object_set {
    struct loop *loop;
    vec(const struct object_kind *const *) tables;
    struct fds *fds;
    struct list objects; /* of struct object, in order of creation: what one refers to stands before it */
};

struct object_set *object_set_new(struct loop *loop)
{
    struct object_set *set = new (struct object_set);
    set->loop = loop;
    set->fds = fds_new();
    list_init(&set->objects);
    return set;
}

void object_set_add_kinds(struct object_set *set, const struct object_kind *const *kinds)
{
    vec_push(&set->tables, kinds);
}

struct loop *object_set_loop(const struct object_set *set)
{
    return set->loop;
}

struct fds *object_set_fds(const struct object_set *set)
{
    return set->fds;
}

static const struct object_kind *find_kind(const struct object_set *set, enum object_type type)
{
    for (size_t i = 0; i < set->tables.count; i++)
        for (const struct object_kind *const *kind = set->tables.items[i]; *kind; kind++)
            if ((*kind)->type == type)
                return *kind;
    return NULL;
}

static void object_forget(struct object *object)
{
    list_remove(&object->link);
    object_options_free(object->options);
    free(object->state);
    free(object->id);
    free(object);
}

static void object_end(struct object *object)
{
    if (object->kind->close)
        object->kind->close(object);
    object_forget(object);
}

void object_set_free(struct object_set *set)
{
    if (!set)
        return;
    struct object *object;
    while ((object = list_last(&set->objects, struct object, link)))
        object_end(object);
    vec_free(&set->tables);
    fds_free(set->fds);
    free(set);
}

struct object *object_find(const struct object_set *set, const char *id)
{
    struct object *object;
    list_for_each (object, &set->objects, link)
        if (!strcmp(object->id, id))
            return object;
    return NULL;
}

struct object *object_next(const struct object_set *set, const struct object *after)
{
    const struct list *link = after ? after->link.next : set->objects.next;
    return link == &set->objects ? NULL : list_entry(link, struct object, link);
}

static bool check_id(const char *id, struct error *err)
{
    bool good = *id >= 'a' && *id <= 'z';
    good = good || (*id >= 'A' && *id <= 'Z');
    for (const char *c = id; *c && good; c++)
        good = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '-' ||
               *c == '.' || *c == '_';
    return good ||
           fail(err, EINVAL,
                "object id '%s': it begins with a letter, and consists of letters, digits, '-', '.' and '_'", id);
}

struct object *object_add(struct object_set *set, const struct object_options *options, struct error *err)
{
    if (!check_id(options->id, err))
        return NULL;
    if (object_find(set, options->id))
        return fail_null(err, EEXIST, "object '%s': there is one of this id already", options->id);
    const struct object_kind *kind = find_kind(set, options->qom_type);
    if (!kind)
        return fail_null(err, EINVAL, "object '%s': this program has no use for objects of type '%s'", options->id,
                         object_type_name(options->qom_type));
    struct object *object = new (struct object);
    object->kind = kind;
    object->set = set;
    object->id = xstrdup(options->id);
    object->options = object_options_clone(options);
    object->state = kind->state_size ? xcalloc(1, kind->state_size) : NULL;
    if ((kind->complete && !kind->complete(object->options, NULL, err)) || !kind->open(object, err)) {
        fail_prefix(err, "object '%s': ", object->id);
        object_forget(object);
        return NULL;
    }
    list_append(&set->objects, &object->link);
    return object;
}

bool object_add_text(struct object_set *set, const char *text, struct error *err)
{
    auto_object_options *options = NULL;
    return object_options_from_keyval(text, "qom-type", &options, err) && object_add(set, options, err);
}

bool object_remove(struct object_set *set, const char *id, struct error *err)
{
    struct object *object = object_find(set, id);
    if (!object)
        return fail(err, ENOENT, "there is no object '%s'", id);
    if (object->users)
        return fail(err, EBUSY, "object '%s' is in use, can not be deleted", id);
    object_end(object);
    return true;
}

struct object *object_hold(struct object_set *set, const char *id, const struct object_kind *kind, struct error *err)
{
    struct object *object = set ? object_find(set, id) : NULL;
    if (!object)
        return fail_null(err, ENOENT, "there is no object '%s'", id);
    if (kind && object->kind != kind)
        return fail_null(err, EINVAL, "object '%s' is of type '%s', expected '%s'", id,
                         object_type_name(object->kind->type), object_type_name(kind->type));
    object->users++;
    return object;
}

void object_release(struct object *object)
{
    if (object)
        object->users--;
}
