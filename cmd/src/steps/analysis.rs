//! An analysis beside what does not need all of it: creator detects while registries answer.

use std::{
    sync::mpsc::{self, Receiver},
    thread::Scope,
};

use image::Images;
use phases::analyze::Needed;
use platform_api::{Analyzed, Failure, RunImages, TargetData, inputs::AnalyzerInputs};

use super::{Places, analyze, restore_sbom};

/// An analysis that is under way, in the order in which its parts are known.
#[derive(Debug)]
pub struct Analysis {
    base: Receiver<Option<TargetData>>,
    found: Receiver<Result<Analyzed, Failure>>,
    restored: Receiver<Result<Analyzed, Failure>>,
    looked_for_layers: Receiver<()>,
}

/// Begins [`analyze`] and, after it, [`restore_sbom`]; then a registry is asked for the layers of the previous image, so that
/// [`super::export`] knows which ones it can take, and can forget that we tried to write. All of it is over when `scope` is,
/// but for uploads that were begun: the caller cancels what is left of them.
pub fn begin_analysis<'scope, 'env: 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    i: &'env AnalyzerInputs,
    offered: &'env RunImages,
    places: &'env Places,
) -> Analysis {
    let (on_base, base) = mpsc::channel();
    let (on_found, found) = mpsc::channel();
    let (on_restored, restored) = mpsc::channel();
    let (on_looked, looked_for_layers) = mpsc::channel();
    // Nobody receives what comes after a failure.
    scope.spawn(move || {
        let analyzed = analyze(i, offered, places, Needed::Irreplaceable, &|base| drop(on_base.send(base)));
        drop(on_base);
        let analyzed = match analyzed {
            Ok(analyzed) => analyzed,
            Err(failure) => return drop(on_found.send(Err(failure))),
        };
        let _ = on_found.send(Ok(analyzed.analyzed.clone()));
        let restored = restore_sbom(i, places, analyzed);
        let previous = restored.as_ref().ok().and_then(|analyzed| analyzed.previous_image.clone());
        let _ = on_restored.send(restored);
        let is_first = previous.is_none();
        if let (Images::Registry(registry), Some(name)) = (&places.images, previous) {
            phases::analyze::look_for_layers(registry, &name);
        }
        let _ = on_looked.send(());
        // A first image has layers to send, and one of them takes the upload that was begun to see whether it may.
        if !is_first {
            places.registry.cancel_uploads();
        }
    });
    Analysis { base, found, restored, looked_for_layers }
}

impl Analysis {
    /// The target of the run image, where it is known before all is; waits for it.
    #[must_use]
    pub fn base(&self) -> Option<Option<TargetData>> {
        self.base.recv().ok()
    }

    /// What [`analyze`] came to; waits for it.
    pub fn found(&self) -> Result<Analyzed, Failure> {
        received(&self.found)
    }

    /// What [`restore_sbom`] came to; waits for it.
    pub fn restored(&self) -> Result<Analyzed, Failure> {
        received(&self.restored)
    }

    /// Waits until layers were looked for; what is missing is known to the registry's client.
    pub fn look_for_layers(&self) {
        let _ = self.looked_for_layers.recv();
    }
}

fn received(from: &Receiver<Result<Analyzed, Failure>>) -> Result<Analyzed, Failure> {
    from.recv().unwrap_or_else(|_| Err(Failure::failed("analyze: a thread ended before its work")))
}
