/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img convert: copies the content of one or more images into a new image, or into one that exists. This file reads the
 * options, opens the sources, makes and opens the target; convert_copy.c copies.
 */
#include "image-tools/img/convert.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "base/size.h"
#include "block/create.h"
#include "block/query.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/convert_options.h"
#include "image-tools/img/convert_resume.h"
#include "image-tools/img/new_image.h"
#include "image-tools/snapshot.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

#define DEFAULT_WORKERS 8
#define MAX_WORKERS 16
#define MAX_SPARSE_SIZE (16 * MiB)

static const struct tool_option convert_options[] = {
    OPTION_ROW_TEXT('f', "source-format", "FMT", struct convert_options, format,
                    "format of the sources (default: probed)"),
    OPTION_ROW_TEXT('O', "target-format", "FMT", struct convert_options, target_format,
                    "format of the target (default: raw)"),
    OPTION_ROW_TEXTS('o', "target-options", "KEY=VALUE[,...]", struct convert_options, options,
                     "options of the target; '-o help' lists them"),
    OPTION_ROW_TEXT('B', "backing", "FILE", struct convert_options, backing,
                    "keep this backing file in the target: store only what the source's top layer has"),
    OPTION_ROW_TEXT('b', NULL, "FILE", struct convert_options, backing, "the same as -B"),
    OPTION_ROW_TEXT('F', "backing-format", "FMT", struct convert_options, backing_format, "format of the backing file"),
    OPTION_ROW_FLAG('c', "compress", struct convert_options, compress, "compress the target"),
    OPTION_ROW_FLAG('n', "no-create", struct convert_options, no_create, "the target exists already"),
    OPTION_ROW_FLAG(0, "target-is-zero", struct convert_options, target_is_zero,
                    "with -n: the target reads as zeroes already"),
    OPTION_ROW_TEXT('S', "sparse-size", "SIZE", struct convert_options, sparse_size,
                    "do not store runs of zeroes of at least this length (default: 4k); 0 stores everything"),
    OPTION_ROW_TEXT('m', "parallel", "COUNT", struct convert_options, workers,
                    "requests in flight, 1 to 16 (default: 8)"),
    OPTION_ROW_FLAG('W', "oob-writes", struct convert_options, out_of_order,
                    "write in any order: faster on some targets, but their clusters get out of order"),
    OPTION_ROW_FLAG('C', "copy-range-offloading", struct convert_options, offload,
                    "let the host's kernel copy where it can"),
    OPTION_ROW_SIZE('r', "rate", "BYTES", struct convert_options, rate, "read no more than this a second"),
    OPTION_ROW_SIZE(0, "rate-limit", "BYTES", struct convert_options, rate, "the same as --rate"),
    OPTION_ROW_FLAG(0, "salvage", struct convert_options, salvage, "zeroes where a source cannot be read"),
    OPTION_ROW_TEXT('t', "target-cache", "MODE", struct convert_options, cache,
                    "cache mode of the target (default: unsafe)"),
    OPTION_ROW_TEXT('T', "source-cache", "MODE", struct convert_options, source_cache,
                    "cache mode of the sources (default: writeback)"),
    OPTION_ROW_FLAG('p', "progress", struct convert_options, progress, "show progress (default on a terminal)"),
    OPTION_ROW_TEXT(0, "output", "human|json", struct convert_options, output,
                    "layout of the progress; json: shown, in lines like {\"done\": 512, \"total\": 1024}"),
    OPTION_ROW_FLAG(0, "checksum", struct convert_options, checksum,
                    "read the target back when it is written, and compare it with the sources"),
    OPTION_ROW_FLAG(0, "resume", struct convert_options, resume,
                    "go on where an interrupted conversion was, and can be interrupted again"),
    OPTION_ROW_TEXT(0, "resume-state", "FILE", struct convert_options, resume_state,
                    "with --resume: where that is noted (default: TARGET.resume)"),
    OPTION_ROW_FLAG('q', "quiet", struct convert_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct convert_options, force_share,
                    "open the sources even if another program is writing to them"),
    OPTION_ROW_FLAG(0, "confined", struct convert_options, confined,
                    "parse the sources in a process of its own that can do nothing else"),
    OPTION_ROW_FLAG(0, "image-opts", struct convert_options, image_opts, "the sources are driver=FORMAT,..."),
    OPTION_ROW_FLAG(0, "target-image-opts", struct convert_options, target_image_opts,
                    "the target is driver=FORMAT,...; needs -n"),
    OPTION_ROW_TEXT('l', "source-snapshot", "SNAPSHOT", struct convert_options, snapshot,
                    "convert this internal snapshot of the source: its ID or name, or "
                    "snapshot.id=ID,snapshot.name=NAME"),
    OPTION_ROW_FLAG(0, "bitmaps", struct convert_options, bitmaps, "copy the source's persistent bitmaps, too"),
    OPTION_ROW_FLAG(0, "skip-broken-bitmaps", struct convert_options, skip_broken_bitmaps,
                    "with --bitmaps: warn about bitmaps that are inconsistent, and go on without them"),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct convert_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static void set_defaults(void *values)
{
    struct convert_options *options = values;
    options->source_cache = "writeback";
}

/* Options --------------------------------------------------------------------------------------------------------- */

static bool check_combinations(const struct convert_options *options, size_t n_sources, struct error *err)
{
    if (options->no_create && options->options.count)
        return fail(err, EINVAL, "-o has no effect when skipping image creation");
    if (options->target_is_zero && !options->no_create)
        return fail(err, EINVAL, "--target-is-zero requires use of -n flag");
    if (options->target_image_opts && !options->no_create)
        return fail(err, EINVAL, "--target-image-opts requires use of -n flag");
    if (options->target_image_opts && options->target_format)
        return fail(err, EINVAL, "-O and --target-image-opts exclude each other");
    if (options->image_opts && options->format)
        return fail(err, EINVAL, "-f and --image-opts exclude each other");
    if (options->offload && options->compress)
        return fail(err, EINVAL, "Cannot enable copy offloading when -c is used");
    if (options->offload && options->sparse_size)
        return fail(err, EINVAL, "Cannot enable copy offloading when -S is used");
    if (options->offload && options->salvage)
        return fail(err, EINVAL, "Cannot use copy offloading in salvaging mode");
    if (options->checksum && options->salvage)
        return fail(err, EINVAL, "--checksum and --salvage exclude each other: what cannot be read cannot be compared");
    if (options->resume_state && !options->resume)
        return fail(err, EINVAL, "--resume-state needs --resume");
    if (options->resume && options->cache && !strcmp(options->cache, "unsafe"))
        return fail(err, EINVAL,
                    "--resume and -t unsafe exclude each other: only what is on stable storage is skipped");
    if (options->backing && n_sources > 1)
        return fail(err, EINVAL,
                    "Having a backing file for the target makes no sense when concatenating multiple input images");
    if (options->skip_broken_bitmaps && !options->bitmaps)
        return fail(err, EINVAL, "Use of --skip-broken-bitmaps requires --bitmaps");
    if (options->bitmaps && n_sources > 1)
        return fail(err, EINVAL, "Copying bitmaps only possible with single source");
    if (options->bitmaps && options->snapshot)
        return fail(err, EINVAL, "--bitmaps and -l exclude each other: a snapshot has no bitmaps");
    if (options->snapshot && n_sources > 1)
        return fail(err, EINVAL, "No support for concatenating multiple snapshot");
    if (options->backing && !options->backing_format && !options->no_create)
        return fail(err, EINVAL, "Use of backing file requires explicit backing format (-F)");
    return true;
}

static bool read_numbers(const struct convert_options *options, struct conversion *all, struct error *err)
{
    uint64_t workers = DEFAULT_WORKERS;
    if (options->workers && (!parse_size(options->workers, &workers, NULL) || workers < 1 || workers > MAX_WORKERS))
        return fail(err, EINVAL, "Invalid number of coroutines '%s'. Allowed number of coroutines is between 1 and %d",
                    options->workers, MAX_WORKERS);
    /* Packing is what compression waits for: keep every processor busy. */
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (!options->workers && options->compress && processors * 2 > DEFAULT_WORKERS)
        workers = (uint64_t)processors * 2;
    all->workers = (unsigned)workers;
    all->sparse_size = 4 * KiB;
    if (options->sparse_size && (!parse_size(options->sparse_size, &all->sparse_size, NULL) || all->sparse_size % 512 ||
                                 all->sparse_size > MAX_SPARSE_SIZE))
        return fail(err, EINVAL,
                    "Invalid buffer size for sparse output specified: '%s'. Valid sizes are multiples of 512 up to "
                    "%" PRIu64 ". Select 0 to disable sparse detection (fully allocates output).",
                    options->sparse_size, (uint64_t)MAX_SPARSE_SIZE);
    all->rate = options->rate;
    all->compress = options->compress;
    all->offload = options->offload;
    all->salvage = options->salvage;
    all->out_of_order = options->out_of_order || options->compress;
    return true;
}

/* A value that one of the -o has. Owned; NULL: none has it. */
static char *option_value(const struct texts *options, const char *key)
{
    char *value = NULL;
    for (size_t i = 0; i < options->count; i++) {
        char *later = keyval_peek(options->items[i], NULL, key);
        if (later) {
            free(value);
            value = later;
        }
    }
    return value;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool open_sources(struct tool *tool, const struct convert_options *options, const struct texts *arguments,
                         struct conversion *all, struct error *err)
{
    bool writethrough;
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    if (!tool_cache_mode(options->source_cache, &mode, &writethrough, err))
        return fail_prefix(err, "Invalid source cache option: ");
    for (size_t i = 0; i + 1 < arguments->count; i++) {
        struct edge *edge = tool_open(tool, arguments->items[i], options->image_opts, options->format, &mode,
                                      BLOCK_PERM_CONSISTENT_READ, err);
        if (!edge)
            return false;
        vec_push(&all->sources, ((struct source){arguments->items[i], edge, all->size}));
        if (options->snapshot && !snapshot_load(edge, options->snapshot, err))
            return false;
        if (add_overflows(all->size, edge->child->size, &all->size) || all->size > INT64_MAX)
            return fail(err, EFBIG, "The sources are too large together");
    }
    return true;
}

static bool check_compression(const struct block_driver *driver, const struct convert_options *options,
                              struct error *err)
{
    if (!options->compress)
        return true;
    if (!driver->write_compressed)
        return fail(err, ENOTSUP, "Compression not supported for this file format ('%s')", driver->name);
    auto_free char *format = option_value(&options->options, "encrypt.format");
    auto_free char *old_way = option_value(&options->options, "encryption");
    if (format || (old_way && strcmp(old_way, "off")))
        return fail(err, EINVAL, "Compression and encryption not supported at the same time");
    auto_free char *preallocation = option_value(&options->options, "preallocation");
    if (preallocation && strcmp(preallocation, "off"))
        return fail(err, EINVAL, "Compression and preallocation not supported at the same time");
    return true;
}

static bool create_target(struct tool *tool, const struct convert_options *options, const char *format,
                          struct conversion *all, struct error *err)
{
    auto_free char *size = option_value(&options->options, "size");
    struct new_image image = {
        .filename = all->target_name,
        .format = format,
        .options = &options->options,
        .backing = options->backing,
        .backing_format = options->backing_format,
        .size = all->input ? all->input->size : all->size,
        .has_size = !size,
        .quiet = true,
    };
    const struct block_driver *driver = new_image_format(tool, format, err);
    return driver && check_compression(driver, options, err) && new_image_create(tool, &image, err);
}

/* Does all of the target read as zeroes? Gives up when its map has many parts. */
static bool reads_as_zero(struct edge *target)
{
    uint64_t offset = 0;
    for (int parts = 0; offset < target->child->size; parts++) {
        struct block_status status;
        if (parts == 64 ||
            block_status(target, offset, target->child->size - offset, BLOCK_STATUS_PRECISE, &status) < 0 ||
            !status.zero)
            return false;
        offset += status.length;
    }
    return true;
}

/* A new image of a format that maps reads as zeroes; a raw one on a device still has the device's old content, and what
 * moves its bytes itself decrypts noise. Asking the map instead would take preallocated space for data. */
static bool is_zero_when_new(const struct node *node)
{
    return node->driver->create->create_format ? node->driver->map && !node->driver->read
                                               : node->file && node->file->child->growable;
}

/* A new encrypted image is opened with the secret that it was made with. Owned; NULL: its name will do. */
static char *options_with_secret(const struct convert_options *options, const char *format, const char *name)
{
    static const char *const keys[] = {"key-secret", "encrypt.key-secret"};
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !options->no_create; i++) {
        auto_free char *secret = option_value(&options->options, keys[i]);
        if (!secret)
            continue;
        auto_free char *secret_text = keyval_escape(secret), *name_text = keyval_escape(name);
        return xasprintf("driver=%s,%s=%s,file.filename=%s", format, keys[i], secret_text, name_text);
    }
    return NULL;
}

/* Compression takes whole clusters; zeroes may have a finer grain (subclusters). */
static uint64_t allocation_unit(struct node *node, bool compress)
{
    struct image_facts facts = {0};
    if (node->limits.zero_alignment > 1 && !compress)
        return node->limits.zero_alignment;
    if (!node->driver->info || !node->driver->info(node, &facts, NULL))
        return 0;
    free(facts.backing_filename);
    free(facts.full_backing_filename);
    free(facts.backing_format);
    image_info_specific_free(facts.specific);
    return facts.cluster_size;
}

static bool open_target(struct tool *tool, const struct convert_options *options, const char *format,
                        const struct open_mode *mode, struct conversion *all, struct error *err)
{
    auto_free char *opened = options_with_secret(options, format, all->target_name);
    bool is_image_opts = opened || options->target_image_opts;
    all->target = tool_open(tool, opened ? opened : all->target_name, is_image_opts, is_image_opts ? NULL : format,
                            mode, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, err);
    if (!all->target)
        return false;
    struct node *node = all->target->child;
    if (!check_compression(node->driver, options, err))
        return false;
    if (options->compress && !node_compresses(node))
        return fail(err, ENOTSUP, "Compression and encryption not supported at the same time");
    if (node->size < all->size)
        return fail(err, ENOSPC,
                    "output file is smaller than input file: '%s' has %" PRIu64 " bytes, %" PRIu64 " are needed",
                    all->target_name, node->size, all->size);
    if (options->bitmaps && !node->driver->bitmaps)
        return fail(err, ENOTSUP, "Format driver '%s' does not support bitmaps", node->driver->name);
    auto_free char *size = option_value(&options->options, "size");
    all->may_grow = all->input && !options->no_create && !size &&
                    (node->driver->create->create_format || (node->file && node->file->child->growable));
    all->cluster_size = allocation_unit(node, options->compress);
    all->target_is_zero = options->target_is_zero ||
                          (!all->keep_backing && !options->no_create && is_zero_when_new(node)) ||
                          (!all->keep_backing && reads_as_zero(all->target));
    return true;
}

/* Keeping a state (convert_resume.c) ------------------------------------------------------------------------------- */

static struct json *text_or_null(const char *text)
{
    return text ? json_new_string(text) : json_new_null();
}

/* What decides about the bytes of the target, beside the sources. */
static struct json *describe_options(const struct convert_options *options, const struct conversion *all)
{
    struct json *list = json_new_array(), *description = json_new_object();
    for (size_t i = 0; i < options->options.count; i++)
        json_append(list, json_new_string(options->options.items[i]));
    json_set(description, "target-format", json_new_string(convert_format(options)));
    json_set(description, "target-options", list);
    json_set(description, "no-create", json_new_bool(options->no_create));
    json_set(description, "compress", json_new_bool(options->compress));
    json_set(description, "salvage", json_new_bool(options->salvage));
    json_set(description, "sparse-size", json_new_uint(all->sparse_size));
    json_set(description, "backing", text_or_null(options->backing));
    json_set(description, "backing-format", text_or_null(options->backing_format));
    json_set(description, "source-snapshot", text_or_null(options->snapshot));
    return description;
}

static bool begin_resume(const struct convert_options *options, struct conversion *all, struct resume *resume,
                         struct error *err)
{
    bool is_path = !options->target_image_opts && !name_protocol_length(all->target_name);
    if (!options->resume_state && !is_path)
        return fail(err, EINVAL, "--resume needs --resume-state=FILE where the target is not named by a path");
    auto_free char *path =
        options->resume_state ? xstrdup(options->resume_state) : resume_default_path(all->target_name);
    return resume_begin(resume, all, path, describe_options(options, all), err);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static bool prepare_target(struct tool *tool, const struct convert_options *options, const struct open_mode *mode,
                           struct conversion *all, struct resume *resume, struct error *err)
{
    const char *format = convert_format(options);
    if (options->bitmaps && !convert_bitmaps_check(all->sources.items[0].edge, options->skip_broken_bitmaps, err))
        return false;
    if (options->resume && !begin_resume(options, all, resume, err))
        return false;
    bool create = !options->no_create && !resume_goes_on(resume);
    if (create && !options->resume && !name_protocol_length(all->target_name))
        resume_forget(all->target_name);
    if (create && !create_target(tool, options, format, all, err))
        return fail_prefix(err, "error while converting %s: ", format);
    if (!open_target(tool, options, format, mode, all, err))
        return false;
    return !options->resume || resume_open_target(resume, err);
}

static bool prepare(struct tool *tool, const struct convert_options *options, const struct texts *arguments,
                    struct conversion *all, struct resume *resume, struct error *err)
{
    auto_free char *backing = option_value(&options->options, "backing_file");
    all->loop = tool->loop;
    all->target_name = arguments->items[arguments->count - 1];
    all->keep_backing = options->backing || backing;
    struct open_mode mode = {.unmap = true};
    if (!check_combinations(options, arguments->count - 1, err) || !read_numbers(options, all, err) ||
        !convert_streams_check(options, arguments, err))
        return false;
    const char *cache = options->cache ? options->cache : options->resume ? "writeback" : "unsafe";
    if (!tool_cache_mode(cache, &mode, &all->writethrough, err))
        return fail_prefix(err, "Invalid cache option: ");
    if (stream_is_meant(arguments->items[0]))
        stream_open_input(all->input = new (struct stream));
    else if (!open_sources(tool, options, arguments, all, err))
        return false;
    if (stream_is_meant(all->target_name))
        return convert_streams_begin(tool, options, all, err);
    return prepare_target(tool, options, &mode, all, resume, err);
}

static bool convert_all(struct tool *tool, const struct convert_options *options, const struct texts *arguments,
                        struct conversion *all, struct resume *resume, struct error *err)
{
    bool show = (options->progress || all->progress.as_json) && !options->quiet;
    if (!prepare(tool, options, arguments, all, resume, err) ||
        !conversion_run(all, options->resume ? resume : NULL, show, options->quiet) ||
        (options->checksum && !conversion_verify(all, err)))
        return false;
    if (!options->bitmaps)
        return true;
    return (!options->resume || resume_clear_bitmaps(resume, err)) &&
           convert_bitmaps(all->sources.items[0].edge, all->target, err);
}

static void release(struct conversion *all)
{
    struct source *source;
    vec_for_each (source, &all->sources)
        tool_close(source->edge);
    vec_free(&all->sources);
    tool_close(all->target);
    free(all->input);
    free(all->output);
    if (all->plan)
        vec_free(all->plan);
    free(all->plan);
}

static int convert_images(struct tool *tool, const struct convert_options *options, const struct texts *arguments)
{
    auto_error err = {0};
    struct conversion all = {0};
    struct resume resume = {0};
    enum output_format output;
    if (!img_output_format(options->output, &output))
        return 1;
    all.progress.as_json = output == OUTPUT_JSON;
    bool ok = convert_all(tool, options, arguments, &all, &resume, &err);
    if (error_is_set(&err))
        img_fail(&err, 1);
    release(&all);
    if (ok && options->resume)
        resume_finish(&resume);
    resume_release(&resume);
    return ok ? 0 : 1;
}

static int convert_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct convert_options *options = values;
    tool->confined = options->confined;
    auto_error err = {0};
    if (!options->target_image_opts && options->options.count) {
        const struct block_driver *format = new_image_format(tool, convert_format(options), &err);
        if (!format)
            return img_fail(&err, 1);
        if (new_image_help(format, &options->options))
            return 0;
    }
    if (arguments->count < 2) {
        log_error("Must specify image file name: at least one source and a target");
        return 1;
    }
    return convert_images(tool, options, arguments);
}

const struct img_command img_convert = {
    .name = "convert",
    .arguments = "SOURCE... TARGET",
    .summary = "Copy images into another one, of the same or another format",
    .details =
        "Several sources are put one behind the other.\n"
        "SOURCE '-' is a raw image on standard input, TARGET '-' is standard output: raw, or qcow2 without -c.\n",
    .options = convert_options,
    .values_size = sizeof(struct convert_options),
    .set_defaults = set_defaults,
    .run = convert_run,
};
