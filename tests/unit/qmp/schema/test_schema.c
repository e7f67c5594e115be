/* SPDX-License-Identifier: Apache-2.0 */
/* If this fails, options reach a driver that nobody gave, or a mistake is not refused, or refused without saying where.
 */
#include "tests/unit/qmp/schema/cmocka_all.h"
#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

static struct blockdev_options *blockdev(const char *text)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    if (!blockdev_options_from_keyval(text, "driver", &options, &err))
        fail_msg("%s: %s", text, err.message);
    return options;
}

static void assert_blockdev_refused(const char *text, const char *why)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    if (blockdev_options_from_keyval(text, "driver", &options, &err))
        fail_msg("accepted: %s", text);
    assert_null(options);
    if (!strstr(err.message, why))
        fail_msg("%s: \"%s\" does not contain \"%s\"", text, err.message, why);
}

static void test_union_and_defaults(void **state)
{
    auto_blockdev_options *options = blockdev("qcow2,node-name=disk,file.driver=file,file.filename=a,,b,"
                                              "file.cache.direct=on,lazy-refcounts=on,cache-size=1.5M");
    assert_int_equal(options->driver, BLOCKDEV_DRIVER_QCOW2);
    assert_string_equal(options->node_name, "disk");
    assert_false(options->has_read_only);
    assert_false(options->has_discard);
    assert_int_equal(options->discard, BLOCKDEV_DISCARD_OPTIONS_IGNORE);
    assert_null(options->cache);
    const struct blockdev_options_qcow2 *qcow2 = &options->u.qcow2;
    assert_true(qcow2->has_lazy_refcounts && qcow2->lazy_refcounts);
    assert_true(qcow2->pass_discard_snapshot && !qcow2->has_pass_discard_snapshot);
    assert_true(qcow2->has_cache_size && qcow2->cache_size == 3 << 19);
    assert_null(qcow2->backing);
    assert_int_equal(qcow2->file->kind, BLOCKDEV_REF_KIND_DEFINITION);
    const struct blockdev_options *file = qcow2->file->u.definition;
    assert_int_equal(file->driver, BLOCKDEV_DRIVER_FILE);
    assert_string_equal(file->u.file.filename, "a,b");
    assert_true(file->cache->has_direct && file->cache->direct);
    assert_int_equal(file->u.file.aio, BLOCKDEV_AIO_OPTIONS_THREADS);
}

static void test_alternates(void **state)
{
    auto_blockdev_options *by_name = blockdev("driver=qcow2,file=node0,backing=base,overlap-check=all");
    assert_int_equal(by_name->u.qcow2.file->kind, BLOCKDEV_REF_KIND_REFERENCE);
    assert_string_equal(by_name->u.qcow2.file->u.reference, "node0");
    assert_int_equal(by_name->u.qcow2.backing->kind, BLOCKDEV_REF_OR_NULL_KIND_REFERENCE);
    assert_int_equal(by_name->u.qcow2.overlap_check->kind, QCOW2_OVERLAP_CHECKS_KIND_MODE);
    assert_int_equal(by_name->u.qcow2.overlap_check->u.mode, QCOW2_OVERLAP_CHECK_MODE_ALL);

    auto_blockdev_options *by_json = blockdev("{'driver': 'qcow2', 'file': 'f', 'backing': null, "
                                              "'overlap-check': {'template': 'none', 'active-l1': true}}");
    assert_int_equal(by_json->u.qcow2.backing->kind, BLOCKDEV_REF_OR_NULL_KIND_NULL);
    const struct qcow2_overlap_check_flags *flags = by_json->u.qcow2.overlap_check->u.flags;
    assert_int_equal(flags->template, QCOW2_OVERLAP_CHECK_MODE_NONE);
    assert_true(flags->has_active_l1 && flags->active_l1 && !flags->has_active_l2);

    assert_blockdev_refused("qcow2,file=f,overlap-check=some", "'overlap-check': expected one of 'none', 'constant', "
                                                               "'cached', 'all', found 'some'");
    assert_blockdev_refused("{'driver': 'raw', 'file': 7}", "'file': expected definition or reference, found 7");
    assert_blockdev_refused("{'driver': 'raw', 'file': null}", "'file': expected");
}

