/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of a tool: one loop, one graph with every driver of the build, main in a coroutine. */
#include "image-tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/trace.h"
#include "crypto/objects.h"
#include "formats/table.h"
#include "objects/object.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

struct run {
    struct tool tool;
    int (*fn)(struct tool *tool);
};

static int run_in_graph(void *arg)
{
    struct run *run = arg;
    run->tool.graph = graph_new(run->tool.loop, protocol_table);
    graph_add_drivers(run->tool.graph, formats_table);
    run->tool.objects = object_set_new(run->tool.loop);
    object_set_add_kinds(run->tool.objects, crypto_object_kinds);
    graph_set_objects(run->tool.graph, run->tool.objects);
    int status = run->fn(&run->tool);
    graph_free(run->tool.graph);
    object_set_free(run->tool.objects);
    return status;
}

int tool_run(int (*fn)(struct tool *tool), void *arg)
{
    auto_error err = {0};
    struct run run = {.tool = {.loop = loop_new(LOOP_AUTO, 0, &err), .arg = arg}, .fn = fn};
    if (!run.tool.loop) {
        log_failure(&err);
        return 1;
    }
    int status = loop_run_main(run.tool.loop, run_in_graph, &run);
    loop_free(run.tool.loop);
    return status;
}

/* "help" lists the types, "TYPE,help" the properties of one. */
static bool print_object_help(const char *text)
{
    auto_free char *type = xstrndup(text, strcspn(text, ","));
    if (!keyval_wants_help(text))
        return false;
    auto_free char *help = schema_help(&object_options_type, strcmp(type, "help") ? type : NULL);
    printf("%s", help);
    return true;
}

bool tool_add_objects(struct tool *tool, const struct texts *arguments, bool *helped, struct error *err)
{
    const char **text;
    *helped = false;
    vec_for_each (text, arguments) {
        *helped = print_object_help(*text);
        if (*helped)
            return true;
        if (!object_add_text(tool->objects, *text, err))
            return false;
    }
    return true;
}

void tool_print_version(void)
{
    printf("%s version " SPINDLE_VERSION "\nPart of Spindle, under the Apache License 2.0\n", log_program());
}

void tool_print_formats(void)
{
    printf("Supported formats:");
    for (const struct block_driver *const *driver = formats_table; *driver; driver++)
        printf(" %s", (*driver)->name);
    for (const struct block_driver *const *driver = protocol_table; *driver; driver++)
        printf(" %s", (*driver)->name);
    printf("\n");
}

bool tool_enable_trace(const char *globs)
{
    auto_error err = {0};
    if (trace_enable(globs, &err))
        return true;
    log_failure(&err);
    return false;
}

bool tool_cache_mode(const char *name, struct open_mode *mode, bool *writethrough, struct error *err)
{
    static const struct {
        const char *name;
        bool direct, no_flush, writethrough;
    } modes[] = {
        {"none", true, false, false},         {"off", true, false, false},       {"writeback", false, false, false},
        {"writethrough", false, false, true}, {"directsync", true, false, true}, {"unsafe", false, true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (strcmp(name, modes[i].name))
            continue;
        mode->direct = modes[i].direct;
        mode->no_flush = modes[i].no_flush;
        *writethrough = modes[i].writethrough;
        return true;
    }
    return fail(err, EINVAL, "'%s' is not a cache mode (none, writeback, writethrough, directsync or unsafe)", name);
}

struct edge *tool_open(struct tool *tool, const char *name, bool is_image_opts, const char *format,
                       const struct open_mode *mode, uint32_t perm, struct error *err)
{
    if (is_image_opts && format)
        return fail_null(err, EINVAL, "--image-opts and -f exclude each other: write driver=%s into the options",
                         format);
    struct node *node = is_image_opts ? node_open_image_opts(tool->graph, name, mode, err)
                                      : node_open_filename(tool->graph, name, format, mode, err);
    if (!node)
        return NULL;
    uint32_t shared = mode->force_share ? BLOCK_PERM_ALL : BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    struct edge *edge = edge_attach(NULL, log_program(), node, perm, shared, err);
    node_unref(node);
    if (!edge)
        fail_prefix(err, "Could not open '%s': ", name);
    return edge;
}

void tool_close(struct edge *edge)
{
    if (edge)
        edge_detach(edge);
}

static void print_value(const struct json *value, unsigned indent);

static void print_named(const char *key, const struct json *value, unsigned indent)
{
    printf("%*s", (int)indent, "");
    for (; *key; key++)
        putchar(*key == '-' ? ' ' : *key);
    printf(":");
    print_value(value, indent);
}

/* Behind a name and its colon, to the end of the line. */
static void print_value(const struct json *value, unsigned indent)
{
    enum json_kind kind = json_kind(value);
    if (kind == JSON_OBJECT) {
        printf("\n");
        tool_print_members(value, indent + 4);
    } else if (kind == JSON_ARRAY) {
        printf("\n");
        for (size_t i = 0; i < json_length(value); i++) {
            auto_free char *index = xasprintf("[%zu]", i);
            print_named(index, json_at(value, i), indent + 4);
        }
    } else if (kind == JSON_STRING) {
        printf(" %s\n", json_string(value));
    } else {
        auto_free char *text = json_to_text(value);
        printf(" %s\n", text);
    }
}

void tool_print_members(const struct json *object, unsigned indent)
{
    for (struct json_member m = json_first(object); m.key; m = json_next(m))
        print_named(m.key, m.value, indent);
}
