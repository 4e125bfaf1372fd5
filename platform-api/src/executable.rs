//! The executables of the Platform Interface that take flags: platform.md, "Phases" and what follows.

/// The programs that have flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executable {
    /// `analyzer`
    Analyzer,
    /// `detector`
    Detector,
    /// `restorer`
    Restorer,
    /// `extender`
    Extender,
    /// `builder`
    Builder,
    /// `exporter`
    Exporter,
    /// `creator`
    Creator,
    /// `rebaser`
    Rebaser,
}

impl Executable {
    /// All of them, in the order of a build.
    pub const ALL: [Self; 8] = [
        Self::Analyzer,
        Self::Detector,
        Self::Restorer,
        Self::Extender,
        Self::Builder,
        Self::Exporter,
        Self::Creator,
        Self::Rebaser,
    ];

    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Analyzer => "analyzer",
            Self::Detector => "detector",
            Self::Restorer => "restorer",
            Self::Extender => "extender",
            Self::Builder => "builder",
            Self::Exporter => "exporter",
            Self::Creator => "creator",
            Self::Rebaser => "rebaser",
        }
    }

    /// What follows the flags.
    pub fn arguments(self) -> &'static str {
        match self {
            Self::Analyzer | Self::Creator => "<image>",
            Self::Exporter | Self::Rebaser => "<image> [<image>...]",
            Self::Detector | Self::Restorer | Self::Extender | Self::Builder => "",
        }
    }
}
