// SPDX-License-Identifier: MIT
#pragma once

// ThreadSanitizer makes threads some fifty times slower: what counts in hundred thousands counts in
// thousands then.
#if defined(__SANITIZE_THREAD__)
constexpr bool has_thread_sanitizer = true;
#elif defined(__has_feature)
constexpr bool has_thread_sanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool has_thread_sanitizer = false;
#endif
