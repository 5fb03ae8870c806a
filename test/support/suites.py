# SPDX-License-Identifier: MIT
"""Prints the suites of a build folder, one a line: suite, selector or "-", title, and the command
that runs it, each quoted for `eval` in a shell."""

import json
import shlex
import subprocess
import sys

tests = subprocess.check_output(["meson", "introspect", "--tests", sys.argv[1]])
for test in json.loads(tests):
    suite = test["suite"][0].split(":")[-1]
    settings = [f"{name}={value}" for name, value in test["env"].items()]
    selector = test["env"].get("PAWL_SELECTOR", "-")
    words = [suite, selector, test["name"], "env", *settings, *test["cmd"]]
    print(shlex.join(words))
