//! What each executable is called with: one struct and one function per executable, one line per row of the spec's
//! table. Flags that the requested Platform API does not have are unknown flags.

mod analyzer;
mod builder;
mod common;
mod creator;
mod detector;
mod exporter;
mod extender;
mod launcher;
mod rebaser;
mod restorer;

pub use analyzer::AnalyzerInputs;
pub use builder::BuilderInputs;
pub use common::{CacheInputs, ImageLocation, LogInputs, LogLevel, RunFile, UserInputs};
pub use creator::CreatorInputs;
pub use detector::DetectorInputs;
pub use exporter::ExporterInputs;
pub use extender::{ExtendKind, ExtenderInputs};
pub use launcher::LauncherInputs;
pub use rebaser::RebaserInputs;
pub use restorer::RestorerInputs;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{ExitCode, Failure, Flags, Parsed, PlatformApi};

    type FromFlags<T> = fn(&Flags, PlatformApi) -> Result<Parsed<T>, Failure>;

    fn flags(args: &[&str], env: &[(&str, &str)]) -> Flags {
        Flags {
            args: args.iter().map(Into::into).collect(),
            env: env.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        }
    }

    fn read_at<T>(from: FromFlags<T>, api: PlatformApi, args: &[&str], env: &[(&str, &str)]) -> Result<T, Failure> {
        match from(&flags(args, env), api)? {
            Parsed::Inputs(inputs) => Ok(inputs),
            Parsed::Version | Parsed::Help(_) => panic!("no inputs"),
        }
    }

    fn read<T>(from: FromFlags<T>, args: &[&str], env: &[(&str, &str)]) -> Result<T, Failure> {
        read_at(from, PlatformApi::V0_13, args, env)
    }

    fn text_of<T>(from: FromFlags<T>, args: &[&str], env: &[(&str, &str)]) -> String {
        let failure = read(from, args, env).err().unwrap();
        assert_eq!(failure.code, ExitCode::InvalidArgs, "{}", failure.text);
        failure.text
    }

    const ONE: &str = "failed to parse arguments: received 0 arguments, but expected 1";
    const SOME: &str = "failed to parse arguments: at least one image argument is required";
    const NONE: &str = "failed to parse arguments: received unexpected arguments";

    #[test]
    fn the_number_of_arguments() {
        assert_eq!(text_of(AnalyzerInputs::from_flags, &[], &[]), ONE);
        assert_eq!(text_of(CreatorInputs::from_flags, &["a", "b"], &[]), ONE.replace('0', "2"));
        let flag_like = text_of(CreatorInputs::from_flags, &["a", "-tag=b"], &[]);
        assert!(flag_like.starts_with(&ONE.replace('0', "2")), "{flag_like}");
        assert!(flag_like.contains("; unconsumed flag-like positional arg: -tag=b; "), "{flag_like}");
        assert_eq!(text_of(ExporterInputs::from_flags, &[], &[]), SOME);
        assert_eq!(text_of(RebaserInputs::from_flags, &[], &[]), SOME);
        assert_eq!(text_of(DetectorInputs::from_flags, &["x"], &[]), NONE);
        assert_eq!(text_of(BuilderInputs::from_flags, &["x"], &[]), NONE);
        assert_eq!(text_of(ExtenderInputs::from_flags, &["x"], &[]), NONE);
        let restorer = text_of(RestorerInputs::from_flags, &["x"], &[]);
        assert_eq!(restorer, "failed to parse arguments: received unexpected Args");
        for text in [
            text_of(AnalyzerInputs::from_flags, &[""], &[]),
            text_of(CreatorInputs::from_flags, &[""], &[]),
            text_of(ExporterInputs::from_flags, &["", "b"], &[]),
            text_of(RebaserInputs::from_flags, &[""], &[]),
        ] {
            assert_eq!(text, "failed to resolve inputs: image argument is required");
        }
    }

    #[test]
    fn the_previous_image_is_the_image_itself_unless_told_otherwise() {
        let env = [("CNB_PREVIOUS_IMAGE", "env")];
        for (args, env, expected) in
            [(&["img"][..], &[][..], "img"), (&["img"], &env, "env"), (&["-previous-image=flag", "img"], &env, "flag")]
        {
            assert_eq!(read(AnalyzerInputs::from_flags, args, env).unwrap().previous_image, expected);
            assert_eq!(read(CreatorInputs::from_flags, args, env).unwrap().analyzer.previous_image, expected);
            assert_eq!(read(RebaserInputs::from_flags, args, env).unwrap().previous_image, expected);
        }
        // Before Platform API 0.11 rebaser has the variable only.
        let old = read_at(RebaserInputs::from_flags, PlatformApi::V0_10, &["img"], &env).unwrap();
        assert_eq!(old.previous_image, "env");
    }

    #[test]
    fn the_run_image_of_exporter_is_analyzers() {
        let env = [("CNB_RUN_IMAGE", "env")];
        for (args, expected) in [
            (&["-run-image=flag", "img"][..], "failed to resolve inputs: -run-image is unsupported"),
            (&["-image=flag", "img"], "failed to resolve inputs: -image is unsupported"),
        ] {
            assert_eq!(text_of(ExporterInputs::from_flags, args, &env), expected);
        }
        for args in [&["img"][..], &["-run-image=env", "img"], &["-run-image=", "img"]] {
            assert!(read(ExporterInputs::from_flags, args, &env).is_ok(), "{args:?}");
        }
    }

    #[test]
    fn the_run_image_of_rebaser() {
        let env = [("CNB_RUN_IMAGE", "env")];
        for (args, expected) in [
            (&["img"][..], "env"),
            (&["-run-image=flag", "img"], "flag"),
            (&["-image=old", "img"], "old"),
            (&["-image=old", "-run-image=env", "img"], "old"),
        ] {
            let inputs = read(RebaserInputs::from_flags, args, &env).unwrap();
            assert_eq!(inputs.run_image.as_deref(), Some(expected), "{args:?}");
        }
        assert_eq!(
            text_of(RebaserInputs::from_flags, &["-image=old", "-run-image=flag", "img"], &env),
            "failed to resolve inputs: supply only one of -run-image or (deprecated) -image"
        );
        assert_eq!(read(RebaserInputs::from_flags, &["img"], &[]).unwrap().run_image, None);
    }

    #[test]
    fn where_images_are() {
        let layout = ImageLocation::Layout("rel".into());
        for (args, expected) in [
            (&["img"][..], ImageLocation::Registry),
            (&["-daemon", "img"], ImageLocation::Daemon),
            (&["-layout-dir=rel", "img"], ImageLocation::Registry),
            (&["-layout", "-layout-dir=rel", "img"], layout.clone()),
            (&["-layout", "-layout-dir=rel", "-daemon", "img"], layout),
        ] {
            assert_eq!(read(AnalyzerInputs::from_flags, args, &[]).unwrap().location, expected, "{args:?}");
            assert_eq!(read(ExporterInputs::from_flags, args, &[]).unwrap().location, expected, "{args:?}");
            let args = &args[..args.len() - 1];
            assert_eq!(read(RestorerInputs::from_flags, args, &[]).unwrap().location, expected, "{args:?}");
        }
        let text = "failed to resolve inputs: -layout-dir is required with -layout";
        assert_eq!(text_of(AnalyzerInputs::from_flags, &["-layout", "img"], &[]), text);
        assert_eq!(text_of(CreatorInputs::from_flags, &["img"], &[("CNB_USE_LAYOUT", "true")]), text);
    }

    #[test]
    fn warnings_about_caches() {
        let no_cache = "No cached data will be used, no cache specified.";
        let launch = "Ignoring -launch-cache, only intended for use with -daemon";
        let parallel =
            "Parallel export has been enabled, but it has not taken effect because no cache has been specified.";
        let env = [("CNB_PARALLEL_EXPORT", "true")];
        let args = ["-launch-cache=/l", "img"];
        let analyzer = read(AnalyzerInputs::from_flags, &args, &env).unwrap();
        assert_eq!((analyzer.warnings, analyzer.launch_cache), (vec![launch.into(), parallel.into()], None));
        let creator = read(CreatorInputs::from_flags, &args, &env).unwrap();
        assert_eq!(creator.warnings, [no_cache, launch, parallel]);
        let exporter = read(ExporterInputs::from_flags, &args, &env).unwrap();
        assert_eq!(exporter.warnings, [no_cache, launch]);
        assert_eq!(read(RestorerInputs::from_flags, &[], &env).unwrap().warnings, [no_cache]);

        let args = ["-launch-cache=/l", "-daemon", "-cache-dir=/c", "-parallel", "img"];
        let creator = read(CreatorInputs::from_flags, &args, &[]).unwrap();
        assert!(creator.warnings.is_empty(), "{:?}", creator.warnings);
        assert_eq!(creator.exporter.launch_cache.as_deref(), Some(Path::new("/l")));
    }

    #[test]
    fn a_cache_image_goes_before_a_cache_directory() {
        let args = ["-cache-dir=/c", "-cache-image=ref"];
        let inputs = read(RestorerInputs::from_flags, &args, &[]).unwrap();
        assert_eq!(inputs.cache, CacheInputs { dir: None, image: Some("ref".into()) });
        let inputs = read(RestorerInputs::from_flags, &["-cache-dir=c"], &[]).unwrap();
        assert_eq!(inputs.cache.dir, Some(std::env::current_dir().unwrap().join("c")));
    }

    #[test]
    fn skip_layers_and_skip_restore_are_one() {
        for name in ["CNB_SKIP_LAYERS", "CNB_SKIP_RESTORE"] {
            let env = [(name, "true")];
            assert!(read(AnalyzerInputs::from_flags, &["img"], &env).unwrap().skip_layers);
            assert!(read(RestorerInputs::from_flags, &[], &env).unwrap().skip_layers);
            let creator = read(CreatorInputs::from_flags, &["img"], &env).unwrap();
            assert!(creator.skip_restore && creator.analyzer.skip_layers && creator.restorer.skip_layers);
            assert!(!read(CreatorInputs::from_flags, &["-skip-restore=false", "img"], &env).unwrap().skip_restore);
        }
    }

    #[test]
    fn source_date_epoch() {
        for (api, value, expected, warns) in [
            (PlatformApi::V0_8, "5", None, false),
            (PlatformApi::V0_9, "5", Some(5), false),
            (PlatformApi::V0_9, "0", Some(0), false),
            (PlatformApi::V0_9, "", None, false),
            (PlatformApi::V0_9, "now", None, true),
            (PlatformApi::V0_9, "-5", Some(-5), false),
            (PlatformApi::V0_9, "253402300799", Some(253_402_300_799), false),
            (PlatformApi::V0_9, "1700000000000", None, true),
            (PlatformApi::V0_9, "-62167219201", None, true),
        ] {
            let env = [("SOURCE_DATE_EPOCH", value), ("CNB_CACHE_DIR", "/c")];
            let inputs = read_at(ExporterInputs::from_flags, api, &["img"], &env).unwrap();
            assert_eq!(inputs.source_date_epoch, expected, "{api} {value}");
            assert_eq!(inputs.warnings.contains(&"Ignoring invalid SOURCE_DATE_EPOCH".to_owned()), warns);
        }
    }

    #[test]
    fn what_to_extend() {
        for (args, env, expected) in [
            (&[][..], &[][..], ExtendKind::Build),
            (&["-kind=run"], &[], ExtendKind::Run),
            (&[], &[("CNB_EXTEND_KIND", "run")], ExtendKind::Run),
        ] {
            assert_eq!(read(ExtenderInputs::from_flags, args, env).unwrap().kind, expected);
        }
        let text = text_of(ExtenderInputs::from_flags, &["-kind=app"], &[]);
        assert_eq!(text, "failed to parse arguments: unknown kind 'app', expected 'build' or 'run'");
    }

    #[test]
    fn values_of_variables_that_are_none() {
        let env = [
            ("CNB_USER_ID", "x"),
            ("CNB_GROUP_ID", "0x10"),
            ("CNB_USE_DAEMON", "yes"),
            ("CNB_INSECURE_REGISTRIES", "a,,b"),
        ];
        let args = ["-insecure-registry=c", "-insecure-registry", "a", "img"];
        let inputs = read(AnalyzerInputs::from_flags, &args, &env).unwrap();
        assert_eq!(inputs.user, UserInputs { uid: 0, gid: 0 });
        assert_eq!(inputs.location, ImageLocation::Registry);
        assert_eq!(inputs.insecure_registries, ["a", "b", "c"]);
        let ttl = |value| read(ExtenderInputs::from_flags, &[], &[("CNB_KANIKO_CACHE_TTL", value)]).unwrap().cache_ttl;
        assert_eq!((ttl("bad").as_secs(), ttl("90m").as_secs()), (336 * 3600, 5400));
        assert_eq!(read(AnalyzerInputs::from_flags, &["-uid=0x10", "img"], &[]).unwrap().user.uid, 16);
    }

    #[test]
    fn relative_paths() {
        let cwd = std::env::current_dir().unwrap();
        let args = ["-app=app/../src", "-layers=l/", "-group=g.toml", "-analyzed=<layers>/a.toml"];
        let inputs = read(DetectorInputs::from_flags, &args, &[]).unwrap();
        assert_eq!((inputs.app, inputs.layers), (cwd.join("src"), cwd.join("l")));
        assert_eq!((inputs.group.as_path(), inputs.analyzed), (Path::new("g.toml"), cwd.join("l/a.toml")));
        assert_eq!(inputs.plan, cwd.join("l/plan.toml"));
    }

    #[test]
    fn order_is_the_layers_directorys_where_it_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let layers = dir.path().canonicalize().unwrap();
        let arg = format!("-layers={}", layers.display());
        let order = |args: &[&str]| read(DetectorInputs::from_flags, args, &[]).unwrap().order;
        assert_eq!(order(&[&arg]), Path::new("/cnb/order.toml"));
        std::fs::write(layers.join("order.toml"), "").unwrap();
        assert_eq!(order(&[&arg]), layers.join("order.toml"));
        assert_eq!(order(&[&arg, "-order=/o.toml"]), Path::new("/o.toml"));
    }

    #[test]
    fn stack_or_run_file() {
        for api in PlatformApi::ALL {
            let env = [("CNB_RUN_PATH", "/r"), ("CNB_STACK_PATH", "/s")];
            let expected = RunFile(if api.run_toml() { "/r" } else { "/s" }.into());
            assert_eq!(read_at(AnalyzerInputs::from_flags, api, &["img"], &env).unwrap().run, expected, "{api}");
            assert_eq!(read_at(ExporterInputs::from_flags, api, &["img"], &env).unwrap().run, expected, "{api}");
            let creator = read_at(CreatorInputs::from_flags, api, &["-stack=/s", "img"], &env).unwrap();
            assert_eq!(creator.analyzer.run, expected, "{api}");
        }
    }

    #[test]
    fn creator_hands_out_one_set_of_values() {
        let args = ["-tag=t", "-tag=img", "-process-type=web", "-run-image=run", "-uid=5", "img"];
        let env = [("CNB_GROUP_PATH", "/g"), ("CNB_EXEC_ENV", "test"), ("FOO", "bar")];
        let creator = read(CreatorInputs::from_flags, &args, &env).unwrap();
        assert_eq!(creator.exporter.output_images, ["img", "t"]);
        assert_eq!(creator.exporter.process_type.as_deref(), Some("web"));
        assert_eq!(creator.analyzer.run_image.as_deref(), Some("run"));
        for group in [&creator.detector.group, &creator.restorer.group, &creator.builder.group, &creator.exporter.group]
        {
            assert_eq!(group, Path::new("/g"));
        }
        for exec_env in [&creator.detector.exec_env, &creator.builder.exec_env, &creator.exporter.exec_env] {
            assert_eq!(exec_env, "test");
        }
        assert!(creator.builder.inherited.contains(&("FOO".into(), "bar".into())));
        assert_eq!((creator.user.uid, creator.exporter.user.uid), (5, 5));
    }

    #[test]
    fn how_tekton_calls_creator() {
        let args = "-app=/workspace/source/app -cache-dir= -cache-image= -uid=1000 -gid=1000 -layers=/layers \
                    -platform=/platform -report=/layers/report.toml -process-type=web -skip-restore=false \
                    -previous-image=reg/img -run-image= reg/img";
        let args: Vec<_> = args.split_whitespace().collect();
        let env = [("DOCKER_CONFIG", "")];
        let creator = read_at(CreatorInputs::from_flags, PlatformApi::V0_9, &args, &env).unwrap();
        assert_eq!(creator.cache, CacheInputs::default());
        assert_eq!(creator.analyzer.run_image, None);
        assert_eq!(creator.analyzer.run, RunFile("/cnb/stack.toml".into()));
        assert_eq!(creator.exporter.report, Path::new("/layers/report.toml"));
    }

    #[test]
    fn launcher_has_an_environment_only() {
        let env = [
            ("CNB_PLATFORM_API", "0.9"),
            ("CNB_LAYERS_DIR", "/l"),
            ("CNB_APP_DIR", ""),
            ("CNB_NO_COLOR", "1"),
            ("CNB_PROCESS_TYPE", "web"),
        ];
        let inputs = LauncherInputs::from_flags(&flags(&["-version", "--", "x"], &env)).unwrap();
        assert_eq!((inputs.layers.as_path(), inputs.app.as_path()), (Path::new("/l"), Path::new("/workspace")));
        assert_eq!((inputs.exec_env.as_str(), inputs.no_color), ("production", true));
        assert_eq!(inputs.process_type.as_deref(), Some("web"));
        assert_eq!(inputs.args, ["-version", "--", "x"]);
        assert_eq!(LauncherInputs::from_flags(&flags(&[], &[])).unwrap_err().code, ExitCode::PlatformApi);
    }
}
