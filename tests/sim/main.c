/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program: runs worlds (world.h) of all kinds of images, cuts them, and says what was done. Without options it runs
 * a few worlds of each kind; tests/sim/run has names for longer runs.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "tests/sim/operations.h"

struct plan {
    struct settings settings;
    const struct image_kind *only;
    uint64_t seed, worlds, cuts; /* cuts: go on until there were so many; 0: each kind `worlds` times */
    bool twice, cover;
};

static void print_help(void)
{
    printf(
        "Usage: %s [options]\n"
        "Runs the storage daemon with its clients in simulated worlds, cuts the power, and examines what is left.\n\n"
        "  --seed N           the first seed (1); every world takes the next\n"
        "  --worlds N         worlds of each kind of image (2)\n"
        "  --cuts N           instead: worlds of all kinds in turn until there were so many cuts\n"
        "  --image KIND       only this kind of image\n"
        "  --operation NAME   only this row of the table, beside writes and flushes\n"
        "  --operations N     file operations in a life (400)\n"
        "  --lives N          lives of a world (3)\n"
        "  --every N          one file operation in N is cut (1)\n"
        "  --lots N           ... so many times (1)\n"
        "  --at N             cut only at file operation N\n"
        "  --no-faults        no disks that fail\n"
        "  --no-kills         power cuts only\n"
        "  --twice            run each world twice and compare the traces\n"
        "  --cover            fail when a row of the table was never carried out\n"
        "  --trace            print what happens\n"
        "  --list             list images and operations\n",
        log_program());
}

static void print_list(void)
{
    static const char *const actors[] = {"guest", "operator", "tool"};
    printf("images:\n");
    for (const struct image_kind *kind = image_kinds; kind->name; kind++)
        printf("  %-18s %s\n", kind->name, kind->create ? kind->create : "raw");
    printf("operations:\n");
    for (size_t i = 0; i < operation_count; i++)
        printf("  %-18s %-9s %s\n", operations[i].name, actors[operations[i].by], operations[i].what);
}

static void run_world(const struct plan *plan, const struct image_kind *kind, uint64_t seed, struct life_stats *stats)
{
    uint64_t first, second;
    world_run(kind, seed, &plan->settings, stats, &first);
    if (!plan->twice)
        return;
    world_run(kind, seed, &plan->settings, stats, &second);
    if (first == second)
        return;
    printf("FAILED: image %s, seed %" PRIu64 ": two runs of one world differ\n", kind->name, seed);
    exit(1);
}

static void run_plan(const struct plan *plan, struct life_stats *stats)
{
    uint64_t seed = plan->seed;
    for (uint64_t round = 0; plan->cuts ? stats->cuts < plan->cuts : round < plan->worlds; round++) {
        for (const struct image_kind *kind = image_kinds; kind->name; kind++) {
            if (!plan->only || plan->only == kind)
                run_world(plan, kind, seed, stats);
        }
        seed++;
    }
}

static int print_summary(const struct plan *plan, const struct life_stats *stats)
{
    int status = 0;
    printf("%" PRIu64 " worlds, %" PRIu64 " lives, %" PRIu64 " cuts (%" PRIu64 " of them kills), %" PRIu64
           " file operations, %" PRIu64 " requests of guests, %" PRIu64 " commands\n",
           stats->worlds, stats->lives, stats->cuts, stats->kills, stats->operations, stats->requests, stats->commands);
    for (size_t i = 0; i < operation_count; i++) {
        printf("  %-18s %" PRIu64 "\n", operations[i].name, stats->by_operation[i]);
        if (plan->cover && !stats->by_operation[i]) {
            printf("FAILED: the operation '%s' was never carried out\n", operations[i].name);
            status = 1;
        }
    }
    return status;
}

static const struct option long_options[] = {
    {"seed", 1, NULL, 's'},  {"worlds", 1, NULL, 'w'},    {"cuts", 1, NULL, 'c'},
    {"image", 1, NULL, 'i'}, {"operation", 1, NULL, 'o'}, {"operations", 1, NULL, 'n'},
    {"lives", 1, NULL, 'l'}, {"every", 1, NULL, 'e'},     {"lots", 1, NULL, 'm'},
    {"at", 1, NULL, 'a'},    {"no-faults", 0, NULL, 'f'}, {"no-kills", 0, NULL, 'k'},
    {"twice", 0, NULL, '2'}, {"cover", 0, NULL, 'v'},     {"trace", 0, NULL, 't'},
    {"list", 0, NULL, 'L'},  {"help", 0, NULL, 'h'},      {NULL},
};

static void take_option(struct plan *plan, int letter)
{
    struct settings *settings = &plan->settings;
    uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;
    switch (letter) {
    case 's': plan->seed = number; break;
    case 'w': plan->worlds = number; break;
    case 'c': plan->cuts = number; break;
    case 'n': settings->operations = number; break;
    case 'l': settings->lives = (unsigned)number; break;
    case 'e': settings->every = number; break;
    case 'm': settings->lots = (unsigned)number; break;
    case 'a': settings->only_at = number; break;
    case 'o': settings->only_operation = optarg; break;
    case 'f': settings->faults = false; break;
    case 'k': settings->kills = false; break;
    case '2': plan->twice = true; break;
    case 'v': plan->cover = true; break;
    case 't': settings->trace = true; break;
    case 'i':
        if (!(plan->only = image_kind_find(optarg))) {
            fprintf(stderr, "%s: there is no kind of image '%s', see --list\n", log_program(), optarg);
            exit(2);
        }
        break;
    case 'L': print_list(); exit(0);
    case 'h': print_help(); exit(0);
    default: print_help(); exit(2);
    }
}

int main(int argc, char **argv)
{
    struct plan plan = {
        .seed = 1,
        .worlds = 2,
        .settings = {
            .operations = 400, .lives = 3, .every = 1, .lots = 1, .thorough = 8, .faults = true, .kills = true}};
    int letter;
    log_set_program(argv[0]);
    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        take_option(&plan, letter);
    auto_free uint64_t *counts = xcalloc(operation_count, sizeof *counts);
    struct life_stats stats = {.by_operation = counts};
    setvbuf(stdout, NULL, _IOLBF, 0);
    run_plan(&plan, &stats);
    return print_summary(&plan, &stats);
}
