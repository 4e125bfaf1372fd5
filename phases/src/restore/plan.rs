//! Which layers of a buildpack are restored, from where, and with which contents: a pure function of what the
//! previous image and the cache say. buildpack.md "Layer Types"

use std::collections::{BTreeMap, BTreeSet};

use image::Digest;
use platform_api::{LayerData, PlatformApi};

/// What happens to one layer.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// Nothing is restored, for this reason.
    Skip(&'static str),
    /// Image and cache hold different contents: nothing is restored, and nothing may stay.
    Stale,
    /// `<layer>.toml` and, where there is a digest, the contents from the cache.
    Restore { source: Source, data: &'a LayerData, contents: Option<Digest> },
}

/// Where metadata comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    App,
    Cache,
}

/// The layers of one buildpack, by name: those of the previous image and those of the cache.
pub(super) fn plan<'a>(
    app: &'a BTreeMap<String, LayerData>,
    cached: &'a BTreeMap<String, LayerData>,
    api: PlatformApi,
) -> Vec<(&'a str, Step<'a>)> {
    let names: BTreeSet<&str> = app.keys().chain(cached.keys()).map(String::as_str).collect();
    names.into_iter().map(|name| (name, step(app.get(name), cached.get(name), api))).collect()
}

fn step<'a>(app: Option<&'a LayerData>, cached: Option<&'a LayerData>, api: PlatformApi) -> Step<'a> {
    let cached = cached.filter(|layer| layer.cache);
    let from_app = match app {
        None => Err("not in the app image"),
        Some(layer) if !layer.launch => Err("marked as launch=false"),
        // Its contents must be there to build with, and nobody kept them: the buildpack makes it anew in any case.
        Some(layer) if layer.build && !layer.cache => Err("marked as build=true, cache=false"),
        Some(layer) if layer.cache && cached.is_none() => Err("marked as cache=true, but not found in cache"),
        Some(layer) => Ok(layer),
    };
    match (from_app, cached) {
        // What the app image says of such a layer is of another build.
        (_, Some(in_cache)) if !in_cache.launch => with_contents(Source::Cache, in_cache, in_cache),
        // The metadata of the layer in the app image; contents only if they are what the cache has.
        (Ok(layer), Some(in_cache)) => with_contents(Source::App, layer, in_cache),
        (Ok(layer), None) => Step::Restore { source: Source::App, data: layer, contents: None },
        (Err(_), Some(in_cache)) if app.is_none() && api.restore_uncached_launch_metadata() => {
            with_contents(Source::Cache, in_cache, in_cache)
        }
        (Err(_), Some(_)) => Step::Skip("marked as launch=true"),
        (Err(reason), None) => Step::Skip(reason),
    }
}

fn with_contents<'a>(source: Source, data: &'a LayerData, in_cache: &LayerData) -> Step<'a> {
    match Digest::parse(&in_cache.sha) {
        Ok(diff_id) if data.sha == in_cache.sha => Step::Restore { source, data, contents: Some(diff_id) },
        _ => Step::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn layer(types: &str, sha: &str) -> LayerData {
        let is = |c| types.contains(c);
        LayerData { sha: sha.into(), data: None, build: is('b'), cache: is('c'), launch: is('l') }
    }

    /// The metadata's source (`a`, `c`, or `-`) and whether contents follow.
    fn outcome(app: Option<&LayerData>, cached: Option<&LayerData>, api: PlatformApi) -> (char, bool) {
        match step(app, cached, api) {
            Step::Skip(_) => ('-', false),
            Step::Stale => ('x', false),
            Step::Restore { source: Source::App, contents, .. } => ('a', contents.is_some()),
            Step::Restore { source: Source::Cache, contents, .. } => ('c', contents.is_some()),
        }
    }

    /// A layer that was exported and cached as its types say.
    #[test]
    fn the_table_of_layer_types() {
        for (types, expected) in [
            ("bcl", ('a', true)),
            ("bc", ('c', true)),
            ("bl", ('-', false)),
            ("b", ('-', false)),
            ("cl", ('a', true)),
            ("c", ('c', true)),
            ("l", ('a', false)),
            ("", ('-', false)),
        ] {
            let layer = layer(types, SHA);
            let app = layer.launch.then_some(&layer);
            let cached = layer.cache.then_some(&layer);
            assert_eq!(outcome(app, cached, PlatformApi::V0_7), expected, "{types}");
        }
    }

    #[test]
    fn image_and_cache_that_differ() {
        let (old, new) = (PlatformApi::V0_13, PlatformApi::V0_14);
        let launched = layer("cl", SHA);
        for (why, app, cached, api, expected) in [
            ("other contents in the cache", Some(layer("cl", OTHER)), Some(launched.clone()), new, ('x', false)),
            ("image says cached, cache has none", Some(launched.clone()), None, new, ('-', false)),
            ("cache says not cached", Some(launched.clone()), Some(layer("l", SHA)), new, ('-', false)),
            ("only in the cache, launched", None, Some(launched.clone()), old, ('-', false)),
            ("only in the cache, launched, 0.14", None, Some(launched.clone()), new, ('c', true)),
            ("not launched in the image", Some(layer("c", SHA)), Some(launched.clone()), new, ('-', false)),
            ("launch only in the image, also cached", Some(layer("l", SHA)), Some(launched.clone()), new, ('a', true)),
            (
                "launched in the image, not in the cache",
                Some(launched.clone()),
                Some(layer("c", OTHER)),
                new,
                ('c', true),
            ),
            (
                "launch only in the image, not in the cache",
                Some(layer("l", SHA)),
                Some(layer("c", OTHER)),
                new,
                ('c', true),
            ),
            ("a digest that is none", Some(layer("cl", "x")), Some(layer("cl", "x")), new, ('x', false)),
            ("neither", None, Some(layer("l", SHA)), new, ('-', false)),
        ] {
            assert_eq!(outcome(app.as_ref(), cached.as_ref(), api), expected, "{why}");
        }
    }

    #[test]
    fn layers_come_by_name() {
        let app = BTreeMap::from([("b".to_owned(), layer("l", SHA)), ("d".to_owned(), layer("l", SHA))]);
        let cached = BTreeMap::from([("a".to_owned(), layer("c", SHA)), ("b".to_owned(), layer("l", SHA))]);
        let names: Vec<_> = plan(&app, &cached, PlatformApi::V0_15).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "d"]);
    }
}
