/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key=value language: text -> elements -> a tree of objects -> lists where all keys are numbers. Types come later,
 * from the schema.
 */
#include "qmp/schema/keyval.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"

#define KEY_MAX_LENGTH 127 /* of one part of a key */

/* One element of the text; both parts are owned. */
struct element {
    char *key;   /* NULL: the element is bare */
    char *value; /* commas undoubled */
};

static void element_cleanup(struct element *element)
{
    free(element->key);
    free(element->value);
}
#define auto_element __attribute__((cleanup(element_cleanup))) struct element

/* Reads up to a single comma or the end, and steps behind the comma. */
static char *take_value(const char **text)
{
    auto_strbuf value = {0};
    while (**text) {
        if (**text == ',') {
            ++*text;
            if (**text != ',')
                break;
        }
        strbuf_append_char(&value, *(*text)++);
    }
    return strbuf_take(&value);
}

static struct element take_element(const char **text)
{
    struct element element = {0};
    size_t length = strcspn(*text, "=,");
    if ((*text)[length] == '=') {
        element.key = xstrndup(*text, length);
        *text += length + 1;
    }
    element.value = take_value(text);
    return element;
}

static bool is_help(const struct element *element)
{
    return !element->key && (!strcmp(element->value, "help") || !strcmp(element->value, "?"));
}

bool keyval_wants_help(const char *text)
{
    while (*text && *text != '{') {
        auto_element element = take_element(&text);
        if (is_help(&element))
            return true;
    }
    return false;
}

char *keyval_peek(const char *text, const char *implied_key, const char *key)
{
    char *found = NULL;
    for (bool is_first = true; *text; is_first = false) {
        auto_element element = take_element(&text);
        const char *name = element.key ? element.key : is_first && !is_help(&element) ? implied_key : NULL;
        if (name && !strcmp(name, key)) {
            free(found);
            found = TAKE(element.value);
        }
    }
    return found;
}

char *keyval_escape(const char *value)
{
    auto_strbuf text = {0};
    for (; *value; value++) {
        strbuf_append_char(&text, *value);
        if (*value == ',')
            strbuf_append_char(&text, ',');
    }
    return strbuf_take(&text);
}

static bool check_part(const char *key, const char *part, size_t length, struct error *err)
{
    if (!length)
        return fail(err, EINVAL, "key '%s': %s", key, *key ? "a part between dots is empty" : "must not be empty");
    if (length > KEY_MAX_LENGTH)
        return fail(err, EINVAL, "key '%.40s...': a part is longer than %d characters", key, KEY_MAX_LENGTH);
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)part[i]) && part[i] != '-' && part[i] != '_')
            return fail(err, EINVAL, "key '%s': only letters, digits, '-', '_' and '.' may be in a key", key);
    return true;
}

/* Puts a leaf into the tree, making the objects on its way. */
static bool set_leaf(struct json *root, const char *key, const char *value, struct error *err)
{
    struct json *object = root;
    const char *part = key;
    for (unsigned depth = 1;; depth++) {
        size_t length = strcspn(part, ".");
        if (!check_part(key, part, length, err))
            return false;
        if (depth >= JSON_MAX_DEPTH)
            return fail(err, EINVAL, "key '%.40s...': more than %d parts", key, JSON_MAX_DEPTH);
        auto_free char *name = xstrndup(part, length);
        const struct json *old = json_get(object, name);
        bool is_leaf = !part[length];
        if (old && is_leaf != (json_kind(old) == JSON_STRING))
            return fail(err, EINVAL, "key '%s': '%.*s' stands both for a value and for a group of values", key,
                        (int)(part + length - key), key);
        if (is_leaf) {
            json_set(object, name, json_new_string(value));
            return true;
        }
        if (!old)
            json_set(object, name, json_new_object());
        object = (struct json *)json_get(object, name); /* ours: we own the root */
        part += length + 1;
    }
}

static bool is_index(const char *key)
{
    return strspn(key, "0123456789") == strlen(key) && (key[0] != '0' || !key[1]);
}

/* The list that an object with the keys 0 to n-1 stands for; NULL and an error if a number is missing. */
static struct json *make_list(struct json *object, const char *path, struct error *err)
{
    auto_json *list = json_new_array();
    size_t count = json_length(object);
    for (size_t i = 0; i < count; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        struct json *item = json_take(object, key);
        if (!item)
            return fail_null(err, EINVAL, "list '%s': element %zu is missing; elements are numbered from 0", path, i);
        json_append(list, item);
    }
    return TAKE(list);
}

static bool make_lists(struct json *object, const char *path, struct error *err)
{
    for (struct json_member member = json_first(object); member.key; member = json_next(member)) {
        if (json_kind(member.value) != JSON_OBJECT)
            continue;
        struct json *child = (struct json *)member.value;
        auto_free char *deeper = *path ? xasprintf("%s.%s", path, member.key) : xstrdup(member.key);
        if (!make_lists(child, deeper, err))
            return false;
        size_t n_indexes = 0;
        for (struct json_member m = json_first(child); m.key; m = json_next(m))
            n_indexes += is_index(m.key);
        if (n_indexes && n_indexes < json_length(child))
            return fail(err, EINVAL, "'%s': has both numbers (as a list) and names (as a group) for keys", deeper);
        if (!n_indexes)
            continue;
        struct json *list = make_list(child, deeper, err);
        if (!list)
            return false;
        json_set(object, member.key, list); /* the key stays, so the iteration does */
    }
    return true;
}

struct json *keyval_parse(const char *text, const char *implied_key, struct error *err)
{
    auto_json *root = json_new_object();
    for (bool is_first = true; *text; is_first = false) {
        auto_element element = take_element(&text);
        const char *key = element.key, *value = element.value;
        if (!key && is_help(&element))
            return fail_null(err, EINVAL, "'%s' asks for help, which is not available here", value);
        if (!key && is_first && implied_key) {
            key = implied_key;
        } else if (!key) {
            key = value;
            value = "on";
        }
        if (!set_leaf(root, key, value, err))
            return NULL;
    }
    return make_lists(root, "", err) ? TAKE(root) : NULL;
}
