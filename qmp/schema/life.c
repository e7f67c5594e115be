/* SPDX-License-Identifier: Apache-2.0 */
/* Making, copying and freeing values, by their tables. */
#include "qmp/schema/schema.h"

#include "base/alloc.h"
#include "qmp/schema/json.h"
#include "qmp/schema/walk.h"

/* A value in its slot: what the slot owns is released. */
static void release_slot(const struct schema_type *type, void *slot)
{
    if (!schema_is_pointer(type))
        return;
    void *value = *(void **)slot;
    if (type->kind == SCHEMA_STR)
        free(value);
    else if (type->kind == SCHEMA_ANY)
        json_free((struct json *)value);
    else
        schema_free(type, value);
}

static void release_members(const struct schema_type *type, void *base)
{
    for (size_t i = 0; i < type->n_members; i++) {
        const struct schema_member *member = &type->members[i];
        if (!(member->flags & SCHEMA_IS_LIST)) {
            release_slot(member->type, schema_slot(member, base));
            continue;
        }
        char *items = (char *)schema_items(member, base);
        for (size_t j = 0; j < *schema_count(member, base); j++)
            release_slot(member->type, items + j * schema_slot_size(member->type));
        free(items);
    }
}

void schema_release(const struct schema_type *type, void *value)
{
    if (type->kind == SCHEMA_ALTERNATE) {
        release_slot(schema_alternative(type, value)->type, schema_at(value, type->u_offset));
        return;
    }
    const struct schema_type *branch = schema_union_branch(type, value);
    if (branch)
        release_members(branch, schema_at(value, type->u_offset));
    release_members(type, value);
}

void schema_free(const struct schema_type *type, void *value)
{
    if (!value)
        return;
    schema_release(type, value);
    free(value);
}

void *schema_new(const struct schema_type *type)
{
    void *value = xcalloc(1, type->size);
    for (size_t i = 0; i < type->n_members; i++)
        schema_store_default(&type->members[i], value);
    return value;
}

static void clone_slot(const struct schema_type *type, void *to, const void *from)
{
    if (!schema_is_pointer(type)) {
        memcpy(to, from, type->size);
        return;
    }
    const void *value = *(void *const *)from;
    void *copy;
    if (type->kind == SCHEMA_STR)
        copy = xstrdup((const char *)value);
    else if (type->kind == SCHEMA_ANY)
        copy = json_clone((const struct json *)value);
    else
        copy = schema_clone(type, value);
    *(void **)to = copy;
}

static void clone_members(const struct schema_type *type, void *to, const void *from)
{
    for (size_t i = 0; i < type->n_members; i++) {
        const struct schema_member *member = &type->members[i];
        if (schema_member_has_flag(member))
            *schema_has(member, to) = *schema_has(member, from);
        if (!(member->flags & SCHEMA_IS_LIST)) {
            clone_slot(member->type, schema_slot(member, to), schema_slot(member, from));
            continue;
        }
        size_t size = schema_slot_size(member->type), count = *schema_count(member, from);
        char *items = count ? (char *)xcalloc(count, size) : NULL;
        for (size_t j = 0; j < count; j++)
            clone_slot(member->type, items + j * size, (const char *)schema_items(member, from) + j * size);
        *schema_count(member, to) = count;
        *(void **)schema_slot(member, to) = items;
    }
}

void *schema_clone(const struct schema_type *type, const void *value)
{
    if (!value)
        return NULL;
    void *copy = xcalloc(1, type->size);
    if (type->kind == SCHEMA_ALTERNATE) {
        memcpy(copy, value, sizeof(int));
        clone_slot(schema_alternative(type, value)->type, schema_at(copy, type->u_offset),
                   schema_at(value, type->u_offset));
        return copy;
    }
    clone_members(type, copy, value);
    const struct schema_type *branch = schema_union_branch(type, value);
    if (branch)
        clone_members(branch, schema_at(copy, type->u_offset), schema_at(value, type->u_offset));
    return copy;
}

void schema_list_append(size_t *count, void ***items, void *item)
{
    *items = (void **)xrealloc_array(*items, *count + 1, sizeof **items);
    (*items)[(*count)++] = item;
}

const char *schema_enum_name(const struct schema_type *type, int value)
{
    return value >= 0 && value < type->n_values ? type->values[value] : "?";
}

bool schema_enum_parse(const struct schema_type *type, const char *name, int *value)
{
    for (int i = 0; i < type->n_values; i++) {
        if (!strcmp(type->values[i], name)) {
            *value = i;
            return true;
        }
    }
    return false;
}
