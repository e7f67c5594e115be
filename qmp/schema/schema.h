/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the generated types are made of: one constant table a type, and a few functions that walk C structs by them.
 *
 * The .json files of this folder are the only place where the interface is written down. tools/schema/generate.py turns
 * it into structs (qmp/schema/types.h) and into tables of `struct schema_type`; reading JSON, writing JSON, copying,
 * freeing, help texts and introspection are the same few hundred lines of C for every type. There is no generated code
 * to step through in a debugger, only data.
 *
 * How a schema type looks in C:
 *   - a struct is a struct; members of its base come first; names become snake_case (`node-name` is node_name), a name
 *     that C has taken gets an underscore behind it (`unix` is unix_).
 *   - int is int64_t, size and uint64 are uint64_t, uint8/16/32 as they are, number is double, bool is bool, enums are
 *     enums. Optional ones have a `bool has_x` in front; if absent, x holds the default of the schema (else 0).
 *   - str is an owned char *; NULL means absent.
 *   - a struct, union, alternate or `any` is an owned pointer; NULL means absent.
 *   - a list is an array `x` and its length `n_x`; elements are as above. Optional ones have has_x.
 *   - a flat union has the members of its base and `union { ... } u` with a branch (by value) for each value of the tag
 *     that has one, named by the value.
 *   - an alternate has `kind` and `union { ... } u`, both named by the alternative.
 *
 * For every struct, union and alternate X the generated header offers X_from_json, X_to_json, X_from_keyval,
 * X_to_keyval, X_clone, X_free, X_help and auto_X (see SCHEMA_FUNCTIONS below). Nothing here yields or keeps state.
 */
#ifndef QMP_SCHEMA_SCHEMA_H
#define QMP_SCHEMA_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct json;

enum schema_kind {
    SCHEMA_BOOL,
    SCHEMA_INT,  /* signed, type->size bytes */
    SCHEMA_UINT, /* unsigned, type->size bytes */
    SCHEMA_NUMBER,
    SCHEMA_STR,
    SCHEMA_NULL, /* only as an alternative of an alternate; takes no room */
    SCHEMA_ANY,  /* struct json * */
    SCHEMA_ENUM,
    SCHEMA_STRUCT, /* also flat unions: those have branches */
    SCHEMA_ALTERNATE,
    SCHEMA_LIST, /* struct X_list: one member that is a list */
};

enum schema_member_flags {
    SCHEMA_OPTIONAL = 1,    /* may be absent; scalars and lists then have a has_x */
    SCHEMA_IS_LIST = 2,     /* array at `offset`, length at `count_offset` */
    SCHEMA_HAS_DEFAULT = 4, /* `default_value` holds (integers, bools, enums by value) */
    SCHEMA_HAS_LIMITS = 8,  /* `min` and `max` hold; without, the width of the type is the limit */
};

struct schema_type;

struct schema_member {
    const char *name;
    const struct schema_type *type; /* of the element, for a list */
    uint16_t offset;
    uint16_t has_offset;   /* where SCHEMA_OPTIONAL and the C type needs one */
    uint16_t count_offset; /* where SCHEMA_IS_LIST */
    uint16_t flags;
    int64_t default_value;
    int64_t min, max;
    const char *unit;            /* "bytes", "s", "ns"; NULL = none */
    const char *doc;             /* one line */
    const char *const *features; /* NULL-terminated; NULL = none */
};

struct schema_branch {
    const char *name;               /* of an alternative; of a union branch NULL (the tag's value names it) */
    const struct schema_type *type; /* NULL: this value of the tag has no members of its own */
};

struct schema_type {
    const char *name; /* as in the schema */
    const char *doc;
    enum schema_kind kind;
    uint32_t size; /* of the C type */
    uint16_t n_members, n_branches, n_values;
    uint16_t tag;      /* flat union: index of the member that is the tag */
    uint16_t u_offset; /* union and alternate: where `u` begins; an alternate's `kind` is at 0 */
    const struct schema_member *members;
    const struct schema_branch *branches; /* union: by value of the tag; alternate: by `kind` */
    const char *const *values;            /* enum */
    const char *const *value_docs;        /* enum */
};

/* The built-in types. */
extern const struct schema_type schema_bool, schema_int, schema_int8, schema_int16, schema_int32, schema_uint8,
    schema_uint16, schema_uint32, schema_uint64, schema_size, schema_number, schema_str, schema_null, schema_any;

/* How values are written in what is read. */
enum schema_input {
    SCHEMA_INPUT_JSON,   /* JSON as it is: every value has its JSON type */
    SCHEMA_INPUT_KEYVAL, /* the result of keyval_parse(): scalars are strings such as "on" or "64k" */
};

/*
 * Reads a value of `type` (SCHEMA_STRUCT, SCHEMA_ALTERNATE or SCHEMA_LIST) into a new struct. Strict: a member the type
 * does not have, a wrong type, a value out of its limits and a missing mandatory member are errors, whose message has
 * the path of the member, the value found and what is allowed.
 */
bool schema_read(const struct schema_type *type, const struct json *json, enum schema_input input, void **out,
                 struct error *err);
/* As a command line gives it: `key=value,...` (see keyval.h), or JSON if the text begins with '{'. */
bool schema_read_text(const struct schema_type *type, const char *text, const char *implied_key, void **out,
                      struct error *err);
