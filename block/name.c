/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From names to options. Everything here ends in typed options and the ordinary way to open a node; what is special is
 * what the name does not say: the protocol (a block device or a file), and the format, which is then probed.
 *
 * When the format is probed, the file is opened first, as a node of its own; the format's options refer to it by name.
 */
#include "block/name.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "block/internal.h"
#include "block/probe.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

/* Texts ----------------------------------------------------------------------------------------------------------- */

size_t name_protocol_length(const char *name)
{
    size_t length = 0;
    while (isalnum((unsigned char)name[length]) || (name[length] && strchr("+.-_", name[length])))
        length++;
    return name[length] == ':' ? length : 0;
}

static bool has_protocol(const char *name, const char *protocol)
{
    size_t length = name_protocol_length(name);
    return length == strlen(protocol) && !memcmp(name, protocol, length);
}

char *name_to_path(const char *filename, struct error *err)
{
    if (!filename[0])
        return fail_null(err, EINVAL, "The file name is empty");
    if (has_protocol(filename, "file"))
        return xstrdup(filename + strlen("file:"));
    size_t length = name_protocol_length(filename);
    if (length)
        return fail_null(err, EINVAL, "Unknown protocol '%.*s' in '%s' (for a file of this name write './%s')",
                         (int)length, filename, filename, filename);
    return xstrdup(filename);
}

/* The protocol driver whose name this is by its prefix; NULL: it is a path, or nobody's. */
static const struct block_driver *driver_of_name(const struct graph *graph, const char *filename)
{
    for (const struct block_driver *const *driver = graph_drivers(graph); *driver; driver++) {
        for (const char *const *prefix = (*driver)->prefixes; prefix && *prefix; prefix++) {
            if (has_protocol(filename, *prefix))
                return *driver;
        }
    }
    return NULL;
}

bool name_is_device(const struct graph *graph, const char *path)
{
    struct stat st;
    if (loop_backend(graph->loop) == LOOP_SIMULATED)
        return false;
    return stat(path, &st) == 0 && (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode));
}

char *name_resolve(const char *base, const char *name)
{
    const char *inside = base && has_protocol(base, "file") ? base + strlen("file:") : base;
    if (!base || name[0] == '/' || name_protocol_length(name))
        return xstrdup(name);
    const char *slash = strrchr(inside, '/');
    return slash ? xasprintf("%.*s%s", (int)(slash - base + 1), base, name) : xstrdup(name);
}

/* Options --------------------------------------------------------------------------------------------------------- */

