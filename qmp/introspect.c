/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interface described by itself (query-qmp-schema), made from the tables that the program runs on: so it is right
 * for exactly the modules that this program has.
 *
 * The layout is the ecosystem's: commands and events first, then every type that can be reached from them. Names of
 * types are not part of the interface and are replaced by numbers, in the order in which types are met; built-in types
 * keep theirs, with one name for all integers. A list of T is "[T]". An optional member has "default": null.
 */
#include "qmp/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"

/* What a command without arguments takes and one without result returns. */
static const struct schema_type empty_object = {.name = "q_empty", .kind = SCHEMA_STRUCT};

/* A type or a list of it, waiting to be described. */
struct wanted {
    const struct schema_type *type;
    bool is_list;
    char *name;
};

struct builder {
    struct json *entries;
    vec(struct wanted) wanted;
    unsigned next_number;
};

struct builtin {
    const char *name, *json_type;
};

/* Name and JSON type of a built-in type; {0} for others. */
static struct builtin builtin_of(const struct schema_type *type)
{
    switch (type->kind) {
    case SCHEMA_BOOL: return (struct builtin){"bool", "boolean"};
    case SCHEMA_INT:
    case SCHEMA_UINT: return (struct builtin){"int", "int"};
    case SCHEMA_NUMBER: return (struct builtin){"number", "number"};
    case SCHEMA_STR: return (struct builtin){"str", "string"};
    case SCHEMA_NULL: return (struct builtin){"null", "null"};
    case SCHEMA_ANY: return (struct builtin){"any", "value"};
    default: return (struct builtin){0};
    }
}

static bool is_same(const struct schema_type *a, const struct schema_type *b)
{
    const char *name = builtin_of(a).name;
    return a == b || (name && builtin_of(b).name && !strcmp(name, builtin_of(b).name));
}

/* The name a type goes by; it will be described. */
static const char *want(struct builder *builder, const struct schema_type *type, bool is_list)
{
    if (!type)
        type = &empty_object;
    if (type->kind == SCHEMA_LIST) {
        type = type->members[0].type;
        is_list = true;
    }
    for (size_t i = 0; i < builder->wanted.count; i++) {
        const struct wanted *known = &builder->wanted.items[i];
        if (is_same(known->type, type) && known->is_list == is_list)
            return known->name;
    }
    const char *builtin = builtin_of(type).name;
    char *name = is_list   ? xasprintf("[%s]", want(builder, type, false))
                 : builtin ? xstrdup(builtin)
                           : xasprintf("%u", builder->next_number++);
    vec_push(&builder->wanted, ((struct wanted){type, is_list, name}));
    return name;
}

static void set_text(struct json *object, const char *key, const char *text)
{
    json_set(object, key, json_new_string(text));
}

static void set_features(struct json *object, const char *const *features)
{
    if (!features)
        return;
    struct json *list = json_new_array();
    for (; *features; features++)
        json_append(list, json_new_string(*features));
    json_set(object, "features", list);
}

static struct json *begin_entry(struct builder *builder, const char *name, const char *meta_type)
{
    struct json *entry = json_new_object();
    set_text(entry, "name", name);
    set_text(entry, "meta-type", meta_type);
    json_append(builder->entries, entry);
    return entry;
}

static void describe_enum(struct json *entry, const struct schema_type *type)
{
    struct json *members = json_new_array(), *values = json_new_array();
    for (size_t i = 0; i < type->n_values; i++) {
        struct json *member = json_new_object();
        set_text(member, "name", type->values[i]);
        json_append(members, member);
        json_append(values, json_new_string(type->values[i]));
    }
    json_set(entry, "members", members);
    json_set(entry, "values", values);
}

static void describe_alternate(struct builder *builder, struct json *entry, const struct schema_type *type)
{
    struct json *members = json_new_array();
    for (size_t i = 0; i < type->n_branches; i++) {
        struct json *member = json_new_object();
        set_text(member, "type", want(builder, type->branches[i].type, false));
        json_append(members, member);
    }
    json_set(entry, "members", members);
}

static void describe_variants(struct builder *builder, struct json *entry, const struct schema_type *type)
{
    const struct schema_member *tag = &type->members[type->tag];
    struct json *variants = json_new_array();
    for (size_t i = 0; i < type->n_branches; i++) {
        struct json *variant = json_new_object();
        set_text(variant, "case", tag->type->values[i]);
        set_text(variant, "type", want(builder, type->branches[i].type, false));
        json_append(variants, variant);
    }
    set_text(entry, "tag", tag->name);
    json_set(entry, "variants", variants);
}

static void describe_object(struct builder *builder, struct json *entry, const struct schema_type *type)
{
    struct json *members = json_new_array();
    for (size_t i = 0; i < type->n_members; i++) {
        const struct schema_member *member = &type->members[i];
        struct json *row = json_new_object();
        set_text(row, "name", member->name);
        set_text(row, "type", want(builder, member->type, member->flags & SCHEMA_IS_LIST));
        if (member->flags & SCHEMA_OPTIONAL)
            json_set(row, "default", json_new_null());
        set_features(row, member->features);
        json_append(members, row);
    }
    json_set(entry, "members", members);
    if (type->n_branches)
        describe_variants(builder, entry, type);
}

/* `wanted` by value: describing may make the array of wanted types move. */
static void describe(struct builder *builder, struct wanted wanted)
{
    struct builtin builtin = builtin_of(wanted.type);
    if (wanted.is_list) {
        struct json *entry = begin_entry(builder, wanted.name, "array");
        set_text(entry, "element-type", want(builder, wanted.type, false));
    } else if (builtin.name) {
        set_text(begin_entry(builder, wanted.name, "builtin"), "json-type", builtin.json_type);
    } else if (wanted.type->kind == SCHEMA_ENUM) {
        describe_enum(begin_entry(builder, wanted.name, "enum"), wanted.type);
    } else if (wanted.type->kind == SCHEMA_ALTERNATE) {
        describe_alternate(builder, begin_entry(builder, wanted.name, "alternate"), wanted.type);
    } else {
        describe_object(builder, begin_entry(builder, wanted.name, "object"), wanted.type);
    }
}

static void describe_module(struct builder *builder, const struct qmp_module *module)
{
    for (size_t i = 0; i < module->n_commands; i++) {
        const struct qmp_command *command = &module->commands[i];
        struct json *entry = begin_entry(builder, command->name, "command");
        set_text(entry, "arg-type", want(builder, command->arg, false));
        set_text(entry, "ret-type", want(builder, command->ret, false));
        set_features(entry, command->features);
    }
    for (size_t i = 0; i < module->n_events; i++) {
        struct json *entry = begin_entry(builder, module->events[i].name, "event");
        set_text(entry, "arg-type", want(builder, module->events[i].arg, false));
    }
}

struct json *qmp_introspect(const struct qmp_server *server)
{
    struct builder builder = {.entries = json_new_array()};
    for (size_t i = 0; i < server->modules.count; i++)
        describe_module(&builder, server->modules.items[i]);
    for (size_t i = 0; i < builder.wanted.count; i++) /* grows while we go */
        describe(&builder, builder.wanted.items[i]);
    for (size_t i = 0; i < builder.wanted.count; i++)
        free(builder.wanted.items[i].name);
    vec_free(&builder.wanted);
    return builder.entries;
}
