/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands qom-*: objects seen as a tree of paths and properties, as management programs expect it.
 *
 *     /                 a container with one child, "objects"
 *     /objects          the container of all objects
 *     /objects/ID       one object; its properties are the members of its type in the schema
 *
 * Types and properties come from the schema's ObjectOptions; a type made abstract here ("object", "user-creatable")
 * only says what the others have in common.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "objects/object.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"

/* Paths ---------------------------------------------------------------------------------------------------------- */

enum place { PLACE_ROOT, PLACE_CONTAINER, PLACE_OBJECT };

static bool find_place(struct daemon *daemon, const char *path, enum place *place, struct object **object,
                       struct error *err)
{
    static const char container[] = "/objects";
    *object = NULL;
    if (!strcmp(path, "/") || !*path) {
        *place = PLACE_ROOT;
        return true;
    }
    if (!strcmp(path, container)) {
        *place = PLACE_CONTAINER;
        return true;
    }
    *place = PLACE_OBJECT;
    const char *id = strncmp(path, "/objects/", sizeof container) ? path : path + sizeof container;
    *object = object_find(daemon->objects, id);
    return *object || fail_class(err, "DeviceNotFound", "there is no object at path '%s'", path);
}

static bool find_object(struct daemon *daemon, const char *path, struct object **object, struct error *err)
{
    enum place place;
    return find_place(daemon, path, &place, object, err) &&
           (*object || fail(err, EINVAL, "path '%s' is a container, it has no properties with values", path));
}

/* Properties ----------------------------------------------------------------------------------------------------- */

static char *type_text(const struct schema_member *member)
{
    const struct schema_type *type = member->type;
    const char *name = type->name;
    switch (type->kind) {
    case SCHEMA_STR: name = "string"; break;
    case SCHEMA_BOOL: name = "bool"; break;
    case SCHEMA_INT:
    case SCHEMA_UINT: name = "int"; break;
    default: break;
    }
    return member->flags & SCHEMA_IS_LIST ? xasprintf("list<%s>", name) : xstrdup(name);
}

static void add_property(struct object_property_info_list *list, const char *name, char *type, const char *description,
                         struct json *value)
{
    struct object_property_info *info = new (struct object_property_info);
    info->name = xstrdup(name);
    info->type = type;
    info->description = xstrdup(description);
    info->default_value = value;
    object_property_info_list_append(list, info);
}

static const struct schema_type *properties_of(enum object_type type)
{
    return object_options_type.branches[type].type;
}

static void add_properties(struct object_property_info_list *list, enum object_type type, bool with_defaults)
{
    const struct schema_type *properties = properties_of(type);
    add_property(list, "type", xstrdup("string"), NULL, NULL);
    for (size_t i = 0; properties && i < properties->n_members; i++) {
        const struct schema_member *member = &properties->members[i];
        add_property(list, member->name, type_text(member), with_defaults ? member->doc : NULL,
                     with_defaults ? object_property_default(member) : NULL);
    }
}

bool qmp_qom_list(struct qmp_context *context, struct q_qom_list_arg *arg, struct object_property_info_list **ret,
                  struct error *err)
{
    struct daemon *daemon = context->app;
    struct object *object;
    enum place place;
    if (!find_place(daemon, arg->path, &place, &object, err))
        return false;
    struct object_property_info_list *list = object_property_info_list_new();
    if (place == PLACE_OBJECT) {
        add_properties(list, object->kind->type, false);
    } else {
        add_property(list, "type", xstrdup("string"), NULL, NULL);
        if (place == PLACE_ROOT)
            add_property(list, "objects", xstrdup("child<container>"), NULL, NULL);
    }
    if (place == PLACE_CONTAINER)
        for (object = object_next(daemon->objects, NULL); object; object = object_next(daemon->objects, object))
            add_property(list, object->id, xasprintf("child<%s>", object_type_name(object->kind->type)), NULL, NULL);
    *ret = list;
    return true;
}

