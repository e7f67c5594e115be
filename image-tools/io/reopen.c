/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reopen: changes options of the open image, while requests may be in flight. It is blockdev-reopen of the image and of
 * its file, with the options they have and what the command says; a read-only image gives up the permission to write
 * first, a writable one takes it last.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/driver.h"
#include "image-tools/io/io.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

#define PERM_MODIFY (BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE)

struct reopen_options {
    bool read_only, writable;
    const char *cache;
    struct texts options;
};

static const struct tool_option reopen_options[] = {
    OPTION_ROW_FLAG('r', NULL, struct reopen_options, read_only, "read-only from now on"),
    OPTION_ROW_FLAG('w', NULL, struct reopen_options, writable, "writable from now on"),
    OPTION_ROW_TEXT('c', NULL, "MODE", struct reopen_options, cache, "another cache mode"),
    OPTION_ROW_TEXTS('o', NULL, "KEY=VALUE,...", struct reopen_options, options, "options of the image's node"),
    OPTIONS_END,
};

/* What both nodes get. */
struct change {
    bool read_only, has_cache;
    struct open_mode mode;
};

/* Scalars in the way of KEY=VALUE, so that what was and what is new are read alike. */
static struct json *as_texts(const struct json *value)
{
    if (json_kind(value) == JSON_STRING)
        return json_new_string(json_string(value));
    if (json_kind(value) == JSON_BOOL)
        return json_new_string(json_boolean(value) ? "on" : "off");
    if (json_kind(value) == JSON_OBJECT) {
        struct json *object = json_new_object();
        for (struct json_member m = json_first(value); m.key; m = json_next(m))
            json_set(object, m.key, as_texts(m.value));
        return object;
    }
    if (json_kind(value) == JSON_ARRAY) {
        struct json *array = json_new_array();
        for (size_t i = 0; i < json_length(value); i++)
            json_append(array, as_texts(json_at(value, i)));
        return array;
    }
    auto_free char *text = json_to_text(value);
    return json_new_string(text);
}

/* A node's options, with its children by their names: they are nodes by now. */
static struct json *present_options(const struct node *node)
{
    auto_json *options = blockdev_options_to_json(node->options);
    struct json *tree = as_texts(options);
    json_set(tree, "node-name", json_new_string(node->name));
    json_free(json_take(tree, "backing")); /* absent: it stays */
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        if (edge != node->backing)
            json_set(tree, edge->role, json_new_string(edge->child->name));
    }
    return tree;
}

static void set_common(struct json *tree, const struct change *change)
{
    json_set(tree, "read-only", json_new_string(change->read_only ? "on" : "off"));
    if (!change->has_cache)
        return;
    struct json *cache = json_new_object();
    json_set(cache, "direct", json_new_string(change->mode.direct ? "on" : "off"));
    json_set(cache, "no-flush", json_new_string(change->mode.no_flush ? "on" : "off"));
    json_set(tree, "cache", cache);
}

static bool add_texts(struct json *tree, const struct texts *options, struct error *err)
{
    const char **text;
    vec_for_each (text, options) {
        auto_json *more = keyval_parse(*text, NULL, err);
        if (!more)
            return false;
        for (struct json_member m = json_first(more); m.key; m = json_next(m))
            json_set(tree, m.key, json_clone(m.value));
    }
    return true;
}

static struct blockdev_options *new_options(const struct node *node, const struct change *change,
                                            const struct texts *more, struct error *err)
{
    void *options = NULL;
    auto_json *tree = present_options(node);
    set_common(tree, change);
    if (more && !add_texts(tree, more, err))
        return NULL;
    return schema_read(&blockdev_options_type, tree, SCHEMA_INPUT_KEYVAL, &options, err) ? options : NULL;
}

/* The file comes first: the image takes the permission to write of it. */
static bool reopen_nodes(struct node *image, const struct change *change, const struct texts *more, struct error *err)
{
    struct node *file = image->file ? image->file->child : NULL;
    auto_blockdev_options *of_image = new_options(image, change, more, err);
    if (!of_image)
        return false;
    auto_blockdev_options *of_file = file ? new_options(file, change, NULL, err) : NULL;
    if (file && !of_file)
        return false;
    struct blockdev_options *both[2];
    size_t count = 0;
    if (of_file)
        both[count++] = of_file;
    both[count++] = of_image;
    return graph_reopen(image->graph, both, count, err);
}

static bool set_writable(struct io *io, bool writable, struct error *err)
{
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (writable ? PERM_MODIFY : 0);
    return edge_set_perm(io->edge, perm, io->edge->shared, err);
}

static bool reopen(struct io *io, const struct reopen_options *options, struct error *err)
{
    bool was_writable = io->edge->perm & BLOCK_PERM_WRITE, writethrough;
    struct change change = {.read_only = options->read_only || (!options->writable && io->edge->child->read_only),
                            .has_cache = options->cache != NULL};
    if (options->cache && !tool_cache_mode(options->cache, &change.mode, &writethrough, err))
        return fail_prefix(err, "Invalid cache option: ");
    if (change.read_only && !set_writable(io, false, err))
        return false;
    bool ok = reopen_nodes(io->edge->child, &change, &options->options, err) &&
              (change.read_only || set_writable(io, true, err));
    if (!ok && was_writable)
        set_writable(io, true, NULL);
    if (ok)
        io->read_only = change.read_only;
    return ok;
}

static bool reopen_run(struct io *io, void *values, const struct texts *arguments)
{
    const struct reopen_options *options = values;
    auto_error err = {0};
    if (options->read_only && options->writable)
        fail(&err, EINVAL, "Only one -r/-w option may be given");
    else if (reopen(io, options, &err))
        return true;
    log_failure(&err);
    return false;
}

const struct io_command io_reopen = {
    .name = "reopen",
    .arguments = "",
    .summary = "change options of the open image",
    .details = "Example: 'reopen -o lazy-refcounts=on'.\n",
    .options = reopen_options,
    .values_size = sizeof(struct reopen_options),
    .needs_image = true,
    .run = reopen_run,
};
