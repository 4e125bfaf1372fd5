//! A container's first process, while it runs other programs.

use std::process;

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal},
};

/// The signals that end a program.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Makes a container's first process end when it is told to, with the exit code that shells give: the kernel keeps the
/// default action from it, so builds could not be cancelled. It ends what else runs in the container. Programs that we
/// run, or become, have the default actions; what is ignored on purpose stays so.
#[allow(unsafe_code)]
pub fn end_when_told() {
    if process::id() != 1 {
        return;
    }
    let end = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for number in ENDS {
        // It cannot be refused for these signals.
        // SAFETY: the handler calls only what may be called at any instant.
        let before = unsafe { sigaction(number, &end) };
        if before.is_ok_and(|before| matches!(before.handler(), SigHandler::SigIgn)) {
            // SAFETY: ignoring a signal runs no code of ours.
            let _ = unsafe { signal(number, SigHandler::SigIgn) };
        }
    }
}

/// Nothing has to be put in order: what is written is written whole or not at all.
extern "C" fn end(number: libc::c_int) {
    // SAFETY: may be called at any instant; runs nothing of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::_exit(128 + number)
    }
}
