//! What an operator sees of the executables: their help, the log as JSON, timings, traces. None of it is of the
//! specification, so other lifecycles need not have it.
#![allow(clippy::unwrap_used, reason = "clippy takes only functions marked as tests for tests")]

mod build_dirs;
mod image_world;

use std::os::unix::fs::symlink;

use acceptance::{
    run::{command, executable, may_differ, run},
    tree::Entry::{Dir, File},
};
use build_dirs::BuildDirs;
use image_world::World;
use serde_json::Value;

const NOT_SPEC: &str = "it is not of the specification";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Two buildpacks, of which the first prints and the second fails where `fails`.
fn two_buildpacks(fails: bool) -> BuildDirs {
    let dirs = BuildDirs::new();
    dirs.buildpack("acme/a", "0.10", "", "echo detected", "echo '{\"raw\": 1}'; printf 'no line end'");
    dirs.buildpack("acme/b", "0.10", "", "", if fails { "exit 7" } else { "" });
    dirs.order(&["acme/a acme/b"]);
    dirs.group(&[("acme/a", "0.10"), ("acme/b", "0.10")], "");
    dirs
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn help_needs_no_platform_api() {
    if may_differ(NOT_SPEC) {
        return;
    }
    for name in ["analyzer", "detector", "restorer", "extender", "builder", "exporter", "creator", "rebaser"] {
        for arg in ["-h", "-help", "--help"] {
            let outcome = run(command(executable(name)).arg(arg)).ok();
            assert_eq!(outcome.stdout(), "");
            assert!(outcome.stderr().starts_with(&format!("Usage: {name} [flags]")), "{}", outcome.stderr());
            assert!(outcome.stderr().contains("CNB_OTEL_DIR") && outcome.stderr().contains("Exit codes:"));
        }
        // Nothing else does without it.
        run(command(executable(name)).arg("-version")).exits(11);
    }
}

#[test]
fn the_log_as_json() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let dirs = two_buildpacks(true);
    let outcome = run(dirs.builder("0.14").args(["-log-level", "debug"]).env("CNB_LOG_FORMAT", "json")).exits(51);
    let stdout = outcome.stdout();
    // What buildpacks print is not wrapped, not even where it has no line end.
    let ours: Vec<&str> = stdout.lines().filter_map(|line| line.find("{\"ts\":").map(|at| &line[at..])).collect();
    assert!(stdout.contains("\n{\"raw\": 1}\nno line end{\"ts\":"), "{stdout}");
    let lines = objects(&ours.join("\n"));
    assert!(lines.iter().all(|line| line["phase"] == "build" && line["level"] == "debug" || line["level"] == "info"));
    let timed: Vec<_> = lines.iter().filter(|line| line["fields"]["work"] == "build").collect();
    assert_eq!(timed.len(), 2, "{stdout}");
    assert_eq!((&timed[0]["fields"]["id"], &timed[0]["fields"]["passed"]), (&"acme/a".into(), &true.into()));
    assert_eq!((&timed[1]["fields"]["id"], &timed[1]["fields"]["passed"]), (&"acme/b".into(), &false.into()));

    let errors = objects(&outcome.stderr());
    let last = errors.last().unwrap();
    assert_eq!((last["level"].as_str(), &last["fields"]["exit_code"]), (Some("error"), &51.into()));
    assert!(last["msg"].as_str().unwrap().starts_with("failed to build: "), "{last}");
    let ts = last["ts"].as_str().unwrap();
    assert!(ts.len() == "2026-11-22T21:47:34.120934Z".len() && ts.ends_with('Z'), "{ts}");
}

#[test]
fn failures_before_the_flags_are_read_are_objects_too() {
    if may_differ(NOT_SPEC) {
        return;
    }
    for (api, args, code) in [("", &[][..], 11), ("0.12", &["-nope"], 2), ("0.12", &["-log-level", "loud"], 1)] {
        let mut call = command(executable("detector"));
        let outcome = run(call.args(args).env("CNB_PLATFORM_API", api).env("CNB_LOG_FORMAT", "json")).exits(code);
        let lines = objects(&outcome.stderr());
        let found = (lines.len(), lines[0]["level"].as_str(), lines[0]["fields"]["exit_code"].as_i64());
        assert_eq!(found, (1, Some("error"), Some(code.into())), "{}", outcome.stderr());
    }
}

#[test]
fn a_format_that_is_none_is_warned_of() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let dirs = two_buildpacks(false);
    let outcome = run(dirs.detector("0.14").env("CNB_LOG_FORMAT", "xml")).ok();
    assert!(outcome.stderr().contains("Ignoring CNB_LOG_FORMAT 'xml'"), "{}", outcome.stderr());
    assert!(outcome.stdout().contains("acme/a 1.0.0\n"), "{}", outcome.stdout());
}

#[test]
fn timings_at_debug() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let dirs = two_buildpacks(false);
    let out = run(dirs.detector("0.14").args(["-log-level", "debug"])).ok().stdout();
    let out = out + &run(dirs.builder("0.14").args(["-log-level", "debug"])).ok().stdout();
    for line in [
        "Starting detector...",
        "Timer: Detector started at 2",
        "Timer: detect of acme/a@1.0.0 ran for ",
        "Timer: Detector ran for ",
        "Timer: Builder started at 2",
        "Timer: build of acme/b@1.0.0 ran for ",
        "Timer: Builder ran for ",
    ] {
        assert!(out.contains(line), "no '{line}' in\n{out}");
    }
}

