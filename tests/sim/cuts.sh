#!/bin/sh
# labels: quick
# timeout: 240
# If this fails, a power cut or a kill at a bad moment damages an image, loses what a client was told is safe, or the
# daemon answers a client wrongly: the whole daemon and its clients in simulated worlds, some thousand cuts.
exec "$SPINDLE_BUILD/sim/sim" --worlds 2 --every 10 --cover
