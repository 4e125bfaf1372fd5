//! Users and groups as the image's own `/etc/passwd` and `/etc/group` have them.

use std::path::Path;

use crate::{Error, Result};

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// Where `HOME` points.
    pub(crate) home: String,
}

/// The fields of a line.
fn table(root: &Path, file: &str) -> Vec<Vec<String>> {
    let text = std::fs::read(root.join(file)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
}

fn number(fields: &[String], at: usize) -> Option<u32> {
    fields.get(at)?.parse().ok()
}

/// Of `<user>[:<group>]`, names or numbers. Nobody at all is root.
///
/// # Errors
/// There is no user or group of that name.
pub(crate) fn find(root: &Path, spec: &str) -> Result<User> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(u, g)| (u, Some(g).filter(|g| !g.is_empty())));
    let user = if user.is_empty() { "0" } else { user };
    let passwd = table(root, "etc/passwd");
    let is_it = |fields: &&Vec<String>| {
        fields.first().is_some_and(|name| name == user) || number(fields, 2).is_some_and(|id| user.parse() == Ok(id))
    };
    let (mut found, name) = match (passwd.iter().find(is_it), user.parse::<u32>()) {
        (Some(fields), _) => {
            let (uid, gid) = (number(fields, 2).unwrap_or_default(), number(fields, 3).unwrap_or_default());
            let home = fields.get(5).filter(|home| !home.is_empty()).map_or("/", String::as_str);
            (User { uid, gid, groups: Vec::new(), home: home.to_owned() }, fields.first().cloned())
        }
        (None, Ok(uid)) => {
            let home = if uid == 0 { "/root" } else { "/" };
            (User { uid, home: home.to_owned(), ..User::default() }, None)
        }
        (None, Err(_)) => return Err(Error::new(format!("unable to find user {user}: no matching entries in passwd"))),
    };
    match (group, name) {
        (Some(group), _) => found.gid = group_id(root, group)?,
        (None, Some(name)) => found.groups = memberships(root, &name),
        (None, None) => {}
    }
    Ok(found)
}

fn memberships(root: &Path, name: &str) -> Vec<u32> {
    let is_member = |fields: &&Vec<String>| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
    table(root, "etc/group").iter().filter(is_member).filter_map(|fields| number(fields, 2)).collect()
}

/// A group's number.
///
/// # Errors
/// There is no group of that name.
fn group_id(root: &Path, group: &str) -> Result<u32> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let groups = table(root, "etc/group");
    let found = groups.iter().find(|fields| fields.first().is_some_and(|name| name == group));
    found
        .and_then(|fields| number(fields, 2))
        .ok_or_else(|| Error::new(format!("unable to find group {group}: no matching entries in group file")))
}

/// User and group that files are given to by `--chown=<user>[:<group>]`. A user without a group brings that of the
/// same number.
pub(crate) fn owner(root: &Path, spec: &str) -> Result<(u32, u32)> {
    let user = find(root, spec)?;
    let has_group = spec.split_once(':').is_some_and(|(_, group)| !group.is_empty());
    let numeric = spec.trim_end_matches(':').parse::<u32>();
    Ok(match numeric {
        Ok(id) if !has_group => (id, id),
        _ => (user.uid, user.gid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\ncnb:x:1000:1001::/home/cnb:\n")
            .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nadm:x:4:x,cnb\ncnb:x:1001:\n").unwrap();
        let user = |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.to_vec(), home: home.into() };
        for (spec, expected) in [
            ("", user(0, 0, &[], "/root")),
            ("cnb", user(1000, 1001, &[4], "/home/cnb")),
            ("1000", user(1000, 1001, &[4], "/home/cnb")),
            ("cnb:adm", user(1000, 4, &[], "/home/cnb")),
            ("7", user(7, 0, &[], "/")),
            ("7:8", user(7, 8, &[], "/")),
        ] {
            assert_eq!(find(dir.path(), spec).unwrap(), expected, "{spec}");
        }
        assert!(find(dir.path(), "no").unwrap_err().to_string().contains("unable to find user no"));
        assert!(find(dir.path(), "0:no").unwrap_err().to_string().contains("unable to find group no"));
        assert_eq!(owner(dir.path(), "cnb").unwrap(), (1000, 1001));
        assert_eq!(owner(dir.path(), "55").unwrap(), (55, 55));
    }
}
