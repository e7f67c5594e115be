/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `nbd` driver: an export of an NBD server as a node. Connections and their mending are nbd-client/'s; here
 * requests of coroutines become calls, and names become options (protocol/nbd_name.c).
 *
 * A server that goes away: requests wait `reconnect-delay` seconds for it and then fail, until it is back; the default
 * of 0 fails them at once. Meanwhile the rest of the program goes on.
 */
#include "protocol/nbd.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/math.h"
#include "nbd-client/client.h"
#include "protocol/nbd_tls.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

#define DEFAULT_MAX_TRANSFER (32 * MiB)
#define MAX_SPAN (1ull << 30) /* of a zero or discard request */
#define NS_PER_S 1000000000ull
#define EXTENTS 32

enum { CONTEXT_ALLOCATION };
static const char *const contexts[] = {"base:allocation", NULL};
enum { STATE_HOLE = 1, STATE_ZERO = 2 }; /* flags of base:allocation */

struct nbd_node {
    struct nbd_client *client;
    struct nbd_tls tls;
    char *host;  /* numeric, when it could be looked up */
    bool opened; /* or failed to */
    bool given_up;
    struct error failure;
    struct co_queue opening;
};

/* Calls ----------------------------------------------------------------------------------------------------------- */

struct pending {
    struct nbd_call call;
    struct co *co;
    bool done;
    int result;
};

static void on_done(struct nbd_call *call, int result)
{
    struct pending *pending = container_of(call, struct pending, call);
    pending->done = true;
    pending->result = result;
    co_wake(pending->co);
}

static int perform(struct node *node, struct pending *pending)
{
    struct nbd_node *state = node->state;
    pending->co = co_self();
    pending->call.done = on_done;
    nbd_client_submit(state->client, &pending->call);
    while (!pending->done)
        co_suspend();
    return pending->result;
}

/* A read or write; `buffers` is cut to the request. */
static int transfer(struct node *node, enum nbd_call_kind kind, uint64_t offset, uint64_t length,
                    struct buffers buffers, bool durable)
{
    struct iovec one;
    auto_free struct iovec *many = NULL;
    struct pending pending = {.call = {.kind = kind, .offset = offset, .length = length, .durable = durable}};
    if (buffers.count == 1) {
        one = (struct iovec){(char *)buffers.iov->iov_base + buffers.skip, length};
        pending.call.iov = &one;
        pending.call.iov_count = 1;
    } else {
        many = try_calloc(buffers.count, sizeof *many);
        if (!many)
            return -ENOMEM;
        pending.call.iov = many;
        pending.call.iov_count = (unsigned)iov_slice(many, buffers.iov, (int)buffers.count, buffers.skip, length);
    }
    return perform(node, &pending);
}

static int nbd_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    if (flags & REQUEST_PREFETCH)
        return 0;
    /* The last aligned block may reach past the end. */
    uint64_t there = offset < node->size ? MIN(length, node->size - offset) : 0;
    if (there < length)
        iov_set(to.iov, (int)to.count, to.skip + there, 0, length - there);
    return there ? transfer(node, NBD_CALL_READ, offset, there, to, false) : 0;
}

static int nbd_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return transfer(node, NBD_CALL_WRITE, offset, MIN(length, node->size - offset), from, flags & REQUEST_FUA);
}

static const struct nbd_client_facts *facts_of(struct node *node)
{
    return nbd_client_facts(((struct nbd_node *)node->state)->client);
}

static int nbd_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    const struct nbd_client_facts *facts = facts_of(node);
    bool no_fallback = flags & REQUEST_NO_FALLBACK;
    if (!facts->can_zero || (no_fallback && !facts->can_fast_zero))
        return -ENOTSUP;
    struct pending pending = {.call = {.kind = NBD_CALL_ZERO,
                                       .offset = offset,
                                       .length = MIN(length, node->size - offset),
                                       .durable = flags & REQUEST_FUA,
                                       .may_unmap = flags & REQUEST_MAY_UNMAP,
                                       .no_fallback = no_fallback}};
    return perform(node, &pending);
}

