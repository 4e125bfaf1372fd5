//! Every flag of every executable at every Platform API: it is known exactly where the spec's tables have it, goes
//! before its variable, which goes before the default. What differs between the APIs is compared with a file.

use platform_api::{Executable, ExitCode, FlagInfo, FlagKind, Flags, Parsed, PlatformApi, describe, inputs::*};

fn flags(executable: Executable, args: &[String], env: &[(&str, &str)]) -> Flags {
    let image = (!executable.arguments().is_empty()).then(|| "some/image".to_owned());
    Flags {
        args: args.iter().cloned().chain(image).map(Into::into).collect(),
        env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
    }
}

/// The inputs, as text that shows every field's value.
fn inputs(executable: Executable, flags: &Flags, api: PlatformApi) -> Result<String, platform_api::Failure> {
    fn text<T: std::fmt::Debug>(parsed: Parsed<T>) -> String {
        match parsed {
            Parsed::Inputs(inputs) => format!("{inputs:?}"),
            other => panic!("{other:?}"),
        }
    }
    // What the process inherited would show every variable's value, read or not.
    let without = |mut inputs: BuilderInputs| {
        inputs.inherited.clear();
        inputs
    };
    Ok(match executable {
        Executable::Analyzer => text(AnalyzerInputs::from_flags(flags, api)?),
        Executable::Detector => match DetectorInputs::from_flags(flags, api)? {
            Parsed::Inputs(mut inputs) => {
                inputs.inherited.clear();
                format!("{inputs:?}")
            }
            other => text(other),
        },
        Executable::Restorer => text(RestorerInputs::from_flags(flags, api)?),
        Executable::Extender => match ExtenderInputs::from_flags(flags, api)? {
            Parsed::Inputs(mut inputs) => {
                inputs.builder = without(inputs.builder);
                format!("{inputs:?}")
            }
            other => text(other),
        },
        Executable::Builder => match BuilderInputs::from_flags(flags, api)? {
            Parsed::Inputs(inputs) => format!("{:?}", without(inputs)),
            other => text(other),
        },
        Executable::Exporter => text(ExporterInputs::from_flags(flags, api)?),
        Executable::Creator => match CreatorInputs::from_flags(flags, api)? {
            Parsed::Inputs(mut inputs) => {
                inputs.detector.inherited.clear();
                inputs.builder = without(inputs.builder);
                format!("{inputs:?}")
            }
            other => text(other),
        },
        Executable::Rebaser => text(RebaserInputs::from_flags(flags, api)?),
    })
}

/// A value for a flag and how inputs show it.
fn sample(flag: &FlagInfo, from: &str) -> (String, String) {
    let both = |text: String| (text.clone(), format!("\"{text}\""));
    match (flag.name, flag.kind) {
        ("log-level", _) => match from {
            "flag" => ("debug".into(), "level: Debug".into()),
            _ => ("error".into(), "level: Error".into()),
        },
        ("kind", _) => match from {
            "flag" => ("run".into(), "kind: Run".into()),
            _ => ("build".into(), "kind: Build".into()),
        },
        (_, FlagKind::Text | FlagKind::List) => both(format!("some/{from}-{}", flag.name)),
        (_, FlagKind::File | FlagKind::Dir | FlagKind::PlainDir) => both(format!("/{from}/{}", flag.name)),
        (name, FlagKind::Id) => {
            let number = if from == "flag" { 1234 } else { 4321 };
            (number.to_string(), format!("{name}: {number}"))
        }
        (_, FlagKind::Duration) => match from {
            "flag" => ("1h1s".into(), "cache_ttl: 3601s".into()),
            _ => ("2h".into(), "cache_ttl: 7200s".into()),
        },
        (name, FlagKind::Bool) => {
            let shown = match name {
                "no-color" => "no_color: true",
                "skip-layers" | "skip-restore" => "skip_layers: true",
                "daemon" => "location: Daemon",
                "layout" => "location: Layout(",
                "force" => "force: true",
                "parallel" => "parallel: true",
                other => panic!("-{other}"),
            };
            ("true".into(), shown.into())
        }
    }
}

/// What must be said besides for the flag to show: a launch cache is a daemon's, a layout has a directory.
fn besides(flag: &FlagInfo) -> Vec<(&'static str, &'static str)> {
    match flag.name {
        "launch-cache" => vec![("CNB_USE_DAEMON", "true")],
        "layout" => vec![("CNB_LAYOUT_DIR", "/l")],
        "layout-dir" => vec![("CNB_USE_LAYOUT", "true")],
        _ => vec![],
    }
}

/// Every flag whose value is an input of the executable at this API. The rest is refused, or taken and ignored.
fn described(executable: Executable, api: PlatformApi) -> Vec<FlagInfo> {
    let ignored = |flag: &FlagInfo| {
        flag.name == "version"
            || executable == Executable::Exporter && matches!(flag.name, "image" | "run-image")
            || flag.name == "stack" && api.run_toml()
    };
    describe(executable, api).into_iter().filter(|flag| !ignored(flag)).collect()
}

