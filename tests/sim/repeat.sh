#!/bin/sh
# labels: full
# timeout: 240
# If this fails, a simulated world does not go the same way twice, and what a seed shows cannot be looked at again.
exec "$SPINDLE_BUILD/sim/sim" --twice --worlds 1 --every 0
