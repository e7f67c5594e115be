/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of a new image are one KEY=VALUE text: those of every -o, and what other options and arguments say (size,
 * backing file). The schema type of the format gives them meaning; whether a format can have a backing file at all is
 * whether its type has a member for it.
 */
#include "image-tools/img/new_image.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "block/create.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

const struct block_driver *new_image_format(struct tool *tool, const char *format, struct error *err)
{
    const struct block_driver *driver = graph_driver(tool->graph, format);
    if (!driver)
        return fail_null(err, EINVAL, "Unknown file format '%s'", format);
    if (!image_create_options_type(driver))
        return fail_null(err, ENOTSUP, "Format driver '%s' does not support image creation", format);
    return driver;
}

bool new_image_help(const struct block_driver *format, const struct texts *options)
{
    for (size_t i = 0; i < options->count; i++) {
        if (!keyval_wants_help(options->items[i]))
            continue;
        auto_free char *help = schema_help(image_create_options_type(format), NULL);
        printf("Supported %s options:\n%s", format->name, help);
        if (format->create->create_format) {
            auto_free char *file_help = file_create_options_help(NULL);
            printf("\nOptions of the file that holds it:\n%s", file_help);
        }
        return true;
    }
    return false;
}

static const struct schema_member *find_member(const struct schema_type *type, const char *name)
{
    for (size_t i = 0; i < type->n_members; i++) {
        if (!strcmp(type->members[i].name, name))
            return &type->members[i];
    }
    return NULL;
}

/* Puts a value that did not come by -o into the tree. */
static bool set_once(struct json *tree, const struct schema_type *type, const char *format, const char *key,
                     const char *value, const char *what, struct error *err)
{
    if (!find_member(type, key))
        return fail(err, ENOTSUP, "%s not supported for file format '%s'", what, format);
    if (json_get(tree, key))
        return fail(err, EINVAL, "%s must be specified only once: also -o has %s=%s", what, key,
                    json_string(json_get(tree, key)));
    json_set(tree, key, json_new_string(value));
    return true;
}

struct json *new_image_join(const struct texts *options, struct error *err)
{
    auto_strbuf text = {0};
    for (size_t i = 0; i < options->count; i++)
        strbuf_printf(&text, "%s%s", i ? "," : "", options->items[i]);
    return keyval_parse(strbuf_text(&text), NULL, err);
}

static struct json *join_options(const struct new_image *image, const struct schema_type *type, struct error *err)
{
    auto_json *tree = new_image_join(image->options, err);
    if (!tree)
        return NULL;
    if (image->backing && !set_once(tree, type, image->format, "backing_file", image->backing, "Backing file", err))
        return NULL;
    if (image->backing_format &&
        !set_once(tree, type, image->format, "backing_fmt", image->backing_format, "Backing format", err))
        return NULL;
    if (image->has_size) {
        auto_free char *size = xasprintf("%" PRIu64, image->size);
        if (!set_once(tree, type, image->format, "size", size, "The image size", err))
            return NULL;
    }
    return TAKE(tree);
}

/* Opens the backing file for what can be known without its data: no secret is asked for. */
static struct edge *open_backing(struct tool *tool, const struct new_image *image, const char *backing,
                                 const char *format, struct error *err)
{
    auto_free char *resolved = name_resolve(image->filename, backing);
    struct open_mode mode = {.read_only = true, .force_share = true, .metadata_only = true};
    struct edge *edge = tool_open(tool, resolved, false, format, &mode, 0, err);
    if (!edge)
        fail_prefix(err, "Could not open the backing file: ");
    return edge;
}

/* An image whose backing file has no format could be led astray by that file's content: the format must be said. */
static bool refuse_without_format(struct tool *tool, const struct new_image *image, const char *backing,
                                  struct error *err)
{
    struct edge *edge = open_backing(tool, image, backing, NULL, err);
    if (!edge)
        return false;
    fail(err, EINVAL, "Backing file specified without backing format");
    fail_hint(err, "Detected format of %s.", tool_format(edge->child));
    tool_close(edge);
    return false;
}

/* A backing file must exist and be what it is said to be; its size is the default. */
static bool check_backing(struct tool *tool, const struct new_image *image, struct json *tree, struct error *err)
{
    const char *backing = json_string(json_get(tree, "backing_file"));
    const char *format = json_string(json_get(tree, "backing_fmt"));
    if (!backing || !*backing)
        return !format || fail(err, EINVAL, "A backing format without a backing file");
    if (image->unsafe_backing && json_get(tree, "size"))
        return format || fail(err, EINVAL, "Backing file specified without backing format");
    if (!format)
        return refuse_without_format(tool, image, backing, err);
    struct edge *edge = open_backing(tool, image, backing, format, err);
    if (!edge)
        return false;
    if (!json_get(tree, "size")) {
        auto_free char *size = xasprintf("%" PRIu64, edge->child->size);
        json_set(tree, "size", json_new_string(size));
    }
    tool_close(edge);
    return true;
}

