/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: objects by name; secrets from every place and in every writing; who is let in. */
#include "tests/unit/crypto/broken.h"
#include "tests/unit/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "crypto/authz.h"
#include "crypto/objects.h"
#include "crypto/secret.h"
#include "qmp/schema/json.h"

static int set_up(void **state)
{
    struct object_set *set = object_set_new(NULL);
    object_set_add_kinds(set, crypto_object_kinds);
    *state = set;
    return 0;
}

static int tear_down(void **state)
{
    object_set_free(*state);
    return 0;
}

static void add(struct object_set *set, const char *text)
{
    auto_error err = {0};
    if (!object_add_text(set, text, &err))
        broken("%s: %s", text, err.message);
}

static void refuse(struct object_set *set, const char *text, const char *message)
{
    auto_error err = {0};
    assert_false(object_add_text(set, text, &err));
    if (!strstr(err.message, message))
        broken("%s: expected '%s' in '%s'", text, message, err.message);
}

static void holds(struct object_set *set, const char *id, const char *bytes, size_t size)
{
    auto_error err = {0};
    auto_secret_bytes *secret = secret_lookup(set, id, &err);
    if (!secret)
        broken("%s", err.message);
    assert_int_equal(secret->size, size);
    assert_memory_equal(secret->data, bytes, size);
    assert_int_equal(secret->data[size], 0);
}

static char *write_file(const char *text)
{
    char *path = xstrdup("/tmp/spindle-objects-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static void secrets(void **state)
{
    struct object_set *set = *state;
    add(set, "secret,id=plain,data=letmein");
    holds(set, "plain", "letmein", 7);
    add(set, "secret,id=coded,format=base64,data=AP8B\n");
    holds(set, "coded", "\0\xff\1", 3);
    auto_free char *path = write_file("from a file\n");
    auto_free char *text = xasprintf("secret,id=file,file=%s", path);
    add(set, text);
    holds(set, "file", "from a file\n", 12); /* a line end is part of it, as everywhere in the ecosystem */
    unlink(path);

    /* openssl enc -aes-256-cbc -a */
    add(set, "secret,id=master,format=base64,data=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    add(set, "secret,id=wrapped,keyid=master,format=base64,data=yCQNd5rVsSt/rF//LDxyMg==,iv=8PHy8/T19vf4+fr7/P3+/w==");
    holds(set, "wrapped", "letmein", 7);

    refuse(set, "secret,id=none", "exactly one of data and file");
    refuse(set, "secret,id=both,data=x,file=y", "exactly one of data and file");
    refuse(set, "secret,id=gone,file=/nonexistent/file", "cannot open '/nonexistent/file'");
    refuse(set, "secret,id=coded2,format=base64,data=!!!", "not base64");
    refuse(set,
           "secret,id=w1,keyid=plain,format=base64,data=yCQNd5rVsSt/rF//LDxyMg==", "a key of 7 bytes, expected 32");
    refuse(set, "secret,id=w2,keyid=master,format=base64,data=yCQNd5rVsSt/rF//LDxyMg==", "iv is missing");
    refuse(set, "secret,id=w3,keyid=master,format=base64,data=yCQN,iv=8PHy8/T19vf4+fr7/P3+/w==", "multiple of 16");
    refuse(set, "secret,id=w4,keyid=master,format=base64,data=yCQNd5rVsSt/rF//LDxyMw==,iv=8PHy8/T19vf4+fr7/P3+/w==",
           "cannot be decrypted");
    refuse(set, "secret,id=w5,data=x,iv=8PHy8/T19vf4+fr7/P3+/w==", "keyid is missing");
    refuse(set, "secret,id=plain,data=x", "one of this id already");
    refuse(set, "secret,id=9,data=x", "begins with a letter");
    refuse(set, "secret_keyring,id=k,serial=1", "keyring");
}

static void properties(void **state)
{
    struct object_set *set = *state;
    auto_error err = {0};
    add(set, "secret,id=s,data=letmein");
    struct object *object = object_hold(set, "s", &secret_kind, &err);
    assert_non_null(object);
    auto_json *format = object_get_property(object, "format", &err);
    assert_string_equal(json_string(format), "raw"); /* the default */
    assert_null(object_get_property(object, "data", NULL));
    assert_false(object_set_property(object, "format", format, NULL));
    assert_false(object_remove(set, "s", &err));
    assert_string_equal(err.message, "object 's' is in use, can not be deleted");
    object_release(object);
    assert_true(object_remove(set, "s", NULL));
    assert_null(object_find(set, "s"));

    add(set, "authz-simple,id=a,identity=me");
    object = object_find(set, "a");
    auto_json *you = json_new_string("you");
    assert_true(object_set_property(object, "identity", you, NULL));
    assert_true(authz_allows(object, "you", NULL) && !authz_allows(object, "me", NULL));
    auto_json *number = json_new_int(5);
    assert_false(object_set_property(object, "identity", number, NULL));
}

static void check(struct object_set *set, const char *id, const char *identity, bool expected)
{
    auto_error err = {0};
    struct object *authz = authz_hold(set, id, &err);
    assert_non_null(authz);
    if (authz_allows(authz, identity, &err) != expected)
        broken("%s %s: expected %d: %s", id, identity, expected, err.message ? err.message : "");
    object_release(authz);
}

static void authorization(void **state)
{
    struct object_set *set = *state;
    add(set, "authz-simple,id=simple,identity=CN=fred");
    check(set, "simple", "CN=fred", true);
    check(set, "simple", "CN=freddy", false);
    check(set, "simple", NULL, false);
    add(set, "authz-list,id=list,policy=deny,rules.0.match=fred,rules.0.policy=allow,rules.1.match=b*b,"
             "rules.1.policy=allow,rules.1.format=glob,rules.2.match=*,rules.2.policy=deny,rules.2.format=glob");
    check(set, "list", "fred", true);
    check(set, "list", "bob", true);
    check(set, "list", "rob", false);
    add(set, "authz-list,id=open,policy=allow,rules.0.match=fred,rules.0.policy=deny");
    check(set, "open", "fred", false);
    check(set, "open", "bob", true);

    auto_free char *path = write_file("{\"rules\":[{\"match\":\"bob\",\"policy\":\"allow\"}],\"policy\":\"deny\"}");
    auto_free char *text = xasprintf("authz-listfile,id=file,filename=%s", path);
    add(set, text);
    check(set, "file", "bob", true);
    check(set, "file", "fred", false);
    FILE *file = fopen(path, "w");
    fprintf(file, "{\"rules\":[{\"match\":\"fred\",\"policy\":\"allow\"}],   \"policy\":\"deny\"}");
    fclose(file);
    check(set, "file", "bob", false);
    check(set, "file", "fred", true);
    unlink(path);
    check(set, "file", "fred", false); /* nobody is let in by rules that cannot be read */

    add(set, "secret,id=s,data=x");
    assert_null(authz_hold(set, "s", NULL));
    assert_null(authz_hold(set, "nobody", NULL));
    assert_int_equal(object_find(set, "s")->users, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(secrets, set_up, tear_down),
        cmocka_unit_test_setup_teardown(properties, set_up, tear_down),
        cmocka_unit_test_setup_teardown(authorization, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
