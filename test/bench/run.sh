#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds pawl and the benchmark and prints the table; options go through, --help lists them.
. "$(dirname "$0")/help.sh"
. "$(dirname "$0")/build.sh"
exec "$build/test/bench/bench" "$@"
