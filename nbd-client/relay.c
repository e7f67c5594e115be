/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS for a connection of libnbd, which knows nothing of it:
 *
 *      libnbd <== socketpair ==> relay <== TLS ==> server
 *
 * libnbd could speak TLS by itself, but not with our credentials: it reads the files anew with every connection, knows
 * neither a key's password nor anonymous credentials nor a choice of algorithms, and cannot be told that the server's
 * certificate is for another name than the one it connects to. So the relay does what comes before encryption (the
 * greeting, NBD_OPT_STARTTLS), lets the owner of the credentials shake hands, and then plays a server that has just
 * begun to libnbd: it repeats the greeting, swallows the flags that answer it (the server has them already), and from
 * there on carries bytes both ways without looking at them.
 *
 * Each direction is a loop of one receive and one send, so whoever does not read holds up nobody but who writes to
 * him. The end of either side ends the other. A relay belongs to its link only while that wants it: let go, it brings
 * what libnbd has said last to the server and ends, after GOODBYE_NS in any case; the client's end waits for it.
 *
 * Protocol: "The NBD protocol", fixed newstyle negotiation.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/stream.h"
#include "nbd-client/internal.h"

#define MAGIC 0x4e42444d41474943ull        /* "NBDMAGIC" */
#define OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define REPLY_MAGIC 0x3e889045565a9ull
enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2, OPT_STARTTLS = 5, REP_ACK = 1 };
enum { GREETING = 18, FLAGS = 4, OPTION_HEAD = 16, REPLY_HEAD = 20, MAX_TEXT = 4096 };

enum { PIECE = 64 << 10 };
#define HANDSHAKE_NS 30000000000ull
#define GOODBYE_NS 2000000000ull

struct relay {
    struct nbd_link *link; /* NULL: it has let go */
    struct nbd_client *client;
    struct stream *near, *far; /* to libnbd; to the server, first in clear */
    struct co *co;
    struct co_group upwards; /* the coroutine that carries to the server */
    bool is_carrying;
    struct loop_timer deadline;
    uint8_t greeting[GREETING];
};

/* Before encryption ----------------------------------------------------------------------------------------------- */

static bool read_greeting(struct relay *relay, struct error *err)
{
    int error = stream_recv_all(relay->far, relay->greeting, GREETING);
    if (error < 0)
        return fail_errno(err, error, "the server does not greet");
    if (load_be64(relay->greeting) != MAGIC || load_be64(relay->greeting + 8) != OPTION_MAGIC)
        return fail(err, EPROTO, "this is not an NBD server, or one that is too old for TLS");
    return load_be16(relay->greeting + 16) & FIXED_NEWSTYLE ||
           fail(err, EPROTO, "the server is too old for TLS: it has no fixed newstyle negotiation");
}

static uint32_t client_flags(const struct relay *relay)
{
    return load_be16(relay->greeting + 16) & (FIXED_NEWSTYLE | NO_ZEROES);
}

/* What the server says to those it refuses is for people to read. */
static bool fail_refused(struct stream *server, uint32_t type, uint32_t length, struct error *err)
{
    char text[MAX_TEXT + 1] = "";
    if (length <= MAX_TEXT && stream_recv_all(server, text, length) == 0)
        text[length] = 0;
    return fail(err, EACCES, "the server does not start TLS (reply %#" PRIx32 ")%s%s", type, *text ? ": " : "", text);
}

static bool ask_for_tls(struct relay *relay, struct error *err)
{
    uint8_t asking[FLAGS + OPTION_HEAD], head[REPLY_HEAD];
    store_be32(asking, client_flags(relay));
    store_be64(asking + FLAGS, OPTION_MAGIC);
    store_be32(asking + FLAGS + 8, OPT_STARTTLS);
    store_be32(asking + FLAGS + 12, 0);
    int error = stream_send_all(relay->far, asking, sizeof asking);
    if (!error)
        error = stream_recv_all(relay->far, head, sizeof head);
    if (error < 0)
        return fail_errno(err, error, "the server does not answer when it is asked for TLS");
    uint32_t option = load_be32(head + 8), type = load_be32(head + 12), length = load_be32(head + 16);
    if (load_be64(head) != REPLY_MAGIC || option != OPT_STARTTLS)
        return fail(err, EPROTO, "the server's answer makes no sense when it is asked for TLS");
    return type == REP_ACK
               ? !length || fail(err, EPROTO, "the server's consent to TLS has a length (%" PRIu32 ")", length)
               : fail_refused(relay->far, type, length, err);
}

