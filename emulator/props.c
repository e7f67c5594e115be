/* SPDX-License-Identifier: Apache-2.0 */
/* Reading `key=value` arguments: see the header. The language itself is qmp/schema/keyval.h. */
#include "emulator/props.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "qmp/schema/keyval.h"

bool props_parse(struct props *props, const char *option, const char *text, const char *implied_key, struct error *err)
{
    *props = (struct props){.option = option, .object = keyval_parse(text, implied_key, err)};
    return props->object || fail_prefix(err, "%s %s: ", option, text);
}

void props_free(struct props *props)
{
    json_free(props->object);
    error_clear(&props->first);
    props->object = NULL;
}

bool props_has(const struct props *props, const char *key)
{
    return json_get(props->object, key);
}

char *props_string(struct props *props, const char *key)
{
    auto_json *value = json_take(props->object, key);
    if (!value)
        return NULL;
    if (!json_string(value))
        fail(&props->first, EINVAL, "%s: '%s' has members of its own, but one value is expected", props->option, key);
    return xstrdup(json_string(value));
}

bool props_bool(struct props *props, const char *key, bool otherwise)
{
    auto_free char *text = props_string(props, key);
    if (!text)
        return otherwise;
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "y"))
        return true;
    if (strcmp(text, "off") && strcmp(text, "no") && strcmp(text, "false") && strcmp(text, "n"))
        fail(&props->first, EINVAL, "%s: %s=%s: must be on or off", props->option, key, text);
    return false;
}

uint64_t props_number(struct props *props, const char *key, uint64_t otherwise, uint64_t most)
{
    auto_free char *text = props_string(props, key);
    char *end;
    if (!text)
        return otherwise;
    errno = 0;
    uint64_t value = strtoull(text, &end, 0);
    if (errno || *end || end == text || *text == '-' || value > most)
        fail(&props->first, EINVAL, "%s: %s=%s: must be a number up to %" PRIu64, props->option, key, text, most);
    return value;
}

uint64_t props_size(struct props *props, const char *key, uint64_t default_unit, uint64_t otherwise)
{
    auto_free char *text = props_string(props, key);
    const char *end;
    uint64_t value = otherwise;
    if (!text)
        return otherwise;
    if (parse_size_prefix(text, default_unit, &end, &value, &props->first) && *end)
        fail(&props->first, EINVAL, "%s: %s=%s: '%s' behind the size means nothing", props->option, key, text, end);
    return value;
}

bool props_done(struct props *props, const char *known, struct error *err)
{
    struct json_member left = json_first(props->object);
    if (!error_is_set(&props->first) && left.key)
        fail(&props->first, EINVAL, "%s: unknown property '%s'; there are: %s", props->option, left.key, known);
    if (!error_is_set(&props->first))
        return true;
    error_move(err, &props->first);
    return false;
}
