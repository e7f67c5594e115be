/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects that users make by name (--object, object-add) and that other things refer to by it: secrets, TLS
 * credentials, authorization, throttle groups, settings of the process.
 *
 * A kind of object is a row of a table: its type in the schema, and how it begins and ends. A program makes one
 * object_set and gives it the tables of the folders it has. Whoever uses an object looks it up by id and kind and holds
 * it meanwhile: an object in use cannot be removed.
 *
 *     struct object *object = object_hold(set, "sec0", &secret_kind, &err);   // the user's side
 *     ... secret_data(object) ...
 *     object_release(object);
 *
 * Properties are the members of the object's branch in the schema's ObjectOptions; a kind with a `change` function can
 * get new values of all of them while it is in use. Nothing here yields, unless a kind's functions do.
 */
#ifndef OBJECTS_OBJECT_H
#define OBJECTS_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"
#include "base/list.h"
#include "qmp/schema/types.h"

struct json;
struct loop;
struct object;
struct object_set;

struct object_kind {
    enum object_type type;
    size_t state_size;
    /* `object->state` is zeroed and `object->options` are complete. What it returns false after needs no close. */
    bool (*open)(struct object *object, struct error *err);
    void (*close)(struct object *object);
    /* Takes over other values of the properties; on error everything stays as it was. NULL: nothing can change. */
    bool (*change)(struct object *object, const struct object_options *options, struct error *err);
    /* Fills in what the options mean but do not say; `before`: what they replace, NULL for a new object. NULL: nothing
     * to do. */
    bool (*complete)(struct object_options *options, const struct object_options *before, struct error *err);
    const char *const *hidden; /* properties that qom-get does not tell; NULL-terminated, NULL: none */
};

struct object {
    const struct object_kind *kind;
    struct object_set *set;
    char *id;
    struct object_options *options; /* as given, with defaults; owned */
    unsigned users;                 /* that hold it */
    void *state;                    /* the kind's */
    struct list link;
};

struct object_set *object_set_new(struct loop *loop);
/* A table of kinds, ended by NULL, that outlives the set. */
void object_set_add_kinds(struct object_set *set, const struct object_kind *const *kinds);
/* Removes every object, users before used. Nothing outside the set may hold one. NULL is allowed. */
void object_set_free(struct object_set *set);
struct loop *object_set_loop(const struct object_set *set);
/* Descriptors that clients have handed over (objects/fds.h). They live as long as the set. */
struct fds *object_set_fds(const struct object_set *set);

struct object *object_add(struct object_set *set, const struct object_options *options, struct error *err);
/* As the argument of --object gives it. */
bool object_add_text(struct object_set *set, const char *text, struct error *err);
bool object_remove(struct object_set *set, const char *id, struct error *err);

struct object *object_find(const struct object_set *set, const char *id);             /* NULL: no such object */
struct object *object_next(const struct object_set *set, const struct object *after); /* in order of creation */
/* The object of that id, which must be of one of the kinds (`kind` NULL: of any). `set` may be NULL: there are none. */
struct object *object_hold(struct object_set *set, const char *id, const struct object_kind *kind, struct error *err);
void object_release(struct object *object); /* NULL is allowed */

/* Properties as the commands qom-* see them (objects/property.c). */
struct json *object_get_property(const struct object *object, const char *name, struct error *err);
bool object_set_property(struct object *object, const char *name, const struct json *value, struct error *err);
struct schema_member;
struct json *object_property_default(const struct schema_member *member); /* NULL: it has none */
bool object_may_tell(const struct object *object, const char *property);

#endif