static int nbd_discard(struct node *node, uint64_t offset, uint64_t length)
{
    if (!facts_of(node)->can_trim)
        return 0;
    struct pending pending = {
        .call = {.kind = NBD_CALL_TRIM, .offset = offset, .length = MIN(length, node->size - offset)}};
    return perform(node, &pending);
}

static int nbd_flush(struct node *node)
{
    struct pending pending = {.call = {.kind = NBD_CALL_FLUSH}};
    return facts_of(node)->can_flush ? perform(node, &pending) : 0;
}

static int nbd_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct nbd_call_extent answer[EXTENTS];
    struct pending pending = {.call = {.kind = NBD_CALL_STATUS,
                                       .offset = offset,
                                       .length = MIN(length, node->size - offset),
                                       .context = contexts[CONTEXT_ALLOCATION],
                                       .extents = answer,
                                       .extent_room = EXTENTS}};
    *extent = (struct extent){.kind = EXTENT_DATA, .length = length, .child_offset = offset, .allocated = true};
    if (!(facts_of(node)->contexts & 1u << CONTEXT_ALLOCATION))
        return 0;
    int result = perform(node, &pending);
    if (result || !pending.call.extent_count)
        return result;
    uint32_t flags = answer[0].flags & (STATE_HOLE | STATE_ZERO);
    uint64_t total = 0;
    for (size_t i = 0; i < pending.call.extent_count && (answer[i].flags & (STATE_HOLE | STATE_ZERO)) == flags; i++)
        total += answer[i].length;
    extent->kind = flags & STATE_ZERO ? EXTENT_ZERO : EXTENT_DATA;
    extent->length = MIN(total, length);
    extent->allocated = !(flags & STATE_HOLE);
    return 0;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static void on_opened(void *user, struct error *failure)
{
    struct node *node = user;
    struct nbd_node *state = node->state;
    state->opened = true;
    if (failure)
        error_move(&state->failure, failure);
    co_queue_wake_all(&state->opening);
}

static void set_limits(struct node *node)
{
    const struct nbd_client_facts *facts = facts_of(node);
    uint32_t minimum = facts->block_minimum;
    node->limits.request_alignment = minimum && is_power_of_two(minimum) ? minimum : 1;
    node->limits.max_transfer = facts->block_maximum ? MIN(facts->block_maximum, (uint32_t)DEFAULT_MAX_TRANSFER)
                                                     : (uint32_t)DEFAULT_MAX_TRANSFER;
    node->limits.optimal_transfer = facts->block_preferred;
    node->limits.max_zero = node->limits.max_discard = MAX_SPAN;
    node->write_flags = facts->can_fua ? REQUEST_FUA : 0;
    node->zero_flags = REQUEST_MAY_UNMAP | REQUEST_NO_FALLBACK | (facts->can_fua ? REQUEST_FUA : 0);
}

/* The server is back, perhaps with something else. What it cannot do any more its answers say. */
static void on_changed(void *user)
{
    struct node *node = user;
    const struct nbd_client_facts *facts = facts_of(node);
    if (!node->read_only && facts->read_only)
        log_warning("node '%s': the NBD server has come back read-only; writes fail", node->name);
    if (facts->size != node->size)
        node_set_size(node, facts->size);
    set_limits(node);
}

static bool set_server(const struct socket_address *server, struct nbd_client_settings *settings, struct error *err)
{
    switch (server->type) {
    case SOCKET_ADDRESS_TYPE_UNIX: settings->path = server->u.unix_.path; return true;
    case SOCKET_ADDRESS_TYPE_INET:
        settings->host = server->u.inet.host;
        settings->port = server->u.inet.port;
        return true;
    default: return fail(err, EINVAL, "an NBD server to connect to is of type unix or inet");
    }
}

/* A name server may take its time, which libnbd spends on the loop. (What connects for TLS does not.) */
struct lookup {
    const char *host, *port;
    char numeric[NI_MAXHOST];
};

