#!/bin/sh
# SPDX-License-Identifier: MIT
# Prints what nine thousand idle connections cost, and a peer that never reads: see hold.cpp.
. "$(dirname "$0")/help.sh"
. "$(dirname "$0")/build.sh"
exec "$build/test/bench/bench-hold"
