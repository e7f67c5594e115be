/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the parts of a C struct by the tables that describe it; shared by the files that read, write, copy and free.
 */
#ifndef QMP_SCHEMA_WALK_H
#define QMP_SCHEMA_WALK_H

#include <assert.h>
#include <string.h>
#include "qmp/schema/schema.h"

static inline void *schema_at(const void *base, uint32_t offset)
{
    return (char *)base + offset;
}

/* Is one value of this type kept behind a pointer (NULL = absent)? */
static inline bool schema_is_pointer(const struct schema_type *type)
{
    return type->kind == SCHEMA_STR || type->kind == SCHEMA_ANY || type->kind == SCHEMA_STRUCT ||
           type->kind == SCHEMA_ALTERNATE;
}

static inline size_t schema_slot_size(const struct schema_type *type)
{
    return schema_is_pointer(type) ? sizeof(void *) : type->size;
}

static inline bool schema_member_has_flag(const struct schema_member *member)
{
    return member->flags & SCHEMA_OPTIONAL && (member->flags & SCHEMA_IS_LIST || !schema_is_pointer(member->type));
}

static inline bool *schema_has(const struct schema_member *member, const void *base)
{
    return (bool *)schema_at(base, member->has_offset);
}

static inline size_t *schema_count(const struct schema_member *member, const void *base)
{
    return (size_t *)schema_at(base, member->count_offset);
}

static inline void *schema_slot(const struct schema_member *member, const void *base)
{
    return schema_at(base, member->offset);
}

/* The array of a list member. */
static inline void *schema_items(const struct schema_member *member, const void *base)
{
    return *(void **)schema_slot(member, base);
}

static inline bool schema_is_present(const struct schema_member *member, const void *base)
{
    if (schema_member_has_flag(member))
        return *schema_has(member, base);
    if (member->flags & SCHEMA_IS_LIST || !schema_is_pointer(member->type))
        return true;
    return *(void **)schema_slot(member, base) != NULL;
}

static inline uint64_t schema_load_uint(const void *slot, uint32_t size)
{
    uint64_t value = 0; /* little-endian hosts only, see base/endian.h */
    memcpy(&value, slot, size);
    return value;
}

static inline int64_t schema_load_int(const void *slot, uint32_t size)
{
    unsigned shift = 64 - 8 * size;
    return (int64_t)(schema_load_uint(slot, size) << shift) >> shift;
}

static inline void schema_store(void *slot, uint32_t size, uint64_t value)
{
    memcpy(slot, &value, size);
}

/* The branch of a flat union that its tag selects; NULL: none, or not a union. */
static inline const struct schema_type *schema_union_branch(const struct schema_type *type, const void *base)
{
    if (type->kind != SCHEMA_STRUCT || !type->n_branches)
        return NULL;
    uint64_t tag = schema_load_uint(schema_slot(&type->members[type->tag], base), sizeof(int));
    assert(tag < type->n_branches);
    return type->branches[tag].type;
}

static inline const struct schema_branch *schema_alternative(const struct schema_type *type, const void *base)
{
    uint64_t kind = schema_load_uint(base, sizeof(int));
    assert(type->kind == SCHEMA_ALTERNATE && kind < type->n_branches);
    return &type->branches[kind];
}

/* Puts the default of the schema into the slot of an absent member. */
static inline void schema_store_default(const struct schema_member *member, void *base)
{
    if (member->flags & SCHEMA_HAS_DEFAULT)
        schema_store(schema_slot(member, base), member->type->size, (uint64_t)member->default_value);
}

#endif