static void look_up(void *arg)
{
    struct lookup *lookup = arg;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(lookup->host, lookup->port, &hints, &found))
        return;
    if (!found->ai_next || found->ai_next->ai_family == found->ai_family) /* else libnbd tries both families */
        getnameinfo(found->ai_addr, found->ai_addrlen, lookup->numeric, sizeof lookup->numeric, NULL, 0,
                    NI_NUMERICHOST);
    freeaddrinfo(found);
}

static void look_up_server(struct nbd_node *state, struct nbd_client_settings *settings)
{
    if (!settings->host || settings->tls)
        return;
    struct lookup lookup = {settings->host, settings->port, ""};
    co_offload(look_up, &lookup);
    if (*lookup.numeric)
        settings->host = state->host = xstrdup(lookup.numeric);
}

static bool check_writable(struct node *node, struct error *err)
{
    if (!facts_of(node)->read_only || node->read_only)
        return true;
    if (!node->auto_read_only)
        return fail(err, EACCES, "the NBD export is read-only: say read-only=on (or auto-read-only=on)");
    node->read_only = true;
    return true;
}

static bool connect_node(struct node *node, struct error *err)
{
    struct nbd_node *state = node->state;
    const struct blockdev_options_nbd *options = &node->options->u.nbd;
    auto_free char *name = xasprintf("node '%s'", node->name);
    struct nbd_client_settings settings = {
        .name = name,
        .export = options->export,
        .contexts = contexts,
        .open_timeout_ns = options->open_timeout * NS_PER_S,
        .has_patience = true,
        .patience_ns = options->reconnect_delay * NS_PER_S,
        .changed = on_changed,
        .user = node,
    };
    if (!set_server(options->server, &settings, err) ||
        !nbd_tls_set(&state->tls, graph_objects(node->graph), options->tls_creds, options->tls_hostname, &settings,
                     err))
        return false;
    look_up_server(state, &settings);
    state->client = nbd_client_start(node->loop, &settings, on_opened);
    while (!state->opened && !state->given_up)
        co_queue_wait_uncancellable(&state->opening);
    if (!state->opened)
        return fail(err, ECANCELED, "the program ends before the NBD server has answered");
    if (error_is_set(&state->failure)) {
        error_move(err, &state->failure);
        return false;
    }
    return check_writable(node, err);
}

static void nbd_close(struct node *node)
{
    struct nbd_node *state = node->state;
    if (state->client)
        nbd_client_close(TAKE(state->client));
    nbd_tls_release(&state->tls);
    error_clear(&state->failure);
    free(TAKE(state->host));
}

static bool nbd_open(struct node *node, struct error *err)
{
    struct nbd_node *state = node->state;
    if (loop_backend(node->loop) == LOOP_SIMULATED)
        return fail(err, ENOTSUP, "there is no network in a simulated world");
    co_queue_init(&state->opening);
    node->filename = nbd_name_of(&node->options->u.nbd);
    if (!connect_node(node, err)) {
        nbd_close(node);
        return false;
    }
    node->size = facts_of(node)->size;
    set_limits(node);
    return true;
}

static void nbd_give_up(struct node *node)
{
    struct nbd_node *state = node->state;
    state->given_up = true;
    if (state->client)
        nbd_client_give_up(state->client);
    co_queue_wake_all(&state->opening);
}

static bool nbd_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                       struct error *err)
{
    uint64_t now = facts_of(node)->size;
    if (size == now || (size < now && !exact))
        return true;
    return fail(err, ENOTSUP, "an NBD client cannot change the size of an export, which is %" PRIu64 " bytes", now);
}

static const char *const prefixes[] = {"nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix", NULL};

const struct block_driver nbd_driver = {
    .name = "nbd",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct nbd_node),
    .open = nbd_open,
    .close = nbd_close,
    .give_up = nbd_give_up,
    .prefixes = prefixes,
    .parse_name = nbd_parse_name,
    .read = nbd_read,
    .write = nbd_write,
    .extents = nbd_extents,
    .zero = nbd_zero,
    .discard = nbd_discard,
    .flush = nbd_flush,
    .resize = nbd_resize,
};
