/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-img: creates, examines and converts disk images. Here: the table of subcommands, help, and the way to one. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "base/trace.h"
#include "image-tools/img/command.h"

static const struct img_command *const commands[] = {
    &img_amend, &img_bench, &img_bitmap, &img_check,   &img_commit, &img_compare, &img_convert,  &img_create,
    &img_dd,    &img_info,  &img_map,    &img_measure, &img_rebase, &img_resize,  &img_snapshot,
};

struct global_options {
    bool version;
    const char *trace;
};

static const struct tool_option global_options[] = {
    OPTION_ROW_FLAG('V', "version", struct global_options, version, "print the version and exit"),
    OPTION_ROW_TEXT('T', "trace", "GLOB[,...]", struct global_options, trace,
                    "switch trace points on; 'help' lists them"),
    OPTIONS_END,
};

static void print_help(void)
{
    printf("Usage: %s [-T GLOB] COMMAND [OPTION]... ARGUMENT...\n"
           "Creates, examines and converts disk images.\n\nCommands:\n",
           log_program());
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %-10s %s\n", commands[i]->name, commands[i]->summary);
    printf("\nOptions:\n");
    options_print_help(stdout, global_options);
    printf("\n'%s COMMAND --help' explains a command and lists its options.\n\n"
           "An image is named by its path, or by json:{...} with the options of a block node; with --image-opts by\n"
           "driver=FORMAT,file.filename=PATH and further options. Sizes count bytes; the suffixes k, M, G, T, P and E\n"
           "multiply by powers of 1024.\n\n",
           log_program());
    tool_print_formats();
}

static void print_command_help(const struct img_command *command)
{
    printf("Usage: %s %s [OPTION]... %s\n%s.\n\n", log_program(), command->name, command->arguments, command->summary);
    options_print_help(stdout, command->options);
    if (command->details)
        printf("\n%s", command->details);
}

/* `command` NULL: of the program itself. */
static int usage_error(const struct img_command *command)
{
    fprintf(stderr, "Try '%s %s%s--help' for more information\n", log_program(), command ? command->name : "",
            command ? " " : "");
    return command && command->usage_status ? command->usage_status : 1;
}

struct invocation {
    const struct img_command *command;
    void *values;
    struct texts arguments;
};

/* Every command has --object; what it names can be used by all its images. */
static const struct texts *objects_of(const struct invocation *invocation)
{
    const struct tool_option *option = invocation->command->options;
    while (!option->name || strcmp(option->name, "object"))
        option++;
    return (const struct texts *)((const char *)invocation->values + option->offset);
}

static int run_command(struct tool *tool)
{
    struct invocation *invocation = tool->arg;
    auto_error err = {0};
    bool helped;
    if (!tool_add_objects(tool, objects_of(invocation), &helped, &err))
        return img_fail(&err, 1);
    if (helped)
        return 0;
    return invocation->command->run(tool, invocation->values, &invocation->arguments);
}

/* The number of arguments, except those that the command has to explain itself. */
static bool check_arguments(const struct img_command *command, size_t count)
{
    if (count < (size_t)command->min_arguments)
        log_error("%s: arguments are missing: %s", command->name, command->arguments);
    else if (command->max_arguments && count > (size_t)command->max_arguments)
        log_error("%s: too many arguments: only %s can be given", command->name, command->arguments);
    else
        return true;
    return false;
}

static int start_with_values(const struct img_command *command, int argc, char **argv, void *values)
{
    auto_error err = {0};
    auto_free struct texts arguments = {0};
    if (command->set_defaults)
        command->set_defaults(values);
    if (command->before_options)
        command->before_options(values, &argc, argv);
    switch (options_parse(command->options, argc, argv, values, &arguments, &err)) {
    case OPTIONS_HELP: print_command_help(command); return 0;
    case OPTIONS_BAD: img_fail(&err, 1); return usage_error(command);
    case OPTIONS_GOOD: break;
    }
    if (!check_arguments(command, arguments.count))
        return usage_error(command);
    struct invocation invocation = {command, values, arguments};
    return tool_run(run_command, &invocation, argc, argv);
}

static int start_command(const struct img_command *command, int argc, char **argv)
{
    auto_free void *values = xcalloc(1, command->values_size);
    int status = start_with_values(command, argc, argv, values);
    options_release(command->options, values);
    return status;
}

static int find_command(int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (!strcmp(argv[0], commands[i]->name))
            return start_command(commands[i], argc, argv);
    }
    log_error("Command not found: %s", argv[0]);
    return usage_error(NULL);
}

/* A reader that goes away ends us by EPIPE of the write, not by a signal. */
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    log_error("Could not write to standard output");
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    auto_error err = {0};
    struct global_options options = {0};
    auto_free struct texts rest = {0};
    if (tool_is_worker(argc, argv))
        return tool_worker_main();
    log_set_program(argv[0]);
    signal(SIGPIPE, SIG_IGN);
    switch (options_parse_leading(global_options, argc, argv, &options, &rest, &err)) {
    case OPTIONS_HELP: print_help(); return finish(0);
    case OPTIONS_BAD: img_fail(&err, 1); return usage_error(NULL);
    case OPTIONS_GOOD: break;
    }
    if (options.version) {
        tool_print_version();
        return finish(0);
    }
    if (options.trace && !strcmp(options.trace, "help")) {
        trace_list(stdout);
        return finish(0);
    }
    if (options.trace && !tool_enable_trace(options.trace))
        return 1;
    if (!rest.count) {
        log_error("Not enough arguments: which command?");
        return usage_error(NULL);
    }
    int first = argc - (int)rest.count;
    return finish(find_command(argc - first, argv + first));
}
