/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: a job goes through other states than management programs expect, a command is accepted in a
 * state that forbids it, or the jobs of a transaction do not end together. */
#include "block/job.h"
#include "tests/unit/block/memory.h"

#include <stdio.h>

/* A job of ten steps of a millisecond. What it does and what is told about it goes into one line of text. */
static char history[4096];

static void note(const char *format, const char *id, const char *what)
{
    size_t used = strlen(history);
    snprintf(history + used, sizeof history - used, format, id, what);
}

static void expect(const char *wanted)
{
    if (strcmp(history, wanted))
        print_error("history: %s\n", history);
    assert_string_equal(history, wanted);
    history[0] = 0;
}

struct steps {
    unsigned done, wanted;
    int error_at_end;
    bool becomes_ready, prepare_fails;
    bool completing;
};

static int steps_run(struct job *job, struct error *err)
{
    struct steps *steps = job->state;
    job->total = steps->wanted;
    while (steps->done < steps->wanted) {
        if (!job_pace(job, 1))
            return -ECANCELED;
        co_sleep_ns(1000000);
        job->progress = ++steps->done;
    }
    if (steps->error_at_end)
        return steps->error_at_end;
    if (!steps->becomes_ready)
        return 0;
    job_become_ready(job);
    while (!steps->completing && !job->leaving) {
        if (!job_pause_point(job))
            return -ECANCELED;
        job_rest(job, 10000000);
    }
    return job_pause_point(job) ? 0 : -ECANCELED;
}

static bool steps_prepare(struct job *job, struct error *err)
{
    const struct steps *steps = job->state;
    note("%s:prepare ", job->id, "");
    return !steps->prepare_fails || fail(err, EPERM, "cannot");
}

static void steps_commit(struct job *job)
{
    note("%s:commit ", job->id, "");
}

static void steps_abort(struct job *job)
{
    note("%s:abort ", job->id, "");
}

static void steps_clean(struct job *job)
{
    note("%s:clean ", job->id, "");
}

static bool steps_complete(struct job *job, struct error *err)
{
    ((struct steps *)job->state)->completing = true;
    return true;
}

static bool steps_cancel_gently(struct job *job)
{
    return true;
}

static const struct job_driver steps_driver = {
    .type = JOB_TYPE_MIRROR,
    .is_block_job = true,
    .state_size = sizeof(struct steps),
    .run = steps_run,
    .prepare = steps_prepare,
    .commit = steps_commit,
    .abort = steps_abort,
    .clean = steps_clean,
    .complete = steps_complete,
    .cancel_gently = steps_cancel_gently,
};

static void on_status(void *user, const struct job *job)
{
    note("%s=%s ", job->id, job_status_name(job->status));
}

static void on_ready(void *user, const struct job *job)
{
    note("%s!READY ", job->id, "");
}

static void on_completed(void *user, const struct job *job)
{
    note("%s!COMPLETED%s ", job->id, job->error.message ? "(error)" : "");
}

static void on_cancelled(void *user, const struct job *job)
{
    note("%s!CANCELLED ", job->id, "");
}

static void on_pending(void *user, const struct job *job)
{
    note("%s!PENDING ", job->id, "");
}

static void on_error(void *user, const struct job *job, bool is_read, enum block_error_action action)
{
    note("%s!ERROR(%s) ", job->id, block_error_action_name(action));
}

static struct job_set *new_set(void *graph)
{
    const struct job_events events = {on_status, on_ready, on_completed, on_cancelled, on_pending, on_error, NULL};
    history[0] = 0;
    return job_set_new(graph_loop(graph), &events);
}

static struct job *new_job(struct job_set *set, const char *id, struct job_transaction *transaction, bool by_hand)
{
    auto_error err = {0};
    struct job_options options = {
        .id = id, .transaction = transaction, .manual_finalize = by_hand, .manual_dismiss = by_hand};
    struct job *job = job_new(set, &steps_driver, &options, &err);
    assert_non_null(job);
    ((struct steps *)job->state)->wanted = 10;
    return job;
}

#define MS 1000000ull

static int plain(void *graph)
{
    struct job_set *set = new_set(graph);
    job_start(new_job(set, "j", NULL, false));
    co_sleep_ns(100 * MS);
    expect("j=created j=running j=waiting j=pending j:prepare j:commit j:clean j!COMPLETED j=concluded j=null ");
    assert_null(job_next(set, NULL));
    job_set_free(set);
    return 0;
}

static int by_hand(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, true);
    job_start(job);
    assert_false(job_user_finalize(job, NULL));
    assert_false(job_user_dismiss(job, NULL));
    assert_false(job_user_complete(job, NULL));
    co_sleep_ns(100 * MS);
    expect("j=created j=running j=waiting j=pending j!PENDING ");
    assert_false(job_user_pause(job, NULL));
    assert_false(job_user_set_speed(job, 5, NULL));
    assert_true(job_user_finalize(job, NULL));
    expect("j:prepare j:commit j:clean j!COMPLETED j=concluded ");
    assert_false(job_user_cancel(job, true, NULL));
    assert_true(job_user_dismiss(job, NULL));
    expect("j=null ");
    job_set_free(set);
    return 0;
}