/// The spans of a file, each with its name and its attributes in one text.
fn spans(dirs: &BuildDirs, phase: &str) -> Vec<(String, Value)> {
    let lines = objects(&dirs.read(&format!("traces/lifecycle/{phase}.jsonl")));
    let span = |line: &Value| {
        let span = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
        let attributes = span["attributes"].as_array().unwrap().iter();
        let values: Vec<_> = attributes.map(|a| a["value"]["stringValue"].as_str().unwrap_or("?").to_owned()).collect();
        (format!("{} {}", span["name"].as_str().unwrap(), values.join(" ")).trim_end().to_owned(), span)
    };
    lines.iter().map(span).collect()
}

#[test]
fn a_trace_is_written_where_it_is_asked_for() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let dirs = two_buildpacks(true);
    dirs.write(&[("traces", Dir)]);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let trace = |mut call: std::process::Command| {
        run(call.env("CNB_OTEL_DIR", dirs.path("traces")).env("CNB_OTEL_TRACEPARENT", &parent))
    };
    trace(dirs.detector("0.14")).ok();
    dirs.group(&[("acme/a", "0.10"), ("acme/b", "0.10")], "");
    trace(dirs.builder("0.14")).exits(51);
    for (phase, expected) in [
        ("detect", ["buildpack-detect acme/a 1.0.0", "buildpack-detect acme/b 1.0.0", "detect"]),
        ("build", ["buildpack-build acme/a 1.0.0", "buildpack-build acme/b 1.0.0", "build"]),
    ] {
        let spans = spans(&dirs, phase);
        assert_eq!(spans.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
        let (_, of_phase) = &spans[2];
        assert_eq!(of_phase["parentSpanId"], PARENT);
        for (name, span) in &spans {
            let nanos = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
            assert!(nanos("startTimeUnixNano") <= nanos("endTimeUnixNano"), "{span}");
            assert_eq!(span["traceId"], TRACE);
            assert!(name == phase || span["parentSpanId"] == of_phase["spanId"], "{span}");
            let failed = phase == "build" && !name.contains("acme/a");
            assert_eq!(span["status"]["code"].as_i64(), failed.then_some(2), "{span}");
        }
    }
    // Not asked for, not written.
    dirs.remove("traces/lifecycle");
    dirs.group(&[("acme/a", "0.10")], "");
    run(&mut dirs.builder("0.14")).ok();
    assert!(!dirs.exists("traces/lifecycle") && !dirs.exists("layers/tracing"));
}

#[test]
fn layers_are_timed_and_traced() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let world = World::new();
    world.analyzed();
    world.layer("jdk", "launch = true", Some(&[("bin/java", File("java"))]));
    world.layer("deps", "cache = true", Some(&[("a.jar", File("jar"))]));
    let cache = world.text("cache");
    let traced = |mut call: std::process::Command, phase: &str, layer: &str| {
        call.args(["-cache-dir", &*cache, "-log-level", "debug"]).env("CNB_OTEL_DIR", world.path("layers/tracing"));
        if phase == "export" {
            call.arg(world.name("app"));
        }
        let out = run(&mut call).ok().stdout();
        assert!(out.contains(&format!("Timer: layer '{layer}' ran for ")), "{phase}: {out}");
        let lines = objects(&world.read(&format!("layers/tracing/lifecycle/{phase}.jsonl")));
        let spans: Vec<Value> =
            lines.iter().map(|line| line["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()).collect();
        let is_it = |span: &&Value| span["attributes"][0]["value"]["stringValue"] == layer;
        let (span, of_phase) = (spans.iter().find(is_it).unwrap(), spans.last().unwrap());
        assert_eq!((&of_phase["name"], of_phase.get("parentSpanId")), (&phase.into(), None));
        assert_eq!((&span["name"], &span["parentSpanId"]), (&"layer".into(), &of_phase["spanId"]));
        let bytes = |at: usize| span["attributes"][at]["value"]["intValue"].as_str().unwrap().parse::<u64>().unwrap();
        (bytes(1), bytes(2))
    };
    let (read, sent) = traced(world.exporter("0.12", &[]), "export", "acme/jvm:jdk");
    assert!(read > 1024 && sent > 0, "{read} read, {sent} sent");
    world.clear_layers();
    let (read, sent) = traced(world.restorer("0.12"), "restore", "acme/jvm:deps");
    assert!(read > 1024 && sent == 0, "{read} read, {sent} sent");
}

#[test]
fn a_trace_that_cannot_be_written_is_one_warning() {
    if may_differ(NOT_SPEC) {
        return;
    }
    let dirs = two_buildpacks(false);
    dirs.write(&[("traces", Dir), ("elsewhere", Dir)]);
    // A link that a buildpack could have left.
    symlink(dirs.path("elsewhere"), dirs.path("traces/lifecycle")).unwrap();
    let outcome = run(dirs.builder("0.14").env("CNB_OTEL_DIR", dirs.path("traces"))).ok();
    assert_eq!(outcome.stderr().matches("Not writing traces").count(), 1, "{}", outcome.stderr());
    assert_eq!(dirs.list("elsewhere"), Vec::<String>::new());
}