static void test_mistakes_are_named(void **state)
{
    assert_blockdev_refused("qcow3", "'driver': expected one of '");
    assert_blockdev_refused("node-name=x", "'driver': is missing");
    assert_blockdev_refused("file", "'filename': is missing");
    assert_blockdev_refused("raw,file.driver=file", "'file.filename': is missing");
    assert_blockdev_refused("raw,file.driver=file,file.filename=x,file.cache.direct=maybe",
                            "'file.cache.direct': expected 'on' or 'off', found 'maybe'");
    assert_blockdev_refused("raw,file.driver=file,file.filename=x,file.filenam=y", "'file.filenam': is not known here; "
                                                                                   "possible: driver, node-name,");
    assert_blockdev_refused("null-co,size=-1", "'size': expected a number of bytes from 0 to");
    assert_blockdev_refused("null-co,latency-ns=1k", "'latency-ns': expected an integer from 0 to");
    assert_blockdev_refused("qcow2,file=f,l2-cache-entry-size=256",
                            "expected a number of bytes from 512 to 2097152, found '256'");
    assert_blockdev_refused("{'driver':'file','filename':'x','read-only':'on'}",
                            "'read-only': expected true or false, found \"on\"");
    assert_blockdev_refused("{'driver':'null-co','size':'1k'}", "'size': expected a number of bytes");
    assert_blockdev_refused("{'driver':'null-co','size':1.5}", "found 1.5");
    assert_blockdev_refused("{'driver':'file','filename':null}", "'filename': expected a string, found null");
    assert_blockdev_refused("{'driver':'file','filename':'x','cache':[]}", "'cache': expected an object, found []");
    assert_blockdev_refused("file,filename=x,cache=none", "'cache': expected a group of options");
}

static void test_limits(void **state)
{
    struct qcow2_create_options *options = NULL;
    auto_error err = {0};
    assert_true(
        qcow2_create_options_from_keyval("size=10G,cluster_size=2M,compat=0.10,lazy_refcounts", NULL, &options, &err));
    assert_int_equal(options->cluster_size, 2097152);
    assert_int_equal(options->compat, QCOW2_COMPAT_0_10);
    assert_true(options->lazy_refcounts);
    assert_int_equal(options->refcount_bits, 16);
    assert_int_equal(options->size, UINT64_C(10) << 30);
    qcow2_create_options_free(options);
    assert_false(qcow2_create_options_from_keyval("cluster_size=4M", NULL, &options, &err));
    assert_contains(err.message, "'cluster_size': expected a number of bytes from 512 to 2097152, found '4M'");
    error_clear(&err);
    assert_false(qcow2_create_options_from_keyval("refcount_bits=0", NULL, &options, &err));
    assert_contains(err.message, "from 1 to 64");
    error_clear(&err);

    struct block_export_options *export = NULL;
    assert_false(block_export_options_from_keyval(
        "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=s,num-queues=65537", "type", &export, &err));
    assert_contains(err.message, "'num-queues': expected an integer from 1 to 64, found '65537'");
}

static void test_lists_and_round_trip(void **state)
{
    static const char text[] =
        "{\"options\": [{\"driver\": \"null-co\", \"node-name\": \"a\", \"size\": 4096}, {\"driver\": \"raw\", "
        "\"cache\": {\"no-flush\": true}, \"file\": {\"driver\": \"file\", \"filename\": \"\\u00E9,=\"}}]}";
    auto_error err = {0};
    auto_json *json = json_parse(text, strlen(text), &err);
    auto_q_blockdev_reopen_arg *arg = NULL;
    assert_true(q_blockdev_reopen_arg_from_json(json, &arg, &err));
    assert_int_equal(arg->n_options, 2);
    assert_string_equal(arg->options[1]->u.raw.file->u.definition->u.file.filename, "\xc3\xa9,=");

    auto_q_blockdev_reopen_arg *copy = q_blockdev_reopen_arg_clone(arg);
    auto_json *back = q_blockdev_reopen_arg_to_json(copy);
    assert_text(json_to_text(back), text);

    auto_free char *keyval = q_blockdev_reopen_arg_to_keyval(arg);
    assert_string_equal(keyval,
                        "options.0.driver=null-co,options.0.node-name=a,options.0.size=4096,options.1.driver=raw,"
                        "options.1.cache.no-flush=on,options.1.file.driver=file,options.1.file.filename=\xc3\xa9,,=");
    auto_q_blockdev_reopen_arg *again = NULL;
    assert_true(q_blockdev_reopen_arg_from_keyval(keyval, NULL, &again, &err));
    auto_json *final = q_blockdev_reopen_arg_to_json(again);
    assert_true(json_equal(final, json));

    static const char bad[] =
        "{\"options\": [{\"driver\": \"null-co\"}, {\"driver\": \"raw\", \"file\": {\"driver\": 1}}]}";
    auto_json *bad_json = json_parse(bad, strlen(bad), &err);
    auto_q_blockdev_reopen_arg *refused = NULL;
    assert_false(q_blockdev_reopen_arg_from_json(bad_json, &refused, &err));
    assert_contains(err.message, "'options[1].file.driver': expected one of");
}

