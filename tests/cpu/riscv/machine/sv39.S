# SPDX-License-Identifier: Apache-2.0
# Sv39: permissions, accessed and dirty bits, superpages, fences, address spaces, accesses across pages.
    .equ LEVELS, 3
    .equ SATP_MODE, 8
    .include "paging.inc"
