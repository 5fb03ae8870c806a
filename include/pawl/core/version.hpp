// SPDX-License-Identifier: MIT
#pragma once

/// The version of these headers; a test compares it with `meson.build`.
#define PAWL_VERSION_MAJOR 0
#define PAWL_VERSION_MINOR 1
#define PAWL_VERSION_PATCH 0
#define PAWL_VERSION_STRING "0.1.0"
