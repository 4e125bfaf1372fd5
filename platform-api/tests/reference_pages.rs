//! The pages of `docs/reference`, made of the tables that parsing and `-h` go by. With `WRITE_PAGES` set they are
//! written, else compared with what is there (`make reference` does the former).

#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

use std::{fmt::Write as _, path::Path};

use platform_api::{Executable, FlagInfo, LAUNCHER, PlatformApi, Reference, describe, reference};

const NOTE: &str =
    "<!-- Made by `make reference` from platform-api/src: executable.rs, flag_table.rs, reference.rs, exit.rs. -->";

/// Since and until when the executable has the flag.
fn apis(executable: Executable, name: &str) -> String {
    let has = |api: &PlatformApi| describe(executable, *api).iter().any(|flag| flag.name == name);
    let with: Vec<_> = PlatformApi::ALL.into_iter().filter(has).collect();
    let (first, last) = (with.first().unwrap(), with.last().unwrap());
    let all = PlatformApi::ALL;
    let (is_first, is_last) = (*first == all[0], *last == all[all.len() - 1]);
    match (is_first, is_last) {
        (true, true) => "all".to_owned(),
        (false, true) => format!("from {first}"),
        (true, false) => format!("to {last}"),
        (false, false) => format!("{first} to {last}"),
    }
}

fn flags_table(executable: Executable) -> String {
    let mut flags: Vec<FlagInfo> = PlatformApi::ALL.into_iter().flat_map(|api| describe(executable, api)).collect();
    flags.sort_by_key(|flag| flag.name);
    flags.dedup_by_key(|flag| flag.name);
    let mut text = "| Flag | Variable | Default | Platform API | Meaning |\n|---|---|---|---|---|\n".to_owned();
    let code = |value: &str| if value.is_empty() { String::new() } else { format!("`{value}`") };
    for flag in flags {
        let head = format!("-{} {}", flag.name, flag.kind.word());
        let (env, default) = (code(flag.env.unwrap_or_default()), code(flag.default));
        let apis = apis(executable, flag.name);
        let _ = writeln!(text, "| `{}` | {env} | {default} | {apis} | {} |", head.trim_end(), escaped(flag.help));
    }
    text
}

/// Outside of code a page's `<...>` is a tag.
fn escaped(text: &str) -> String {
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn rest(of: &Reference) -> String {
    let mut text = "\n## Variables without a flag\n\n| Variable | Meaning |\n|---|---|\n".to_owned();
    for variable in of.variables.iter().copied().flatten() {
        let names: Vec<_> = variable.name.split(", ").map(|name| format!("`{name}`")).collect();
        let _ = writeln!(text, "| {} | {} |", names.join(", "), escaped(variable.help));
    }
    text.push_str("\n## Files\n\n`-name` stands for the value of that flag.\n\n| File | Use | Note |\n|---|---|---|\n");
    for file in of.files {
        let paths: Vec<_> = file.path.split(", ").map(|path| format!("`{path}`")).collect();
        let _ = writeln!(text, "| {} | {} | {} |", paths.join(", "), file.how, escaped(file.note));
    }
    text.push_str("\n## Exit codes\n\n| Code | Meaning |\n|---|---|\n");
    for code in of.all_exit_codes() {
        let _ = writeln!(text, "| {} | {} |", code as u8, code.meaning());
    }
    text
}

fn page(executable: Executable) -> String {
    let reference = reference(executable);
    let name = executable.name();
    let call = format!("{name} [flags] {}", executable.arguments());
    format!(
        "# {name}\n\n{NOTE}\n\n{}\n\n```text\n{}\n```\n\n## Flags\n\nA flag goes before its variable, that before the \
         default; an empty value is none. `-h` shows those of the Platform API in use.\n\n{}{}",
        reference.about,
        call.trim_end(),
        flags_table(executable),
        rest(reference)
    )
}

fn launcher_page() -> String {
    format!(
        "# launcher\n\n{NOTE}\n\n{}\n\n```text\nlauncher [argument...]\n/cnb/process/<type> [argument...]\n```\n\nIt has no \
         flags: the name it is called by says which process is meant, and all arguments are the process's. Called as \
         `launcher`, it runs its arguments as a command. The exit code of a process that was started is its own.\n{}",
        LAUNCHER.about,
        // It has no arguments that could be wrong, and shows neither help nor version.
        rest(&LAUNCHER)
    )
}

#[test]
fn pages_are_what_the_tables_say() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    let mut pages: Vec<_> = Executable::ALL.map(|executable| (executable.name(), page(executable))).into();
    pages.push(("launcher", launcher_page()));
    for (name, text) in pages {
        let path = dir.join(name).with_extension("md");
        if std::env::var_os("WRITE_PAGES").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, text).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == text, "{} is not what the tables say: make reference", path.display());
        }
    }
}