static bool connect_server(struct relay *relay, struct error *err)
{
    const struct nbd_client_settings *settings = &relay->client->settings;
    const struct stream_address address = {.kind = settings->path ? SOCKET_UNIX : SOCKET_INET,
                                           .path = settings->path,
                                           .host = settings->host,
                                           .port = settings->port};
    relay->far = stream_connect(relay->client->loop, &address, err);
    if (!relay->far || !read_greeting(relay, err) || !ask_for_tls(relay, err))
        return false;
    relay->far = settings->tls->begin(settings->tls->user, TAKE(relay->far), err);
    return relay->far;
}

/* libnbd has a server before it now. */
static bool greet_libnbd(struct relay *relay, struct error *err)
{
    uint8_t flags[FLAGS];
    int error = stream_send_all(relay->near, relay->greeting, GREETING);
    if (!error)
        error = stream_recv_all(relay->near, flags, FLAGS);
    if (error < 0)
        return fail_errno(err, error, "libnbd");
    return load_be32(flags) == client_flags(relay) ||
           fail(err, EPROTO, "libnbd answers the greeting with flags %#" PRIx32 ", the server was told %#" PRIx32,
                load_be32(flags), client_flags(relay));
}

/* Carrying -------------------------------------------------------------------------------------------------------- */

static void carry(struct stream *from, struct stream *to)
{
    auto_free char *room = xmalloc(PIECE);
    ssize_t got;
    while ((got = stream_recv(from, room, PIECE)) > 0 && stream_send_all(to, room, (size_t)got) == 0)
        continue;
}

static void carry_up(void *arg)
{
    struct relay *relay = arg;
    carry(relay->near, relay->far);
    relay->client->settings.tls->end(relay->far);
    stream_shutdown(relay->far);
}

static void on_deadline(void *arg)
{
    struct relay *relay = arg;
    co_cancel(relay->co);
    co_group_cancel(&relay->upwards);
}

static void relay_free(struct relay *relay)
{
    if (relay->link)
        relay->link->relay = NULL;
    loop_timer_cancel(&relay->deadline);
    stream_close(relay->far);
    stream_close(relay->near); /* libnbd sees the end */
    free(relay);
}

static void relay_run(void *arg)
{
    struct relay *relay = arg;
    struct loop *loop = relay->client->loop;
    auto_error err = {0};
    relay->co = co_self();
    if (relay->link)
        loop_timer_arm(loop, &relay->deadline, loop_now_ns(loop) + HANDSHAKE_NS);
    if (connect_server(relay, &err) && greet_libnbd(relay, &err)) {
        relay->is_carrying = true;
        if (relay->link) /* else the deadline is that of the farewell */
            loop_timer_cancel(&relay->deadline);
        co_spawn(loop, &relay->upwards, carry_up, relay);
        carry(relay->far, relay->near);
        stream_shutdown(relay->near);
        co_group_wait(&relay->upwards);
    }
    if (relay->link)
        error_move(&relay->link->why, &err);
    relay_free(relay);
}

/* The link's side ------------------------------------------------------------------------------------------------- */

int relay_start(struct nbd_link *link)
{
    struct nbd_client *client = link->client;
    int ends[2];
    error_clear(&link->why);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        fail_errno(&link->why, errno, "socketpair");
        return -1;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK); /* libnbd's end alone: the other one's stream does its own waiting */
    struct relay *relay = link->relay = new (struct relay);
    relay->link = link;
    relay->client = client;
    relay->near = stream_from_fd(client->loop, ends[1]);
    relay->deadline = (struct loop_timer){.fn = on_deadline, .arg = relay};
    co_group_init(&relay->upwards);
    relay->co = co_spawn(client->loop, &client->relays, relay_run, relay);
    return ends[0];
}

void relay_let_go(struct nbd_link *link)
{
    struct relay *relay = TAKE(link->relay);
    if (!relay)
        return;
    relay->link = NULL;
    loop_timer_arm(relay->client->loop, &relay->deadline,
                   loop_now_ns(relay->client->loop) + (relay->is_carrying ? GOODBYE_NS : 0));
}
