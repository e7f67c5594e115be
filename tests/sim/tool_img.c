/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands of spindle-img that change which image has what: commit and rebase, as the program itself runs them, on an
 * image with a backing file. A guest reads the same before, meanwhile and afterwards, so the model has nothing to note;
 * a cut that would show the image on its new backing file before that has all the data is found by it.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "image-tools/img/command.h"
#include "tests/sim/operations.h"

#define OTHER_BACKING "base2.qcow2"
enum { ARGUMENTS_MAX = 8 };

/* What it has to say goes to standard error. Cut short or on failing disks it may fail. */
static void run_img(struct world *world, const struct img_command *command, const char *const *arguments, int count)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)command->name};
    struct tool tool = {.loop = world->loop, .objects = graph_objects(world->tool), .graph = world->tool};
    struct texts rest = {0};
    auto_error err = {0};
    auto_free void *values = xcalloc(1, command->values_size);
    for (int i = 0; i < count; i++)
        argv[i + 1] = (char *)arguments[i];
    optind = 0; /* getopt begins anew */
    if (options_parse(command->options, count + 1, argv, values, &rest, &err) != OPTIONS_GOOD)
        world_fail(world, "img %s: %s", command->name, err.message);
    world_trace(world, "img %s", command->name);
    int status = command->run(&tool, values, &rest);
    options_release(command->options, values);
    vec_free(&rest);
    if (status && !world->is_cut && !world->faulty)
        world_fail(world, "img %s ends with status %d", command->name, status);
}

static char *image_name(const struct world *world)
{
    auto_free char *options = world_image_options(world, NULL);
    return xasprintf("json:%s", options);
}

bool tool_commit(struct actor *actor)
{
    struct world *world = actor->world;
    auto_free char *image = image_name(world);
    const char *const arguments[] = {"-q", image};
    run_img(world, &img_commit, arguments, ARRAY_SIZE(arguments));
    return true;
}

/* Is the first backing file below the image, or the other one? false in *known: it does not open, as disks fail. */
static bool is_on_other(struct world *world, bool *known)
{
    auto_error err = {0};
    auto_free char *options = world_image_options(world, NULL);
    struct node *node = world_open(world->tool, &err, "%s", options);
    *known = node && node->backing;
    world_expect(world, *known, &err, "opening the image with its backing file");
    bool other = *known && strstr(node->backing->child->filename, OTHER_BACKING);
    if (node)
        node_unref(node);
    return other;
}

/* To the other backing file, which is new and has nothing, or back to the first one. */
bool tool_rebase(struct actor *actor)
{
    struct world *world = actor->world;
    auto_error err = {0};
    bool known, other = is_on_other(world, &known);
    if (!known)
        return true;
    if (!other && !world_create(world->tool, OTHER_BACKING, "size=64k,cluster_size=4k", &err)) {
        world_expect(world, false, &err, "another backing file");
        return true;
    }
    auto_free char *image = image_name(world);
    const char *const arguments[] = {"-q", "-b", other ? BACKING : OTHER_BACKING, "-F", "qcow2", image};
    run_img(world, &img_rebase, arguments, ARRAY_SIZE(arguments));
    return true;
}
