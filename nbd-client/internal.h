/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two halves of the client: calls (client.c) and connections (link.c).
 *
 * A call is always in exactly one list: `in_flight` of a link (libnbd has it), `waiting` of the client (no link is up)
 * or `completed` (libnbd is done with it, its owner does not know yet).
 */
#ifndef NBD_CLIENT_INTERNAL_H
#define NBD_CLIENT_INTERNAL_H

#include <libnbd.h>
#include "base/co.h"
#include "base/loop.h"
#include "nbd-client/client.h"

enum { MAX_LINKS = 16, DEFAULT_LINKS = 4, MAX_CONTEXTS = 4 };

struct relay;

enum link_state { LINK_DOWN, LINK_GREETING, LINK_UP };

struct nbd_link {
    struct nbd_client *client;
    enum link_state state;
    struct nbd_handle *nbd; /* NULL exactly when DOWN */
    int fd;                 /* our own duplicate of its socket: libnbd closes that one whenever it likes; -1: none */
    struct loop_watch watch;
    struct list in_flight; /* of struct nbd_call */
    size_t load;           /* their number */
    struct loop_timer retry;
    struct relay *relay; /* between libnbd and the server; NULL: none */
    struct error why;    /* what has ended it */
};

struct nbd_client {
    struct loop *loop;
    struct nbd_client_settings settings; /* strings owned */
    char *contexts[MAX_CONTEXTS + 1];
    struct nbd_client_facts facts;
    struct nbd_link links[MAX_LINKS];
    unsigned link_count, max_links;
    bool is_open;                                      /* the first connection has been up */
    bool is_lost;                                      /* no connection is up, and the user has been told */
    bool is_failing;                                   /* calls that find no connection fail at once */
    bool given_up;                                     /* and that will not change */
    void (*opened)(void *user, struct error *failure); /* NULL: nobody waits */
    uint64_t open_deadline_ns;
    struct loop_timer patience, settle;
    struct co_group relays;
    struct list waiting, completed;
};

/* link.c */
void link_init(struct nbd_link *link, struct nbd_client *client);
bool link_connect(struct nbd_link *link, struct error *err); /* blocks */
void link_begin(struct nbd_link *link);                      /* connects in the background, again and again */
/* One attempt of that. False: it did not even begin, and link->nbd is NULL. `is_asking`: for options, not to go on. */
bool link_attempt(struct nbd_link *link, bool is_asking);
bool link_fail(struct nbd_link *link, struct error *err); /* says why an attempt has failed; returns false */
void link_close(struct nbd_link *link);                   /* for good: without a word to the calls in flight */
/* The server or the way to it is gone: calls go back to `waiting`, and the retry timer is set. */
void link_lost(struct nbd_link *link);
bool link_is_dead(const struct nbd_link *link);
void link_rewatch(struct nbd_link *link);              /* after each call to libnbd: its wishes may have changed */
struct nbd_link *link_best(struct nbd_client *client); /* the least loaded that is up; NULL: none */
void link_describe(struct nbd_client *client, struct nbd_handle *nbd); /* what the server says into the facts */

struct nbd_handle *link_new_handle(const struct nbd_client *client); /* NULL: libnbd says why */

/* relay.c: the descriptor for libnbd; -1 and link->why. */
int relay_start(struct nbd_link *link);
void relay_let_go(struct nbd_link *link); /* the server hears what libnbd has said, and no more */

/* client.c */
struct nbd_client *client_new(struct loop *loop, const struct nbd_client_settings *settings);
/* Everything that must not happen inside libnbd or submit(): burying the dead, moving what waits, completing. */
void client_settle(struct nbd_client *client);
void client_settle_soon(struct nbd_client *client);
void client_opened(struct nbd_client *client, struct error *failure);

#endif
