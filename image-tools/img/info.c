/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img info: what an image says about itself, and with --backing-chain, every image below it.
 *
 * The image may be anybody's, so each image of a chain is opened alone, without the backing file it names, and a chain
 * that leads back to itself is noticed by the identity of the files. An overlay whose backing file is gone can still be
 * looked at.
 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "base/printable.h"
#include "base/size.h"
#include "block/query.h"
#include "image-tools/img/command.h"
#include "image-tools/snapshot.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

#define BUFFER_ALIGNMENT 4096u /* of block_alloc_buffer() at least */

struct info_options {
    const char *format, *output, *cache;
    bool backing_chain, force_share, image_opts, confined, limits;
    struct texts objects;
};

static const struct tool_option info_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct info_options, format, "format of the image (default: probed)"),
    OPTION_ROW_FLAG('b', "backing-chain", struct info_options, backing_chain, "also describe the images below it"),
    OPTION_ROW_FLAG(0, "limits", struct info_options, limits,
                    "also tell what requests the image, and the nodes it consists of, take"),
    OPTION_ROW_TEXT(0, "output", "human|json", struct info_options, output, "layout of the result (default: human)"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct info_options, cache, "cache mode to open the image with"),
    OPTION_ROW_FLAG('U', "force-share", struct info_options, force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "confined", struct info_options, confined,
                    "parse the image in a process of its own that can do nothing else"),
    OPTION_ROW_FLAG(0, "image-opts", struct info_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct info_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static void print_size(const char *label, uint64_t size)
{
    char buffer[FORMAT_SIZE_MAX];
    printf("%s: %s", label, format_size(buffer, size));
}

static void print_specific(const struct image_info_specific *specific, unsigned indent)
{
    if (!specific)
        return;
    auto_json *json = image_info_specific_to_json(specific);
    const struct json *data = json_get(json, "data");
    if (!data || !json_length(data))
        return;
    printf("%*sFormat specific information:\n", (int)indent, "");
    tool_print_members(data, indent + 4);
}

static void print_limits(const struct block_limits_info *limits, unsigned indent)
{
    if (!limits)
        return;
    auto_json *json = block_limits_info_to_json(limits);
    printf("%*sBlock limits:\n", (int)indent, "");
    tool_print_members(json, indent + 4);
}

/* A child, such as the file that holds the image; `path` names its place ("/file", "/file/file"). */
static void print_child(const char *path, const struct block_graph_info *info)
{
    auto_free char *filename = printable(info->filename);
    printf("Child node '%s':\n    filename: %s\n    protocol type: %s\n", path, filename, info->format);
    print_size("    file length", info->virtual_size);
    printf(" (%" PRIu64 " bytes)\n", info->virtual_size);
    if (info->has_actual_size) {
        print_size("    disk size", info->actual_size);
        printf("\n");
    }
    print_limits(info->limits, 4);
    print_specific(info->format_specific, 4);
    for (size_t i = 0; i < info->n_children; i++) {
        auto_free char *deeper = xasprintf("%s/%s", path, info->children[i]->name);
        print_child(deeper, info->children[i]->info);
    }
}

static void print_backing(const struct block_graph_info *info)
{
    if (!info->backing_filename)
        return;
    auto_free char *name = printable(info->backing_filename), *path = printable(info->full_backing_filename);
    auto_free char *format = printable(info->backing_filename_format);
    printf("backing file: %s", name);
    if (!path)
        printf(" (cannot determine actual path)");
    else if (strcmp(info->backing_filename, info->full_backing_filename))
        printf(" (actual path: %s)", path);
    printf("\n");
    if (format)
        printf("backing file format: %s\n", format);
}

static void print_snapshots(const struct block_graph_info *info)
{
    if (!info->n_snapshots)
        return;
    auto_free struct internal_snapshot *items = new_array(struct internal_snapshot, info->n_snapshots);
    for (size_t i = 0; i < info->n_snapshots; i++) {
        const struct snapshot_info *snapshot = info->snapshots[i];
        items[i] = (struct internal_snapshot){
            .id = snapshot->id,
            .name = snapshot->name,
            .vm_state_size = (uint64_t)snapshot->vm_state_size,
            .date_s = (uint32_t)snapshot->date_sec,
            .vm_clock_ns = (uint64_t)snapshot->vm_clock_sec * 1000000000 + (uint64_t)snapshot->vm_clock_nsec,
            .icount = snapshot->has_icount ? (uint64_t)snapshot->icount : UINT64_MAX,
        };
    }
    snapshot_list_print(&(struct snapshot_list){items, info->n_snapshots});
}

static void print_human(const struct block_graph_info *info)
{
    auto_free char *filename = printable(info->filename), *format = printable(info->format);
    printf("image: %s\nfile format: %s\n", filename, format);
    print_size("virtual size", info->virtual_size);
    printf(" (%" PRIu64 " bytes)\n", info->virtual_size);
    if (info->has_actual_size) {
        print_size("disk size", info->actual_size);
        printf("\n");
    } else {
        printf("disk size: unavailable\n");
    }
    if (info->has_encrypted && info->encrypted)
        printf("encrypted: yes\n");
    if (info->has_cluster_size)
        printf("cluster_size: %" PRIu64 "\n", info->cluster_size);
    if (info->has_dirty_flag && info->dirty_flag)
        printf("cleanly shut down: no\n");
    print_backing(info);
    print_snapshots(info);
    print_limits(info->limits, 0);
    print_specific(info->format_specific, 0);
    for (size_t i = 0; i < info->n_children; i++) {
        auto_free char *path = xasprintf("/%s", info->children[i]->name);
        print_child(path, info->children[i]->info);
    }
}

/* Members in the order that readers are used to: the children first. */
static struct json *children_first(struct json *info)
{
    struct json *ordered = json_new_object();
    auto_json *children = json_take(info, "children");
    struct json *list = json_new_array();
    for (size_t i = 0; i < json_length(children); i++) {
        struct json *child = json_clone(json_at(children, i));
        json_set(child, "info", children_first(json_take(child, "info")));
        json_append(list, child);
    }
    json_set(ordered, "children", list);
    for (struct json_member m = json_first(info); m.key; m = json_next(m))
        json_set(ordered, m.key, json_clone(m.value));
    json_free(info);
    return ordered;
}

/* Readers expect this member of every image. */
static void set_dirty_flag(struct block_graph_info *info)
{
    info->has_dirty_flag = true;
    for (size_t i = 0; i < info->n_children; i++)
        set_dirty_flag(info->children[i]->info);
}

static void print_json(const struct block_graph_info_list *chain, bool is_array)
{
    auto_json *list = json_new_array();
    for (size_t i = 0; i < chain->n; i++) {
        set_dirty_flag(chain->items[i]);
        json_append(list, children_first(block_graph_info_to_json(chain->items[i])));
    }
    auto_free char *text = json_to_pretty_text(is_array ? list : json_at(list, 0));
    printf("%s\n", text);
}

/* The chain ------------------------------------------------------------------------------------------------------- */

struct visited {
    uint64_t device, inode;
    char *filename;
};
vec_of(visits, struct visited);

static bool visit(struct visits *visits, const struct node *node, const char *filename, struct error *err)
{
    while (node->file)
        node = node->file->child;
    struct visited *seen;
    vec_for_each (seen, visits) {
        bool same_file = node->host_inode && seen->inode == node->host_inode && seen->device == node->host_device;
        if (same_file || !strcmp(seen->filename, filename))
            return fail(err, ELOOP, "Backing file '%s' creates an infinite loop", filename);
    }
    vec_push(visits, ((struct visited){node->host_device, node->host_inode, xstrdup(filename)}));
    return true;
}

static struct block_limits_info *limits_of(const struct node *node)
{
    const struct block_limits *from = &node->limits;
    struct block_limits_info *limits = block_limits_info_new();
    limits->request_alignment = MAX(from->request_alignment, 1u);
    limits->has_max_discard = from->max_discard != 0;
    limits->max_discard = from->max_discard;
    limits->has_discard_alignment = from->discard_alignment != 0;
    limits->discard_alignment = (uint32_t)from->discard_alignment;
    limits->has_max_write_zeroes = from->max_zero != 0;
    limits->max_write_zeroes = from->max_zero;
    limits->has_write_zeroes_alignment = from->zero_alignment != 0;
    limits->write_zeroes_alignment = (uint32_t)from->zero_alignment;
    limits->has_opt_transfer = from->optimal_transfer != 0;
    limits->opt_transfer = from->optimal_transfer;
    limits->has_max_transfer = from->max_transfer && from->max_transfer <= UINT32_MAX;
    limits->max_transfer = limits->has_max_transfer ? (uint32_t)from->max_transfer : 0;
    limits->max_iov = IOV_MAX;
    limits->min_mem_alignment = MAX(from->memory_alignment, 1u);
    limits->opt_mem_alignment = MAX(from->memory_alignment, BUFFER_ALIGNMENT);
    return limits;
}

/* The description has the node's children in their order, but for the backing node. */
static void add_limits(const struct node *node, struct block_graph_info *info)
{
    size_t i = 0;
    const struct edge *edge;
    info->limits = limits_of(node);
    list_for_each (edge, &node->children, parent_link) {
        if (edge != node->backing && i < info->n_children)
            add_limits(edge->child, info->children[i++]->info);
    }
}

static struct block_graph_info *describe_one(struct tool *tool, const char *filename, const char *format,
                                             bool is_image_opts, const struct open_mode *mode, bool with_limits,
                                             struct visits *visits, struct error *err)
{
    struct edge *edge = tool_open(tool, filename, is_image_opts, format, mode, 0, err);
    if (!edge)
        return NULL;
    struct block_graph_info *info = NULL;
    if (visit(visits, edge->child, filename, err))
        info = node_query_graph(edge->child, err);
    if (info && with_limits)
        add_limits(edge->child, info);
    if (info && tool->confined) {
        free(info->format);
        info->format = xstrdup(tool_format(edge->child));
    }
    tool_close(edge);
    return info;
}

static bool describe_chain(struct tool *tool, const struct info_options *options, const char *filename,
                           struct block_graph_info_list *chain, struct visits *visits, struct error *err)
{
    bool writethrough;
    struct open_mode mode = {
        .read_only = true, .no_backing = true, .metadata_only = true, .force_share = options->force_share};
    if (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, err))
        return false;
    struct block_graph_info *info =
        describe_one(tool, filename, options->format, options->image_opts, &mode, options->limits, visits, err);
    while (info) {
        block_graph_info_list_append(chain, info);
        if (!options->backing_chain || !info->full_backing_filename)
            return true;
        info = describe_one(tool, info->full_backing_filename, info->backing_filename_format, false, &mode,
                            options->limits, visits, err);
    }
    return false;
}

static int print_chain(const struct block_graph_info_list *chain, const struct info_options *options,
                       enum output_format output)
{
    if (output == OUTPUT_JSON) {
        print_json(chain, options->backing_chain);
        return 0;
    }
    for (size_t i = 0; i < chain->n; i++) {
        printf("%s", i ? "\n" : "");
        print_human(chain->items[i]);
    }
    return 0;
}

static int info_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct info_options *options = values;
    tool->confined = options->confined;
    auto_error err = {0};
    enum output_format output;
    if (!img_output_format(options->output, &output))
        return 1;
    auto_block_graph_info_list *chain = block_graph_info_list_new();
    struct visits visits = {0};
    bool ok = describe_chain(tool, options, arguments->items[0], chain, &visits, &err);
    struct visited *seen;
    vec_for_each (seen, &visits)
        free(seen->filename);
    vec_free(&visits);
    return ok ? print_chain(chain, options, output) : img_fail(&err, 1);
}

const struct img_command img_info = {
    .name = "info",
    .arguments = "FILE",
    .summary = "Describe an image",
    .options = info_options,
    .values_size = sizeof(struct info_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = info_run,
};