static void test_what_keyval_cannot_say(void **state)
{
    auto_blockdev_options *options = blockdev("{'driver':'qcow2','file':'f','backing':null}");
    assert_null(blockdev_options_to_keyval(options));
}

static void test_bare_words(void **state)
{
    auto_error err = {0};
    auto_chardev_options *chardev = NULL;
    assert_true(chardev_options_from_keyval("socket,id=m,path=/x,server,nowait", "backend", &chardev, &err));
    assert_true(chardev->u.socket.server);
    assert_true(chardev->u.socket.has_wait && !chardev->u.socket.wait);
    assert_true(chardev->u.socket.path && !chardev->u.socket.host);
    struct chardev_options *refused = NULL;
    assert_false(chardev_options_from_keyval("socket,id=m,nopath", "backend", &refused, &err));
    assert_contains(err.message, "'nopath': is not known here");
}

static void test_result_lists(void **state)
{
    auto_block_export_info_list *list = block_export_info_list_new();
    for (int i = 0; i < 3; i++) {
        struct block_export_info *info = block_export_info_new();
        info->id = xasprintf("e%d", i);
        info->type = BLOCK_EXPORT_TYPE_VHOST_USER_BLK;
        info->node_name = xstrdup("n");
        block_export_info_list_append(list, info);
    }
    auto_json *json = block_export_info_list_to_json(list);
    assert_int_equal(json_length(json), 3);
    auto_free char *text = json_to_text(json_at(json, 2));
    assert_string_equal(
        text, "{\"id\": \"e2\", \"type\": \"vhost-user-blk\", \"node-name\": \"n\", \"shutting-down\": false}");
}

static void test_help(void **state)
{
    auto_free char *text = qcow2_create_options_help(NULL);
    assert_contains(text,
                    "  cluster_size=<size>    - cluster size, a power of two (512 to 2097152 bytes; default: 65536)\n");
    assert_contains(text,
                    "  preallocation=<off|metadata|falloc|full> - how much is allocated in advance (default: off)\n");
    auto_free char *node = blockdev_options_help("qcow2");
    assert_contains(node, "  cache.direct=<bool (on/off)> - ");
    assert_contains(node, "  file=<options|str>     - the node that holds the image (mandatory)\n");
    auto_free char *drivers = blockdev_options_help(NULL);
    assert_contains(drivers, "Values of driver:\n");
    assert_contains(drivers, "  qcow2                  - the qcow2 image format\n");
}

static void test_enums(void **state)
{
    enum blockdev_driver driver;
    assert_true(blockdev_driver_parse("null-aio", &driver));
    assert_int_equal(driver, BLOCKDEV_DRIVER_NULL_AIO);
    assert_false(blockdev_driver_parse("Null-aio", &driver));
    for (int i = 0; i < BLOCKDEV_DRIVER__COUNT; i++)
        assert_true(blockdev_driver_parse(blockdev_driver_name(i), &driver) && (int)driver == i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_union_and_defaults),
        cmocka_unit_test(test_alternates),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_lists_and_round_trip),
        cmocka_unit_test(test_what_keyval_cannot_say),
        cmocka_unit_test(test_bare_words),
        cmocka_unit_test(test_result_lists),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_enums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
