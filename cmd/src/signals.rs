//! What signals do to a lifecycle that platforms start in odd places.

use std::process;

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal},
};

/// The signals that end a program.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Lets us wait for buildpacks and other programs that we run, where whoever started us ignores the signal of ended children:
/// there would be none to wait for. As the first process of a container, makes us end when we are told to, with the exit
/// code that shells give: the kernel keeps the default action from a first process, whose builds could not be cancelled
/// then. It ends what else runs in the container. Programs that we run have the default actions.
#[allow(unsafe_code)]
pub(crate) fn as_expected() {
    // Neither can be refused for these signals.
    // SAFETY: the default disposition runs no code of ours.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    if process::id() != 1 {
        return;
    }
    let end = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for number in ENDS {
        // SAFETY: the handler calls only what may be called at any instant.
        let before = unsafe { sigaction(number, &end) };
        // What is ignored on purpose stays so.
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
