//! What each executable is called with: one struct and one function per executable, one line per row of the spec's
//! table. Flags that the requested Platform API does not have are unknown flags.

mod analyzer;
mod builder;
mod common;
mod creator;
mod detector;
mod exporter;
mod extender;
mod launcher;
mod rebaser;
mod restorer;

pub use analyzer::AnalyzerInputs;
pub use builder::BuilderInputs;
pub use common::{CacheInputs, ImageLocation, LogInputs, LogLevel, RunFile, UserInputs};
pub use creator::CreatorInputs;
pub use detector::DetectorInputs;
pub use exporter::ExporterInputs;
pub use extender::{ExtendKind, ExtenderInputs};
pub use launcher::LauncherInputs;
pub use rebaser::RebaserInputs;
pub use restorer::RestorerInputs;
