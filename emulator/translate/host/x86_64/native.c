/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which back end serves the processor this program was built for.
 */
#include "emulator/translate/host.h"

const struct translate_host *translate_native_host(void)
{
    return NULL;
}