/* Never fails; the caller owns the result. Absent members are not written, lists and objects keep the schema's order.
 */
struct json *schema_write(const struct schema_type *type, const void *value);
/* `key=value,...` that schema_read_text() reads back to the same value. NULL for what keyval cannot say (an empty list,
 * null in an alternate, `any`). */
char *schema_write_text(const struct schema_type *type, const void *value);

void *schema_clone(const struct schema_type *type, const void *value);
void schema_free(const struct schema_type *type, void *value); /* NULL is allowed */
/* Releases what a struct owns, not the struct itself. */
void schema_release(const struct schema_type *type, void *value);
/* A new value with every default in place and everything else absent. */
void *schema_new(const struct schema_type *type);

/*
 * A table of options for `-o help`, `--blockdev help` and the like, one line each: "  name=<type>  - what it is
 * (limits; default)". For a flat union `tag_value` selects one branch (NULL: the base, and a list of the tag's values).
 */
char *schema_help(const struct schema_type *type, const char *tag_value);

const char *schema_enum_name(const struct schema_type *type, int value);
bool schema_enum_parse(const struct schema_type *type, const char *name, int *value);

/* What the generated header offers for every X. */
#define SCHEMA_FUNCTIONS(X)                                                                                            \
    extern const struct schema_type X##_type;                                                                          \
    static inline bool X##_from_json(const struct json *json, struct X **out, struct error *err)                       \
    {                                                                                                                  \
        return schema_read(&X##_type, json, SCHEMA_INPUT_JSON, (void **)out, err);                                     \
    }                                                                                                                  \
    static inline bool X##_from_keyval(const char *text, const char *implied_key, struct X **out, struct error *err)   \
    {                                                                                                                  \
        return schema_read_text(&X##_type, text, implied_key, (void **)out, err);                                      \
    }                                                                                                                  \
    static inline struct json *X##_to_json(const struct X *value)                                                      \
    {                                                                                                                  \
        return schema_write(&X##_type, value);                                                                         \
    }                                                                                                                  \
    static inline char *X##_to_keyval(const struct X *value)                                                           \
    {                                                                                                                  \
        return schema_write_text(&X##_type, value);                                                                    \
    }                                                                                                                  \
    static inline struct X *X##_new(void)                                                                              \
    {                                                                                                                  \
        return (struct X *)schema_new(&X##_type);                                                                      \
    }                                                                                                                  \
    static inline struct X *X##_clone(const struct X *value)                                                           \
    {                                                                                                                  \
        return (struct X *)schema_clone(&X##_type, value);                                                             \
    }                                                                                                                  \
    static inline void X##_free(struct X *value)                                                                       \
    {                                                                                                                  \
        schema_free(&X##_type, value);                                                                                 \
    }                                                                                                                  \
    static inline void X##_cleanup(struct X **value)                                                                   \
    {                                                                                                                  \
        schema_free(&X##_type, *value);                                                                                \
    }                                                                                                                  \
    static inline char *X##_help(const char *tag_value)                                                                \
    {                                                                                                                  \
        return schema_help(&X##_type, tag_value);                                                                      \
    }

/* A list of X as a value of its own, as commands return it: { size_t n; struct X **items; }. */
#define SCHEMA_LIST_FUNCTIONS(X)                                                                                       \
    extern const struct schema_type X##_list_type;                                                                     \
    static inline struct json *X##_list_to_json(const struct X##_list *value)                                          \
    {                                                                                                                  \
        return schema_write(&X##_list_type, value);                                                                    \
    }                                                                                                                  \
    static inline bool X##_list_from_json(const struct json *json, struct X##_list **out, struct error *err)           \
    {                                                                                                                  \
        return schema_read(&X##_list_type, json, SCHEMA_INPUT_JSON, (void **)out, err);                                \
    }                                                                                                                  \
    static inline struct X##_list *X##_list_new(void)                                                                  \
    {                                                                                                                  \
        return (struct X##_list *)schema_new(&X##_list_type);                                                          \
    }                                                                                                                  \
    static inline void X##_list_append(struct X##_list *list, struct X *item) /* takes the item */                     \
    {                                                                                                                  \
        schema_list_append(&list->n, (void ***)&list->items, item);                                                    \
    }                                                                                                                  \
    static inline void X##_list_free(struct X##_list *value)                                                           \
    {                                                                                                                  \
        schema_free(&X##_list_type, value);                                                                            \
    }                                                                                                                  \
    static inline void X##_list_cleanup(struct X##_list **value)                                                       \
    {                                                                                                                  \
        schema_free(&X##_list_type, *value);                                                                           \
    }

#define SCHEMA_ENUM_FUNCTIONS(X)                                                                                       \
    extern const struct schema_type X##_type;                                                                          \
    static inline const char *X##_name(enum X value)                                                                   \
    {                                                                                                                  \
        return schema_enum_name(&X##_type, (int)value);                                                                \
    }                                                                                                                  \
    static inline bool X##_parse(const char *name, enum X *value)                                                      \
    {                                                                                                                  \
        int number;                                                                                                    \
        if (!schema_enum_parse(&X##_type, name, &number))                                                              \
            return false;                                                                                              \
        *value = (enum X)number;                                                                                       \
        return true;                                                                                                   \
    }

void schema_list_append(size_t *count, void ***items, void *item);

#endif
