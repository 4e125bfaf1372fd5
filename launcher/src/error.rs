//! Why a launch failed.

use std::{fmt, io};

use buildpack_api::io_text;

/// A sentence for the user: causes joined with ": ", naming the path or command it is about.
#[derive(Debug)]
pub(crate) struct Error(String);

impl Error {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `what` failed for this reason.
    pub(crate) fn io(what: &str, cause: &io::Error) -> Self {
        Self(format!("{what}: {}", io_text(cause)))
    }

    /// The same, seen from one level up.
    pub(crate) fn within(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Error;

    #[test]
    fn an_error_is_one_lower_case_sentence_without_numbers() {
        let missing = io::Error::from_raw_os_error(2);
        let error = Error::io("chdir /nowhere", &missing).within("change to app directory");
        assert_eq!(error.to_string(), "change to app directory: chdir /nowhere: no such file or directory");
        let ours = io::Error::other("Kept As It Is (os error 3)");
        assert_eq!(Error::io("x", &ours).to_string(), "x: Kept As It Is (os error 3)");
    }
}
