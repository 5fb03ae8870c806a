// SPDX-License-Identifier: MIT
#pragma once

/// Marks what the library exports; everything else is hidden.
#define PAWL_API __attribute__((visibility("default")))
