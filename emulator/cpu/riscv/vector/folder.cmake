# SPDX-License-Identifier: Apache-2.0
# Loops over elements become vector code at -O3; nobody reads errno; rounding and exceptions are the guest's.
target_compile_options(${SPINDLE_TARGET} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O3> -fno-math-errno -frounding-math)
