/* SPDX-License-Identifier: Apache-2.0 */
/* Ends a test with a message (cmocka's fail_msg() does not go with base/error.h). */
#ifndef TESTS_UNIT_CRYPTO_BROKEN_H
#define TESTS_UNIT_CRYPTO_BROKEN_H

#include "tests/unit/base/check.h"

#define broken(...)                                                                                                    \
    do {                                                                                                               \
        print_message(__VA_ARGS__);                                                                                    \
        print_message("\n");                                                                                           \
        assert_true(false);                                                                                            \
    } while (0)

#endif
