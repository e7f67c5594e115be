/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of nodes as people write them in json:{...} and --image-opts are looser than the schema: keys may be dotted
 * at any level, and a file of the host needs no driver. Here such a tree is brought into the schema's form, before it
 * is read as BlockdevOptions.
 */
#include "block/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "qmp/schema/json.h"

/* Is there a member of this name that is no object? Then the dotted key stays, and the schema refuses it. */
static bool is_taken(const struct json *object, const char *key, size_t length)
{
    auto_free char *head = xstrndup(key, length);
    const struct json *there = json_get(object, head);
    return there && json_kind(there) != JSON_OBJECT;
}

/* One dotted key of the object moves into the member it names; false when there is none left. */
static bool nest_one_key(struct json *object)
{
    for (struct json_member m = json_first(object); m.key; m = json_next(m)) {
        const char *dot = strchr(m.key, '.');
        if (!dot || dot == m.key || is_taken(object, m.key, (size_t)(dot - m.key)))
            continue;
        auto_free char *key = xstrdup(m.key), *head = xstrndup(m.key, (size_t)(dot - m.key));
        struct json *inner = json_get(object, head) ? json_take(object, head) : json_new_object();
        json_set(inner, key + strlen(head) + 1, json_take(object, key));
        json_set(object, head, inner);
        return true;
    }
    return false;
}

static void nest_dotted_keys(struct json *object, unsigned depth);

/* {"0": x, "1": y} -> [x, y]: what "children.0" and "children.1" have become. */
static struct json *list_of_numbered(struct json *object)
{
    size_t count = json_length(object);
    for (size_t i = 0; i < count; i++) {
        auto_free char *key = xasprintf("%zu", i);
        if (!json_get(object, key))
            return object;
    }
    struct json *list = json_new_array();
    for (size_t i = 0; i < count; i++) {
        auto_free char *key = xasprintf("%zu", i);
        json_append(list, json_take(object, key));
    }
    json_free(object);
    return list;
}

/* Both take the value and give back what it has become. */
static struct json *nest_items(struct json *array, unsigned depth)
{
    struct json *result = json_new_array();
    for (size_t i = 0; i < json_length(array); i++) {
        struct json *item = json_clone(json_at(array, i));
        if (json_kind(item) == JSON_OBJECT)
            nest_dotted_keys(item, depth);
        json_append(result, item);
    }
    json_free(array);
    return result;
}

static struct json *nest_value(struct json *value, unsigned depth)
{
    if (json_kind(value) == JSON_ARRAY)
        return nest_items(value, depth);
    nest_dotted_keys(value, depth);
    return json_length(value) ? list_of_numbered(value) : value;
}

/* "file.filename": x -> "file": {"filename": x}, which json:{...} may use at any level. Names in images are written by
 * strangers: what is nested deeper than JSON itself may be stays as it is, and the schema refuses it. */
static void nest_dotted_keys(struct json *object, unsigned depth)
{
    if (depth > JSON_MAX_DEPTH)
        return;
    while (nest_one_key(object))
        ;
    auto_free vec(char *) keys = {0};
    for (struct json_member m = json_first(object); m.key; m = json_next(m)) {
        if (json_kind(m.value) == JSON_OBJECT || json_kind(m.value) == JSON_ARRAY)
            vec_push(&keys, xstrdup(m.key));
    }
    char **key;
    vec_for_each (key, &keys) {
        json_set(object, *key, nest_value(json_take(object, *key), depth + 1));
        free(*key);
    }
}

static void name_plain_files(const struct graph *graph, struct json *object);

static struct json *name_plain_items(const struct graph *graph, struct json *array)
{
    struct json *result = json_new_array();
    for (size_t i = 0; i < json_length(array); i++) {
        struct json *item = json_clone(json_at(array, i));
        if (json_kind(item) == JSON_OBJECT)
            name_plain_files(graph, item);
        json_append(result, item);
    }
    json_free(array);
    return result;
}

/* {"filename": x} without a driver is a file of the host, at every place where a node is defined. */
static void name_plain_files(const struct graph *graph, struct json *object)
{
    static const char *const children[] = {"file", "backing", "data-file", "image", "log", "raw", "target", "test"};
    for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
        const struct json *child = json_get(object, children[i]);
        if (!child || json_kind(child) != JSON_OBJECT)
            continue;
        struct json *inner = json_take(object, children[i]);
        name_plain_files(graph, inner);
        json_set(object, children[i], inner);
    }
    const struct json *list = json_get(object, "children");
    if (list && json_kind(list) == JSON_ARRAY)
        json_set(object, "children", name_plain_items(graph, json_take(object, "children")));
    const char *filename = json_string(json_get(object, "filename"));
    if (!filename || json_get(object, "driver"))
        return;
    json_set(object, "driver", json_new_string(name_is_device(graph, filename) ? "host_device" : "file"));
}

void options_tree_complete(const struct graph *graph, struct json *tree)
{
    nest_dotted_keys(tree, 0);
    name_plain_files(graph, tree);
}
