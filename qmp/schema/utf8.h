/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 (RFC 3629), byte by byte and character by character. Overlong forms, surrogates and values above U+10FFFF are
 * not UTF-8.
 */
#ifndef QMP_SCHEMA_UTF8_H
#define QMP_SCHEMA_UTF8_H

#include <stdbool.h>
#include <stdint.h>

/* What a decoder that has seen part of a character expects next. Zeroed: the beginning of a character. */
struct utf8_state {
    uint8_t missing;   /* continuation bytes to come */
    uint8_t low, high; /* range of the next one */
    uint32_t character;
};

/* False: the byte cannot stand here. When state->missing is 0 afterwards, state->character is complete. */
static inline bool utf8_feed(struct utf8_state *state, uint8_t byte)
{
    if (state->missing) {
        if (byte < state->low || byte > state->high)
            return false;
        *state = (struct utf8_state){state->missing - 1, 0x80, 0xbf, state->character << 6 | (byte & 0x3f)};
        return true;
    }
    if (byte < 0x80)
        *state = (struct utf8_state){.character = byte};
    else if (byte >= 0xc2 && byte <= 0xdf)
        *state = (struct utf8_state){1, 0x80, 0xbf, byte & 0x1f};
    else if (byte >= 0xe0 && byte <= 0xef)
        *state = (struct utf8_state){2, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf, byte & 0x0f};
    else if (byte >= 0xf0 && byte <= 0xf4)
        *state = (struct utf8_state){3, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf, byte & 0x07};
    else
        return false;
    return true;
}

/* The next character of a NUL-terminated text; U+FFFD for a byte that is not part of one. */
static inline uint32_t utf8_next(const char **text)
{
    struct utf8_state state = {0};
    const char *byte = *text;
    do {
        if (!utf8_feed(&state, (uint8_t)*byte)) {
            ++*text;
            return 0xfffd;
        }
        byte++;
    } while (state.missing);
    *text = byte;
    return state.character;
}

#endif
