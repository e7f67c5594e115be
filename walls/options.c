/* SPDX-License-Identifier: Apache-2.0 */
/* The text behind --sandbox: on|off, then key=value. The words are those that the ecosystem's emulator has, so that
 * what management tools write works here as it is. */
#include <string.h>
#include "base/cleanup.h"
#include "base/alloc.h"
#include "base/math.h"
#include "walls/walls.h"

struct key {
    const char *name;
    size_t offset;
    bool inverted; /* the member says what is denied */
};

static const struct key keys[] = {
    {"obsolete", offsetof(struct walls_options, obsolete), false},
    {"elevateprivileges", offsetof(struct walls_options, elevate), false},
    {"spawn", offsetof(struct walls_options, spawn), false},
    {"resourcecontrol", offsetof(struct walls_options, resourcecontrol), false},
    {"network", offsetof(struct walls_options, no_network), true},
};

static bool take_pair(const char *pair, struct walls_options *options, struct error *err)
{
    const char *equals = strchr(pair, '=');
    size_t length = equals ? (size_t)(equals - pair) : strlen(pair);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strlen(keys[i].name) != length || strncmp(keys[i].name, pair, length))
            continue;
        const char *value = equals ? equals + 1 : "";
        bool allow = !strcmp(value, "allow");
        /* "children": what we execute may not gain privileges, which holds here either way. */
        bool children = !strcmp(keys[i].name, "elevateprivileges") && !strcmp(value, "children");
        if (!allow && !children && strcmp(value, "deny"))
            return fail(err, EINVAL, "%s=%s: expected allow or deny", keys[i].name, value);
        *((bool *)options + keys[i].offset) = allow != keys[i].inverted;
        return true;
    }
    return fail(err, EINVAL,
                "'%s' is unknown; there are obsolete, elevateprivileges, spawn, resourcecontrol and network", pair);
}

bool walls_options_parse(const char *text, struct walls_options *options, struct error *err)
{
    auto_free char *copy = xstrdup(text);
    char *position = NULL, *word = strtok_r(copy, ",", &position);
    *options = (struct walls_options){.demanded = true};
    if (word && !strncmp(word, "enable=", 7))
        word += 7;
    if (!word || (strcmp(word, "on") && strcmp(word, "off")))
        return fail(err, EINVAL, "'%s': expected on or off, and then options", text);
    options->off = !strcmp(word, "off");
    while ((word = strtok_r(NULL, ",", &position))) {
        if (!take_pair(word, options, err))
            return false;
    }
    return true;
}
