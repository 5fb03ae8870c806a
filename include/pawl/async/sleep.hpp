// SPDX-License-Identifier: MIT
#pragma once

#include "pawl/async/future.hpp"
#include "pawl/core/api.hpp"
#include "pawl/core/place.hpp"
#include "pawl/core/time.hpp"

namespace pawl {

class EventLoop;

/// A future that is done when `duration` has passed. Cancelling it cancels its timer.
PAWL_API Future<void> sleep(EventLoop& loop, Duration duration, Place place = Place::here());

}  // namespace pawl
