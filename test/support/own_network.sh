# SPDX-License-Identifier: MIT
# usage: unshare --net sh test/support/own_network.sh COMMAND...
#
# Runs COMMAND in a network that has nothing but a loopback.
ip link set lo up && exec "$@"
