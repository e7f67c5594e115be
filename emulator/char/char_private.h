/* SPDX-License-Identifier: Apache-2.0 */
/* Private to emulator/char: the state of a chardev, and what its kinds provide. The core (char.c) moves bytes between
 * two descriptors and the fronts; a kind opens the descriptors and says what happens at their end. */
#ifndef EMULATOR_CHAR_CHAR_PRIVATE_H
#define EMULATOR_CHAR_CHAR_PRIVATE_H

#include <pthread.h>
#include "base/loop.h"
#include "emulator/char/char.h"

#define CHAR_LINE_OUTPUT_BYTES 65536u
#define CHAR_FRONTS 4u

struct char_line_ops {
    bool (*open)(struct char_line *line, const struct char_line_options *options, struct error *err);
    void (*ended)(struct char_line *line); /* input ended or the peer is gone; NULL: nothing more will come */
    void (*close)(struct char_line *line); /* may be NULL; descriptors are closed by the core */
};

struct char_line {
    const struct char_line_ops *ops;
    struct loop *loop;
    char *id, *description;
    bool mux;

    /* Descriptors, -1 when there is none. They may be the same. */
    int in_fd, out_fd;
    bool keep_fds;       /* standard input and output: not ours to close */
    bool drop_when_full; /* nobody may be listening (pty) */
    bool is_open;
    struct loop_watch in_watch, out_watch;
    bool in_watched, out_watched;
    void *kind; /* state of the kind */

    /* Output: a ring that any thread fills and the loop's thread empties. */
    pthread_mutex_t lock;
    uint8_t output[CHAR_LINE_OUTPUT_BYTES];
    size_t out_start, out_count;
    bool flush_posted, accept_posted;
    bool dead; /* freed, but for a function that is still posted */

    /* Loop's thread. */
    struct char_front *fronts[CHAR_FRONTS];
    unsigned front_count, focus;
    bool escape; /* Ctrl-A was typed */
    void (*quit)(void *arg);
    void *quit_arg;
};

extern const struct char_line_ops char_line_null_ops, char_line_stdio_ops, char_line_file_ops, char_line_socket_ops,
    char_line_pty_ops;

/* For kinds: these descriptors are the connection now (the core watches them), or there is none any more. */
void char_line_connected(struct char_line *line, int in_fd, int out_fd);
void char_line_disconnected(struct char_line *line); /* closes unless keep_fds */
bool char_line_set_nonblocking(int fd, struct error *err);

#endif
