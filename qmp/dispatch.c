/* SPDX-License-Identifier: Apache-2.0 */
/* One request in, one answer out: finds the command, turns its arguments into C, calls the handler, turns the result
 * into JSON. */
#include "qmp/internal.h"

#include <string.h>
#include "base/cleanup.h"

static const struct qmp_command *find_command(const struct qmp_server *server, const char *name)
{
    for (size_t i = 0; i < server->modules.count; i++) {
        const struct qmp_module *module = server->modules.items[i];
        for (size_t j = 0; j < module->n_commands; j++)
            if (!strcmp(module->commands[j].name, name))
                return &module->commands[j];
    }
    return NULL;
}

/* The command's name, or NULL if the request is not one. */
static const char *check_request(const struct json *request, struct error *err)
{
    if (json_kind(request) != JSON_OBJECT)
        return fail_null(err, EINVAL, "a request must be an object, found %s", json_kind_name(json_kind(request)));
    for (struct json_member member = json_first(request); member.key; member = json_next(member))
        if (strcmp(member.key, "execute") && strcmp(member.key, "arguments") && strcmp(member.key, "id"))
            return fail_null(err, EINVAL, "a request has no member '%s'; possible: execute, arguments, id", member.key);
    const struct json *execute = json_get(request, "execute");
    if (!execute)
        return fail_null(err, EINVAL, "the request lacks member 'execute'");
    if (!json_string(execute))
        return fail_null(err, EINVAL, "'execute' must be a string, found %s", json_kind_name(json_kind(execute)));
    const struct json *arguments = json_get(request, "arguments");
    if (arguments && json_kind(arguments) != JSON_OBJECT)
        return fail_null(err, EINVAL, "'arguments' must be an object, found %s", json_kind_name(json_kind(arguments)));
    return json_string(execute);
}

static bool check_negotiation(const struct qmp_monitor *monitor, const char *name, struct error *err)
{
    bool is_end = !strcmp(name, "qmp_capabilities");
    if (!monitor || monitor_is_negotiating(monitor) == is_end)
        return true;
    if (is_end)
        return fail_class(err, "CommandNotFound", "the negotiation of capabilities is complete already");
    return fail_class(err, "CommandNotFound", "'%s': capabilities must be negotiated first, by 'qmp_capabilities'",
                      name);
}

/* Calls the handler with arguments that are known to be good; *answer is what it returns, as JSON. */
static bool call(const struct qmp_command *command, struct qmp_context *context, void *arg, struct json **answer,
                 struct error *err)
{
    void *ret = NULL;
    bool good = command->call(context, arg, &ret, err);
    if (command->returns_json) {
        *answer = (struct json *)ret;
    } else if (command->ret) {
        if (good)
            *answer = schema_write(command->ret, ret);
        schema_free(command->ret, ret);
    } else if (good) {
        *answer = json_new_object();
    }
    return good;
}

static bool execute(const struct qmp_command *command, struct qmp_context *context, const struct json *arguments,
                    struct json **answer, struct error *err)
{
    auto_json *none = json_new_object();
    if (!arguments)
        arguments = none;
    if (!command->arg) {
        const char *extra = json_first(arguments).key;
        if (extra)
            return fail(err, EINVAL, "'%s': is not known here; command '%s' takes no arguments", extra, command->name);
        return call(command, context, NULL, answer, err);
    }
    void *arg = NULL;
    if (!schema_read(command->arg, arguments, SCHEMA_INPUT_JSON, &arg, err))
        return false;
    bool good = call(command, context, arg, answer, err);
    schema_free(command->arg, arg);
    return good;
}

static bool run(struct qmp_server *server, struct qmp_monitor *monitor, const struct json *request,
                struct json **answer, struct error *err)
{
    const char *name = check_request(request, err);
    if (!name || !check_negotiation(monitor, name, err))
        return false;
    const struct qmp_command *command = find_command(server, name);
    if (!command)
        return fail_class(err, "CommandNotFound", "there is no command '%s'", name);
    struct qmp_context context = {.app = server->app, .server = server, .monitor = monitor};
    return execute(command, &context, json_get(request, "arguments"), answer, err);
}

static struct json *with_id(struct json *answer, const struct json *id)
{
    if (id)
        json_set(answer, "id", json_clone(id));
    return answer;
}

struct json *qmp_error_answer(const struct error *err, const struct json *id)
{
    struct json *error = json_new_object();
    json_set(error, "class", json_new_string(err->class_name ? err->class_name : "GenericError"));
    json_set(error, "desc", json_new_string(err->message ? err->message : "the command failed without saying why"));
    struct json *answer = json_new_object();
    json_set(answer, "error", error);
    return with_id(answer, id);
}

struct json *qmp_dispatch(struct qmp_server *server, struct qmp_monitor *monitor, const struct json *request)
{
    auto_error err = {0};
    struct json *result = NULL;
    const struct json *id = json_get(request, "id");
    if (!run(server, monitor, request, &result, &err)) {
        json_free(result);
        return qmp_error_answer(&err, id);
    }
    struct json *answer = json_new_object();
    json_set(answer, "return", result ? result : json_new_object());
    return with_id(answer, id);
}
