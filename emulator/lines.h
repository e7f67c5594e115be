/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The character devices that the command line names. -chardev only defines one; what it becomes depends on who uses it:
 * a line for a serial port or the human monitor (emulator/char), a stream for QMP (qmp/), the socket of a vhost-user
 * peer (emulator/storage). -serial, -monitor and -qmp define and use one in a single word.
 */
#ifndef EMULATOR_LINES_H
#define EMULATOR_LINES_H

#include "base/vec.h"
#include "emulator/char/char.h"

struct chardev_options; /* of the schema */

struct line_definition {
    char *id, *path, *host, *port;
    enum char_line_kind kind;
    bool mux, signal, append, server, wait;
    struct char_line *line; /* made when somebody used it as one */
    const char *user;       /* who uses it as something else; a literal */
};
vec_of(line_list, struct line_definition *);

struct lines {
    struct loop *loop;
    struct line_list list;
};

void lines_free(struct lines *lines);
/* -chardev BACKEND,id=ID,... */
bool lines_define(struct lines *lines, const char *text, struct error *err);
/* WHERE of -serial, -monitor and -qmp: defines a chardev `label` and returns it, or finds the one that "chardev:ID"
 * names. *with_monitor: it was "mon:...". NULL without an error: "none". */
struct line_definition *lines_parse_where(struct lines *lines, const char *option, const char *where, const char *label,
                                          bool *with_monitor, struct error *err);
struct line_definition *lines_find(struct lines *lines, const char *id, struct error *err);

struct char_line *lines_open(struct lines *lines, struct line_definition *definition, struct error *err);
/* The path of a unix socket that we connect to. */
const char *lines_take_socket(struct line_definition *definition, const char *user, struct error *err);
/* The same as the schema says it, for the QMP server; owned by the caller. */
struct chardev_options *lines_take_for_qmp(struct line_definition *definition, struct error *err);

#endif
