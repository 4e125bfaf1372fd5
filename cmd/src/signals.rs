//! What signals do to a lifecycle that platforms start in odd places.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Lets us wait for buildpacks and other programs that we run, where whoever started us ignores the signal of ended children:
/// there would be none to wait for. As the first process of a container, makes us end when we are told to.
pub(crate) fn as_expected() {
    // It cannot be refused for this signal.
    // SAFETY: the default disposition runs no code of ours.
    #[allow(unsafe_code)]
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    buildpack_api::end_when_told();
}