static int pausing(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, false);
    job_start(job);
    co_sleep_ns(3 * MS);
    assert_true(job_user_pause(job, NULL));
    assert_false(job_user_pause(job, NULL));
    co_sleep_ns(20 * MS);
    expect("j=created j=running j=paused ");
    uint64_t progress = job->progress;
    co_sleep_ns(20 * MS);
    assert_int_equal(job->progress, progress);
    assert_false(job_user_complete(job, NULL));
    assert_true(job_user_resume(job, NULL));
    assert_false(job_user_resume(job, NULL));
    co_sleep_ns(100 * MS);
    expect("j=running j=waiting j=pending j:prepare j:commit j:clean j!COMPLETED j=concluded j=null ");
    job_set_free(set);
    return 0;
}

static int pace(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, false);
    job->speed = 2; /* of these steps a second */
    job_start(job);
    co_sleep_ns(1990 * MS);
    assert_int_equal(job->progress, 4);
    assert_true(job_user_set_speed(job, 0, NULL));
    co_sleep_ns(20 * MS);
    assert_null(job_next(set, NULL));
    job_set_free(set);
    return 0;
}

/* Cancelled in every state that allows it. */
static int cancelling(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, false);
    job_drop(job);
    expect("j=created j=aborting j:abort j:clean j=concluded j=null ");

    job = new_job(set, "j", NULL, false);
    job_start(job);
    co_sleep_ns(3 * MS);
    assert_true(job_user_cancel(job, false, NULL));
    co_sleep_ns(20 * MS);
    expect("j=created j=running j=aborting j:abort j:clean j!CANCELLED j=concluded j=null ");

    job = new_job(set, "j", NULL, false);
    job_start(job);
    assert_true(job_user_pause(job, NULL));
    co_sleep_ns(20 * MS);
    assert_true(job_user_cancel(job, true, NULL));
    co_sleep_ns(20 * MS);
    expect("j=created j=running j=paused j=running j=aborting j:abort j:clean j!CANCELLED j=concluded j=null ");

    job = new_job(set, "j", NULL, true);
    job_start(job);
    co_sleep_ns(50 * MS);
    assert_true(job_user_cancel(job, true, NULL));
    expect("j=created j=running j=waiting j=pending j!PENDING j=aborting j:abort j:clean j!CANCELLED j=concluded ");
    assert_true(job_user_dismiss(job, NULL));

    job = new_job(set, "j", NULL, false);
    job_start(job);
    co_sleep_ns(2 * MS);
    job_set_cancel_all(set);
    assert_null(job_next(set, NULL));
    job_set_free(set);
    return 0;
}

static int ready(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, false);
    struct steps *steps = job->state;
    steps->becomes_ready = true;
    job_start(job);
    co_sleep_ns(50 * MS);
    expect("j=created j=running j=ready j!READY ");
    assert_true(job_user_pause(job, NULL));
    co_sleep_ns(50 * MS);
    assert_true(job_user_complete(job, NULL));
    assert_true(job_user_resume(job, NULL));
    co_sleep_ns(50 * MS);
    expect("j=standby j=ready j=waiting j=pending j:prepare j:commit j:clean j!COMPLETED j=concluded j=null ");

    for (int force = 0; force < 2; force++) {
        job = new_job(set, "j", NULL, false);
        steps = job->state;
        steps->becomes_ready = true;
        job_start(job);
        co_sleep_ns(50 * MS);
        history[0] = 0;
        assert_true(job_user_cancel(job, force, NULL));
        co_sleep_ns(50 * MS);
        expect(force ? "j=aborting j:abort j:clean j!CANCELLED j=concluded j=null "
                     : "j=waiting j=pending j:prepare j:commit j:clean j!COMPLETED j=concluded j=null ");
    }
    job_set_free(set);
    return 0;
}

static int failing(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, true);
    ((struct steps *)job->state)->error_at_end = -ENOSPC;
    job_start(job);
    co_sleep_ns(50 * MS);
    expect("j=created j=running j=aborting j:abort j:clean j!COMPLETED(error) j=concluded ");
    struct job_info *info = job_query(job);
    assert_string_equal(info->error, strerror(ENOSPC));
    job_info_free(info);
    assert_true(job_user_dismiss(job, NULL));
    history[0] = 0;

    job = new_job(set, "j", NULL, false);
    ((struct steps *)job->state)->prepare_fails = true;
    job_start(job);
    co_sleep_ns(50 * MS);
    expect("j=created j=running j=waiting j=pending j:prepare j=aborting j:abort j:clean j!COMPLETED(error) "
           "j=concluded j=null ");
    job_set_free(set);
    return 0;
}