bool qmp_qom_get(struct qmp_context *context, struct q_qom_get_arg *arg, struct json **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct object *object;
    if (!find_object(daemon, arg->path, &object, err))
        return false;
    *ret = object_get_property(object, arg->property, err);
    return *ret != NULL;
}

bool qmp_qom_set(struct qmp_context *context, struct q_qom_set_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    struct object *object;
    return find_object(daemon, arg->path, &object, err) && object_set_property(object, arg->property, arg->value, err);
}

static struct object_properties_values *values_of(const struct object *object)
{
    struct object_properties_values *result = new (struct object_properties_values);
    struct object_property_info_list *infos = object_property_info_list_new();
    add_properties(infos, object->kind->type, false);
    result->properties = xcalloc(infos->n, sizeof *result->properties);
    result->n_properties = infos->n;
    for (size_t i = 0; i < infos->n; i++) {
        struct object_property_value *value = new (struct object_property_value);
        value->name = TAKE(infos->items[i]->name);
        value->type = TAKE(infos->items[i]->type);
        value->value = object_get_property(object, value->name, NULL);
        result->properties[i] = value;
    }
    object_property_info_list_free(infos);
    return result;
}

bool qmp_qom_list_get(struct qmp_context *context, struct q_qom_list_get_arg *arg,
                      struct object_properties_values_list **ret, struct error *err)
{
    struct object_properties_values_list *list = object_properties_values_list_new();
    for (size_t i = 0; i < arg->n_paths; i++) {
        struct object *object;
        if (!find_object(context->app, arg->paths[i], &object, err)) {
            object_properties_values_list_free(list);
            return false;
        }
        object_properties_values_list_append(list, values_of(object));
    }
    *ret = list;
    return true;
}

/* Types ---------------------------------------------------------------------------------------------------------- */

static const char *parent_of(const char *type)
{
    if (!strncmp(type, "tls-creds-", 10))
        return "tls-creds";
    if (!strncmp(type, "authz-", 6))
        return "authz";
    if (!strncmp(type, "secret", 6))
        return strcmp(type, "secret_common") ? "secret_common" : "object";
    return "object";
}

static const char *const abstract_types[] = {"authz", "object", "secret_common", "tls-creds"};

/* Every type that users can make implements the interface "user-creatable". */
static bool implements(const char *type, bool is_abstract, const char *wanted)
{
    if (!wanted || !strcmp(wanted, type) || !strcmp(wanted, "object"))
        return true;
    return !strcmp(wanted, is_abstract ? type : "user-creatable") || !strcmp(wanted, parent_of(type));
}

static void add_type(struct object_type_info_list *list, const char *name, bool is_abstract)
{
    struct object_type_info *info = new (struct object_type_info);
    info->name = xstrdup(name);
    info->has_abstract = info->abstract = is_abstract;
    info->parent = strcmp(name, "object") ? xstrdup(parent_of(name)) : NULL;
    object_type_info_list_append(list, info);
}

bool qmp_qom_list_types(struct qmp_context *context, struct q_qom_list_types_arg *arg,
                        struct object_type_info_list **ret, struct error *err)
{
    (void)context, (void)err;
    *ret = object_type_info_list_new();
    for (size_t i = 0; i < ARRAY_SIZE(abstract_types) && arg->abstract; i++)
        if (implements(abstract_types[i], true, arg->implements))
            add_type(*ret, abstract_types[i], true);
    for (int type = 0; type < OBJECT_TYPE__COUNT; type++)
        if (implements(object_type_name(type), false, arg->implements))
            add_type(*ret, object_type_name(type), false);
    return true;
}

bool qmp_qom_list_properties(struct qmp_context *context, struct q_qom_list_properties_arg *arg,
                             struct object_property_info_list **ret, struct error *err)
{
    (void)context;
    enum object_type type;
    if (!object_type_parse(arg->typename, &type))
        return fail_class(err, "DeviceNotFound", "there is no type '%s'", arg->typename);
    *ret = object_property_info_list_new();
    add_properties(*ret, type, true);
    return true;
}
