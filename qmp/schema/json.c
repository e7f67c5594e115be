/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON values as json-c objects. `struct json` is never completed: a pointer to one is a struct json_object pointer in
 * disguise, so that json-c's names do not leak out of this folder. json-c writes null as a NULL pointer, which we keep
 * for "there is none": outside, null is a pointer to one constant place.
 */
#include "qmp/schema/json.h"

#include <assert.h>
#include <json.h>
#include <string.h>
#include "qmp/schema/json_internal.h"

static const char null_place;

struct json *json_wrap(struct json_object *object)
{
    return object ? (struct json *)object : (struct json *)&null_place;
}

struct json_object *json_unwrap(const struct json *json)
{
    return (const char *)json == &null_place ? NULL : (struct json_object *)json;
}

struct json *json_new_null(void)
{
    return json_wrap(NULL);
}

/* json-c returns NULL when memory is out; small objects abort then, as everywhere. */
static struct json *made(struct json_object *object)
{
    if (!object)
        abort();
    return json_wrap(object);
}

struct json *json_new_bool(bool value)
{
    return made(json_object_new_boolean(value));
}

struct json *json_new_int(int64_t value)
{
    return made(json_object_new_int64(value));
}

struct json *json_new_uint(uint64_t value)
{
    return made(json_object_new_uint64(value));
}

struct json *json_new_number(double value)
{
    return made(json_object_new_double(value));
}

struct json *json_new_string(const char *text)
{
    return made(json_object_new_string(text));
}

struct json *json_new_array(void)
{
    return made(json_object_new_array());
}

struct json *json_new_object(void)
{
    return made(json_object_new_object());
}

struct json *json_clone(const struct json *json)
{
    if (!json)
        return NULL;
    struct json_object *copy = NULL;
    if (json_unwrap(json) && json_object_deep_copy(json_unwrap(json), &copy, NULL))
        abort();
    return json_wrap(copy);
}

void json_free(struct json *json)
{
    if (json)
        json_object_put(json_unwrap(json));
}

void json_set(struct json *object, const char *key, struct json *value)
{
    if (json_object_object_add(json_unwrap(object), key, json_unwrap(value)))
        abort();
}

void json_append(struct json *array, struct json *value)
{
    if (json_object_array_add(json_unwrap(array), json_unwrap(value)))
        abort();
}

struct json *json_take(struct json *object, const char *key)
{
    struct json_object *value;
    if (!json_object_object_get_ex(json_unwrap(object), key, &value))
        return NULL;
    json_object_get(value);
    json_object_object_del(json_unwrap(object), key);
    return json_wrap(value);
}

enum json_kind json_kind(const struct json *json)
{
    switch (json_object_get_type(json_unwrap(json))) {
    case json_type_null: return JSON_NULL;
    case json_type_boolean: return JSON_BOOL;
    case json_type_int: return JSON_INT;
    case json_type_double: return JSON_NUMBER;
    case json_type_string: return JSON_STRING;
    case json_type_array: return JSON_ARRAY;
    case json_type_object: return JSON_OBJECT;
    }
    return JSON_NULL;
}

const char *json_kind_name(enum json_kind kind)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "a boolean", [JSON_INT] = "an integer",   [JSON_NUMBER] = "a number",
        [JSON_STRING] = "a string", [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object",
    };
    return names[kind];
}

const struct json *json_get(const struct json *object, const char *key)
{
    struct json_object *value;
    if (json_kind(object) != JSON_OBJECT || !json_object_object_get_ex(json_unwrap(object), key, &value))
        return NULL;
    return json_wrap(value);
}

const struct json *json_at(const struct json *array, size_t index)
{
    return json_wrap(json_object_array_get_idx(json_unwrap(array), index));
}

size_t json_length(const struct json *json)
{
    switch (json_kind(json)) {
    case JSON_ARRAY: return json_object_array_length(json_unwrap(json));
    case JSON_OBJECT: return (size_t)json_object_object_length(json_unwrap(json));
    default: return 0;
    }
}

bool json_boolean(const struct json *json)
{
    return json_kind(json) == JSON_BOOL && json_object_get_boolean(json_unwrap(json));
}

const char *json_string(const struct json *json)
{
    return json && json_kind(json) == JSON_STRING ? json_object_get_string(json_unwrap(json)) : NULL;
}

/* json-c keeps an integer as int64_t or uint64_t and saturates when asked for the other. */
bool json_int64(const struct json *json, int64_t *value)
{
    if (json_kind(json) != JSON_INT || json_object_get_uint64(json_unwrap(json)) > INT64_MAX)
        return false;
    *value = json_object_get_int64(json_unwrap(json));
    return true;
}

bool json_uint64(const struct json *json, uint64_t *value)
{
    if (json_kind(json) != JSON_INT || json_object_get_int64(json_unwrap(json)) < 0)
        return false;
    *value = json_object_get_uint64(json_unwrap(json));
    return true;
}

double json_number(const struct json *json)
{
    return json_object_get_double(json_unwrap(json));
}

bool json_equal(const struct json *a, const struct json *b)
{
    return json_object_equal(json_unwrap(a), json_unwrap(b));
}

static struct json_member member_at(const struct lh_entry *entry)
{
    if (!entry)
        return (struct json_member){0};
    return (struct json_member){(const char *)lh_entry_k(entry), json_wrap((struct json_object *)lh_entry_v(entry)),
                                entry};
}

struct json_member json_first(const struct json *object)
{
    if (json_kind(object) != JSON_OBJECT)
        return (struct json_member){0};
    return member_at(json_object_get_object(json_unwrap(object))->head);
}

struct json_member json_next(struct json_member member)
{
    return member_at(((const struct lh_entry *)member.position)->next);
}
