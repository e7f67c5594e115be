/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One option of the negotiation: what its function is given, how it answers, how it reads data. Private to nbd/.
 *
 * A client is untrusted: option data is read whole into a bounded buffer first, then parsed with `struct cursor`, which
 * cannot run over.
 */
#ifndef NBD_OPTION_H
#define NBD_OPTION_H

#include "nbd/internal.h"

/* What an option function wants next. */
enum outcome { GO_ON, BEGIN_TRANSMISSION, HANG_UP };

struct option {
    struct nbd_connection *connection;
    uint32_t number;
    const uint8_t *data;
    uint32_t length;
};

/* option.c: replies. False when the client is gone. */
bool option_reply(const struct option *option, uint32_t type, const void *data, size_t length);
enum outcome option_acknowledge(const struct option *option);
/* An error reply carries a text for people. */
enum outcome option_refuse(const struct option *option, uint32_t type, const char *format, ...) PRINTF_LIKE(3, 4);
/* Refuses an option that has data and should have none. GO_ON: it has none. */
bool option_is_empty(const struct option *option, const char *name, enum outcome *outcome);

struct cursor {
    const uint8_t *at;
    size_t left;
    bool bad;
};
const uint8_t *cursor_take(struct cursor *cursor, size_t size); /* NULL: there is less */
uint32_t cursor_take_u32(struct cursor *cursor);
uint16_t cursor_take_u16(struct cursor *cursor);
const char *cursor_take_string(struct cursor *cursor, uint32_t *length); /* not terminated */

/* option_export.c */
enum outcome option_export_name(const struct option *option);
enum outcome option_list(const struct option *option);
enum outcome option_info_or_go(const struct option *option);
/* option_context.c */
enum outcome option_meta_context(const struct option *option);
/* option_tls.c */
enum outcome option_start_tls(const struct option *option);

#endif
