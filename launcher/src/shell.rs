//! Processes that are not direct: bash sources the profiles, and then becomes the process.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::{error::Error, layers::LayerDirs, process::Start};

/// The scripts to source, in order. The app's own is relative: the shell starts in the app directory.
pub(crate) fn profiles(layers: &LayerDirs, process_type: Option<&str>, app: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut profiles = layers.files("profile.d", process_type)?;
    let of_app = app.join(".profile");
    match fs::metadata(&of_app) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => profiles.push(PathBuf::from(".profile")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(&format!("'{}'", of_app.display()), &e)),
    }
    Ok(profiles)
}

/// bash's arguments: the outer script, then what it knows as `$0`, `$1`, …
pub(crate) fn arguments(argv0: &OsStr, profiles: &[PathBuf], app: &Path, start: &Start) -> Vec<OsString> {
    let script = script(profiles, start.working_dir.as_deref().unwrap_or(app), start.args.len());
    let mut arguments = vec![OsString::from("-c"), script, argv0.to_owned(), start.command.clone()];
    arguments.extend_from_slice(&start.args);
    arguments
}

/// Sources, changes directory, and replaces itself. A command alone is a script. With arguments, it and each of them
/// is expanded by the shell, and stays one word whatever comes of it.
fn script(profiles: &[PathBuf], working_dir: &Path, args: usize) -> OsString {
    let mut script = Vec::new();
    for profile in profiles {
        script.extend_from_slice(b"source ");
        push_quoted(&mut script, profile.as_os_str().as_bytes());
        script.push(b'\n');
    }
    script.extend_from_slice(b"cd -- \"");
    for &byte in working_dir.as_os_str().as_bytes() {
        // Variables are expanded, as platforms are used to.
        if matches!(byte, b'"' | b'\\' | b'`') {
            script.push(b'\\');
        }
        script.push(byte);
    }
    script.extend_from_slice(b"\" || exit 82\n");
    if args == 0 {
        script.extend_from_slice(b"exec bash -c \"$@\"");
    } else {
        script.extend_from_slice(b"exec bash -c '\"$(eval echo \\\"$0\\\")\"");
        for number in 1..=args {
            script.extend_from_slice(format!(" \"$(eval echo \\\"${{{number}}}\\\")\"").as_bytes());
        }
        script.extend_from_slice(b"' \"${@:1}\"");
    }
    OsString::from_vec(script)
}

/// As one word that the shell leaves as it is.
fn push_quoted(script: &mut Vec<u8>, text: &[u8]) {
    script.push(b'\'');
    for &byte in text {
        if byte == b'\'' {
            script.extend_from_slice(b"'\\'");
        }
        script.push(byte);
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::ffi::OsStrExt,
        path::{Path, PathBuf},
        process::Command,
    };

    use super::script;

    /// What the script prints when it runs the command with the arguments, in `dir`.
    fn run(dir: &Path, profiles: &[PathBuf], working_dir: &Path, words: &[&str]) -> (String, Option<i32>) {
        let output = Command::new("bash")
            .arg("-c")
            .arg(script(profiles, working_dir, words.len() - 1))
            .arg("argv0")
            .args(words)
            .env("V", "a  b\"c")
            .env("DIR", "sub")
            .current_dir(dir)
            .output()
            .unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    }

    #[test]
    fn a_command_alone_is_a_script_and_arguments_are_words() {
        let dir = tempfile::tempdir().unwrap();
        let rows: [(&[&str], &str); 8] = [
            (&["echo \"$V\" && echo two | cat"], "a  b\"c\ntwo\n"),
            (&["printf", "[%s]", "$V"], "[a  b\"c]"),
            (&["printf", "[%s]", "a  b"], "[a b]"),
            (&["printf", "[%s]", "x;y", "&&", "z"], "[x;y][&&][z]"),
            (&["printf", "[%s]", ""], "[]"),
            (&["printf", "[%s]", "$(echo hi)"], "[hi]"),
            (
                &["printf", "[%s]", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"],
                "[1][2][3][4][5][6][7][8][9][10][11]",
            ),
            (&["echo $0"], "bash\n"),
        ];
        for (words, want) in rows {
            let (output, _) = run(dir.path(), &[], dir.path(), words);
            // In the last row bash says by which name it was called, with or without its directory.
            let output = output.rsplit('/').next().unwrap_or_default();
            assert_eq!(output, want, "{words:?}");
        }
    }

    #[test]
    fn profiles_are_sourced_in_order_before_the_change_of_directory() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let odd = dir.path().join(OsStr::from_bytes(b"it's $HOME \xff \"odd\""));
        fs::write(&odd, "P=\"$P 1 $(basename \"$PWD\") $0\"").unwrap();
        fs::write(dir.path().join(".profile"), "export P=\"$P 2\"; cd /").unwrap();
        let (output, _) = run(dir.path(), &[odd, ".profile".into()], &sub, &["echo \"$P\"; basename \"$PWD\""]);
        let here = dir.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(output, format!(" 1 {here} argv0 2\nsub\n"));
    }

    #[test]
    fn the_working_directory_expands_variables_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["sub", "a \"b\" `c` \\d", "-"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (working_dir, want) in [("$DIR", "sub"), ("a \"b\" `c` \\d", "a \"b\" `c` \\d")] {
            let (output, _) = run(dir.path(), &[], Path::new(working_dir), &["basename \"$PWD\""]);
            assert_eq!(output.trim_end(), want);
        }
        let (output, code) = run(dir.path(), &[], Path::new("missing"), &["echo never"]);
        assert_eq!((output.as_str(), code), ("", Some(82)));
    }
}