#[test]
fn a_flag_goes_before_its_variable_before_the_default() {
    for executable in Executable::ALL {
        for api in PlatformApi::ALL {
            for flag in described(executable, api) {
                let what = format!("{executable:?} {api} -{}", flag.name);
                let (flag_value, flag_shown) = sample(&flag, "flag");
                let (env_value, env_shown) = sample(&flag, "env");
                let run = |args: &[String], env: &[(&str, &str)]| {
                    let env: Vec<_> = besides(&flag).into_iter().chain(env.iter().copied()).collect();
                    inputs(executable, &flags(executable, args, &env), api).unwrap()
                };
                let joined = format!("-{}={flag_value}", flag.name);
                let text = run(std::slice::from_ref(&joined), &[]);
                assert!(text.contains(&flag_shown), "{what}: {flag_shown} in {text}");
                if flag.kind != FlagKind::Bool {
                    assert_eq!(run(&[format!("--{}", flag.name), flag_value.clone()], &[]), text, "{what}");
                }
                if let Some(variable) = flag.env {
                    let from_env = run(&[], &[(variable, &env_value)]);
                    assert!(from_env.contains(&env_shown), "{what}: {env_shown} in {from_env}");
                    if !matches!(flag.kind, FlagKind::List | FlagKind::Bool) {
                        assert_eq!(run(&[joined], &[(variable, &env_value)]), text, "{what}");
                    }
                    let empty = [format!("-{}=", flag.name)];
                    assert_eq!(run(&empty, &[(variable, &env_value)]), from_env, "{what}");
                    // A layout without a directory is refused.
                    if flag.name != "layout-dir" {
                        assert_eq!(run(&empty, &[(variable, "")]), run(&[], &[]), "{what}");
                    }
                }
                if flag.default.starts_with('/') || flag.default.starts_with("<layers>") {
                    let default = flag.default.replace("<layers>", "/some/layers");
                    // Where there is no order.toml among the layers the builder's is meant.
                    let default = if flag.name == "order" { "/cnb/order.toml".into() } else { default };
                    let env: &[_] = if flag.name == "layers" { &[] } else { &[("CNB_LAYERS_DIR", "/some/layers")] };
                    let text = run(&[], env);
                    assert!(text.contains(&format!("\"{default}\"")), "{what}: {default} in {text}");
                }
            }
        }
    }
}

#[test]
fn a_flag_that_the_api_has_not_is_unknown() {
    for executable in Executable::ALL {
        let newest_and_oldest = [PlatformApi::V0_7, PlatformApi::V0_15];
        let all: Vec<_> = newest_and_oldest.iter().flat_map(|api| describe(executable, *api)).collect();
        for api in PlatformApi::ALL {
            let known = describe(executable, api);
            for flag in all.iter().filter(|flag| !known.contains(flag)) {
                let args = [format!("-{}=true", flag.name)];
                let failure = inputs(executable, &flags(executable, &args, &[]), api).unwrap_err();
                assert_eq!(failure.code, ExitCode::Usage);
                let message = format!("flag provided but not defined: -{}\nUsage: {}", flag.name, executable.name());
                assert!(failure.text.starts_with(&message), "{}", failure.text);
            }
        }
    }
}

/// A named difference and whether an API has it.
type Difference = (&'static str, fn(PlatformApi) -> bool);

#[rustfmt::skip]
const DIFFERENCES: [Difference; 29] = [
    ("analyzer_skips_layers", PlatformApi::analyzer_skips_layers),
    ("bom_out_of_metadata", PlatformApi::bom_out_of_metadata),
    ("build_config", PlatformApi::build_config),
    ("cache_image_kept", PlatformApi::cache_image_kept),
    ("command_array", PlatformApi::command_array),
    ("exec_env", PlatformApi::exec_env),
    ("extensions_stable", PlatformApi::extensions_stable),
    ("generated_contexts", PlatformApi::generated_contexts),
    ("history", PlatformApi::history),
    ("image_extensions", PlatformApi::image_extensions),
    ("insecure_registries", PlatformApi::insecure_registries),
    ("is_deprecated", PlatformApi::is_deprecated),
    ("layout", PlatformApi::layout),
    ("lifecycle_sboms", PlatformApi::lifecycle_sboms),
    ("rebase_force", PlatformApi::rebase_force),
    ("rebase_from_previous", PlatformApi::rebase_from_previous),
    ("restore_uncached_launch_metadata", PlatformApi::restore_uncached_launch_metadata),
    ("restorer_daemon", PlatformApi::restorer_daemon),
    ("restorer_resolves_run_image", PlatformApi::restorer_resolves_run_image),
    ("run_image_extension", PlatformApi::run_image_extension),
    ("run_image_in_label", PlatformApi::run_image_in_label),
    ("run_toml", PlatformApi::run_toml),
    ("sbom_layers", PlatformApi::sbom_layers),
    ("skip_restore_keeps_store", PlatformApi::skip_restore_keeps_store),
    ("source_date_epoch", PlatformApi::source_date_epoch),
    ("stack_toml", PlatformApi::stack_toml),
    ("system_buildpacks", PlatformApi::system_buildpacks),
    ("target_data", PlatformApi::target_data),
    ("user_args_may_replace", PlatformApi::user_args_may_replace),
];

fn row(name: &str, has: impl Fn(PlatformApi) -> bool) -> String {
    let cells = PlatformApi::ALL.map(|api| if has(api) { "   x " } else { "   - " });
    format!("{name:<34}{}", cells.concat()).trim_end().to_owned()
}

fn version_table() -> String {
    let apis = PlatformApi::ALL.map(|api| format!("{api:>5}"));
    let mut lines = vec![format!("{:<34}{}", "difference", apis.concat())];
    lines.extend(DIFFERENCES.iter().map(|(name, has)| row(name, has)));
    for executable in Executable::ALL {
        let mut names: Vec<_> =
            PlatformApi::ALL.iter().flat_map(|api| describe(executable, *api)).map(|flag| flag.name).collect();
        names.sort_unstable();
        names.dedup();
        lines.push(String::new());
        lines.extend(names.into_iter().map(|name| {
            row(&format!("{} -{name}", executable.name()), |api| {
                describe(executable, api).iter().any(|flag| flag.name == name)
            })
        }));
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_version_table_is_the_committed_one() {
    let table = version_table();
    let committed = include_str!("versions.txt");
    assert!(table == committed, "tests/versions.txt differs; it should be:\n{table}");
}
