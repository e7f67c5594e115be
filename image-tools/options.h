/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command-line options as tables. A program, subcommand or command has one table; reading the command line, the help
 * text and the usage line all come from it.
 *
 * Each row says where in the caller's struct the value goes. The caller fills that struct with the defaults first.
 * Options of the ecosystem's tools that this version does not offer yet have a row too: they are left out of help, and
 * using one is an error that says so, instead of "unknown option".
 */
#ifndef IMAGE_TOOLS_OPTIONS_H
#define IMAGE_TOOLS_OPTIONS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/error.h"
#include "base/vec.h"

vec_of(texts, const char *);

/* Options whose order on the command line matters, as they came. */
struct action {
    const char *name, *argument; /* argument NULL: it takes none */
};
vec_of(actions, struct action);

enum option_kind {
    OPTION_FLAG,   /* bool: becomes true */
    OPTION_TEXT,   /* const char *: the last one given */
    OPTION_TEXTS,  /* struct texts: all of them, in order */
    OPTION_SIZE,   /* uint64_t: a size such as 64k */
    OPTION_ACTION, /* struct actions: gets one more */
    OPTION_LATER,  /* not offered yet; `help` says what would be needed */
};

struct tool_option {
    enum option_kind kind;
    char letter;          /* 0: has only a name */
    const char *name;     /* NULL: has only a letter */
    const char *argument; /* as help shows it; NULL: takes none */
    size_t offset;
    const char *help;
};

/* Rows. `type` is the caller's struct; the table ends with OPTIONS_END. */
#define OPTION_ROW_FLAG(letter, name, type, member, help)                                                              \
    {                                                                                                                  \
        OPTION_FLAG, letter, name, NULL, offsetof(type, member), help                                                  \
    }
#define OPTION_ROW_TEXT(letter, name, argument, type, member, help)                                                    \
    {                                                                                                                  \
        OPTION_TEXT, letter, name, argument, offsetof(type, member), help                                              \
    }
#define OPTION_ROW_TEXTS(letter, name, argument, type, member, help)                                                   \
    {                                                                                                                  \
        OPTION_TEXTS, letter, name, argument, offsetof(type, member), help                                             \
    }
#define OPTION_ROW_SIZE(letter, name, argument, type, member, help)                                                    \
    {                                                                                                                  \
        OPTION_SIZE, letter, name, argument, offsetof(type, member), help                                              \
    }
#define OPTION_ROW_ACTION(letter, name, argument, type, member, help)                                                  \
    {                                                                                                                  \
        OPTION_ACTION, letter, name, argument, offsetof(type, member), help                                            \
    }
#define OPTION_ROW_LATER(letter, name, argument, what)                                                                 \
    {                                                                                                                  \
        OPTION_LATER, letter, name, argument, 0, what                                                                  \
    }
#define OPTIONS_END                                                                                                    \
    {                                                                                                                  \
        0                                                                                                              \
    }

enum options_result { OPTIONS_GOOD, OPTIONS_HELP, OPTIONS_BAD };

/* Reads argv[1..argc). Options and other arguments may be mixed; the others go to `rest`, in order. `-h` and `--help`
 * are known without a row. OPTIONS_BAD fills `err`. */
enum options_result options_parse(const struct tool_option *table, int argc, char **argv, void *values,
                                  struct texts *rest, struct error *err);

/* As above, but stops at the first argument that is not an option. */
enum options_result options_parse_leading(const struct tool_option *table, int argc, char **argv, void *values,
                                          struct texts *rest, struct error *err);

/* Frees what options_parse() allocated inside `values`. */
void options_release(const struct tool_option *table, void *values);

/* One line an option: "  -f, --format FMT    format of the image". */
void options_print_help(FILE *out, const struct tool_option *table);

#endif
