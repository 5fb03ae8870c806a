// SPDX-License-Identifier: MIT
#pragma once

#include <system_error>

namespace pawl {

class Mailbox;

/// Who in this process wants to hear of which signal.
///
/// The one thing here that is the process's and not a loop's, because signal dispositions are. In a
/// forked child nobody wants to hear of any, and the dispositions are as if nobody ever had.
///
/// Threads: any.
namespace signal_hub {

/// `mailbox.raise(signal)` is called at each `signal` until `remove`. The first one for a signal
/// takes its disposition over. Fails with `std::errc::invalid_argument`.
std::error_code add(int signal, Mailbox& mailbox);

/// When it returns, no handler in any thread uses the mailbox for this signal. The last one puts
/// the disposition back, unless someone else has changed it meanwhile. Takes no memory.
void remove(int signal, Mailbox& mailbox) noexcept;

}  // namespace signal_hub
}  // namespace pawl
