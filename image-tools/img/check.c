/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img check: is the metadata of an image consistent? With -r, what can be repaired is, and the image is checked once
 * more; the exit status is that of the last check:
 *
 *     0 good   1 the check could not be done   2 corrupt   3 leaks only   63 the format has no check
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "block/request.h"
#include "confined/driver.h"
#include "image-tools/img/command.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

#define STATUS_FAILED 1
#define STATUS_CORRUPT 2
#define STATUS_LEAKS 3
#define STATUS_NO_CHECK 63

struct check_options {
    const char *format, *output, *repair, *cache;
    bool quiet, force_share, image_opts, confined;
    struct texts objects;
};

static const struct tool_option check_options[] = {
    OPTION_ROW_TEXT('f', "format", "FMT", struct check_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT('r', "repair", "leaks|all", struct check_options, repair,
                    "repair leaks only, or everything that can be repaired"),
    OPTION_ROW_TEXT(0, "output", "human|json", struct check_options, output, "layout of the result (default: human)"),
    OPTION_ROW_TEXT('T', "cache", "MODE", struct check_options, cache,
                    "cache mode to open the image with (default: writeback)"),
    OPTION_ROW_TEXT(0, "source-cache", "MODE", struct check_options, cache, "the same as --cache"),
    OPTION_ROW_FLAG('q', "quiet", struct check_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct check_options, force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "confined", struct check_options, confined,
                    "parse the image in a process of its own that can do nothing else"),
    OPTION_ROW_FLAG(0, "image-opts", struct check_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct check_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static bool parse_repair(const char *text, uint32_t *repair)
{
    *repair = 0;
    if (!text)
        return true;
    if (!strcmp(text, "leaks"))
        *repair = CHECK_REPAIR_LEAKS;
    else if (!strcmp(text, "all"))
        *repair = CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS;
    else
        log_error("Unknown option value for -r (expecting 'leaks' or 'all'): %s", text);
    return *repair != 0;
}

static void print_problems(const struct image_check *check)
{
    if (!check->corruptions && !check->leaks && !check->check_errors)
        printf("No errors were found on the image.\n");
    if (check->corruptions)
        printf("\n%" PRId64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               check->corruptions);
    if (check->leaks)
        printf("\n%" PRId64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               check->leaks);
    if (check->check_errors)
        printf("\n%" PRId64 " internal errors have occurred during the check.\n", check->check_errors);
}

static double percent(int64_t part, int64_t whole)
{
    return whole ? (double)part * 100 / (double)whole : 0;
}

static void print_human(const struct image_check *check)
{
    print_problems(check);
    if (check->total_clusters && check->allocated_clusters)
        printf("%" PRId64 "/%" PRId64 " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               check->allocated_clusters, check->total_clusters,
               percent(check->allocated_clusters, check->total_clusters),
               percent(check->fragmented_clusters, check->allocated_clusters),
               percent(check->compressed_clusters, check->allocated_clusters));
    if (check->image_end_offset)
        printf("Image end offset: %" PRId64 "\n", check->image_end_offset);
}

/* Counters that are zero are left out, as readers expect. */
static void set_presence(struct image_check *check)
{
    check->has_image_end_offset = check->image_end_offset != 0;
    check->has_total_clusters = check->total_clusters != 0;
    check->has_allocated_clusters = check->allocated_clusters != 0;
    check->has_fragmented_clusters = check->fragmented_clusters != 0;
    check->has_compressed_clusters = check->compressed_clusters != 0;
    check->has_leaks = check->leaks != 0;
    check->has_corruptions = check->corruptions != 0;
    check->has_leaks_fixed = check->leaks_fixed != 0;
    check->has_corruptions_fixed = check->corruptions_fixed != 0;
}

static void print_json(struct image_check *check)
{
    set_presence(check);
    auto_json *json = image_check_to_json(check);
    auto_free char *text = json_to_pretty_text(json);
    printf("%s\n", text);
}

static void print_repairs(const struct image_check *check)
{
    printf("The following inconsistencies were found and repaired:\n\n    %" PRId64 " leaked clusters\n    %" PRId64
           " corruptions\n\nDouble checking the fixed image now...\n",
           check->leaks_fixed, check->corruptions_fixed);
}

static bool check_once(struct node *node, uint32_t repair, struct image_check *check, struct error *err)
{
    node_drain_begin(node);
    int result = node->driver->check(node, repair, check, err);
    node_drain_end(node);
    if (result < 0 && !error_is_set(err))
        fail_errno(err, -result, "Check failed");
    return result >= 0;
}

static int check_node(struct node *node, uint32_t repair, bool quiet, enum output_format output,
                      struct image_check *check, struct error *err)
{
    if (!check_once(node, repair, check, err))
        return STATUS_FAILED;
    int64_t leaks_fixed = check->leaks_fixed, corruptions_fixed = check->corruptions_fixed;
    if (leaks_fixed || corruptions_fixed) {
        if (!quiet && output == OUTPUT_HUMAN)
            print_repairs(check);
        struct image_check again = {.filename = check->filename, .format = check->format};
        if (!check_once(node, 0, &again, err))
            return STATUS_FAILED;
        *check = again;
        check->leaks_fixed = leaks_fixed;
        check->corruptions_fixed = corruptions_fixed;
    }
    if (output == OUTPUT_JSON && !quiet)
        print_json(check);
    else if (!quiet)
        print_human(check);
    if (check->check_errors)
        return STATUS_FAILED;
    return check->corruptions ? STATUS_CORRUPT : check->leaks ? STATUS_LEAKS : 0;
}

static int check_edge(struct edge *edge, const char *filename, uint32_t repair, bool quiet, enum output_format output)
{
    struct node *node = edge->child;
    auto_error err = {0};
    if (!node->driver->check || (confined_format(node) && !confined_can_check(node))) {
        log_error("This image format does not support checks ('%s' has format %s)", filename, tool_format(node));
        return STATUS_NO_CHECK;
    }
    struct image_check check = {.filename = (char *)filename, .format = (char *)tool_format(node)};
    int status = check_node(node, repair, quiet, output, &check, &err);
    if (error_is_set(&err))
        return img_fail(&err, STATUS_FAILED);
    int flushed = repair ? block_flush(edge) : 0;
    if (flushed) {
        fail_errno(&err, -flushed, "Could not write the repaired image '%s'", filename);
        return img_fail(&err, STATUS_FAILED);
    }
    return status;
}

static int check_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct check_options *options = values;
    tool->confined = options->confined;
    auto_error err = {0};
    enum output_format output;
    uint32_t repair;
    bool writethrough;
    if (!img_output_format(options->output, &output) || !parse_repair(options->repair, &repair))
        return STATUS_FAILED;
    /* Only this image is looked at: a backing file may be missing. */
    struct open_mode mode = {
        .read_only = !repair,
        .no_backing = true,
        .metadata_only = true,
        .force_share = options->force_share,
    };
    if (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, &err))
        return img_fail(&err, STATUS_FAILED);
    uint32_t perm =
        repair ? BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE : BLOCK_PERM_CONSISTENT_READ;
    struct edge *edge = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode, perm, &err);
    if (!edge)
        return img_fail(&err, STATUS_FAILED);
    int status = check_edge(edge, arguments->items[0], repair, options->quiet, output);
    tool_close(edge);
    return status;
}

const struct img_command img_check = {
    .name = "check",
    .arguments = "FILE",
    .summary = "Check the metadata of an image, and repair it",
    .details = "Exit status: 0 good, 1 the check could not be done, 2 corrupt, 3 leaked clusters only, 63 the format "
               "has no check.\n",
    .options = check_options,
    .values_size = sizeof(struct check_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = check_run,
};
