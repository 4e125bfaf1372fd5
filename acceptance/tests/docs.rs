//! Keeps README and docs/ true: links lead somewhere, every page is in the book, commands name flags, variables and
//! make targets that exist, and the tutorial's commands print what it says.
#![allow(clippy::unwrap_used, reason = "a check panics where something is wrong")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use acceptance::run::{as_root, find_executable, may_differ, run, workspace};

const EXECUTABLES: [&str; 9] =
    ["analyzer", "detector", "restorer", "extender", "builder", "exporter", "creator", "rebaser", "launcher"];

/// README, what lies beside it, and every page of docs/, with their text.
fn pages() -> Vec<(PathBuf, String)> {
    let root = workspace();
    let mut files: Vec<_> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    collect(&root.join("docs"), &mut files);
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "md") {
            files.push(path);
        }
    }
}

/// A command of a `console` block, with what it is given and what it is said to print.
struct Step {
    command: String,
    printed: Vec<String>,
}

/// `$ ` begins a command, `> ` goes on with it, `\` at the end takes the next line; all else is what it prints.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            let goes_on = steps.last().is_some_and(|step| step.command.ends_with('\\'));
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), printed: Vec::new() });
            } else if let Some(step) = steps.last_mut() {
                match line.strip_prefix("> ").or_else(|| goes_on.then_some(line)) {
                    Some(more) => step.command = format!("{}\n{more}", step.command),
                    None => step.printed.push(line.to_owned()),
                }
            }
        }
    }
    steps
}

#[test]
fn links_lead_somewhere() {
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || link.contains("://") {
                continue;
            }
            let found = page.parent().unwrap().join(target);
            assert!(found.exists(), "{}: {link} leads nowhere", page.display());
        }
    }
}

#[test]
fn every_page_is_in_the_book() {
    let docs = workspace().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for (page, _) in pages() {
        if let Ok(name) = page.strip_prefix(&docs) {
            let name = name.display().to_string();
            assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "{name} is not in SUMMARY.md");
        }
    }
}

/// The flags that the executable's page has; the page is made of the table that parsing goes by.
fn flags_of(executable: &str) -> BTreeSet<String> {
    let page = fs::read_to_string(workspace().join(format!("docs/reference/{executable}.md"))).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `-"));
    rows.filter_map(|row| row.split([' ', '`']).next()).map(str::to_owned).chain(["h".to_owned()]).collect()
}

#[test]
fn commands_name_flags_and_targets_that_exist() {
    let makefile = fs::read_to_string(workspace().join("Makefile")).unwrap();
    let mut checked = 0;
    for (page, text) in pages() {
        for step in steps(&text) {
            let words: Vec<&str> = step.command.split_whitespace().collect();
            if let ["make", target, ..] = words[..] {
                let known = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
                assert!(known, "{}: there is no make {target}", page.display());
                checked += 1;
            }
            let mut known = None;
            for word in words {
                let name = word.rsplit('/').next().unwrap_or_default();
                if EXECUTABLES.contains(&name) && (word.contains('/') && known.is_none()) {
                    known = (name != "launcher").then(|| (name, flags_of(name)));
                } else if let Some((name, flags)) = &known {
                    if let Some(flag) = word.strip_prefix('-').map(|flag| flag.trim_start_matches('-')) {
                        let flag = flag.split('=').next().unwrap_or_default();
                        assert!(flags.contains(flag), "{}: {name} has no flag -{flag}", page.display());
                        checked += 1;
                    } else if matches!(word, "|" | "&&" | ";") {
                        known = None;
                    }
                }
            }
        }
    }
    assert!(checked > 20, "{checked} flags and targets were found");
}

fn is_name(text: &str) -> bool {
    text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// Every name of a variable between quotes in `names.rs`, and what the pages say of variables.
#[test]
fn variables_are_those_of_the_code() {
    let names = fs::read_to_string(workspace().join("platform-api/src/names.rs")).unwrap();
    let in_code: BTreeSet<&str> = names.split('"').skip(1).step_by(2).filter(|text| is_name(text)).collect();
    assert!(in_code.len() > 40, "{} variables found", in_code.len());
    let mut reference = String::new();
    collect_text(&workspace().join("docs/reference"), &mut reference);
    for name in &in_code {
        assert!(reference.contains(name), "no page of docs/reference tells of {name}");
    }

    let mut sources = String::new();
    for dir in ["platform-api", "buildpack-api", "image", "dockerfile", "phases", "cmd", "launcher"] {
        collect_text(&workspace().join(dir).join("src"), &mut sources);
    }
    for (page, text) in pages() {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let is_ours = word.starts_with("CNB_") && is_name(word) && !word.ends_with('_');
            assert!(!is_ours || sources.contains(word), "{}: the code does not know {word}", page.display());
        }
    }
}

fn collect_text(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_text(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap_or_default());
        }
    }
}

/// A call of what follows as a user that is not root.
fn ordinary_user() -> Command {
    let as_user = if as_root() { &["--reuid=1000", "--regid=1000", "--clear-groups"][..] } else { &[] };
    let mut call = Command::new("setpriv");
    call.args(as_user).arg("--");
    call
}

/// Runs the steps in one shell, and returns what each printed.
fn printed_by(steps: &[Step], dir: &Path, lifecycle: &Path) -> Vec<String> {
    let mark = "-- end of a step --";
    let told = steps.iter().map(|step| format!("{}\necho '{mark}'\n", step.command));
    let script = "set -eu\nexec 2>&1\n".to_owned() + &told.collect::<String>();
    let mut shell = ordinary_user();
    shell.args(["bash", "-c", &script]).current_dir(dir);
    shell.env("LIFECYCLE", lifecycle).env("HOME", dir).env_remove("XDG_RUNTIME_DIR");
    let outcome = run(&mut shell);
    let printed: Vec<String> = outcome.stdout().split(&format!("{mark}\n")).map(str::to_owned).collect();
    let failed = steps.get(printed.len() - 1).map(|step| step.command.as_str()).unwrap_or_default();
    assert!(outcome.code() == 0, "exit code {} of: {failed}\n{}", outcome.code(), outcome.all());
    printed
}

#[test]
fn the_tutorial_prints_what_it_says() {
    if may_differ("the tutorial is about ours") {
        return;
    }
    let needed = ["skopeo", "umoci", "busybox", "unshare", "setpriv"];
    let has =
        |name: &&str| std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(name).exists());
    if let Some(missing) = needed.iter().find(|name| !has(name)) {
        eprintln!("skipped: {missing} is not installed");
        return;
    }
    if run(ordinary_user().args(["unshare", "--user", "--map-root-user", "true"])).code() != 0 {
        eprintln!("skipped: users may not make user namespaces here");
        return;
    }
    let launcher = find_executable("launcher").unwrap();
    // cargo's debug build is linked as the machine links everything; the run image has no loader.
    if launcher.parent().is_some_and(|dir| dir.ends_with("debug")) {
        eprintln!("skipped: {} is no static executable", launcher.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    if as_root() {
        std::os::unix::fs::chown(dir.path(), Some(1000), Some(1000)).unwrap();
    }
    let text = fs::read_to_string(workspace().join("docs/tutorial.md")).unwrap();
    let steps = steps(&text);
    let lifecycle = launcher.canonicalize().unwrap().parent().unwrap().to_owned();
    let printed = printed_by(&steps, dir.path(), &lifecycle);
    for (step, printed) in steps.iter().zip(&printed) {
        for line in &step.printed {
            assert!(printed.contains(line.as_str()), "no '{line}' of: {}\n{printed}", step.command);
        }
    }
}
