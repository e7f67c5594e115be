/* SPDX-License-Identifier: Apache-2.0 */
/* convert --resume: a conversion that was interrupted goes on where it was. The idea is told in convert_resume.c. */
#ifndef IMAGE_TOOLS_IMG_CONVERT_RESUME_H
#define IMAGE_TOOLS_IMG_CONVERT_RESUME_H

#include "base/co.h"
#include "base/loop.h"
#include "image-tools/img/convert.h"
#include "qmp/schema/json.h"

struct resume {
    char *path;            /* the state file */
    struct json *identity; /* what must be the same for a conversion to go on: options and sources */
    struct json *found;    /* the state that was there, or NULL */
    uint64_t done;         /* of the target; stored, and on stable storage */

    /* While it runs. */
    struct conversion *all;
    struct co_group group;
    struct co_queue changed;
    bool ending, warned;
    struct loop_watch watch;
    int signal_fd;
};

/* Reads the state file, if there is one; the sources are open. `options` (taken) describes what else decides about the
 * content of the target. Fails when the state does not fit to them. YIELDS. */
bool resume_begin(struct resume *resume, struct conversion *all, const char *path, struct json *options,
                  struct error *err);
static inline bool resume_goes_on(const struct resume *resume)
{
    return resume->found;
}
/* The target is open. Checks that it is what was left, and makes the conversion begin behind what is done; or, if there
 * was no state, notes that it begins. YIELDS. */
bool resume_open_target(struct resume *resume, struct error *err);
/* Bitmaps that an interrupted run had copied already. YIELDS. */
bool resume_clear_bitmaps(struct resume *resume, struct error *err);

/* Around the copying: notes from time to time how far it is, and when a signal asks to stop. YIELD. */
void resume_watch(struct resume *resume);
void resume_stop_watching(struct resume *resume);

void resume_finish(struct resume *resume); /* all is done: removes the file */
void resume_release(struct resume *resume);

/* A target is made anew by a conversion that does not keep a state: one that is beside it has no meaning any more. */
void resume_forget(const char *target);
char *resume_default_path(const char *target); /* owned */

#endif
