/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back ends: where a serial port, a console or a monitor talks to. Standard input and output, a file, a
 * socket, a pseudo terminal, or nothing.
 *
 * A `struct chardev` is the host's side; a `struct chardev_front` is the user's side (the user owns it). A chardev
 * serves one front, or with `mux` several: they share the output, and the input goes to one of them at a time, chosen
 * with Ctrl-A C.
 *
 * Threads: chardev_write() and chardev_accept_input() may be called from any thread, also with the machine lock held.
 * They never block: output goes into a buffer that the main loop empties. Everything else belongs to the main loop's
 * thread, where the front's functions are called too, without the machine lock.
 */
#ifndef EMULATOR_CHAR_CHAR_H
#define EMULATOR_CHAR_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct loop;
struct chardev;
struct chardev_front;

enum chardev_kind { CHARDEV_NULL, CHARDEV_STDIO, CHARDEV_FILE, CHARDEV_SOCKET, CHARDEV_PTY };

struct chardev_options {
    enum chardev_kind kind;
    const char *id;
    bool mux;
    bool signal;             /* stdio: Ctrl-C ends the program; otherwise it is input */
    const char *path;        /* file, unix socket */
    bool append;             /* file */
    const char *host, *port; /* TCP socket */
    bool server, wait;       /* socket: listen; do not go on before the first client is there */
};

/* What happens on a chardev. Members may be NULL. */
enum chardev_event {
    CHARDEV_OPENED,   /* a peer is there (sockets; the others open at once) */
    CHARDEV_CLOSED,   /* it is gone */
    CHARDEV_BREAK,    /* Ctrl-A B */
    CHARDEV_FOCUS_IN, /* input goes to this front from now on (mux) */
    CHARDEV_FOCUS_OUT
};
struct chardev_front_ops {
    size_t (*can_receive)(void *owner);                             /* how many bytes it would take now */
    void (*receive)(void *owner, const uint8_t *data, size_t size); /* never more than that */
    void (*writable)(void *owner);                                  /* a write that was cut short may be tried again */
    void (*event)(void *owner, enum chardev_event event);
};

#define CHARDEV_INPUT_BYTES 4096u
struct chardev_front {
    const struct chardev_front_ops *ops;
    void *owner;
    struct chardev *chardev; /* NULL: attached to nothing; writes vanish */
    bool write_refused;      /* under the chardev's lock */
    size_t input_count;      /* typed ahead */
    uint8_t input[CHARDEV_INPUT_BYTES];
};

/* Fails with a message that names the id, and the path or address. May block when `wait` is asked for. */
struct chardev *chardev_new(struct loop *loop, const struct chardev_options *options, struct error *err);
void chardev_free(struct chardev *chardev); /* writes out what is buffered; restores the terminal */
const char *chardev_id(const struct chardev *chardev);
const char *chardev_description(const struct chardev *chardev); /* "pty:/dev/pts/3", "unix:/run/x,server=on" ... */
bool chardev_is_mux(const struct chardev *chardev);
bool chardev_is_open(const struct chardev *chardev);

/* Fails when the chardev is taken. The first front of a mux has the focus. */
bool chardev_attach(struct chardev *chardev, struct chardev_front *front, struct error *err);
void chardev_detach(struct chardev_front *front);

/* Returns how many bytes were taken: all, unless the buffer is full; then `writable` is called later. */
size_t chardev_write(struct chardev_front *front, const void *data, size_t size);
/* can_receive() would say more than 0 now. */
void chardev_accept_input(struct chardev_front *front);

/* Ctrl-A X on a mux. */
void chardev_set_quit(struct chardev *chardev, void (*quit)(void *arg), void *arg);

#endif
