/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From JSON (or the strings of a command line) to C values, strictly.
 *
 * Every message says where (`options[1].file.cache.direct`), what was found and what is allowed. A value is built in
 * place; when something is wrong, the half-built value is released by the same tables, for which zeroed memory is "all
 * absent".
 */
#include "qmp/schema/schema.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "base/strbuf.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/walk.h"

/* Where we are, as a chain of callers' frames from the leaf to the root. */
struct place {
    const struct place *up;
    const char *name; /* NULL: element `index` of a list */
    size_t index;
};

struct reader {
    enum schema_input input;
    struct error *err;
};

static bool read_slot(struct reader *reader, const struct place *place, const struct schema_type *type,
                      const struct schema_member *member, const struct json *json, void *slot);

static void append_place(struct strbuf *text, const struct place *place)
{
    if (!place)
        return;
    append_place(text, place->up);
    if (place->name)
        strbuf_printf(text, "%s%s", text->length ? "." : "", place->name);
    else
        strbuf_printf(text, "[%zu]", place->index);
}

/* "'a.b': " or nothing at the top. */
static char *place_prefix(const struct place *place)
{
    auto_strbuf text = {0};
    append_place(&text, place);
    return text.length ? xasprintf("'%s': ", text.text) : xstrdup("");
}

#define FOUND_MAX 60

static bool expected(struct reader *reader, const struct place *place, const struct json *found, const char *what)
{
    auto_free char *prefix = place_prefix(place);
    auto_free char *text = reader->input == SCHEMA_INPUT_KEYVAL && json_string(found)
                               ? xasprintf("'%s'", json_string(found))
                               : json_to_text(found);
    bool is_long = strlen(text) > FOUND_MAX;
    return fail(reader->err, EINVAL, "%sexpected %s, found %.*s%s", prefix, what, FOUND_MAX, text,
                is_long ? "..." : "");
}

/* The text of a scalar on a command line; NULL if this is not one. */
static const char *keyval_text(const struct reader *reader, const struct json *json)
{
    return reader->input == SCHEMA_INPUT_KEYVAL ? json_string(json) : NULL;
}

static bool text_to_bool(const char *text, bool *value)
{
    static const char *const words[2][4] = {{"off", "no", "false", "n"}, {"on", "yes", "true", "y"}};
    for (size_t i = 0; i < 8; i++) {
        if (!strcmp(text, words[i / 4][i % 4])) {
            *value = i / 4;
            return true;
        }
    }
    return false;
}

static bool read_bool(struct reader *reader, const struct place *place, const struct json *json, bool *slot)
{
    const char *text = keyval_text(reader, json);
    if (text)
        return text_to_bool(text, slot) || expected(reader, place, json, "'on' or 'off'");
    if (json_kind(json) != JSON_BOOL)
        return expected(reader, place, json, "true or false");
    *slot = json_boolean(json);
    return true;
}

static bool is_bytes(const struct schema_type *type, const struct schema_member *member)
{
    return type == &schema_size || (member && member->unit && !strcmp(member->unit, "bytes"));
}

static bool text_to_uint(const char *text, uint64_t *value)
{
    if (!isdigit((unsigned char)*text)) /* strtoull would take space and signs */
        return false;
    char *end;
    errno = 0;
    *value = strtoull(text, &end, text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10);
    return !errno && !*end;
}

