/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back ends: where a serial port, a console or a monitor talks to. Standard input and output, a file, a
 * socket, a pseudo terminal, or nothing.
 *
 * A `struct char_line` is the host's side; a `struct char_front` is the user's side (the user owns it). A line
 * serves one front, or with `mux` several: they share the output, and the input goes to one of them at a time, chosen
 * with Ctrl-A C.
 *
 * Threads: char_line_write() and char_line_accept_input() may be called from any thread, also with the machine lock
 * held. They never block: output goes into a buffer that the main loop empties. Everything else belongs to the main
 * loop's thread, where the front's functions are called too, without the machine lock.
 */
#ifndef EMULATOR_CHAR_CHAR_H
#define EMULATOR_CHAR_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct loop;
struct char_line;
struct char_front;

enum char_line_kind { CHAR_LINE_NULL, CHAR_LINE_STDIO, CHAR_LINE_FILE, CHAR_LINE_SOCKET, CHAR_LINE_PTY };

struct char_line_options {
    enum char_line_kind kind;
    const char *id;
    bool mux;
    bool signal;             /* stdio: Ctrl-C ends the program; otherwise it is input */
    const char *path;        /* file, unix socket */
    bool append;             /* file */
    const char *host, *port; /* TCP socket */
    bool server, wait;       /* socket: listen; do not go on before the first client is there */
};

/* What happens on a chardev. Members may be NULL. */
enum char_line_event {
    CHAR_LINE_OPENED,   /* a peer is there (sockets; the others open at once) */
    CHAR_LINE_CLOSED,   /* it is gone */
    CHAR_LINE_BREAK,    /* Ctrl-A B */
    CHAR_LINE_FOCUS_IN, /* input goes to this front from now on (mux) */
    CHAR_LINE_FOCUS_OUT
};
struct char_front_ops {
    size_t (*can_receive)(void *owner);                             /* how many bytes it would take now */
    void (*receive)(void *owner, const uint8_t *data, size_t size); /* never more than that */
    void (*writable)(void *owner);                                  /* a write that was cut short may be tried again */
    void (*event)(void *owner, enum char_line_event event);
};

#define CHAR_LINE_INPUT_BYTES 4096u
struct char_front {
    const struct char_front_ops *ops;
    void *owner;
    struct char_line *line; /* NULL: attached to nothing; writes vanish */
    bool write_refused;     /* under the chardev's lock */
    size_t input_count;     /* typed ahead */
    uint8_t input[CHAR_LINE_INPUT_BYTES];
};

/* Fails with a message that names the id, and the path or address. May block when `wait` is asked for. */
struct char_line *char_line_new(struct loop *loop, const struct char_line_options *options, struct error *err);
void char_line_free(struct char_line *line); /* writes out what is buffered; restores the terminal */
bool char_line_is_mux(const struct char_line *line);
bool char_line_is_open(const struct char_line *line);

/* Fails when the chardev is taken. The first front of a mux has the focus. */
bool char_line_attach(struct char_line *line, struct char_front *front, struct error *err);
void char_line_detach(struct char_front *front);

/* Returns how many bytes were taken: all, unless the buffer is full; then `writable` is called later. */
size_t char_line_write(struct char_front *front, const void *data, size_t size);
/* can_receive() would say more than 0 now. */
void char_line_accept_input(struct char_front *front);

/* Ctrl-A X on a mux. */
void char_line_set_quit(struct char_line *line, void (*quit)(void *arg), void *arg);

#endif
