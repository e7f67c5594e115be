/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-nbd -L: the exports of a server, in the layout that people and scripts know. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/math.h"
#include "image-tools/nbd/nbd.h"
#include "nbd-client/client.h"
#include "protocol/nbd_tls.h"

/* Transmission flags and their names, in the order of their bits ("The NBD protocol", transmission flags). */
static void print_flags(const struct nbd_listed_export *export)
{
    const struct nbd_client_facts *facts = &export->facts;
    const struct {
        bool is_set;
        unsigned bit;
        const char *name;
    } flags[] = {
        {facts->read_only, 1, "readonly"},   {facts->can_flush, 2, "flush"},  {facts->can_fua, 3, "fua"},
        {facts->can_trim, 5, "trim"},        {facts->can_zero, 6, "zeroes"},  {export->can_df, 7, "df"},
        {facts->can_multi_conn, 8, "multi"}, {facts->can_cache, 10, "cache"}, {facts->can_fast_zero, 11, "fast-zero"},
    };
    unsigned value = 1; /* there are flags */
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
        value |= flags[i].is_set ? 1u << flags[i].bit : 0;
    printf("  flags: 0x%x (", value);
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (flags[i].is_set)
            printf(" %s", flags[i].name);
    }
    printf(" )\n");
}

static void begin(void *user, size_t count)
{
    printf("exports available: %zu\n", count);
}

static void tell(void *user, const struct nbd_listed_export *export)
{
    printf(" export: '%s'\n", export->name);
    if (export->description)
        printf("  description: %s\n", export->description);
    if (!export->is_known)
        return;
    printf("  size:  %" PRIu64 "\n", export->facts.size);
    print_flags(export);
    if (export->facts.block_minimum)
        printf("  min block: %" PRIu32 "\n  opt block: %" PRIu32 "\n  max block: %" PRIu32 "\n",
               export->facts.block_minimum, export->facts.block_preferred, export->facts.block_maximum);
    if (!export->context_count)
        return;
    printf("  available meta contexts: %zu\n", export->context_count);
    for (size_t i = 0; i < export->context_count; i++)
        printf("   %s\n", export->contexts[i]);
}

int nbd_list(struct tool *tool, const struct nbd_options *options)
{
    auto_error err = {0};
    struct nbd_tls tls = {0};
    struct nbd_client_settings settings = {
        .name = "list",
        .path = options->socket,
        .host = options->socket ? NULL
                : options->bind ? options->bind
                                : "localhost",
        .port = options->port ? options->port : "10809",
    };
    const struct nbd_listing listing = {begin, tell, NULL};
    bool ok = nbd_tls_set(&tls, tool->objects, options->tls_creds, options->tls_hostname, &settings, &err) &&
              nbd_client_list(tool->loop, &settings, &listing, &err);
    nbd_tls_release(&tls);
    if (!ok)
        log_failure(&err);
    return ok ? 0 : 1;
}
