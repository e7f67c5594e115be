/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts that people write to name things: sizes, file names (json: ones as well), --image-opts, -o options, the options
 * of a program, names inside of images, and the first bytes of a file whose format is asked for. The first byte says
 * which. Opening happens on simulated disks, so no name leads out of the harness.
 *
 * links: image-tools
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/sim.h"
#include "base/size.h"
#include "block/create.h"
#include "block/name.h"
#include "block/probe.h"
#include "formats/qcow2/qcow2.h"
#include "formats/table.h"
#include "image-tools/options.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"
#include "tests/fuzz/common/fuzz.h"

struct input {
    struct loop *loop;
    struct graph *graph;
    const char *text;
    size_t size;
    unsigned kind;
};

static void check_size(const char *text)
{
    auto_error err = {0}, other = {0};
    uint64_t size = 0, again = 0;
    const char *end = text;
    bool good = parse_size(text, &size, &err);
    FUZZ_CHECK(good || (err.message && *err.message));
    bool has_prefix = parse_size_prefix(text, 1, &end, &again, &other);
    FUZZ_CHECK(!good || (has_prefix && !*end && size == again));
    FUZZ_CHECK(end >= text && end <= text + strlen(text));
    char buffer[FORMAT_SIZE_MAX];
    if (!good)
        return;
    FUZZ_CHECK(format_size(buffer, size) == buffer && strlen(buffer) < sizeof buffer);
    auto_free char *bytes = xasprintf("%llu", (unsigned long long)size);
    FUZZ_CHECK(parse_size(bytes, &again, &other) && again == size);
}

static void check_resolve(const char *text)
{
    const char *newline = strchr(text, '\n');
    auto_free char *base = newline ? xstrndup(text, (size_t)(newline - text)) : NULL;
    const char *name = newline ? newline + 1 : text;
    FUZZ_CHECK(name_protocol_length(name) <= strlen(name));
    auto_free char *resolved = name_resolve(base, name);
    FUZZ_CHECK(resolved);
    if (*name == '/')
        FUZZ_CHECK(!strcmp(resolved, name));
}

struct values {
    bool flag;
    const char *text;
    struct texts texts;
    uint64_t size;
};

/* Lines are arguments. */
static void check_options(const char *text)
{
    static const struct tool_option table[] = {
        OPTION_ROW_FLAG('f', "flag", struct values, flag, "a flag"),
        OPTION_ROW_TEXT('t', "text", "TEXT", struct values, text, "a text"),
        OPTION_ROW_TEXTS('o', NULL, "TEXT", struct values, texts, "texts"),
        OPTION_ROW_SIZE(0, "size", "SIZE", struct values, size, "a size"),
        OPTION_ROW_LATER('l', "later", "WHAT", "more"),
        OPTIONS_END,
    };
    auto_free char *lines = xstrdup(text);
    char *argv[40] = {"fuzz"}, *rest_of_lines = NULL;
    int argc = 1;
    for (char *line = strtok_r(lines, "\n", &rest_of_lines); line && argc < 39;
         line = strtok_r(NULL, "\n", &rest_of_lines))
        argv[argc++] = line;
    for (unsigned leading = 0; leading < 2; leading++) {
        struct values values = {0};
        struct texts rest = {0};
        auto_error err = {0};
        enum options_result result =
            (leading ? options_parse_leading : options_parse)(table, argc, argv, &values, &rest, &err);
        FUZZ_CHECK(result != OPTIONS_BAD || (err.message && *err.message));
        FUZZ_CHECK(rest.count < (size_t)argc);
        options_release(table, &values);
        vec_free(&rest);
    }
}

static void check_open(struct input *input)
{
    const struct open_mode mode = {.read_only = input->kind & 8, .metadata_only = input->kind & 16};
    auto_error err = {0};
    struct node *node;
    if (strstr(input->text, "nbd") || strstr(input->text, "NBD"))
        return; /* a server would be asked for, which is outside */
    if (input->kind & 32)
        node = node_open_image_opts(input->graph, input->text, &mode, &err);
    else
        node = node_open_filename(input->graph, input->text, input->kind & 64 ? "qcow2" : NULL, &mode, &err);
    FUZZ_CHECK(node || (err.message && *err.message));
    if (node)
        node_unref(node);
}

static void check_create_options(struct input *input)
{
    auto_qcow2_create_options *options = NULL;
    auto_error err = {0};
    if (!qcow2_create_options_from_keyval(input->text, NULL, &options, &err)) {
        FUZZ_CHECK(err.message && *err.message);
        return;
    }
    if (options->size > 16 * MiB || strstr(input->text, "nbd") || strstr(input->text, "encrypt"))
        return; /* preallocation and key derivation take their time */
    bool made = image_create(input->graph, "new", &qcow2_driver, options, &err);
    FUZZ_CHECK(made || (err.message && *err.message));
}

static void put_files(struct input *input)
{
    static const uint8_t raw[4096] = {1};
    auto_qcow2_create_options *options = NULL;
    sim_file_put(input->loop, "raw", raw, sizeof raw);
    FUZZ_CHECK(qcow2_create_options_from_keyval("size=64k,cluster_size=512,backing_file=raw,backing_fmt=raw", NULL,
                                                &options, NULL) &&
               image_create(input->graph, "a", &qcow2_driver, options, NULL));
}

static int run(void *arg)
{
    struct input *input = arg;
    input->graph = graph_new(input->loop, protocol_table);
    graph_add_drivers(input->graph, formats_table);
    switch (input->kind % 8) {
    case 0: check_size(input->text); break;
    case 1: check_resolve(input->text); break;
    case 2: check_options(input->text); break;
    case 3: FUZZ_CHECK(probe_head(input->graph, (const uint8_t *)input->text, input->size, "name")); break;
    case 4: check_create_options(input); break;
    default:
        put_files(input);
        check_open(input);
        break;
    }
    graph_free(input->graph);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    auto_free char *text = xstrndup((const char *)data + 1, size - 1);
    struct input input = {.loop = loop_new(LOOP_SIMULATED, 1, NULL), .text = text, .size = size - 1, .kind = data[0]};
    if (data[0] % 8 == 3) { /* bytes, not a text */
        free(TAKE(text));
        input.text = text = xmalloc(size);
        memcpy(text, data + 1, size - 1);
    }
    loop_run_main(input.loop, run, &input);
    loop_free(input.loop);
    return 0;
}
