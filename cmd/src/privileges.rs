//! Who the process is: chown what it will write to, then become the user of the build, for good.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, chown, lchown},
    },
    path::Path,
};

use buildpack_api::io_text;
use nix::unistd::{Gid, Uid, getgid, getuid, setgroups, setresgid, setresuid};
use platform_api::{ExitCode, Failure, inputs::UserInputs};

/// Whether the real user is root.
pub fn is_privileged() -> bool {
    getuid().is_root()
}

/// Exit code 1 when run as root: what follows runs the code of buildpacks.
pub fn refuse_root(action: &str) -> Result<(), Failure> {
    if is_privileged() {
        return Err(Failure::failed(format!("failed to {action}: refusing to run as root")));
    }
    Ok(())
}

/// Keeps what this process holds (its environment and memory may hold credentials) from other processes of the same
/// user: buildpacks could read `/proc/<pid>/environ` otherwise.
pub fn hide_from_children() {
    // Refused only by kernels without the call; there is nothing better to do then.
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Gives the directories to the user, then becomes that user: groups, group, user, in this order, and never back.
/// `user.uid` 0 stays as it is. Call it before any thread starts.
pub fn become_user(user: UserInputs, directories: &[Option<&Path>]) -> Result<(), Failure> {
    for directory in directories.iter().flatten() {
        ensure_owner(directory, user).map_err(|e| Failure::failed(format!("failed to chown volumes: {e}")))?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    if (uid, gid) == (getuid(), getgid()) {
        return Ok(());
    }
    if !is_privileged() {
        // A cluster that picks the user itself (OpenShift): there is no privilege to drop, and nothing to become.
        tracing::debug!("Running as user {}:{}, without the right to become {uid}:{gid}", getuid(), getgid());
        return Ok(());
    }
    // Root's groups must not outlive root.
    let become_it =
        || setgroups(&[gid]).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid));
    become_it().map_err(|e| Failure::failed(format!("failed to exec as user {uid}:{gid}: {}", e.desc())))
}

/// `HOME` and `USER` as buildpacks run by `uid` should see them. /etc/passwd alone is read: a static executable cannot
/// load the modules that an image's nsswitch.conf may name.
pub fn home_of(uid: u32) -> Result<[(&'static str, OsString); 2], Failure> {
    let fail =
        |cause: String| Failure::new(ExitCode::Failed, format!("failed to set environment for user {uid}: {cause}"));
    let passwd = match fs::read("/etc/passwd") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(fail(format!("open /etc/passwd: {}", io_text(&e))));
        }
        read => read.unwrap_or_default(),
    };
    // Clusters that pick a user say in variables who it is.
    let told = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let known =
        user_of(&passwd, uid).or_else(|| told("USER").zip(told("HOME")).filter(|_| getuid() == Uid::from_raw(uid)));
    match known {
        Some((name, home)) => Ok([("HOME", home), ("USER", name)]),
        None => Err(fail(format!("user: unknown userid {uid}"))),
    }
}

/// Name and home of the first user with this ID (passwd(5): `name:password:uid:gid:comment:home:shell`).
fn user_of(passwd: &[u8], uid: u32) -> Option<(OsString, OsString)> {
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        // What comes after the home is the shell, whatever it holds.
        let fields: Vec<&[u8]> = line.splitn(7, |byte| *byte == b':').collect();
        let [name, _, id, _, _, home, _] = fields[..] else { return None };
        let is_it = std::str::from_utf8(id).ok()?.parse() == Ok(uid);
        is_it.then(|| (OsString::from_vec(name.to_vec()), OsString::from_vec(home.to_vec())))
    })
}

/// Chowns a directory the user cannot write to, and all below it. Looks at the directory and its direct entries, not
/// at the whole tree: a volume of many thousand files is owned alike below that.
fn ensure_owner(path: &Path, user: UserInputs) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {}", path.display(), io_text(&e)));
    let top = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(named(e)),
    };
    if !is_privileged() {
        // Whether we may write is then a matter of the file system's, and told where we try.
        return Ok(());
    }
    if !can_write(&top, user) {
        chown(path, Some(user.uid), Some(user.gid)).map_err(named)?;
        return chown_below(path, user);
    }
    for entry in fs::read_dir(path).map_err(named)? {
        let entry = entry.map_err(named)?;
        let metadata = match entry.metadata() {
            Err(e) if is_gone(&e) => continue,
            metadata => metadata.map_err(named)?,
        };
        if metadata.is_dir() && !can_write(&metadata, user) {
            lchown(entry.path(), Some(user.uid), Some(user.gid)).map_err(named)?;
            chown_below(&entry.path(), user)?;
        }
    }
    Ok(())
}

fn can_write(metadata: &fs::Metadata, user: UserInputs) -> bool {
    metadata.uid() == user.uid
        || (metadata.gid() == user.gid && metadata.mode() & 0o020 != 0)
        || metadata.mode() & 0o002 != 0
}

/// Never follows a symlink: what it leads to is not the volume's.
fn chown_below(path: &Path, user: UserInputs) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(path).min_depth(1) {
        let owned = entry.map_err(io::Error::from).and_then(|entry| {
            lchown(entry.path(), Some(user.uid), Some(user.gid))
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {}", entry.path().display(), io_text(&e))))
        });
        match owned {
            Err(e) if is_gone(&e) => {}
            owned => owned?,
        }
    }
    Ok(())
}

/// Another process, such as the other image's extender, took it away meanwhile.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_others_take_away_needs_no_owner() {
        if !is_privileged() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("privileges-{}", std::process::id()));
        let sub = dir.join("sub");
        fs::create_dir_all(&sub).unwrap();
        let done = AtomicBool::new(false);
        let user = UserInputs { uid: 1000, gid: 1000 };
        let owned: Result<(), io::Error> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::create_dir_all(sub.join("new/of/another")).unwrap();
                    fs::remove_dir_all(sub.join("new")).unwrap();
                }
            });
            let owned = (0..2000).try_for_each(|_| chown_below(&dir, user));
            done.store(true, Ordering::Relaxed);
            owned
        });
        fs::remove_dir_all(&dir).unwrap();
        owned.unwrap();
    }

    #[test]
    fn users_are_found_by_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# a comment\nbad:x:1000\ncnb:x:1000:1000::/home/cnb:/bin/sh\n\
            other:x:1000:1000::/other:/bin/sh\nraw:x:7:7::/h\xff:\n";
        let home = |uid| user_of(passwd, uid);
        let found = |name: &str, home: &[u8]| Some((OsString::from(name), OsString::from_vec(home.to_vec())));
        assert_eq!(home(0), found("root", b"/root"));
        assert_eq!(home(1000), found("cnb", b"/home/cnb"));
        assert_eq!(home(7), found("raw", b"/h\xff"));
        assert_eq!(home(1), None);
        assert_eq!(user_of(b"", 0), None);
        assert!(user_of(b"cnb:x:1000:1000:cnb:/home/cnb:/bin/sh:extra", 1000).is_some());
    }
}
