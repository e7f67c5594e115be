/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rule file of blkdebug: sections [inject-error] and [set-state], lines `option = "value"` with the options of the
 * schema, comments after '#'. A section becomes an object of the schema, which checks it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/filters/blkdebug.h"
#include "qmp/schema/json.h"

#define LINE_MAX_LENGTH 1024

static void add_rule(struct blkdebug *debug, enum rule_action action)
{
    struct debug_rule *rule = new (struct debug_rule);
    rule->action = action;
    list_append(&debug->rules, &rule->link);
}

static struct debug_rule *last_rule(struct blkdebug *debug)
{
    return list_last(&debug->rules, struct debug_rule, link);
}

void debug_add_inject(struct blkdebug *debug, const struct blkdebug_inject_error_options *options)
{
    const uint32_t usual = ~(1u << BLKDEBUG_IO_TYPE_BLOCK_STATUS);
    add_rule(debug, RULE_INJECT);
    struct debug_rule *rule = last_rule(debug);
    rule->event = options->event;
    rule->state = options->state;
    rule->types = options->has_iotype ? 1u << options->iotype : usual;
    rule->error = options->has_errno ? (int)options->errno_ : EIO;
    rule->sector = options->has_sector ? options->sector : -1;
    rule->once = options->once;
    rule->immediately = options->immediately;
    rule->active = options->event == BLKDEBUG_EVENT_NONE;
}

void debug_add_set_state(struct blkdebug *debug, const struct blkdebug_set_state_options *options)
{
    add_rule(debug, RULE_SET_STATE);
    struct debug_rule *rule = last_rule(debug);
    rule->event = options->event;
    rule->state = options->state;
    rule->new_state = options->new_state;
}

/* The file ----------------------------------------------------------------------------------------------------------
 */

static struct json *typed(const char *text)
{
    char *end;
    long long number = strtoll(text, &end, 0);
    if (*text && !*end)
        return json_new_int(number);
    if (!strcmp(text, "on") || !strcmp(text, "off"))
        return json_new_bool(!strcmp(text, "on"));
    return json_new_string(text);
}

static bool end_section(struct blkdebug *debug, const char *section, const struct json *values, struct error *err)
{
    if (!*section)
        return true;
    if (!strcmp(section, "inject-error")) {
        auto_blkdebug_inject_error_options *inject = NULL;
        if (!blkdebug_inject_error_options_from_json(values, &inject, err))
            return false;
        debug_add_inject(debug, inject);
        return true;
    }
    auto_blkdebug_set_state_options *set = NULL;
    if (!blkdebug_set_state_options_from_json(values, &set, err))
        return false;
    debug_add_set_state(debug, set);
    return true;
}

static bool is_blank(const char *line)
{
    line += strspn(line, " \t\r\n");
    return !*line || *line == '#';
}

struct reader {
    struct blkdebug *debug;
    char section[32]; /* "" before the first */
    struct json *values;
};

static bool read_line(struct reader *reader, const char *line, struct error *err)
{
    char name[32], value[LINE_MAX_LENGTH];
    if (is_blank(line))
        return true;
    if (sscanf(line, " [%31[^] \"]]", name) == 1) {
        if (strcmp(name, "inject-error") && strcmp(name, "set-state"))
            return fail(err, EINVAL, "section '%s': expected inject-error or set-state", name);
        if (!end_section(reader->debug, reader->section, reader->values, err))
            return false;
        json_free(reader->values);
        reader->values = json_new_object();
        strcpy(reader->section, name);
        return true;
    }
    if (sscanf(line, " %31[a-z_-] = \"%1023[^\"]\"", name, value) != 2 || !*reader->section)
        return fail(err, EINVAL, "expected a section or, inside of one, a line `option = \"value\"`");
    json_set(reader->values, name, typed(value));
    return true;
}

bool debug_read_config(struct blkdebug *debug, const char *path, struct error *err)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return fail_errno(err, errno, "Could not read blkdebug config file '%s'", path);
    struct reader reader = {.debug = debug, .values = json_new_object()};
    char line[LINE_MAX_LENGTH];
    unsigned number = 0;
    bool ok = true;
    while (ok && fgets(line, sizeof line, file)) {
        number++;
        ok = read_line(&reader, line, err);
    }
    if (ok)
        ok = end_section(debug, reader.section, reader.values, err);
    fclose(file);
    json_free(reader.values);
    return ok || fail_prefix(err, "%s:%u: ", path, number);
}
