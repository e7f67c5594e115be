/* SPDX-License-Identifier: Apache-2.0 */
/* Standard input and output. A terminal is put into raw mode, so that each key reaches the guest at once; with
 * signal=off Ctrl-C, Ctrl-Z and Ctrl-\ are the guest's too. All settings are restored at the end. null is here as well:
 * it has nothing to open. */
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>
#include "base/alloc.h"
#include "emulator/char/char_private.h"

struct stdio_state {
    bool have_terminal;
    struct termios terminal;
    int in_flags, out_flags;
};

static bool stdio_open(struct char_line *line, const struct char_line_options *options, struct error *err)
{
    struct stdio_state *state = line->kind = new (struct stdio_state);
    line->keep_fds = true;
    state->in_flags = fcntl(STDIN_FILENO, F_GETFL);
    state->out_flags = fcntl(STDOUT_FILENO, F_GETFL);
    state->have_terminal = tcgetattr(STDIN_FILENO, &state->terminal) == 0;
    if (state->have_terminal) {
        struct termios raw = state->terminal;
        raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
        raw.c_oflag |= OPOST;
        raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN | (options->signal ? 0 : ISIG));
        raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    bool have_input = state->in_flags >= 0 && char_line_set_nonblocking(STDIN_FILENO, NULL);
    bool have_output = state->out_flags >= 0 && char_line_set_nonblocking(STDOUT_FILENO, NULL);
    char_line_connected(line, have_input ? STDIN_FILENO : -1, have_output ? STDOUT_FILENO : -1);
    return true;
}

static void stdio_close(struct char_line *line)
{
    struct stdio_state *state = line->kind;
    if (state->have_terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &state->terminal);
    if (state->in_flags >= 0)
        fcntl(STDIN_FILENO, F_SETFL, state->in_flags);
    if (state->out_flags >= 0)
        fcntl(STDOUT_FILENO, F_SETFL, state->out_flags);
    free(state);
}

const struct char_line_ops char_line_stdio_ops = {.open = stdio_open, .close = stdio_close};

static bool null_open(struct char_line *line, const struct char_line_options *options, struct error *err)
{
    char_line_connected(line, -1, -1);
    return true;
}

const struct char_line_ops char_line_null_ops = {.open = null_open};