/* What the mode says holds where the options are silent. */
static void apply_mode(struct blockdev_options *options, const struct open_mode *mode)
{
    if (!options->cache)
        options->cache = blockdev_cache_options_new();
    if (!options->cache->has_direct)
        options->cache->direct = mode->direct;
    if (!options->cache->has_no_flush)
        options->cache->no_flush = mode->no_flush;
    options->cache->has_direct = options->cache->has_no_flush = true;
    if (!options->has_read_only)
        options->read_only = mode->read_only;
    if (!options->has_auto_read_only)
        options->auto_read_only = mode->auto_read_only;
    if (!options->has_force_share)
        options->force_share = mode->force_share && options->read_only;
    options->has_read_only = options->has_auto_read_only = options->has_force_share = true;
    if (!options->has_discard && mode->unmap) {
        options->has_discard = true;
        options->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
}

/* Only the top node gets these. */
static void apply_top_mode(struct blockdev_options *options, const struct open_mode *mode)
{
    apply_mode(options, mode);
    if (!options->has_detect_zeroes && mode->detect_zeroes) {
        options->has_detect_zeroes = true;
        options->detect_zeroes = mode->detect_zeroes == BLOCK_DETECT_ZEROES_UNMAP ? BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP
                                                                                  : BLOCKDEV_DETECT_ZEROES_OPTIONS_ON;
    }
    if (!options->node_name && mode->node_name)
        options->node_name = xstrdup(mode->node_name);
}

static bool file_options(struct graph *graph, const char *filename, const struct open_mode *mode,
                         struct blockdev_options *options, struct error *err)
{
    char *path = name_to_path(filename, err);
    if (!path)
        return false;
    bool is_device = name_is_device(graph, path);
    options->driver = is_device ? BLOCKDEV_DRIVER_HOST_DEVICE : BLOCKDEV_DRIVER_FILE;
    struct blockdev_options_file *file = is_device ? &options->u.host_device : &options->u.file;
    file->locking = ON_OFF_AUTO_AUTO;
    file->filename = path;
    if (mode->aio) {
        file->has_aio = true;
        file->aio = (enum blockdev_aio_options)(mode->aio - 1);
    }
    return true;
}

static struct blockdev_options *protocol_options(struct graph *graph, const char *filename,
                                                 const struct open_mode *mode, struct error *err)
{
    struct blockdev_options *options = blockdev_options_new();
    const struct block_driver *driver = driver_of_name(graph, filename);
    bool ok = driver ? driver->parse_name(filename, options, err) : file_options(graph, filename, mode, options, err);
    if (!ok) {
        blockdev_options_free(options);
        return NULL;
    }
    apply_mode(options, mode);
    if (!options->has_discard) {
        options->has_discard = true; /* what the format passes down is meant */
        options->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
    return options;
}

static bool can_have_backing(const struct blockdev_options *options)
{
    const struct schema_type *branch = blockdev_options_type.branches[options->driver].type;
    for (unsigned i = 0; branch && i < branch->n_members; i++) {
        if (!strcmp(branch->members[i].name, "backing"))
            return true;
    }
    return false;
}

/* The options of formats with a backing file begin with BlockdevOptionsGenericCOWFormat: bases come first in memory. */
static void set_no_backing(struct blockdev_options *options)
{
    if (!can_have_backing(options))
        return;
    struct blockdev_options_generic_cow_format *cow = (struct blockdev_options_generic_cow_format *)&options->u;
    if (cow->backing)
        return;
    cow->backing = blockdev_ref_or_null_new();
    cow->backing->kind = BLOCKDEV_REF_OR_NULL_KIND_NULL;
}

/* `driver` = format over a node that is open already. */
static struct blockdev_options *format_options(const char *format, const struct node *file, struct error *err)
{
    auto_json *json = json_new_object();
    json_set(json, "driver", json_new_string(format));
    json_set(json, "file", json_new_string(file->name));
    struct blockdev_options *options = NULL;
    if (!blockdev_options_from_json(json, &options, err)) {
        fail_prefix(err, "Cannot use '%s' as the format of '%s': ", format,
                    file->filename ? file->filename : file->name);
        return NULL;
    }
    return options;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static struct node *open_in_parts(struct graph *graph, const struct block_driver *driver, const char *filename,
                                  const struct open_mode *mode, const struct node *opener, struct error *err)
{
    if (opener)
        return fail_null(err, EACCES, "'%s' is not a name that may stand in an image", filename);
    auto_blockdev_options *options = blockdev_options_new();
    struct node *parts[2] = {NULL}, *node = NULL;
    if (driver->open_parts(graph, filename, mode, options, parts, err)) {
        apply_mode(options, mode);
        node = graph_open(graph, options, &(struct open_context){0}, err);
    }
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        if (parts[i])
            node_unref(parts[i]);
    }
    return node;
}

static struct node *open_protocol(struct graph *graph, const char *filename, const struct open_mode *mode,
                                  struct node *opener, struct error *err)
{
    const struct block_driver *driver = driver_of_name(graph, filename);
    if (driver && driver->open_parts)
        return open_in_parts(graph, driver, filename, mode, opener, err);
    auto_blockdev_options *options = protocol_options(graph, filename, mode, err);
    return options ? graph_open(graph, options, &(struct open_context){.opener = opener}, err) : NULL;
}

struct node *node_open_protocol(struct graph *graph, const char *filename, const struct open_mode *mode,
                                struct error *err)
{
    return open_protocol(graph, filename, mode, NULL, err);
}

static const char *probe_node(struct node *file, struct error *err)
{
    struct edge *edge = edge_attach(NULL, "format probing", file, 0, BLOCK_PERM_ALL, err);
    const struct block_driver *driver = edge ? probe_format(edge, err) : NULL;
    edge_detach(edge);
    return driver ? driver->name : NULL;
}

/* The format over an open file; takes the reference of `file`. `format` NULL: probed. */
static struct node *open_format_over(struct graph *graph, struct node *file, const char *format,
                                     const struct open_mode *mode, struct open_context context, struct error *err)
{
    struct node *node = NULL;
    context.probed = !format;
    if (!format)
        format = probe_node(file, err);
    auto_blockdev_options *options = format ? format_options(format, file, err) : NULL;
    if (options) {
        if (mode->no_backing)
            set_no_backing(options);
        apply_top_mode(options, mode);
        node = graph_open(graph, options, &context, err);
    }
    node_unref(file);
    return node;
}

static bool is_protocol_driver(const struct graph *graph, const char *name)
{
    const struct block_driver *driver = name ? graph_driver(graph, name) : NULL;
    return driver && driver->kind == DRIVER_PROTOCOL;
}

/* Options as a tree (json:{...}, --image-opts) -------------------------------------------------------------------- */

static struct blockdev_options *options_from_tree(const struct json *tree, enum schema_input input, struct error *err)
{
    void *options = NULL;
    return schema_read(&blockdev_options_type, tree, input, &options, err) ? options : NULL;
}

/* Without a driver: the "file" of the tree is opened and probed, the driver found goes on top. */
static struct node *open_tree_probed(struct graph *graph, struct json *tree, enum schema_input input,
                                     const struct open_mode *mode, struct open_context context, struct error *err)
{
    const struct json *file_tree = json_get(tree, "file");
    if (!file_tree || json_kind(file_tree) != JSON_OBJECT)
        return fail_null(err, EINVAL, "The options name neither a 'driver' nor a 'file' whose format could be probed");
    auto_blockdev_options *file_options = options_from_tree(file_tree, input, err);
    if (!file_options)
        return NULL;
    apply_mode(file_options, mode);
    struct node *file = graph_open(graph, file_options, &context, err);
    if (!file)
        return NULL;
    struct node *node = NULL;
    const char *format = probe_node(file, err);
    if (format) {
        json_set(tree, "driver", json_new_string(format));
        json_set(tree, "file", json_new_string(file->name));
        auto_blockdev_options *options = options_from_tree(tree, input, err);
        if (options) {
            if (mode->no_backing)
                set_no_backing(options);
            apply_top_mode(options, mode);
            context.probed = true;
            node = graph_open(graph, options, &context, err);
        }
    }
    node_unref(file);
    return node;
}

static struct node *open_tree(struct graph *graph, struct json *tree, enum schema_input input,
                              const struct open_mode *mode, struct open_context context, struct error *err)
{
    if (json_kind(tree) != JSON_OBJECT)
        return fail_null(err, EINVAL, "Options of a node must be an object, not %s", json_kind_name(json_kind(tree)));
    options_tree_complete(graph, tree);
    if (!json_get(tree, "driver"))
        return open_tree_probed(graph, tree, input, mode, context, err);
    auto_blockdev_options *options = options_from_tree(tree, input, err);
    if (!options)
        return NULL;
    if (mode->no_backing)
        set_no_backing(options);
    apply_top_mode(options, mode);
    return graph_open(graph, options, &context, err);
}

static struct node *open_json_name(struct graph *graph, const char *filename, const char *format,
                                   const struct open_mode *mode, struct open_context context, struct error *err)
{
    const char *text = filename + strlen("json:");
    auto_json *tree = json_parse(text, strlen(text), err);
    if (!tree) {
        fail_prefix(err, "Could not parse the JSON options in '%s': ", filename);
        return NULL;
    }
    if (json_kind(tree) == JSON_OBJECT) {
        options_tree_complete(graph, tree);
        const char *driver = json_string(json_get(tree, "driver"));
        if (format && !driver)
            json_set(tree, "driver", json_new_string(format));
        /* The options describe only the file: the format goes on top. Without one, the file is what was asked for. */
        if (is_protocol_driver(graph, driver) && format && strcmp(format, driver)) {
            auto_blockdev_options *options = options_from_tree(tree, SCHEMA_INPUT_JSON, err);
            if (!options)
                return NULL;
            apply_mode(options, mode);
            struct node *file = graph_open(graph, options, &context, err);
            return file ? open_format_over(graph, file, format, mode, context, err) : NULL;
        }
        if (format && driver && strcmp(format, driver))
            return fail_null(err, EINVAL, "The format is said to be '%s', but the options have driver '%s'", format,
                             driver);
    }
    return open_tree(graph, tree, SCHEMA_INPUT_JSON, mode, context, err);
}

static struct node *open_name(struct graph *graph, const char *filename, const char *format,
                              const struct open_mode *mode, struct open_context context, struct error *err)
{
    if (!strncmp(filename, "json:", 5))
        return open_json_name(graph, filename, format, mode, context, err);
    if (is_protocol_driver(graph, format)) {
        auto_blockdev_options *options = protocol_options(graph, filename, mode, err);
        if (!options)
            return NULL;
        if (strcmp(blockdev_driver_name(options->driver), format))
            return fail_null(err, EINVAL, "'%s' is not something that driver '%s' can open", filename, format);
        apply_top_mode(options, mode);
        return graph_open(graph, options, &context, err);
    }
    if (format && !graph_driver(graph, format))
        return fail_null(err, EINVAL, "Unknown driver '%s'", format);
    struct node *file = open_protocol(graph, filename, mode, context.opener, err);
    return file ? open_format_over(graph, file, format, mode, context, err) : NULL;
}

static struct open_context top_context(const struct open_mode *mode)
{
    return (struct open_context){.metadata_only = mode->metadata_only};
}

struct node *node_open_filename(struct graph *graph, const char *filename, const char *format,
                                const struct open_mode *mode, struct error *err)
{
    struct node *node = open_name(graph, filename, format, mode, top_context(mode), err);
    if (!node)
        fail_prefix(err, "Could not open '%s': ", filename);
    return node;
}

struct node *node_open_image_opts(struct graph *graph, const char *text, const struct open_mode *mode,
                                  struct error *err)
{
    auto_json *tree = keyval_parse(text, NULL, err);
    struct node *node = tree ? open_tree(graph, tree, SCHEMA_INPUT_KEYVAL, mode, top_context(mode), err) : NULL;
    if (!node)
        fail_prefix(err, "Could not open '%s': ", text);
    return node;
}

/* Names inside images --------------------------------------------------------------------------------------------- */

static const char *image_name(const struct node *node)
{
    const char *name = node->filename ? node->filename : node->file ? node->file->child->filename : NULL;
    return name ? name : node->name;
}

static bool may_lead_on(const struct node *parent, const char *role, const char *filename, struct error *err)
{
    if (!parent->probed_by_image)
        return true;
    return fail(err, EACCES,
                "Image '%s' names '%s' as its %s file, but was itself taken for '%s' only by its first bytes, which a "
                "guest may have written. If it is meant, say so in the image above: rebase -u -F %s",
                image_name(parent), filename, role, parent->driver->name, parent->driver->name);
}

static struct open_mode child_mode(const struct node *parent, bool is_backing)
{
    return (struct open_mode){
        .read_only = is_backing || parent->read_only,
        .auto_read_only = !is_backing && parent->auto_read_only,
        .force_share = parent->force_share,
        .direct = parent->direct,
        .no_flush = parent->no_flush,
        .unmap = parent->discard == BLOCK_DISCARD_UNMAP,
    };
}

struct edge *node_open_child_by_name(struct node *parent, const char *role, const char *filename, const char *format,
                                     uint32_t perm, uint32_t shared, struct error *err)
{
    if (!may_lead_on(parent, role, filename, err))
        return NULL;
    bool is_backing = !strcmp(role, "backing");
    struct open_mode mode = child_mode(parent, is_backing);
    struct open_context context = {.opener = parent, .probed_by_image = !format};
    auto_free char *name = name_resolve(image_name(parent), filename);
    struct node *child = is_backing || format ? open_name(parent->graph, name, format, &mode, context, err)
                                              : open_protocol(parent->graph, name, &mode, parent, err);
    return child ? graph_attach_child(parent, role, child, perm, shared, err) : NULL; /* the driver adds the context */
}
