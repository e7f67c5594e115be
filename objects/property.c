/* SPDX-License-Identifier: Apache-2.0 */
/* Properties of objects: members of their options, as the schema writes and reads them. */
#include <string.h>
#include "objects/object.h"
#include "qmp/schema/json.h"

bool object_may_tell(const struct object *object, const char *property)
{
    for (const char *const *hidden = object->kind->hidden; hidden && *hidden; hidden++)
        if (!strcmp(*hidden, property))
            return false;
    return true;
}

struct json *object_property_default(const struct schema_member *member)
{
    if (!(member->flags & SCHEMA_HAS_DEFAULT))
        return NULL;
    switch (member->type->kind) {
    case SCHEMA_BOOL: return json_new_bool(member->default_value);
    case SCHEMA_ENUM: return json_new_string(schema_enum_name(member->type, (int)member->default_value));
    default: return json_new_int(member->default_value);
    }
}

static struct json *default_of(const struct object *object, const char *name)
{
    const struct schema_type *type = object_options_type.branches[object->kind->type].type;
    for (size_t i = 0; type && i < type->n_members; i++)
        if (!strcmp(type->members[i].name, name))
            return object_property_default(&type->members[i]);
    return NULL;
}

struct json *object_get_property(const struct object *object, const char *name, struct error *err)
{
    auto_json *all = object_options_to_json(object->options);
    const struct json *value = strcmp(name, "type") ? json_get(all, name) : json_get(all, "qom-type");
    if (!object_may_tell(object, name))
        return fail_null(err, EACCES, "property '%s.%s' is kept secret", object_type_name(object->kind->type), name);
    struct json *result = value ? json_clone(value) : default_of(object, name);
    return result ? result
                  : fail_null(err, ENOENT, "property '%s.%s' not found, or it has no value",
                              object_type_name(object->kind->type), name);
}

bool object_set_property(struct object *object, const char *name, const struct json *value, struct error *err)
{
    const char *type = object_type_name(object->kind->type);
    if (!strcmp(name, "type") || !strcmp(name, "qom-type") || !strcmp(name, "id") || !object->kind->change)
        return fail(err, EPERM, "property '%s.%s' cannot be changed: it is settled when the object is made", type,
                    name);
    auto_json *all = object_options_to_json(object->options);
    json_set(all, name, json_clone(value));
    struct object_options *options = NULL;
    if (!object_options_from_json(all, &options, err))
        return fail_prefix(err, "object '%s': ", object->id);
    if ((object->kind->complete && !object->kind->complete(options, object->options, err)) ||
        !object->kind->change(object, options, err)) {
        object_options_free(options);
        return fail_prefix(err, "object '%s': ", object->id);
    }
    object_options_free(object->options);
    object->options = options;
    return true;
}
