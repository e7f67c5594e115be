/* SPDX-License-Identifier: Apache-2.0 */
/* The monitor for people: see the header. The terminal is raw, so echo and the erase key are ours. While a command
 * runs, what is typed waits. */
#include "emulator/hmp.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "base/strbuf.h"
#include "emulator/machine.h"

#define PROMPT "(qemu) " /* what scripts wait for */

struct hmp {
    struct machine *machine;
    struct char_front front;
    struct co_group commands;
    struct strbuf line;
    bool greeted, running;
    struct strbuf waiting; /* output that the line has not yet taken */
};

struct hmp_command {
    const char *name, *help;
    void (*run)(struct hmp *hmp, const char *argument);
};

/* --- output
 * ---------------------------------------------------------------------------------------------------------------- */

static void push_out(struct hmp *hmp)
{
    size_t taken = char_line_write(&hmp->front, strbuf_text(&hmp->waiting), hmp->waiting.length);
    size_t left = hmp->waiting.length - taken;
    if (taken) {
        memmove(hmp->waiting.text, hmp->waiting.text + taken, left);
        strbuf_truncate(&hmp->waiting, left);
    }
}

/* Newlines become what a raw terminal needs. */
static void say(struct hmp *hmp, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            strbuf_append_char(&hmp->waiting, '\r');
        strbuf_append_char(&hmp->waiting, *text);
    }
    push_out(hmp);
}

static void greet(struct hmp *hmp)
{
    if (!hmp->greeted)
        say(hmp, "Spindle " SPINDLE_VERSION " monitor - type 'help' for more information\n");
    hmp->greeted = true;
    say(hmp, PROMPT);
    say(hmp, strbuf_text(&hmp->line));
}

/* --- commands
 * ---------------------------------------------------------------------------------------------------------------- */

static void run_info_status(struct hmp *hmp, const char *argument)
{
    auto_free char *text =
        xasprintf("VM status: %s\n", hmp->machine->run_state == RUN_STATE_RUNNING ? "running" : "paused");
    if (hmp->machine->run_state == RUN_STATE_PRELAUNCH || hmp->machine->run_state == RUN_STATE_SHUTDOWN) {
        free(text);
        text = xasprintf("VM status: paused (%s)\n",
                         hmp->machine->run_state == RUN_STATE_PRELAUNCH ? "prelaunch" : "shutdown");
    }
    say(hmp, text);
}

static void run_info_registers(struct hmp *hmp, const char *argument)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return;
    machine_dump_cpus(hmp->machine, out, !strcmp(argument, "-a"));
    fclose(out);
    say(hmp, text);
    free(text);
}

static void run_info_cpus(struct hmp *hmp, const char *argument)
{
    const struct board *board = hmp->machine->board;
    for (unsigned i = 0; i < board->cpu_count; i++) {
        auto_free char *text = xasprintf("%c CPU #%u: thread_id=%d\n", i ? ' ' : '*', i, board->cpus[i]->thread_id);
        say(hmp, text);
    }
}

static void run_info_name(struct hmp *hmp, const char *argument)
{
    if (hmp->machine->options->name) {
        say(hmp, hmp->machine->options->name);
        say(hmp, "\n");
    }
}

static const struct hmp_command info_commands[] = {
    {"cpus", "the processors and their threads", run_info_cpus},
    {"name", "the guest's name", run_info_name},
    {"registers", "registers of the first processor, or with -a of all", run_info_registers},
    {"status", "is the machine running?", run_info_status},
};

static void run_stop(struct hmp *hmp, const char *argument)
{
    machine_stop(hmp->machine);
}

static void run_cont(struct hmp *hmp, const char *argument)
{
    auto_error err = {0};
    if (!machine_cont(hmp->machine, &err)) {
        say(hmp, "Error: ");
        say(hmp, err.message);
        say(hmp, "\n");
    }
}

