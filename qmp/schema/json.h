/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON values, on top of json-c (which only this folder includes).
 *
 * A `struct json *` is an owned value: json_free() it, or hand it to an object or array with json_set()/json_append().
 * Looking into a value gives `const struct json *`, which stays the owner's. JSON null is a value like the others (not
 * a NULL pointer); NULL means "there is none". Objects keep the order in which members were set.
 *
 * What comes from outside is refused if it is deeper than JSON_MAX_DEPTH, longer than the caller's limit, not UTF-8,
 * has the same member twice, a NUL inside a string, or an integer that fits neither int64_t nor uint64_t. Strings may
 * also be written with single quotes, as the ecosystem's tools allow.
 */
#ifndef QMP_SCHEMA_JSON_H
#define QMP_SCHEMA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define JSON_MAX_DEPTH 64
#define JSON_MAX_SIZE (64u << 20)

struct json;

enum json_kind { JSON_NULL, JSON_BOOL, JSON_INT, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* Making values. Text must not be NULL. */
struct json *json_new_null(void);
struct json *json_new_bool(bool value);
struct json *json_new_int(int64_t value);
struct json *json_new_uint(uint64_t value);
struct json *json_new_number(double value);
struct json *json_new_string(const char *text);
struct json *json_new_array(void);
struct json *json_new_object(void);
struct json *json_clone(const struct json *json); /* deep; NULL gives NULL */
void json_free(struct json *json);                /* NULL is allowed */

static inline void json_cleanup(struct json **json)
{
    json_free(*json);
}
#define auto_json __attribute__((cleanup(json_cleanup))) struct json

/* Both take `value`. json_set() replaces a member of that name. json_take() removes a member and gives it to the caller
 * (NULL: there is none). */
void json_set(struct json *object, const char *key, struct json *value);
void json_append(struct json *array, struct json *value);
struct json *json_take(struct json *object, const char *key);

/* Looking. */
enum json_kind json_kind(const struct json *json);
const char *json_kind_name(enum json_kind kind);                         /* "an object", "a string" ... for messages */
const struct json *json_get(const struct json *object, const char *key); /* NULL: no such member, or not an object */
const struct json *json_at(const struct json *array, size_t index);
size_t json_length(const struct json *json); /* of an array or object */
bool json_boolean(const struct json *json);
const char *json_string(const struct json *json); /* NULL: not a string */
/* False if the value is not an integer or does not fit. */
bool json_int64(const struct json *json, int64_t *value);
bool json_uint64(const struct json *json, uint64_t *value);
double json_number(const struct json *json);
bool json_equal(const struct json *a, const struct json *b);

/* Members of an object in their order:
 *     for (struct json_member m = json_first(object); m.key; m = json_next(m)) ...
 * The object must not change meanwhile. */
struct json_member {
    const char *key;
    const struct json *value;
    const void *position;
};
struct json_member json_first(const struct json *object);
struct json_member json_next(struct json_member member);

/* A whole text, with nothing but space around the one value. NULL on error. */
struct json *json_parse(const char *text, size_t length, struct error *err);

/* One line: {"a": 1, "b": [true, null]}; characters outside ASCII are escaped. */
char *json_to_text(const struct json *json);
/* Indented by four spaces a level. */
char *json_to_pretty_text(const struct json *json);

/*
 * Values one after another from a byte stream. Space between them is optional where they can be told apart. A byte 0xff
 * drops what is incomplete: a client sends it to get into a known state. After an error the stream goes on behind the
 * end of the line or of the broken value, whichever comes first; what was wrong is reported once.
 */
struct json_stream;
enum json_stream_result { JSON_STREAM_MORE, JSON_STREAM_VALUE, JSON_STREAM_ERROR };

struct json_stream *json_stream_new(size_t max_value_size);
void json_stream_free(struct json_stream *stream);
/*
 * Reads from *data, moving *data and *length forward, until one value is complete (the caller owns *value), one error
 * has been found (err is filled), or the data is used up.
 */
enum json_stream_result json_stream_read(struct json_stream *stream, const char **data, size_t *length,
                                         struct json **value, struct error *err);
/* No more bytes come: a number or word at the very end is complete now. An incomplete value is an error. */
enum json_stream_result json_stream_end(struct json_stream *stream, struct json **value, struct error *err);

#endif
