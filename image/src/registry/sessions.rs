//! Uploads that are begun before there is anything to send.

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
use crate::{Reference, Result};

impl Registry {
    /// Begins an upload that the next blob for the repository of `name` takes, for who knows that there will be one and
    /// waits for something else. What goes wrong goes wrong again, and is said, when there is something to send.
    pub fn begin_upload(&self, name: &Reference) {
        if let Err(failure) = self.begin(name) {
            tracing::debug!("{}", failure.error);
        }
    }

    fn begin(&self, name: &Reference) -> Attempt<()> {
        let repository = self.repository(name);
        if let Started::Session(session) = repository.start(&[repository.push()], None)? {
            lock(&self.shared.begun).push((name.clone(), session));
        }
        Ok(())
    }

    /// Cancels the uploads that were begun and never needed.
    pub fn cancel_uploads(&self) {
        let begun = std::mem::take(&mut *lock(&self.shared.begun));
        for (name, session) in begun {
            self.repository(&name).cancel(session);
        }
    }

    /// Starts an upload, once per repository; [`Registry::cancel_uploads`] cancels it, if nothing was sent.
    pub fn ensure_writable(&self, name: &Reference) -> Result<()> {
        let context = name.context();
        if lock(&self.shared.writable).contains(&context) {
            return Ok(());
        }
        retry(&self.shared.settings, || self.begin(name))?;
        lock(&self.shared.writable).insert(context);
        Ok(())
    }
}

impl Repository {
    /// An upload that was begun before.
    pub(super) fn begun(&self) -> Option<Uri> {
        let context = self.context();
        let mut begun = lock(&self.shared.begun);
        let index = begun.iter().position(|(of, _)| of.context() == context)?;
        Some(begun.swap_remove(index).1)
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