static void run_reset(struct hmp *hmp, const char *argument)
{
    machine_request_reset(hmp->machine, SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
}

static void run_powerdown(struct hmp *hmp, const char *argument)
{
    machine_request_powerdown(hmp->machine);
}

static void run_quit(struct hmp *hmp, const char *argument)
{
    machine_request_shutdown(hmp->machine, SHUTDOWN_CAUSE_HOST_QMP_QUIT, 0);
}

static void run_info(struct hmp *hmp, const char *argument);
static void run_help(struct hmp *hmp, const char *argument);

static const struct hmp_command commands[] = {
    {"cont", "let the processors run (also: c)", run_cont},
    {"c", NULL, run_cont},
    {"help", "list the commands", run_help},
    {"info", "show something: info status, info cpus, info registers [-a]", run_info},
    {"quit", "end the emulator (also: q)", run_quit},
    {"q", NULL, run_quit},
    {"stop", "stop the processors (also: s)", run_stop},
    {"s", NULL, run_stop},
    {"system_powerdown", "press the power button", run_powerdown},
    {"system_reset", "reset the machine", run_reset},
};

static void list_commands(struct hmp *hmp, const struct hmp_command *table, size_t count, const char *prefix)
{
    for (size_t i = 0; i < count; i++) {
        auto_free char *text = xasprintf("%s%s -- %s\n", prefix, table[i].name, table[i].help);
        if (table[i].help)
            say(hmp, text);
    }
}

static void run_help(struct hmp *hmp, const char *argument)
{
    list_commands(hmp, commands, ARRAY_SIZE(commands), "");
}

static void run_table(struct hmp *hmp, const struct hmp_command *table, size_t count, const char *text)
{
    size_t length = strcspn(text, " ");
    for (size_t i = 0; i < count; i++) {
        if (strlen(table[i].name) == length && !strncmp(table[i].name, text, length)) {
            table[i].run(hmp, text + length + strspn(text + length, " "));
            return;
        }
    }
    auto_free char *answer = xasprintf("unknown command: '%.*s'\n", (int)length, text);
    say(hmp, answer);
}

static void run_info(struct hmp *hmp, const char *argument)
{
    if (*argument)
        run_table(hmp, info_commands, ARRAY_SIZE(info_commands), argument);
    else
        list_commands(hmp, info_commands, ARRAY_SIZE(info_commands), "info ");
}

static void run_line(void *arg)
{
    struct hmp *hmp = arg;
    auto_free char *text = strbuf_take(&hmp->line);
    const char *start = text + strspn(text, " \t");
    hmp->line = (struct strbuf){0};
    if (*start)
        run_table(hmp, commands, ARRAY_SIZE(commands), start);
    say(hmp, PROMPT);
    hmp->running = false;
    char_line_accept_input(&hmp->front);
}

/* --- input
 * -------------------------------------------------------------------------------------------------------------------
 */

static size_t hmp_can_receive(void *owner)
{
    struct hmp *hmp = owner;
    return hmp->running ? 0 : 1;
}

static void hmp_receive(void *owner, const uint8_t *data, size_t size)
{
    struct hmp *hmp = owner;
    char key[2] = {(char)data[0]};
    if (*key == '\r' || *key == '\n') {
        say(hmp, "\n");
        hmp->running = true;
        co_spawn(hmp->machine->loop, &hmp->commands, run_line, hmp);
    } else if (*key == 0x7f || *key == '\b') {
        if (hmp->line.length) {
            strbuf_truncate(&hmp->line, hmp->line.length - 1);
            say(hmp, "\b \b");
        }
    } else if (*key >= ' ' && hmp->line.length < 4096) {
        strbuf_append(&hmp->line, key);
        say(hmp, key);
    }
}

static void hmp_event(void *owner, enum char_line_event event)
{
    struct hmp *hmp = owner;
    if (event == CHAR_LINE_FOCUS_IN)
        greet(hmp);
    else if (event == CHAR_LINE_OPENED && !char_line_is_mux(hmp->front.line))
        greet(hmp);
    else if (event == CHAR_LINE_CLOSED)
        hmp->greeted = false;
}

static void hmp_writable(void *owner)
{
    push_out(owner);
}

static const struct char_front_ops front_ops = {hmp_can_receive, hmp_receive, hmp_writable, hmp_event};

struct hmp *hmp_new(struct machine *machine, struct char_line *line, struct error *err)
{
    struct hmp *hmp = new (struct hmp);
    hmp->machine = machine;
    hmp->front.ops = &front_ops;
    hmp->front.owner = hmp;
    co_group_init(&hmp->commands);
    if (char_line_attach(line, &hmp->front, err))
        return hmp;
    free(hmp);
    return NULL;
}

void hmp_free(struct hmp *hmp)
{
    char_line_detach(&hmp->front);
    co_group_wait(&hmp->commands);
    strbuf_free(&hmp->line);
    strbuf_free(&hmp->waiting);
    free(hmp);
}
