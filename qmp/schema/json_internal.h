/* SPDX-License-Identifier: Apache-2.0 */
/* The door between `struct json` and json-c, for the files of this folder that use json-c. */
#ifndef QMP_SCHEMA_JSON_INTERNAL_H
#define QMP_SCHEMA_JSON_INTERNAL_H

struct json;
struct json_object;

struct json *json_wrap(struct json_object *object); /* NULL becomes our null */
struct json_object *json_unwrap(const struct json *json);

#endif
