/* SPDX-License-Identifier: Apache-2.0 */
/* From C values to JSON, and from there to the key=value form. */
#include "qmp/schema/schema.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/walk.h"

static struct json *write_slot(const struct schema_type *type, const void *slot)
{
    switch (type->kind) {
    case SCHEMA_BOOL: return json_new_bool(*(const bool *)slot);
    case SCHEMA_INT: return json_new_int(schema_load_int(slot, type->size));
    case SCHEMA_UINT: return json_new_uint(schema_load_uint(slot, type->size));
    case SCHEMA_NUMBER: return json_new_number(*(const double *)slot);
    case SCHEMA_STR: return json_new_string(*(const char *const *)slot);
    case SCHEMA_NULL: return json_new_null();
    case SCHEMA_ANY: return json_clone(*(const struct json *const *)slot);
    case SCHEMA_ENUM: return json_new_string(schema_enum_name(type, *(const int *)slot));
    case SCHEMA_STRUCT:
    case SCHEMA_ALTERNATE:
    case SCHEMA_LIST: return schema_write(type, *(const void *const *)slot);
    }
    return json_new_null();
}

static struct json *write_list(const struct schema_member *member, const void *base)
{
    struct json *array = json_new_array();
    const char *items = (const char *)schema_items(member, base);
    for (size_t i = 0; i < *schema_count(member, base); i++)
        json_append(array, write_slot(member->type, items + i * schema_slot_size(member->type)));
    return array;
}

static void write_members(const struct schema_type *type, const void *base, struct json *object)
{
    for (size_t i = 0; i < type->n_members; i++) {
        const struct schema_member *member = &type->members[i];
        if (!schema_is_present(member, base))
            continue;
        json_set(object, member->name,
                 member->flags & SCHEMA_IS_LIST ? write_list(member, base)
                                                : write_slot(member->type, schema_slot(member, base)));
    }
}

struct json *schema_write(const struct schema_type *type, const void *value)
{
    if (type->kind == SCHEMA_LIST)
        return write_list(&type->members[0], value);
    if (type->kind == SCHEMA_ALTERNATE)
        return write_slot(schema_alternative(type, value)->type, schema_at(value, type->u_offset));
    struct json *object = json_new_object();
    write_members(type, value, object);
    const struct schema_type *branch = schema_union_branch(type, value);
    if (branch)
        write_members(branch, schema_at(value, type->u_offset), object);
    return object;
}

/* Appends "key=text" for every leaf below `json`. False: there is something that key=value cannot say. */
static bool write_leaves(struct strbuf *text, const char *path, const struct json *json)
{
    bool is_array = json_kind(json) == JSON_ARRAY;
    if (is_array || json_kind(json) == JSON_OBJECT) {
        if (!json_length(json))
            return false;
        struct json_member member = json_first(json);
        for (size_t i = 0; i < json_length(json); i++) {
            auto_free char *index = is_array ? xasprintf("%zu", i) : NULL;
            const char *key = is_array ? index : member.key;
            auto_free char *deeper = *path ? xasprintf("%s.%s", path, key) : xstrdup(key);
            if (!write_leaves(text, deeper, is_array ? json_at(json, i) : member.value))
                return false;
            if (!is_array)
                member = json_next(member);
        }
        return true;
    }
    if (json_kind(json) == JSON_NULL)
        return false;
    auto_free char *plain = json_string(json)              ? keyval_escape(json_string(json))
                            : json_kind(json) == JSON_BOOL ? xstrdup(json_boolean(json) ? "on" : "off")
                                                           : json_to_text(json);
    strbuf_printf(text, "%s%s=%s", text->length ? "," : "", path, plain);
    return true;
}

char *schema_write_text(const struct schema_type *type, const void *value)
{
    auto_json *json = schema_write(type, value);
    auto_strbuf text = {0};
    if (json_length(json) && !write_leaves(&text, "", json))
        return NULL;
    return strbuf_take(&text);
}
