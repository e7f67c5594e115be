/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of NBD servers, by libnbd, driven from a loop: several connections to one export where the server says that
 * this is safe (a flush on one then covers what was finished on all), any number of calls in flight, and a connection
 * that breaks is made again while its calls wait. Used by the block graph's `nbd` driver and by the emulator's disks.
 *
 * A call belongs to its caller, who gets it back by done(), later, on the loop, never from inside nbd_client_submit().
 * Calls that were sent and not answered when a connection broke are sent again: none was reported, so nobody orders
 * anything behind them, and doing any of them twice has the effect of doing it once.
 *
 * What a restart of the server cannot hide: writes that the old server had answered but not yet stored may be missing
 * in the new one, as after a power cut. NBD has no way to learn of that.
 *
 * Everything here belongs to the loop's thread and does not yield, where it does not say so. Protocol: "The NBD
 * protocol" (NetworkBlockDevice).
 */
#ifndef NBD_CLIENT_CLIENT_H
#define NBD_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/list.h"

struct loop;
struct stream;
struct nbd_client;
struct nbd_link;

/* TLS is the craft of whoever has the credentials. `begin` makes an encrypted stream of one that is ready for it, takes
 * it over in any case, and returns NULL and an error when the two sides do not come together; `end` says goodbye to the
 * server. Both YIELD. */
struct nbd_client_tls {
    struct stream *(*begin)(void *user, struct stream *plain, struct error *err);
    void (*end)(struct stream *stream);
    void *user;
};

struct nbd_client_settings {
    const char *name;                 /* for messages: "disk 'd0'", "node 'n'" */
    const char *path;                 /* of a UNIX socket; NULL: TCP */
    const char *host, *port;          /* of a TCP server */
    const char *export;               /* name of the export; NULL: "" */
    const struct nbd_client_tls *tls; /* NULL: none. Lives as long as the client; not for nbd_client_open() */
    const char *const *contexts;      /* metadata contexts to ask for, NULL-terminated; NULL: none */
    unsigned max_connections;         /* 0: 4 */
    uint64_t open_timeout_ns;         /* try to connect for so long; 0: once */
    bool has_patience;                /* calls wait for a server that is gone no longer than patience_ns, then fail */
    uint64_t patience_ns;
    bool is_final; /* a server that is gone is gone for good */
    /* The server was looked at again after a reconnect: facts may be others. NULL: does not matter. */
    void (*changed)(void *user);
    void *user;
};

/* What the server said last. */
struct nbd_client_facts {
    uint64_t size;                                          /* bytes */
    uint32_t block_minimum, block_preferred, block_maximum; /* 0: it did not say */
    bool read_only, can_flush, can_fua, can_trim, can_zero, can_fast_zero, can_cache, can_multi_conn;
    uint32_t contexts; /* bit i: it has context i of the settings */
};

enum nbd_call_kind { NBD_CALL_READ, NBD_CALL_WRITE, NBD_CALL_FLUSH, NBD_CALL_TRIM, NBD_CALL_ZERO, NBD_CALL_STATUS };

struct nbd_call_extent {
    uint64_t length; /* bytes */
    uint32_t flags;  /* the context's */
};

struct nbd_call {
    enum nbd_call_kind kind;
    uint64_t offset, length; /* bytes, inside the export, multiples of block_minimum; 0, 0 for a flush */
    const struct iovec *iov; /* READ, WRITE: `length` bytes in all; valid until done */
    unsigned iov_count;
    bool durable;     /* WRITE, ZERO, TRIM: on stable storage when done (a flush follows where the server has no FUA) */
    bool may_unmap;   /* ZERO: space may be deallocated */
    bool no_fallback; /* ZERO: -ENOTSUP rather than slower than writing; needs can_fast_zero */
    const char *context;             /* STATUS: which; the string of the settings */
    struct nbd_call_extent *extents; /* STATUS: room for extent_room of them, which start at `offset`; for the caller */
    size_t extent_room, extent_count;
    void (*done)(struct nbd_call *call, int result); /* 0 or -errno */
    void *owner;

    /* The client's, while it is in flight. */
    struct list link;
    struct nbd_link *sent_on;
    void *bounce;             /* one piece of memory for scattered data */
    uint64_t progress, piece; /* large trims and zeroes go in pieces */
    int error;                /* positive errno of the step that ended */
    bool is_flushing;
};

/* Connects and waits for it, blocking the thread: for programs that come up. NULL and an error after open_timeout_ns.
 */
struct nbd_client *nbd_client_open(struct loop *loop, const struct nbd_client_settings *settings, struct error *err);

/* The same without blocking: `opened` is called once, later, with NULL or with what went wrong (its message to be
 * taken); then the client is still there, to be closed. A host name is looked up by the thread. */
struct nbd_client *nbd_client_start(struct loop *loop, const struct nbd_client_settings *settings,
                                    void (*opened)(void *user, struct error *failure));

/* Nothing may be in flight. Tells the server. With TLS: YIELDS, for two seconds at most. */
void nbd_client_close(struct nbd_client *client);

const struct nbd_client_facts *nbd_client_facts(const struct nbd_client *client);
void nbd_client_submit(struct nbd_client *client, struct nbd_call *call);
/* Calls that wait for the server fail now, and so do later ones that would have to. */
void nbd_client_give_up(struct nbd_client *client);

/* What a server has: `begin` is told how many exports there are, then `tell` each of them. YIELDS. */
struct nbd_listed_export {
    const char *name, *description; /* description NULL: none */
    bool is_known;                  /* the server described it: the rest is valid */
    struct nbd_client_facts facts;
    bool can_df;
    char **contexts; /* names of its metadata contexts */
    size_t context_count;
};
struct nbd_listing {
    void (*begin)(void *user, size_t count);
    void (*tell)(void *user, const struct nbd_listed_export *export);
    void *user;
};
bool nbd_client_list(struct loop *loop, const struct nbd_client_settings *settings, const struct nbd_listing *listing,
                     struct error *err);

#endif