static int policies(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job *job = new_job(set, "j", NULL, false);
    history[0] = 0;
    assert_int_equal(job_io_error(job, BLOCKDEV_ON_ERROR_REPORT, true, EIO), BLOCK_ERROR_ACTION_REPORT);
    assert_int_equal(job_io_error(job, BLOCKDEV_ON_ERROR_IGNORE, true, EIO), BLOCK_ERROR_ACTION_IGNORE);
    assert_int_equal(job_io_error(job, BLOCKDEV_ON_ERROR_ENOSPC, true, EIO), BLOCK_ERROR_ACTION_REPORT);
    assert_int_equal(job->pauses, 0);
    assert_int_equal(job_io_error(job, BLOCKDEV_ON_ERROR_ENOSPC, false, -ENOSPC), BLOCK_ERROR_ACTION_STOP);
    assert_int_equal(job->io_status, BLOCK_DEVICE_IO_STATUS_NOSPACE);
    assert_int_equal(job_io_error(job, BLOCKDEV_ON_ERROR_STOP, false, EIO), BLOCK_ERROR_ACTION_STOP);
    assert_int_equal(job->pauses, 1);
    assert_true(job_user_resume(job, NULL));
    assert_int_equal(job->io_status, BLOCK_DEVICE_IO_STATUS_OK);
    expect("j!ERROR(report) j!ERROR(ignore) j!ERROR(report) j!ERROR(stop) j!ERROR(stop) ");
    job_drop(job);
    job_set_free(set);
    return 0;
}

static int together(void *graph)
{
    struct job_set *set = new_set(graph);
    struct job_transaction *transaction = job_transaction_new();
    struct job *one = new_job(set, "one", transaction, false), *two = new_job(set, "two", transaction, false);
    ((struct steps *)two->state)->wanted = 20;
    job_transaction_unref(transaction);
    job_start(one);
    job_start(two);
    co_sleep_ns(15 * MS);
    expect("one=created two=created one=running two=running one=waiting ");
    co_sleep_ns(15 * MS);
    expect("two=waiting two=pending one=pending two:prepare one:prepare two:commit two:clean two!COMPLETED "
           "two=concluded two=null one:commit one:clean one!COMPLETED one=concluded one=null ");

    transaction = job_transaction_new();
    one = new_job(set, "one", transaction, false);
    two = new_job(set, "two", transaction, false);
    ((struct steps *)one->state)->error_at_end = -EIO;
    ((struct steps *)two->state)->wanted = 20;
    job_transaction_unref(transaction);
    job_start(one);
    job_start(two);
    co_sleep_ns(50 * MS);
    expect("one=created two=created one=running two=running one=aborting two=aborting two:abort two:clean "
           "two!CANCELLED two=concluded two=null one:abort one:clean one!COMPLETED(error) one=concluded one=null ");

    transaction = job_transaction_new();
    one = new_job(set, "one", transaction, false);
    two = new_job(set, "two", transaction, false);
    ((struct steps *)two->state)->wanted = 20;
    job_transaction_unref(transaction);
    job_start(one);
    job_start(two);
    co_sleep_ns(15 * MS);
    assert_true(job_user_cancel(one, true, NULL)); /* it waits */
    co_sleep_ns(50 * MS);
    assert_null(job_next(set, NULL));
    assert_non_null(strstr(history, "two!CANCELLED"));
    assert_non_null(strstr(history, "one!CANCELLED"));
    job_set_free(set);
    return 0;
}

static int names_and_claims(void *graph)
{
    auto_error err = {0};
    struct job_set *set = new_set(graph);
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct job *one = new_job(set, "one", NULL, false), *two = new_job(set, "two", NULL, false);
    assert_null(job_new(set, &steps_driver, &(struct job_options){.id = "one"}, &err));
    assert_non_null(strstr(err.message, "already in use"));
    error_clear(&err);
    assert_null(job_new(set, &steps_driver, &(struct job_options){.id = "1x"}, &err));
    error_clear(&err);
    assert_null(job_new(set, &steps_driver, &(struct job_options){0}, &err));
    error_clear(&err);
    assert_true(job_claim(one, node, &err));
    assert_true(job_claim(one, node, &err));
    assert_false(job_claim(two, node, &err));
    assert_non_null(strstr(err.message, "busy"));
    error_clear(&err);
    job_drop(one);
    assert_true(job_claim(two, node, &err));
    job_drop(two);
    job_set_free(set);
    delete_node(graph, "m");
    return 0;
}

SIMULATED(plain)
SIMULATED(by_hand)
SIMULATED(pausing)
SIMULATED(pace)
SIMULATED(cancelling)
SIMULATED(ready)
SIMULATED(failing)
SIMULATED(policies)
SIMULATED(together)
SIMULATED(names_and_claims)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_simulated),      cmocka_unit_test(by_hand_simulated),
        cmocka_unit_test(pausing_simulated),    cmocka_unit_test(pace_simulated),
        cmocka_unit_test(cancelling_simulated), cmocka_unit_test(ready_simulated),
        cmocka_unit_test(failing_simulated),    cmocka_unit_test(policies_simulated),
        cmocka_unit_test(together_simulated),   cmocka_unit_test(names_and_claims_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
