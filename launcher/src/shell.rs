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
    let dir = match &start.working_dir {
        Some(dir) => expanded(dir),
        None => quoted(app.as_os_str().as_bytes()),
    };
    let script = script(profiles, &dir, start.args.len());
    let mut arguments = vec![OsString::from("-c"), script, argv0.to_owned(), start.command.clone()];
    arguments.extend_from_slice(&start.args);
    arguments
}

/// Sources, changes directory, and replaces itself. A command alone is a script. With arguments, it and each of them
/// is expanded by the shell, and stays one word whatever comes of it.
///
/// `cd` may be a function of a profile, which wants nothing but the directory, and may say that it failed when it did not.
fn script(profiles: &[PathBuf], dir: &[u8], args: usize) -> OsString {
    let mut script = Vec::new();
    for profile in profiles {
        script.extend_from_slice(b"source ");
        script.extend_from_slice(&quoted(profile.as_os_str().as_bytes()));
        script.push(b'\n');
    }
    for part in [b"cd ", dir, b" || [ . -ef ", dir, b" ] || exit 82\n"] {
        script.extend_from_slice(part);
    }
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
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text {
        if byte == b'\'' {
            word.extend_from_slice(b"'\\'");
        }
        word.push(byte);
    }
    word.push(b'\'');
    word
}

/// As one word in which the shell expands what begins with a dollar sign, as platforms are used to; `\$` is none. A
/// directory is no option of `cd`, whatever its name begins with.
fn expanded(dir: &Path) -> Vec<u8> {
    let mut word = vec![b'"'];
    let mut bytes = dir.as_os_str().as_bytes().iter().peekable();
    if bytes.peek() == Some(&&b'-') {
        word.extend_from_slice(b"./");
    }
    while let Some(&byte) = bytes.next() {
        if matches!(byte, b'"' | b'`') || byte == b'\\' && bytes.peek() != Some(&&b'$') {
            word.push(b'\\');
        }
        word.push(byte);
    }
    word.push(b'"');
    word
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

    use super::{expanded, quoted, script};

    /// What the script prints when it runs the command with the arguments, in `dir`.
    fn run(dir: &Path, profiles: &[PathBuf], working_dir: &Path, words: &[&str]) -> (String, Option<i32>) {
        let output = Command::new("bash")
            .arg("-c")
            .arg(script(profiles, &expanded(working_dir), words.len() - 1))
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
    fn the_working_directory_expands_what_begins_with_a_dollar_sign() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["sub", "a \"b\" `c` \\d", "-", "-P", "a$DIR"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for (working_dir, want) in [
            ("$DIR", "sub"),
            ("$(echo sub)", "sub"),
            ("a \"b\" `c` \\d", "a \"b\" `c` \\d"),
            ("-", "-"),
            ("-P", "-P"),
            ("a\\$DIR", "a$DIR"),
        ] {
            let (output, _) = run(dir.path(), &[], Path::new(working_dir), &["basename -- \"$PWD\""]);
            assert_eq!(output.trim_end(), want);
        }
        let (output, code) = run(dir.path(), &[], Path::new("missing"), &["echo never"]);
        assert_eq!((output.as_str(), code), ("", Some(82)));
        assert_eq!(quoted(b"it's $DIR"), b"'it'\\''s $DIR'");
    }

    /// As version managers define it.
    #[test]
    fn a_profile_may_have_a_cd_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (sub, profile) = (dir.path().join("sub"), dir.path().join(".profile"));
        fs::create_dir(&sub).unwrap();
        for (cd, want) in [
            ("builtin cd \"$@\" && false", ("sub\n", Some(0))),
            ("builtin cd \"$1\" && HOOK=ran", ("subran\n", Some(0))),
            ("false", ("", Some(82))),
        ] {
            fs::write(&profile, format!("export HOOK; cd() {{ {cd}; }}")).unwrap();
            let words = ["echo \"$(basename \"$PWD\")$HOOK\""];
            let (output, code) = run(dir.path(), &[".profile".into()], &sub, &words);
            assert_eq!((output.as_str(), code), want, "{cd}");
        }
    }
}
