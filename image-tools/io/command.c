/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands, and from a line to one of them. */
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "image-tools/io/io.h"

const struct tool_option io_no_options[] = {OPTIONS_END};

const struct io_command *const io_commands[] = {
    &io_abort,      &io_aio_discard, &io_aio_flush, &io_aio_read,    &io_aio_write,    &io_alloc,  &io_break,
    &io_close,      &io_discard,     &io_flush,     &io_help,        &io_info,         &io_length, &io_map,
    &io_open,       &io_quit,        &io_read,      &io_readv,       &io_remove_break, &io_reopen, &io_resume,
    &io_sigraise,   &io_sleep,       &io_truncate,  &io_wait_break,  &io_write,        &io_writev, &io_zone_append,
    &io_zone_close, &io_zone_finish, &io_zone_open, &io_zone_report, &io_zone_reset,   NULL,
};

static const struct io_command *find_command(const char *name)
{
    for (const struct io_command *const *command = io_commands; *command; command++) {
        if (!strcmp((*command)->name, name) || ((*command)->alias && !strcmp((*command)->alias, name)))
            return *command;
    }
    return NULL;
}

static bool check_count(const struct io_command *command, size_t count)
{
    int max = command->max_arguments;
    if (count >= (size_t)command->min_arguments && (max < 0 || count <= (size_t)max))
        return true;
    fprintf(stderr, "bad argument count %zu to %s, expected ", count, command->name);
    if (max < 0)
        fprintf(stderr, "at least %d arguments\n", command->min_arguments);
    else if (max == command->min_arguments)
        fprintf(stderr, "%d arguments\n", max);
    else
        fprintf(stderr, "between %d and %d arguments\n", command->min_arguments, max);
    return false;
}

static bool may_run(const struct io *io, const struct io_command *command)
{
    if (command->needs_image && !io->edge)
        fprintf(stderr, "no file open, try 'help open'\n");
    else if (command->writes && io->read_only)
        log_error("Block node is read-only");
    else
        return true;
    return false;
}

static bool run_with_values(struct io *io, const struct io_command *command, struct texts *words, void *values)
{
    auto_error err = {0};
    auto_free struct texts arguments = {0};
    switch (options_parse(command->options, (int)words->count, (char **)words->items, values, &arguments, &err)) {
    case OPTIONS_HELP:
        return io_help.run(io, NULL, &(struct texts){.items = &(const char *){command->name}, .count = 1});
    case OPTIONS_BAD: fprintf(stderr, "%s: %s\n", command->name, err.message); return false;
    case OPTIONS_GOOD: break;
    }
    return check_count(command, arguments.count) && may_run(io, command) && command->run(io, values, &arguments);
}

bool io_run_line(struct io *io, const char *line)
{
    auto_free char *copy = xstrdup(line);
    auto_free struct texts words = {0};
    char *rest = NULL;
    for (char *word = strtok_r(copy, " \t\r\n", &rest); word; word = strtok_r(NULL, " \t\r\n", &rest))
        vec_push(&words, word);
    if (!words.count)
        return true;
    const struct io_command *command = find_command(words.items[0]);
    if (!command) {
        fprintf(stderr, "command \"%s\" not found\n", words.items[0]);
        return false;
    }
    vec_reserve(&words, words.count + 1);
    words.items[words.count] = NULL; /* as argv ends */
    auto_free void *values = xcalloc(1, MAX(command->values_size, (size_t)1));
    bool ok = run_with_values(io, command, &words, values);
    options_release(command->options, values);
    return ok;
}
