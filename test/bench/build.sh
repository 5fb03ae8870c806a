# SPDX-License-Identifier: MIT
# For run.sh and count.sh to source: builds at -O2 in a folder of its own and leaves its name in $build.
. "$(dirname "$0")/help.sh"
set -eu
cd "$(dirname "$0")/../.."
build=.build/bench
if ! command -v meson >/dev/null || ! command -v c++ >/dev/null; then
  echo "$0: first: apt-get install g++ meson libev-dev libuv1-dev libevent-dev libasio-dev" >&2
  exit 3
fi
if [ ! -f "$build/build.ninja" ]; then
  meson setup "$build" --buildtype=debugoptimized -Dbenchmarks=enabled -Dtests=disabled \
    -Dexamples=disabled >&2
fi
meson compile -C "$build" >&2
