/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of `img`. Each is one file with one `const struct img_command`: its options, and a function that runs
 * in a coroutine, prints its result on standard output and errors on standard error, and returns the exit status.
 */
#ifndef IMAGE_TOOLS_IMG_COMMAND_H
#define IMAGE_TOOLS_IMG_COMMAND_H

#include "image-tools/options.h"
#include "image-tools/tool.h"

struct img_command {
    const char *name;
    const char *arguments; /* usage behind the options: "FILE [SIZE]" */
    const char *summary;
    const char *details; /* further help, may be NULL */
    const struct tool_option *options;
    size_t values_size;
    void (*set_defaults)(void *values); /* NULL: all zero */
    int usage_status;                   /* exit status of a wrong command line; 0: 1 */
    int min_arguments, max_arguments;   /* without options; max 0: any number */
    /* Takes what getopt must not see out of argv (a size with a sign); NULL: nothing to do. */
    void (*before_options)(void *values, int *argc, char **argv);
    int (*run)(struct tool *tool, void *values, const struct texts *arguments);
};

extern const struct img_command img_amend, img_bench, img_bitmap, img_check, img_commit, img_compare, img_convert,
    img_create, img_dd, img_info, img_map, img_measure, img_rebase, img_resize, img_snapshot;

/* Values of --output. */
enum output_format { OUTPUT_HUMAN, OUTPUT_JSON };
bool img_output_format(const char *text, enum output_format *format); /* NULL: human. Says what is wrong */

/* A size on a command line; `what` names it in the error. */
bool img_size(const char *what, const char *text, uint64_t *size, struct error *err);

/* Prints the error after the program's name, clears it, and returns `status`. */
int img_fail(struct error *err, int status);

#endif
