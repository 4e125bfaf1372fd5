//! Uploads that are begun before there is anything to send.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use ureq::http::{Method, Uri};

use super::{
    Registry,
    failure::Attempt,
    http::{Body, Patience},
    lock,
    repository::{Call, Repository},
    retry,
    upload::Started,
};
use crate::{Digest, Reference, Result};

/// An upload without content.
pub(super) struct Begun {
    of: Reference,
    session: Uri,
    at: Instant,
}

/// A config's upload, while it is being begun.
pub(super) struct BeingBegun {
    of: Reference,
    thread: JoinHandle<Option<Begun>>,
}

impl Registry {
    /// Begins the upload of an image's config on another thread, for who knows that there will be a new one and is not
    /// done with its layers; these do not take it. What goes wrong goes wrong again, and is said, when the config is sent.
    pub fn begin_config(&self, name: &Reference) {
        let (registry, of) = (self.clone(), name.clone());
        let begin = move || {
            let begun = registry.begin(&of).inspect_err(|failure| tracing::debug!("{}", failure.error));
            begun.unwrap_or_default()
        };
        if let Ok(thread) = thread::Builder::new().spawn(begin) {
            lock(&self.shared.configs_begun).push(BeingBegun { of: name.clone(), thread });
        }
    }

    /// Uploads a config, as [`Registry::upload_bytes`] does; where its upload was begun, that one is taken.
    pub fn upload_config(&self, repository: &Reference, bytes: &[u8]) -> Result<Digest> {
        let context = repository.context();
        self.take_configs_begun(|of| of.context() == context);
        self.upload_bytes(repository, bytes)
    }

    /// Leaves configs' uploads that were begun to whatever is sent next.
    fn take_configs_begun(&self, wanted: impl Fn(&Reference) -> bool) {
        let taken: Vec<BeingBegun> = {
            let mut all = lock(&self.shared.configs_begun);
            let (taken, left) = std::mem::take(&mut *all).into_iter().partition(|config| wanted(&config.of));
            *all = left;
            taken
        };
        let begun: Vec<Begun> = taken.into_iter().filter_map(|config| config.thread.join().ok().flatten()).collect();
        lock(&self.shared.begun).extend(begun);
    }

    fn begin(&self, name: &Reference) -> Attempt<Option<Begun>> {
        let repository = self.repository(name);
        let started = repository.start_anew(&[repository.push()], None)?;
        Ok(match started {
            Started::Session(session) => Some(Begun { of: name.clone(), session, at: Instant::now() }),
            Started::Mounted => None,
        })
    }

    /// Cancels the uploads that were begun and never needed.
    pub fn cancel_uploads(&self) {
        self.take_configs_begun(|_| true);
        let begun = std::mem::take(&mut *lock(&self.shared.begun));
        for Begun { of, session, .. } in begun {
            self.repository(&of).cancel(session);
        }
    }

    /// Starts an upload, once per repository: the next blob takes it, or [`Registry::cancel_uploads`] cancels it.
    pub fn ensure_writable(&self, name: &Reference) -> Result<()> {
        let context = name.context();
        if lock(&self.shared.writable).contains(&context) {
            return Ok(());
        }
        let begun = retry(&self.shared.settings, || self.begin(name))?;
        lock(&self.shared.begun).extend(begun);
        lock(&self.shared.writable).insert(context);
        Ok(())
    }
}

impl Repository {
    /// An upload that was begun before.
    pub(super) fn begun(&self) -> Option<Uri> {
        let (context, age) = (self.context(), self.shared.settings.upload_age);
        let mut begun = lock(&self.shared.begun);
        let index = begun.iter().position(|begun| begun.of.context() == context && begun.at.elapsed() < age)?;
        Some(begun.swap_remove(index).session)
    }

    fn cancel(&self, session: Uri) {
        let call = Call {
            method: Method::DELETE,
            url: session,
            headers: &[],
            scopes: &[self.push()],
            patience: Patience::Normal,
        };
        if let Err(failure) = self.call_once(&call, &mut Body::None) {
            tracing::debug!("{}", failure.error);
        }
    }
}
