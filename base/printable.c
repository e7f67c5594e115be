/* SPDX-License-Identifier: Apache-2.0 */
/* One character after the other, as UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). */
#include "base/printable.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the character that begins here, and its number; 0: it is none. */
static unsigned decode(const unsigned char *at, uint32_t *character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned length = *at < 0x80 ? 1 : *at >> 5 == 6 ? 2 : *at >> 4 == 14 ? 3 : *at >> 3 == 30 ? 4 : 0;
    if (length <= 1) {
        *character = *at;
        return length;
    }
    *character = *at & (0x7fu >> length);
    for (unsigned i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) /* the end of the text, too */
            return 0;
        *character = *character << 6 | (at[i] & 0x3f);
    }
    bool valid = *character >= least[length] && *character <= 0x10ffff && (*character < 0xd800 || *character > 0xdfff);
    return valid ? length : 0;
}

static bool is_harmless(uint32_t c)
{
    bool is_control = c < 0x20 || (c >= 0x7f && c < 0xa0);
    bool is_line_end = c == 0x2028 || c == 0x2029;
    bool is_directional =
        c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
    return !is_control && !is_line_end && !is_directional;
}

void printable_append(struct strbuf *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    while (*at) {
        uint32_t character;
        unsigned length = decode(at, &character);
        bool keep = length && is_harmless(character);
        for (unsigned i = 0; i < (length ? length : 1); i++) {
            if (keep)
                strbuf_append_char(out, (char)at[i]);
            else
                strbuf_printf(out, "\\x%02x", at[i]);
        }
        at += length ? length : 1;
    }
}

char *printable(const char *text)
{
    auto_strbuf out = {0};
    if (!text)
        return NULL;
    printable_append(&out, text);
    return strbuf_take(&out);
}
