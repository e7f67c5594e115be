/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker as its owner sees it: questions and validated answers. One question at a time; everything that can go wrong
 * with the other process (it ends, it does not answer in time, it lies) ends here as an error of the call.
 */
#ifndef CONFINED_LINK_H
#define CONFINED_LINK_H

#include "base/loop.h"
#include "confined/doorman.h"
#include "confined/validate.h"

struct confined_settings {
    uint64_t memory_limit;
    uint64_t timeout_ns;
};

struct confined_link {
    struct loop *loop;
    struct confined_settings settings;
    struct confined_limits limits;
    int fd, process; /* our end of the socket; its pidfd */
    pid_t number;    /* of that process, while it lives */
    uint8_t *buffer; /* CONFINED_BUFFER_SIZE; the worker may change it at any time: copy, never look twice */
    uint32_t sequence;
    uint64_t granted_ns, started_ns; /* processor time: see link.c */
    uint64_t questions;              /* asked so far */
    struct loop_timer deadline;
    bool timed_out;
    struct confined_answer answer; /* the last one, validated */
};

/* Starts a worker for the image behind `image`, a descriptor open for reading. NULL on error. YIELDS. */
struct confined_link *confined_link_new(struct doorman *doorman, struct loop *loop, int image,
                                        const struct confined_settings *settings, struct error *err);
void confined_link_free(struct confined_link *link); /* ends the worker; NULL is allowed */

/* Asks; link->answer holds what came. False: there is no answer that could be believed, and there will be none: `err`
 * has the code EPIPE (it ended), ETIMEDOUT or EPROTO (it lied). The answer may say that the image is bad:
 * answer.result. `patience` multiplies the time limit. YIELDS. */
bool confined_link_ask(struct confined_link *link, struct confined_question *question, unsigned patience,
                       struct error *err);

#endif
