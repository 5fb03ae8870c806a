// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>

#include "pawl/core/api.hpp"

namespace pawl {

/// What a future that was cancelled throws. Its code is `std::errc::operation_canceled`.
class PAWL_API CancelledError : public std::system_error {
 public:
  CancelledError();
  CancelledError(const CancelledError&) = default;
  CancelledError& operator=(const CancelledError&) = default;
  ~CancelledError() override;
};

}  // namespace pawl