static bool text_to_int(const char *text, int64_t *value)
{
    uint64_t magnitude;
    bool is_negative = *text == '-';
    if (!text_to_uint(text + is_negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + is_negative)
        return false;
    *value = is_negative ? (int64_t)-magnitude : (int64_t)magnitude;
    return true;
}

static bool out_of_limits(struct reader *reader, const struct place *place, const struct json *json, const char *kind,
                          const char *low, const char *high)
{
    auto_free char *what = xasprintf("%s from %s to %s", kind, low, high);
    return expected(reader, place, json, what);
}

static bool read_uint(struct reader *reader, const struct place *place, const struct schema_type *type,
                      const struct schema_member *member, const struct json *json, void *slot)
{
    bool has_limits = member && member->flags & SCHEMA_HAS_LIMITS;
    uint64_t low = has_limits ? (uint64_t)member->min : 0;
    uint64_t high = has_limits ? (uint64_t)member->max : UINT64_MAX >> (64 - 8 * type->size);
    const char *text = keyval_text(reader, json);
    uint64_t value;
    bool good = !text                    ? json_uint64(json, &value)
                : is_bytes(type, member) ? parse_size(text, &value, NULL)
                                         : text_to_uint(text, &value);
    if (!good || value < low || value > high) {
        char lowest[24], highest[24];
        snprintf(lowest, sizeof lowest, "%" PRIu64, low);
        snprintf(highest, sizeof highest, "%" PRIu64, high);
        return out_of_limits(reader, place, json, is_bytes(type, member) ? "a number of bytes" : "an integer", lowest,
                             highest);
    }
    schema_store(slot, type->size, value);
    return true;
}

static bool read_int(struct reader *reader, const struct place *place, const struct schema_type *type,
                     const struct schema_member *member, const struct json *json, void *slot)
{
    bool has_limits = member && member->flags & SCHEMA_HAS_LIMITS;
    int64_t high = has_limits ? member->max : INT64_MAX >> (64 - 8 * type->size);
    int64_t low = has_limits ? member->min : -high - 1;
    const char *text = keyval_text(reader, json);
    int64_t value;
    if (!(text ? text_to_int(text, &value) : json_int64(json, &value)) || value < low || value > high) {
        char lowest[24], highest[24];
        snprintf(lowest, sizeof lowest, "%" PRId64, low);
        snprintf(highest, sizeof highest, "%" PRId64, high);
        return out_of_limits(reader, place, json, "an integer", lowest, highest);
    }
    schema_store(slot, type->size, (uint64_t)value);
    return true;
}

static bool read_number(struct reader *reader, const struct place *place, const struct json *json, double *slot)
{
    const char *text = keyval_text(reader, json);
    char *end = NULL;
    if (text)
        *slot = strtod(text, &end);
    else if (json_kind(json) == JSON_INT || json_kind(json) == JSON_NUMBER)
        *slot = json_number(json);
    else
        return expected(reader, place, json, "a number");
    if ((text && (!*text || *end || isspace((unsigned char)*text))) || !isfinite(*slot))
        return expected(reader, place, json, "a number");
    return true;
}

static bool read_str(struct reader *reader, const struct place *place, const struct json *json, char **slot)
{
    if (!json_string(json))
        return expected(reader, place, json, "a string");
    *slot = xstrdup(json_string(json));
    return true;
}

static bool read_enum(struct reader *reader, const struct place *place, const struct schema_type *type,
                      const struct json *json, int *slot)
{
    const char *text = json_string(json);
    if (text && schema_enum_parse(type, text, slot))
        return true;
    auto_strbuf what = {0};
    strbuf_append(&what, type->n_values > 1 ? "one of " : "");
    for (size_t i = 0; i < type->n_values; i++)
        strbuf_printf(&what, "%s'%s'", i ? ", " : "", type->values[i]);
    return expected(reader, place, json, strbuf_text(&what));
}

static bool read_list(struct reader *reader, const struct place *place, const struct schema_member *member,
                      const struct json *json, void *base)
{
    if (json_kind(json) != JSON_ARRAY)
        return expected(reader, place, json,
                        reader->input == SCHEMA_INPUT_KEYVAL ? "a list (.0=..., .1=...)" : "a list");
    size_t count = json_length(json), size = schema_slot_size(member->type);
    char *items = count ? (char *)xcalloc(count, size) : NULL;
    *(void **)schema_slot(member, base) = items;
    *schema_count(member, base) = count;
    for (size_t i = 0; i < count; i++) {
        struct place element = {.up = place, .index = i};
        if (!read_slot(reader, &element, member->type, member, json_at(json, i), items + i * size))
            return false;
    }
    return true;
}

/* On a command line a bool may be switched off by a bare "noNAME": true if `key` is that. */
static bool is_bare_no(const struct reader *reader, const struct schema_member *member, const struct json_member *key)
{
    return reader->input == SCHEMA_INPUT_KEYVAL && member->type->kind == SCHEMA_BOOL && !strncmp(key->key, "no", 2) &&
           !strcmp(key->key + 2, member->name) && json_string(key->value) && !strcmp(json_string(key->value), "on");
}

static bool find_bare_no(const struct reader *reader, const struct schema_member *member, const struct json *object)
{
    if (reader->input != SCHEMA_INPUT_KEYVAL || member->type->kind != SCHEMA_BOOL)
        return false;
    auto_free char *key = xasprintf("no%s", member->name);
    struct json_member found = {key, json_get(object, key), NULL};
    return found.value && is_bare_no(reader, member, &found);
}

static bool read_member(struct reader *reader, const struct place *up, const struct schema_member *member,
                        const struct json *object, void *base)
{
    struct place place = {.up = up, .name = member->name};
    const struct json *json = json_get(object, member->name);
    if (!json && find_bare_no(reader, member, object)) {
        if (schema_member_has_flag(member))
            *schema_has(member, base) = true;
        return true; /* the slot is zero: false */
    }
    if (!json && !(member->flags & SCHEMA_OPTIONAL)) {
        auto_free char *prefix = place_prefix(&place);
        return fail(reader->err, EINVAL, "%sis missing", prefix);
    }
    if (!json) {
        schema_store_default(member, base);
        return true;
    }
    if (schema_member_has_flag(member))
        *schema_has(member, base) = true;
    if (member->flags & SCHEMA_IS_LIST)
        return read_list(reader, &place, member, json, base);
    return read_slot(reader, &place, member->type, member, json, schema_slot(member, base));
}

static bool read_members(struct reader *reader, const struct place *place, const struct schema_type *type,
                         const struct json *object, void *base)
{
    for (size_t i = 0; i < type->n_members; i++)
        if (!read_member(reader, place, &type->members[i], object, base))
            return false;
    return true;
}

static bool type_knows(const struct reader *reader, const struct schema_type *type, const struct json_member *key)
{
    for (size_t i = 0; type && i < type->n_members; i++)
        if (!strcmp(type->members[i].name, key->key) || is_bare_no(reader, &type->members[i], key))
            return true;
    return false;
}

static void append_names(struct strbuf *text, const struct schema_type *type)
{
    for (size_t i = 0; type && i < type->n_members; i++)
        strbuf_printf(text, "%s%s", text->length ? ", " : "", type->members[i].name);
}

static bool refuse_unknown(struct reader *reader, const struct place *up, const struct schema_type *type,
                           const struct schema_type *branch, const struct json *object)
{
    for (struct json_member key = json_first(object); key.key; key = json_next(key)) {
        if (type_knows(reader, type, &key) || type_knows(reader, branch, &key))
            continue;
        struct place place = {.up = up, .name = key.key};
        auto_free char *prefix = place_prefix(&place);
        auto_strbuf names = {0};
        append_names(&names, type);
        append_names(&names, branch);
        return fail(reader->err, EINVAL, "%sis not known here; %s%s", prefix,
                    names.length ? "possible: " : "nothing is", strbuf_text(&names));
    }
    return true;
}

static bool read_struct(struct reader *reader, const struct place *place, const struct schema_type *type,
                        const struct json *json, void *base)
{
    if (json_kind(json) != JSON_OBJECT)
        return expected(reader, place, json,
                        reader->input == SCHEMA_INPUT_KEYVAL ? "a group of options (.name=...)" : "an object");
    if (!read_members(reader, place, type, json, base))
        return false;
    const struct schema_type *branch = schema_union_branch(type, base);
    if (branch && !read_members(reader, place, branch, json, schema_at(base, type->u_offset)))
        return false;
    return refuse_unknown(reader, place, type, branch, json);
}

/* Does this alternative look like the value? On a command line all scalars look like strings, so they are tried. */
static bool alternative_fits(const struct reader *reader, const struct schema_type *type, const struct json *json)
{
    const char *text = keyval_text(reader, json);
    int choice;
    bool flag;
    int64_t number;
    uint64_t size;
    switch (type->kind) {
    case SCHEMA_BOOL: return text ? text_to_bool(text, &flag) : json_kind(json) == JSON_BOOL;
    case SCHEMA_INT: return text ? text_to_int(text, &number) : json_kind(json) == JSON_INT;
    case SCHEMA_UINT: return text ? parse_size(text, &size, NULL) : json_kind(json) == JSON_INT;
    case SCHEMA_NUMBER: return !text && (json_kind(json) == JSON_INT || json_kind(json) == JSON_NUMBER);
    case SCHEMA_ENUM: return text ? schema_enum_parse(type, text, &choice) : json_kind(json) == JSON_STRING;
    case SCHEMA_STR: return json_kind(json) == JSON_STRING;
    case SCHEMA_NULL: return json_kind(json) == JSON_NULL;
    case SCHEMA_STRUCT: return json_kind(json) == JSON_OBJECT;
    case SCHEMA_ANY:
    case SCHEMA_ALTERNATE:
    case SCHEMA_LIST: return false;
    }
    return false;
}

static bool read_alternate(struct reader *reader, const struct place *place, const struct schema_type *type,
                           const struct json *json, void *base)
{
    const struct schema_type *word = NULL; /* an enum that a string would have to be of */
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < type->n_branches; i++) {
            const struct schema_type *alternative = type->branches[i].type;
            /* A plain string fits everything that a command line can say, so it comes last. */
            if ((alternative->kind == SCHEMA_STR) != (pass == 1))
                continue;
            if (alternative->kind == SCHEMA_ENUM)
                word = alternative;
            if (!alternative_fits(reader, alternative, json))
                continue;
            *(int *)base = i;
            return read_slot(reader, place, alternative, NULL, json, schema_at(base, type->u_offset));
        }
    }
    int choice;
    if (word && json_string(json))
        return read_enum(reader, place, word, json, &choice);
    auto_strbuf what = {0};
    for (int i = 0; i < type->n_branches; i++)
        strbuf_printf(&what, "%s%s", i ? " or " : "", type->branches[i].name);
    return expected(reader, place, json, strbuf_text(&what));
}

