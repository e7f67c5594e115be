# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the boot tests: the guest must be there. ctest gives SPINDLE_BIN and SPINDLE_SRC; tools/guest/lib.sh explains the rest.
. "$SPINDLE_SRC/tools/guest/lib.sh"
# shellcheck disable=SC2034 # for the tests
guest_tools=$SPINDLE_SRC/tools/guest

if [ ! -s "$SPINDLE_GUEST/made-by" ]; then
    echo "missing requirement: the guest in $SPINDLE_GUEST, made by tools/guest/build"
    [ -z "${CI:-}" ] || exit 1
    exit 77
fi
