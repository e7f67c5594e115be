/* SPDX-License-Identifier: Apache-2.0 */
/* The handler's side of try_access.S: which instruction failed, and where its function goes on. */
#include <ucontext.h>
#include "emulator/translate/try_access.h"

/* Labels in try_access.S. */
extern const char translate_try_begin[], translate_try_end[], translate_try_failed[];
extern const char translate_try_copy_begin[], translate_try_copy_end[], translate_try_copy_failed[];

bool translate_try_recover(void *ucontext)
{
    greg_t *pc = &((ucontext_t *)ucontext)->uc_mcontext.gregs[REG_RIP];
    uintptr_t at = (uintptr_t)*pc;
    if (at >= (uintptr_t)translate_try_begin && at < (uintptr_t)translate_try_end)
        *pc = (greg_t)(uintptr_t)translate_try_failed;
    else if (at >= (uintptr_t)translate_try_copy_begin && at < (uintptr_t)translate_try_copy_end)
        *pc = (greg_t)(uintptr_t)translate_try_copy_failed;
    else
        return false;
    return true;
}