static bool read_slot(struct reader *reader, const struct place *place, const struct schema_type *type,
                      const struct schema_member *member, const struct json *json, void *slot)
{
    switch (type->kind) {
    case SCHEMA_BOOL: return read_bool(reader, place, json, (bool *)slot);
    case SCHEMA_INT: return read_int(reader, place, type, member, json, slot);
    case SCHEMA_UINT: return read_uint(reader, place, type, member, json, slot);
    case SCHEMA_NUMBER: return read_number(reader, place, json, (double *)slot);
    case SCHEMA_STR: return read_str(reader, place, json, (char **)slot);
    case SCHEMA_ENUM: return read_enum(reader, place, type, json, (int *)slot);
    case SCHEMA_ANY: *(struct json **)slot = json_clone(json); return true;
    case SCHEMA_NULL: return true;
    case SCHEMA_STRUCT:
        *(void **)slot = xcalloc(1, type->size);
        return read_struct(reader, place, type, json, *(void **)slot);
    case SCHEMA_ALTERNATE:
        *(void **)slot = xcalloc(1, type->size);
        return read_alternate(reader, place, type, json, *(void **)slot);
    case SCHEMA_LIST: break; /* never a member */
    }
    return false;
}

bool schema_read(const struct schema_type *type, const struct json *json, enum schema_input input, void **out,
                 struct error *err)
{
    struct reader reader = {input, err};
    void *value = NULL;
    bool good;
    if (type->kind == SCHEMA_LIST) {
        value = xcalloc(1, type->size);
        good = read_list(&reader, NULL, &type->members[0], json, value);
    } else {
        good = read_slot(&reader, NULL, type, NULL, json, &value);
    }
    if (good)
        *out = value;
    else
        schema_free(type, value);
    return good;
}

bool schema_read_text(const struct schema_type *type, const char *text, const char *implied_key, void **out,
                      struct error *err)
{
    bool is_json = *text == '{';
    auto_json *json = is_json ? json_parse(text, strlen(text), err) : keyval_parse(text, implied_key, err);
    return json && schema_read(type, json, is_json ? SCHEMA_INPUT_JSON : SCHEMA_INPUT_KEYVAL, out, err);
}
