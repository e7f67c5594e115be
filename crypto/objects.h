/* SPDX-License-Identifier: Apache-2.0 */
/* All kinds of objects of this folder, as object_set_add_kinds() wants them. */
#ifndef CRYPTO_OBJECTS_H
#define CRYPTO_OBJECTS_H

#include "objects/object.h"

extern const struct object_kind *const crypto_object_kinds[];

#endif
