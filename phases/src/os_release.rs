//! The run image's target, with what nobody said of it taken from the build image we run in.
//!
//! Spec: buildpack.md "Targets".

use std::path::Path;

use buildpack_api::{Target, read_toml_bounded};
use platform_api::{TargetData, inputs::LogLevel};
use tracing::{info, warn};

const OS_RELEASE: &str = "/etc/os-release";

/// The target to build for, and what to tell the user of how it was found. Call it once per phase: it may read a file.
pub(crate) fn completed(target: Option<&TargetData>) -> (Target, Vec<(LogLevel, String)>) {
    completed_from(target, Path::new(OS_RELEASE))
}

/// The same, told right away.
pub(crate) fn completed_aloud(target: Option<&TargetData>) -> Target {
    let (target, lines) = completed(target);
    for (level, line) in lines {
        if level == LogLevel::Warn {
            warn!("{line}");
        } else {
            info!("{line}");
        }
    }
    target
}

fn completed_from(target: Option<&TargetData>, os_release: &Path) -> (Target, Vec<(LogLevel, String)>) {
    let target = target.map(|data| data.target.clone()).unwrap_or_default();
    if !target.distros.is_empty() {
        return (target.or_host(None), Vec::new());
    }
    let text = "target distro name/version labels not found, reading /etc/os-release file";
    let mut lines = vec![(LogLevel::Info, text.to_owned())];
    match read_toml_bounded(os_release) {
        Ok(text) => (target.or_host(text.as_deref()), lines),
        Err(e) => {
            lines.push((LogLevel::Warn, format!("Encountered error trying to read /etc/os-release file: {e}")));
            (target.or_host(None), lines)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buildpack_api::Distro;

    #[test]
    fn a_known_distribution_is_kept_and_an_unknown_one_read() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("os-release");
        std::fs::write(&path, "ID=debian\nVERSION_ID=\"12\"\n").unwrap();
        let mut data = TargetData::default();
        data.target.arch = "arm64".to_owned();
        let (target, lines) = completed_from(Some(&data), &path);
        assert_eq!((target.os.as_str(), target.arch.as_str()), ("linux", "arm64"));
        assert_eq!(target.distros, [Distro { name: "debian".to_owned(), version: "12".to_owned() }]);
        assert_eq!(lines.len(), 1);

        let known = TargetData { target, ..data };
        assert_eq!(completed_from(Some(&known), Path::new("/nowhere")), (known.target.clone(), Vec::new()));
        let (target, lines) = completed_from(None, tmp.path());
        assert!(target.distros.is_empty());
        assert_eq!(lines.iter().map(|l| l.0).collect::<Vec<_>>(), [LogLevel::Info, LogLevel::Warn]);
    }
}
