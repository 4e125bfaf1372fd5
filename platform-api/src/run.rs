//! run.toml, and stack.toml before Platform API 0.12: the same value from both. Spec: platform.md, "run.toml".

use buildpack_api::{ParseError, parse_toml};
use serde::Deserialize;

use crate::PlatformApi;

/// The run images a platform offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunImages {
    /// The first is the one to take where nothing else is said.
    pub images: Vec<RunImageMirrors>,
}

/// A run image and where else it can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunImageMirrors {
    /// Its name.
    #[serde(default)]
    pub image: String,
    /// Its other names.
    #[serde(default)]
    pub mirrors: Vec<String>,
}

#[derive(Deserialize)]
struct RunKeys {
    #[serde(default)]
    images: Vec<RunImageMirrors>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StackKeys {
    run_image: Option<RunImageMirrors>,
}

impl RunImages {
    /// Parses run.toml or, where `api` still has it, stack.toml.
    /// # Errors
    /// Malformed TOML, or a value of the wrong type.
    pub fn parse(text: &str, api: PlatformApi) -> Result<Self, ParseError> {
        let images = if api.run_toml() {
            parse_toml::<RunKeys>(text)?.images
        } else {
            parse_toml::<StackKeys>(text)?.run_image.into_iter().collect()
        };
        Ok(Self { images })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_each_api() {
        let run = "[[images]]\nimage='a'\nmirrors=['m']\n[[images]]\nimage='b'";
        let stack = "[run-image]\nimage='a'\nmirrors=['m']";
        let a = RunImageMirrors { image: "a".into(), mirrors: vec!["m".into()] };
        for api in PlatformApi::ALL {
            let read = RunImages::parse(if api.run_toml() { run } else { stack }, api).unwrap();
            assert_eq!(read.images[0], a, "{api}");
            assert_eq!(read.images.len(), if api.run_toml() { 2 } else { 1 });
            let other = RunImages::parse(if api.run_toml() { stack } else { run }, api).unwrap();
            assert_eq!(other, RunImages::default(), "{api}");
            assert_eq!(RunImages::parse("", api).unwrap(), RunImages::default());
            assert!(RunImages::parse("x", api).is_err());
        }
    }
}