/* The order and the defaults that the line "Formatting ..." has always had. Other options follow when they are given.
 */
static const struct shown_option {
    const char *name;
    bool by_default;
} shown_options[] = {
    {"encryption", false},    {"encrypt", false},         {"cluster_size", true}, {"extended_l2", true},
    {"preallocation", false}, {"compression_type", true}, {"size", false},        {"compat", false},
    {"backing_file", false},  {"backing_fmt", false},     {"data_file", false},   {"data_file_raw", false},
    {"lazy_refcounts", true}, {"refcount_bits", true},
};

static void print_option(const char *name, const struct json *value)
{
    if (json_kind(value) == JSON_OBJECT) {
        for (struct json_member m = json_first(value); m.key; m = json_next(m)) {
            auto_free char *inner = xasprintf("%s.%s", name, m.key);
            print_option(inner, m.value);
        }
    } else if (json_kind(value) == JSON_STRING) {
        printf(" %s=%s", name, json_string(value));
    } else if (json_kind(value) == JSON_BOOL) {
        printf(" %s=%s", name, json_boolean(value) ? "on" : "off");
    } else {
        auto_free char *text = json_to_text(value);
        printf(" %s=%s", name, text);
    }
}

static void print_default(const struct schema_member *member)
{
    if (member->type->kind == SCHEMA_BOOL)
        printf(" %s=%s", member->name, member->default_value ? "on" : "off");
    else if (member->type->kind == SCHEMA_ENUM)
        printf(" %s=%s", member->name, member->type->values[member->default_value]);
    else
        printf(" %s=%" PRId64, member->name, member->default_value);
}

static void print_formatting(const struct new_image *image, const struct schema_type *type, const void *options,
                             const struct file_create_options *file)
{
    auto_json *tree = schema_write(type, options), *file_tree = file_create_options_to_json(file);
    printf("Formatting '%s', fmt=%s", image->filename, image->format);
    for (size_t i = 0; i < ARRAY_SIZE(shown_options); i++) {
        const char *name = shown_options[i].name;
        auto_json *value = json_take(tree, name);
        const struct schema_member *member = find_member(type, name);
        if (value)
            print_option(name, value);
        else if (member && shown_options[i].by_default)
            print_default(member);
    }
    for (struct json_member m = json_first(tree); m.key; m = json_next(m))
        print_option(m.key, m.value);
    for (struct json_member m = json_first(file_tree); m.key; m = json_next(m))
        print_option(m.key, m.value);
    printf("\n");
    fflush(stdout); /* errors come after it */
}

/* Takes what concerns the file, and not the format, out of the tree. */
static struct file_create_options *take_file_options(const struct schema_type *format, struct json *tree,
                                                     struct error *err)
{
    auto_json *mine = json_new_object();
    for (size_t i = 0; i < file_create_options_type.n_members; i++) {
        const char *name = file_create_options_type.members[i].name;
        struct json *value = find_member(format, name) ? NULL : json_take(tree, name);
        if (value)
            json_set(mine, name, value);
    }
    void *options = NULL;
    return schema_read(&file_create_options_type, mine, SCHEMA_INPUT_KEYVAL, &options, err) ? options : NULL;
}

static bool create_from_tree(struct tool *tool, const struct new_image *image, const struct block_driver *format,
                             struct json *tree, struct error *err)
{
    const struct schema_type *type = image_create_options_type(format);
    void *options = NULL;
    auto_file_create_options *file = take_file_options(type, tree, err);
    if (!file || !schema_read(type, tree, SCHEMA_INPUT_KEYVAL, &options, err))
        return false;
    if (!image->quiet)
        print_formatting(image, type, options, file);
    bool ok = image_create_in(tool->graph, image->filename, format, options, file, err);
    schema_free(type, options);
    return ok;
}

bool new_image_create(struct tool *tool, const struct new_image *image, struct error *err)
{
    const struct block_driver *format = new_image_format(tool, image->format, err);
    if (!format)
        return fail_prefix(err, "%s: ", image->filename);
    auto_json *tree = join_options(image, image_create_options_type(format), err);
    if (!tree || !check_backing(tool, image, tree, err))
        return fail_prefix(err, "%s: ", image->filename);
    if (!json_get(tree, "size"))
        return fail(err, EINVAL, "%s: Image creation needs a size parameter", image->filename);
    return create_from_tree(tool, image, format, tree, err) || fail_prefix(err, "%s: ", image->filename);
}

bool new_image_parse(const struct block_driver *format, const struct texts *options, uint64_t size, void **parsed,
                     struct error *err)
{
    const struct schema_type *type = image_create_options_type(format);
    auto_json *tree = new_image_join(options, err);
    auto_free char *text = xasprintf("%" PRIu64, size);
    if (!tree || !set_once(tree, type, format->name, "size", text, "The image size", err))
        return false;
    auto_file_create_options *file = take_file_options(type, tree, err);
    *parsed = NULL;
    return file && schema_read(type, tree, SCHEMA_INPUT_KEYVAL, parsed, err);
}
