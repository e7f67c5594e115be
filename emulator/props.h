/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading `key=value,...` arguments of the command line. Each reader takes its key away, so that props_done() finds
 * what nobody wanted and refuses it by name: a misspelt property is an error, never silence. The first error sticks.
 */
#ifndef EMULATOR_PROPS_H
#define EMULATOR_PROPS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

struct json;

struct props {
    const char *option; /* "-drive", for messages */
    struct json *object;
    struct error first;
};

bool props_parse(struct props *props, const char *option, const char *text, const char *implied_key, struct error *err);
void props_free(struct props *props);

char *props_string(struct props *props, const char *key); /* owned; NULL: not given */
bool props_bool(struct props *props, const char *key, bool otherwise);
uint64_t props_number(struct props *props, const char *key, uint64_t otherwise, uint64_t most);
uint64_t props_size(struct props *props, const char *key, uint64_t default_unit, uint64_t otherwise);
bool props_has(const struct props *props, const char *key);

/* False: something was wrong, or something is left over. `known` lists the keys that exist, for the message. */
bool props_done(struct props *props, const char *known, struct error *err);

#endif
