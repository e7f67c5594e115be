/* SPDX-License-Identifier: Apache-2.0 */
/* The frame of a tool: one loop, one graph with every driver of the build, main in a coroutine. */
#include "image-tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/printable.h"
#include "base/trace.h"
#include "block/filters/table.h"
#include "confined/doorman.h"
#include "confined/driver.h"
#include "confined/worker.h"
#include "crypto/objects.h"
#include "formats/table.h"
#include "objects/object.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"
#include "walls/walls.h"

struct run {
    struct tool tool;
    enum walls_role role;
    int (*fn)(struct tool *tool);
};

static int run_in_graph(void *arg)
{
    struct run *run = arg;
    run->tool.graph = graph_new(run->tool.loop, protocol_table);
    if (run->role == WALLS_TOOL)
        graph_set_private(run->tool.graph); /* it serves nobody: short runs do without logs */
    graph_add_drivers(run->tool.graph, formats_table);
    graph_add_drivers(run->tool.graph, filters_table);
    if (run->tool.doorman)
        graph_add_drivers(run->tool.graph, doorman_drivers(run->tool.doorman));
    run->tool.objects = object_set_new(run->tool.loop);
    object_set_add_kinds(run->tool.objects, crypto_object_kinds);
    object_set_add_kinds(run->tool.objects, filter_object_kinds);
    graph_set_objects(run->tool.graph, run->tool.objects);
    int status = run->fn(&run->tool);
    graph_free(run->tool.graph);
    object_set_free(run->tool.objects);
    return status;
}

/* Anywhere: as an option, in image options, in JSON. Once there are walls it is too late to find out. */
static bool speaks_of_confined(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strstr(argv[i], "confined"))
            return true;
    }
    return false;
}

static bool set_up(struct tool *tool, enum walls_role role, int argc, char **argv, struct error *err)
{
    const struct walls_options walls = {.off = getenv("SPINDLE_SANDBOX") && !strcmp(getenv("SPINDLE_SANDBOX"), "off")};
    if (speaks_of_confined(argc, argv) && !(tool->doorman = doorman_new(err)))
        return false;
    tool->loop = loop_new(LOOP_AUTO, 0, err);
    return tool->loop && walls_enter(role, &walls, err);
}

int tool_run(int (*fn)(struct tool *tool), void *arg, int argc, char **argv)
{
    return tool_run_as(WALLS_TOOL, fn, arg, argc, argv);
}

int tool_run_as(enum walls_role role, int (*fn)(struct tool *tool), void *arg, int argc, char **argv)
{
    auto_error err = {0};
    struct run run = {.tool = {.arg = arg}, .role = role, .fn = fn};
    int status = 1;
    if (set_up(&run.tool, role, argc, argv, &err))
        status = loop_run_main(run.tool.loop, run_in_graph, &run);
    else
        log_failure(&err);
    loop_free(run.tool.loop);
    doorman_free(run.tool.doorman);
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

bool tool_is_worker(int argc, char **argv)
{
    return confined_is_worker(argc, argv);
}

int tool_worker_main(void)
{
    return confined_worker_main(formats_table);
}

const char *tool_format(const struct node *node)
{
    const char *inside = confined_format(node);
    return inside ? inside : node->driver->name;
}

/* The image as the file of a confined node. */
static struct node *open_confined(struct tool *tool, const char *name, const char *format, const struct open_mode *mode,
                                  struct error *err)
{
    if (name_protocol_length(name))
        return fail_null(err, ENOTSUP,
                         "--confined needs a file of this host, not '%s'; a path with a colon is written ./%s", name,
                         name);
    struct stat st;
    bool is_device = stat(name, &st) == 0 && S_ISBLK(st.st_mode);
    auto_json *options = json_new_object();
    struct json *file = json_new_object();
    json_set(file, "driver", json_new_string(is_device ? "host_device" : "file"));
    json_set(file, "filename", json_new_string(name));
    json_set(options, "driver", json_new_string("confined"));
    json_set(options, "read-only", json_new_bool(true));
    json_set(options, "file", file);
    if (format)
        json_set(options, "format", json_new_string(format));
    auto_free char *text = json_to_text(options);
    auto_free char *json_name = xasprintf("json:%s", text);
    auto_error cause = {0};
    struct node *node = node_open_filename(tool->graph, json_name, NULL, mode, &cause);
    if (!node)
        fail(err, cause.code, "Could not open '%s': %s", name,
             strstr(cause.message, "': ") ? strstr(cause.message, "': ") + 3 : cause.message);
    return node;
}

struct edge *tool_open(struct tool *tool, const char *name, bool is_image_opts, const char *format,
                       const struct open_mode *mode, uint32_t perm, struct error *err)
{
    if (is_image_opts && format)
        return fail_null(err, EINVAL, "--image-opts and -f exclude each other: write driver=%s into the options",
                         format);
    bool confined = tool->confined && mode->read_only;
    if (confined && is_image_opts)
        return fail_null(err, EINVAL,
                         "--image-opts and --confined exclude each other: write driver=confined,format=... "
                         "into the options");
    struct node *node = is_image_opts ? node_open_image_opts(tool->graph, name, mode, err)
                        : confined    ? open_confined(tool, name, format, mode, err)
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
        auto_free char *shown = printable(json_string(value));
        printf(" %s\n", shown);
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
