//! An image's documents, byte for byte.

use super::Registry;
use crate::{Error, Image, ImageId, Result, layout::RawImage, manifest::manifest_type};

impl Registry {
    /// Manifest and config of an image that was found in a registry, as they are there: its digest stays what it is.
    ///
    /// # Errors
    /// The image is not of a registry, or has gone from there.
    pub fn raw(&self, image: &Image) -> Result<RawImage> {
        let Some(ImageId::Registry { reference, .. }) = &image.id else {
            return Err(Error::NotFound("the image is not of a registry".to_string()));
        };
        let gone = || Error::NotFound(format!("image {reference} not found"));
        let repository = self.repository(reference);
        let found = self.document(&repository, reference.identifier(), reference.digest.as_ref());
        let document = found.map_err(|failure| failure.error)?.ok_or_else(gone)?;
        let config = document.parse(&reference.to_string())?.config.ok_or_else(gone)?;
        let config = self.config(&repository, &config).map_err(|failure| failure.error)?;
        Ok(RawImage {
            media_type: manifest_type(image.docker),
            manifest: document.bytes.to_vec(),
            config: config.to_vec(),
        })
    }
}
