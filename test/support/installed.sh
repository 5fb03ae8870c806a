# SPDX-License-Identifier: MIT
# usage: sh test/support/installed.sh install | pkg_config | pkg_config_static | cmake_shared
#                                     | cmake_static | subproject | uninstall
#
# Installs a release build into a folder of its own and builds the programs in test/install against
# it, as a user of the library would; in this order.

cd "$(dirname "$0")/../.." || exit
root=$PWD
prefix=$root/.build/installed
moved=$root/.build/installed-elsewhere
users=$root/.build/users
programs=$root/test/install
libdir=lib
strict='-std=c++17 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'
export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"

install() {
  rm -rf "$prefix" "$moved" "$users"
  mkdir -p "$users"
  sh test/support/build.sh install g++ '' --prefix="$prefix" --libdir=$libdir --buildtype=release \
    -Dwerror=true -Dtests=disabled -Dexamples=disabled &&
    meson install -C .build/install --no-rebuild
}

# Runs what was built: it has to name the selector that it ran on, and nothing else.
runs() { # COMMAND...
  status=0
  output=$(timeout 20 "$@") || status=$?
  echo "$*: status $status, says: $output"
  [ "$status" -eq 0 ] || return
  case $output in
    epoll | poll | select | libev) ;;
    *) return 1 ;;
  esac
}

pkg_config() {
  g++ $strict "$programs/main.cpp" -o "$users/shared" $(pkg-config --cflags --libs pawl) &&
    g++ $strict "$programs/libev_host.cpp" -o "$users/shared-ev" \
      $(pkg-config --cflags --libs pawl-ev) &&
    runs env LD_LIBRARY_PATH="$prefix/$libdir" "$users/shared" &&
    runs env LD_LIBRARY_PATH="$prefix/$libdir" "$users/shared-ev"
}

pkg_config_static() {
  g++ $strict -static "$programs/main.cpp" -o "$users/static" \
    $(pkg-config --static --cflags --libs pawl) &&
    g++ $strict -static "$programs/libev_host.cpp" -o "$users/static-ev" \
      $(pkg-config --static --cflags --libs pawl-ev) &&
    runs "$users/static" && runs "$users/static-ev"
}

# Against the installed tree in another place, since nothing in it may know where it was first.
cmake_with() { # FOLDER OPTION...
  build=$users/$1
  shift
  mv "$prefix" "$moved"
  cmake -S "$programs" -B "$build" -DCMAKE_PREFIX_PATH="$moved" -DCMAKE_CXX_FLAGS="$strict" "$@" &&
    cmake --build "$build" && runs "$build/main" && runs "$build/libev_host"
  status=$?
  mv "$moved" "$prefix"
  return $status
}

cmake_shared() {
  cmake_with cmake-shared
}

cmake_static() {
  cmake_with cmake-static -DPAWL_USE_STATIC_LIBS=TRUE
}

# From the sources: no package is to be found, so that Meson has to take the folder.
subproject() {
  project=$users/subproject
  mkdir -p "$project/subprojects"
  cp "$programs"/* "$project"
  ln -sfn "$root" "$project/subprojects/pawl"
  export PKG_CONFIG_PATH=
  meson setup "$project/build" "$project" --wrap-mode=forcefallback -Doptimization=0 -Ddebug=false &&
    ninja --quiet -C "$project/build" && runs "$project/build/main" && runs "$project/build/libev_host"
}

uninstall() {
  ninja -C .build/install uninstall || return
  left=$(find "$prefix" -mindepth 1 2>/dev/null)
  echo "$left"
  [ -z "$left" ]
}

"$@"
