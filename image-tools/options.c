/* SPDX-License-Identifier: Apache-2.0 */
/* Reads options by their table, with getopt_long() doing the scanning. */
#include "image-tools/options.h"

#include <getopt.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/math.h"
#include "base/size.h"
#include "base/strbuf.h"

/* getopt's codes of options without a letter. */
#define CODE_HELP 256
#define CODE_FIRST 257

static size_t count_options(const struct tool_option *table)
{
    size_t count = 0;
    while (table[count].letter || table[count].name)
        count++;
    return count;
}

static char *option_label(const struct tool_option *option)
{
    return option->name ? xasprintf("--%s", option->name) : xasprintf("-%c", option->letter);
}

/* The two tables that getopt wants. */
static void describe(const struct tool_option *table, struct strbuf *letters, struct option *names)
{
    size_t count = count_options(table), n = 0;
    strbuf_append(letters, "h");
    for (size_t i = 0; i < count; i++) {
        const struct tool_option *option = &table[i];
        if (option->letter)
            strbuf_printf(letters, "%c%s", option->letter, option->argument ? ":" : "");
        if (option->name)
            names[n++] = (struct option){option->name, option->argument ? required_argument : no_argument, NULL,
                                         CODE_FIRST + (int)i};
    }
    names[n] = (struct option){"help", no_argument, NULL, CODE_HELP};
}

static bool store(const struct tool_option *option, const char *text, void *values, struct error *err)
{
    void *slot = (char *)values + option->offset;
    auto_free char *label = option_label(option);
    switch (option->kind) {
    case OPTION_FLAG: *(bool *)slot = true; return true;
    case OPTION_TEXT: *(const char **)slot = text; return true;
    case OPTION_TEXTS: vec_push((struct texts *)slot, text); return true;
    case OPTION_SIZE: return parse_size(text, slot, err) || fail_prefix(err, "%s: ", label);
    case OPTION_ACTION: vec_push((struct actions *)slot, ((struct action){option->name, text})); return true;
    case OPTION_LATER: return fail(err, ENOTSUP, "%s is not supported by this version: %s", label, option->help);
    }
    return false;
}

static const struct tool_option *find_option(const struct tool_option *table, int code)
{
    if (code >= CODE_FIRST)
        return &table[code - CODE_FIRST];
    while (table->letter != code)
        table++;
    return table;
}

/* What getopt could not make sense of. */
static bool fail_scan(int code, char **argv, struct error *err)
{
    const char *word = argv[optind - 1];
    if (code == ':' && optopt < CODE_FIRST)
        return fail(err, EINVAL, "missing argument for option '-%c'", optopt);
    if (code == ':')
        return fail(err, EINVAL, "missing argument for option '%s'", word);
    if (optopt >= CODE_FIRST || optopt == CODE_HELP)
        return fail(err, EINVAL, "option '%s' takes no argument", word);
    if (optopt)
        return fail(err, EINVAL, "unrecognized option '-%c'", optopt);
    return fail(err, EINVAL, "unrecognized option '%s'", word);
}

static enum options_result parse(const char *mode, const struct tool_option *table, int argc, char **argv, void *values,
                                 struct texts *rest, struct error *err)
{
    auto_strbuf letters = {0};
    auto_free struct option *names = new_array(struct option, count_options(table) + 2);
    strbuf_append(&letters, mode);
    describe(table, &letters, names);
    optind = 0; /* begin anew, as glibc has it */
    opterr = 0;
    int code;
    while ((code = getopt_long(argc, argv, letters.text, names, NULL)) != -1) {
        if (code == CODE_HELP || code == 'h')
            return OPTIONS_HELP;
        if (code == ':' || code == '?')
            return fail_scan(code, argv, err), OPTIONS_BAD;
        if (!store(find_option(table, code), optarg, values, err))
            return OPTIONS_BAD;
    }
    for (int i = optind; i < argc; i++)
        vec_push(rest, argv[i]);
    return OPTIONS_GOOD;
}

enum options_result options_parse(const struct tool_option *table, int argc, char **argv, void *values,
                                  struct texts *rest, struct error *err)
{
    return parse(":", table, argc, argv, values, rest, err);
}

enum options_result options_parse_leading(const struct tool_option *table, int argc, char **argv, void *values,
                                          struct texts *rest, struct error *err)
{
    return parse("+:", table, argc, argv, values, rest, err);
}

void options_release(const struct tool_option *table, void *values)
{
    for (; table->letter || table->name; table++) {
        if (table->kind == OPTION_TEXTS)
            vec_free((struct texts *)((char *)values + table->offset));
        if (table->kind == OPTION_ACTION)
            vec_free((struct actions *)((char *)values + table->offset));
    }
}

#define HELP_COLUMN 34

static void print_option(FILE *out, const struct tool_option *option)
{
    auto_strbuf line = {0};
    if (option->letter && option->name)
        strbuf_printf(&line, "  -%c, --%s", option->letter, option->name);
    else if (option->letter)
        strbuf_printf(&line, "  -%c", option->letter);
    else
        strbuf_printf(&line, "      --%s", option->name);
    if (option->argument)
        strbuf_printf(&line, " %s", option->argument);
    if (line.length + 2 > HELP_COLUMN)
        fprintf(out, "%s\n%*s%s\n", line.text, HELP_COLUMN, "", option->help);
    else
        fprintf(out, "%-*s%s\n", HELP_COLUMN, line.text, option->help);
}

void options_print_help(FILE *out, const struct tool_option *table)
{
    static const struct tool_option help = {OPTION_FLAG, 'h', "help", NULL, 0, "print this text and exit"};
    for (; table->letter || table->name; table++) {
        if (table->kind != OPTION_LATER)
            print_option(out, table);
    }
    print_option(out, &help);
}
