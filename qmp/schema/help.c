/* SPDX-License-Identifier: Apache-2.0 */
/* Help texts of options, from the same tables that read them. */
#include "qmp/schema/schema.h"

#include <inttypes.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "qmp/schema/walk.h"

#define NAME_COLUMN 22

static void append_values(struct strbuf *text, const struct schema_type *type)
{
    for (size_t i = 0; i < type->n_values; i++)
        strbuf_printf(text, "%s%s", i ? "|" : "", type->values[i]);
}

static void append_type(struct strbuf *text, const struct schema_type *type)
{
    bool is_first = true;
    switch (type->kind) {
    case SCHEMA_BOOL: strbuf_append(text, "bool (on/off)"); break;
    case SCHEMA_INT:
    case SCHEMA_UINT: strbuf_append(text, type == &schema_size ? "size" : "num"); break;
    case SCHEMA_NUMBER: strbuf_append(text, "num"); break;
    case SCHEMA_STR: strbuf_append(text, "str"); break;
    case SCHEMA_ENUM: append_values(text, type); break;
    case SCHEMA_ALTERNATE:
        for (size_t i = 0; i < type->n_branches; i++) {
            if (type->branches[i].type->kind == SCHEMA_NULL)
                continue; /* a command line cannot say it */
            strbuf_append(text, is_first ? "" : "|");
            append_type(text, type->branches[i].type);
            is_first = false;
        }
        break;
    default: strbuf_append(text, "options"); break;
    }
}

static void append_note(struct strbuf *notes, const char *text)
{
    strbuf_printf(notes, "%s%s", notes->length ? "; " : "", text);
}

/* " (512 to 2097152 bytes; default 65536)" */
static void append_notes(struct strbuf *text, const struct schema_member *member)
{
    auto_strbuf notes = {0};
    const char *unit = member->unit ? member->unit : "";
    if (member->flags & SCHEMA_HAS_LIMITS) {
        auto_free char *limits =
            xasprintf("%" PRId64 " to %" PRId64 "%s%s", member->min, member->max, *unit ? " " : "", unit);
        append_note(&notes, limits);
    } else if (*unit && member->type != &schema_size) {
        append_note(&notes, unit);
    }
    if (member->flags & SCHEMA_HAS_DEFAULT) {
        auto_free char *number = xasprintf("%" PRId64, member->default_value);
        const char *value = member->type->kind == SCHEMA_ENUM   ? member->type->values[member->default_value]
                            : member->type->kind == SCHEMA_BOOL ? (member->default_value ? "on" : "off")
                                                                : number;
        auto_free char *note = xasprintf("default: %s", value);
        append_note(&notes, note);
    }
    if (!(member->flags & SCHEMA_OPTIONAL))
        append_note(&notes, "mandatory");
    if (notes.length)
        strbuf_printf(text, " (%s)", notes.text);
}

static void append_members(struct strbuf *text, const struct schema_type *type, const char *prefix)
{
    for (size_t i = 0; i < type->n_members; i++) {
        const struct schema_member *member = &type->members[i];
        auto_free char *name = xasprintf("%s%s%s", prefix, member->name, member->flags & SCHEMA_IS_LIST ? ".N" : "");
        if (member->type->kind == SCHEMA_STRUCT && !member->type->n_branches) {
            auto_free char *deeper = xasprintf("%s.", name);
            append_members(text, member->type, deeper);
            continue;
        }
        auto_strbuf left = {0};
        strbuf_printf(&left, "%s=<", name);
        append_type(&left, member->type);
        strbuf_append_char(&left, '>');
        strbuf_printf(text, "  %-*s - %s", NAME_COLUMN, left.text, member->doc ? member->doc : "");
        append_notes(text, member);
        strbuf_append_char(text, '\n');
    }
}

/* What the values of a union's tag stand for. */
static void append_choices(struct strbuf *text, const struct schema_member *tag)
{
    strbuf_printf(text, "Values of %s:\n", tag->name);
    for (size_t i = 0; i < tag->type->n_values; i++)
        strbuf_printf(text, "  %-*s - %s\n", NAME_COLUMN, tag->type->values[i], tag->type->value_docs[i]);
}

char *schema_help(const struct schema_type *type, const char *tag_value)
{
    auto_strbuf text = {0};
    append_members(&text, type, "");
    if (!type->n_branches || type->kind != SCHEMA_STRUCT)
        return strbuf_take(&text);
    const struct schema_member *tag = &type->members[type->tag];
    int value;
    if (!tag_value || !schema_enum_parse(tag->type, tag_value, &value))
        append_choices(&text, tag);
    else if (type->branches[value].type)
        append_members(&text, type->branches[value].type, "");
    return strbuf_take(&text);
}
