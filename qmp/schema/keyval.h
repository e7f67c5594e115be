/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `key=value` language of command lines.
 *
 *     driver=qcow2,file.driver=file,file.filename=a,,b.img,file.cache.direct=on,list.0=x,list.1=y
 *
 * Elements are separated by commas; a comma in a value is written twice. A dot in a key goes one object deeper. An
 * object whose keys are the numbers 0 to n-1 is a list. If the language has an implied key, the first element may be
 * the bare value: `qcow2,file=...`. A later element replaces an earlier one with the same key. A
 * bare key means key=on. The result is a tree of objects and lists whose leaves are strings; schema_read() with
 * SCHEMA_INPUT_KEYVAL gives them their types.
 */
#ifndef QMP_SCHEMA_KEYVAL_H
#define QMP_SCHEMA_KEYVAL_H

#include "qmp/schema/json.h"

/* `implied_key` may be NULL. NULL on error. */
struct json *keyval_parse(const char *text, const char *implied_key, struct error *err);

/* Does the text ask for help: is one of its elements a bare `help` or `?`? To be asked before parsing. */
bool keyval_wants_help(const char *text);

/* The value of a top-level key, before anything is checked (as `driver=qcow2,help` needs it). Owned; NULL: not there.
 */
char *keyval_peek(const char *text, const char *implied_key, const char *key);

/* Doubles the commas of a value. */
char *keyval_escape(const char *value);

#endif
