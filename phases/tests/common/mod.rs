//! A world for phases that touch images: a layout or a real registry, a run image in it, and the files of a build.
#![allow(dead_code, unreachable_pub, reason = "each test file uses another part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use acceptance::{
    registry::RegistryServer,
    tree::{Entry, write},
};
use image::{
    Config, Destination, History, Image, Images, Keychain, Layer, LayerJob, Layout, Pipeline, Recipe, Reference,
    Registry,
};
use phases::{analyze::Needed, cache::Cache};
use platform_api::{
    Analyzed, BuildMetadata, Group, LauncherInfo, LayersMetadata, PlatformApi, ProjectMetadata, Report, RunImage,
    RunImages,
    inputs::{
        AnalyzerInputs, CacheInputs, ExporterInputs, ImageLocation, LogInputs, LogLevel, RebaserInputs, RestorerInputs,
        RunFile, UserInputs,
    },
};
use tempfile::TempDir;

pub const API: PlatformApi = PlatformApi::V0_15;
pub const LOG: LogInputs = LogInputs { level: LogLevel::Debug, no_color: true };

pub struct World {
    pub dir: TempDir,
    pub images: Images,
    /// Where cache images are.
    pub registry: Registry,
    pub location: ImageLocation,
    /// What names of images begin with.
    pub host: String,
    pub api: PlatformApi,
    server: Option<RegistryServer>,
}

impl World {
    pub fn in_layout() -> Self {
        let dir = acceptance::tree::temp_dir();
        let layouts = dir.path().join("layouts");
        let images = Images::Layout(Layout { dir: layouts.clone() });
        let registry = Registry::new(Keychain::default(), Vec::new());
        let location = ImageLocation::Layout(layouts);
        Self::with(Self { dir, images, registry, location, host: "a.example".into(), api: API, server: None })
    }

    pub fn in_registry() -> Self {
        let server = RegistryServer::plain();
        let registry = Registry::new(Keychain::default(), Vec::new());
        Self::with(Self {
            dir: acceptance::tree::temp_dir(),
            images: Images::Registry(registry.clone()),
            registry,
            location: ImageLocation::Registry,
            host: server.host(),
            api: API,
            server: Some(server),
        })
    }

    fn with(self) -> Self {
        self.write(&[
            ("app/main.txt", Entry::File("hello")),
            ("app/static/page.html", Entry::File("<p>")),
            ("launcher", Entry::Mode(0o755, "launch")),
            ("sboms", Entry::Dir),
            ("layers/config/metadata.toml", Entry::File("processes = []\n")),
            ("layers/acme_jvm", Entry::Dir),
            ("cache", Entry::Dir),
        ]);
        self.save_base("run", &[("etc/os", "1"), ("etc/more", "2")]);
        self
    }

    /// Forgets what the registry client remembers, as the next process would.
    pub fn renew(&mut self) {
        self.registry = Registry::new(Keychain::default(), Vec::new());
        if self.location == ImageLocation::Registry {
            self.images = Images::Registry(self.registry.clone());
        }
    }

    pub fn storage(&self) -> PathBuf {
        self.server.as_ref().expect("a world with a registry").storage()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn write(&self, entries: &[(&str, Entry)]) {
        write(self.dir.path(), entries);
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Saves an image whose layers each have one file.
    pub fn save_base(&self, name: &str, files: &[(&str, &str)]) -> Image {
        let mut image = Image {
            config: Config {
                os: "linux".into(),
                architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.into(),
                env: vec!["PATH=/usr/bin".into(), "X=1".into()],
                user: "1000:1000".into(),
                labels: [("io.buildpacks.base.id".to_owned(), "acme".to_owned())].into(),
                ..Config::default()
            },
            ..Image::default()
        };
        let full = self.name(name);
        let to = match &self.images {
            Images::Layout(layout) => Destination::Layout(layout.path_of(&full).unwrap()),
            Images::Registry(registry) => Destination::Registry(registry.clone(), Reference::parse(&full).unwrap()),
            Images::Daemon(_) => panic!("no world is in a daemon"),
        };
        for (file, content) in files {
            let source = self.path(&format!("base/{file}"));
            self.write(&[(&format!("base/{file}"), Entry::File(content))]);
            let mut recipe = Recipe::default();
            recipe.push_file(&format!("/{file}"), &source, 0o644, image::Owner { uid: 0, gid: 0 }).unwrap();
            let job = LayerJob {
                name: (*file).to_owned(),
                recipe,
                reusable: vec![],
                to: Some(to.clone()),
                cache_to: None,
                tar_to: None,
                known: None,
            };
            let made = Pipeline { workers: 1, docker: false, on_event: &|_| {} }.run(vec![job]).unwrap().remove(0);
            let layer = Layer { diff_id: made.diff_id, blob: made.blob, recipe: None };
            image.push(layer, History { created_by: Some(format!("base {file}")), ..History::default() });
        }
        let saved = self.images.save(&image, &[full]).unwrap();
        assert!(saved.names[0].error.is_none(), "{:?}", saved.names[0].error);
        image
    }

    pub fn find(&self, name: &str) -> Image {
        self.images.find(&self.name(name)).unwrap().unwrap_or_else(|| panic!("no image {name}"))
    }

    /// The path of an image's layout.
    pub fn layout(&self, name: &str) -> PathBuf {
        match &self.images {
            Images::Layout(layout) => layout.path_of(&self.name(name)).unwrap(),
            Images::Registry(_) | Images::Daemon(_) => panic!("images are in no layout"),
        }
    }

    pub fn analyze(&self, name: &str) -> Analyzed {
        self.try_analyze(&self.analyzer(name), "run").unwrap()
    }

    pub fn analyzer(&self, name: &str) -> AnalyzerInputs {
        AnalyzerInputs {
            api: self.api,
            log: LOG,
            user: UserInputs::default(),
            analyzed: self.path("layers/analyzed.toml"),
            cache: CacheInputs::default(),
            insecure_registries: vec![],
            launch_cache: None,
            layers: self.path("layers"),
            location: self.location.clone(),
            output_image: self.name(name),
            previous_image: self.name(name),
            run: RunFile(self.path("run.toml")),
            run_image: None,
            skip_layers: false,
            tags: vec![],
            warnings: vec![],
        }
    }

    pub fn try_analyze(&self, i: &AnalyzerInputs, run_image: &str) -> anyhow::Result<Analyzed> {
        let found =
            phases::analyze::analyze(i, &self.images, &self.registry, &self.name(run_image), Needed::All, &|_| {})?;
        found.restore_sbom(i, &self.images)
    }

    /// The inputs of an export of `app/` to `name`.
    pub fn exporter(&self, name: &str) -> ExporterInputs {
        ExporterInputs {
            api: self.api,
            log: LOG,
            user: UserInputs { uid: 1000, gid: 1000 },
            analyzed: self.path("layers/analyzed.toml"),
            app: self.path("app"),
            cache: CacheInputs::default(),
            exec_env: "production".into(),
            extended: self.path("layers/extended"),
            group: self.path("layers/group.toml"),
            insecure_registries: vec![],
            launch_cache: None,
            launcher: self.path("launcher"),
            launcher_sbom: self.path("sboms"),
            layers: self.path("layers"),
            location: self.location.clone(),
            output_images: vec![self.name(name)],
            parallel: false,
            process_type: None,
            project_metadata: self.path("layers/project-metadata.toml"),
            report: self.path("layers/report.toml"),
            run: RunFile(self.path("run.toml")),
            source_date_epoch: None,
            warnings: vec![],
        }
    }

    pub fn restorer(&self) -> RestorerInputs {
        RestorerInputs {
            api: self.api,
            log: LOG,
            user: UserInputs::default(),
            analyzed: self.path("layers/analyzed.toml"),
            build_image: None,
            cache: CacheInputs::default(),
            generated: self.path("layers/generated"),
            group: self.path("layers/group.toml"),
            insecure_registries: vec![],
            kaniko: self.path("kaniko"),
            layers: self.path("layers"),
            location: self.location.clone(),
            run: RunFile(self.path("run.toml")),
            skip_layers: false,
            warnings: vec![],
        }
    }

    pub fn rebaser(&self, name: &str, run_image: Option<&str>) -> RebaserInputs {
        RebaserInputs {
            api: self.api,
            log: LOG,
            user: UserInputs::default(),
            force: false,
            insecure_registries: vec![],
            location: self.location.clone(),
            output_images: vec![self.name(name)],
            previous_image: String::new(),
            report: self.path("report.toml"),
            run_image: run_image.map(|name| self.name(name)),
            warnings: vec![],
        }
    }

    /// The run image of analyzed.toml, where nothing was built before.
    pub fn analyzed(&self) -> Analyzed {
        let run = self.find("run");
        let run_image = RunImage {
            reference: run.id.map(|id| id.to_string()).unwrap(),
            image: Some(self.name("run")),
            ..RunImage::default()
        };
        Analyzed { run_image: Some(run_image), ..Analyzed::default() }
    }

    pub fn export(&self, i: &ExporterInputs, analyzed: &Analyzed, cache: Option<Cache>) -> anyhow::Result<Report> {
        let text = std::fs::read_to_string(self.path("layers/config/metadata.toml")).unwrap();
        let metadata = BuildMetadata::parse(&text).unwrap();
        let run = RunImages {
            images: vec![platform_api::RunImageMirrors {
                image: self.name("run"),
                mirrors: vec!["b.example/run".into()],
            }],
        };
        let project = ProjectMetadata::default();
        let lifecycle = LauncherInfo { version: "1.2.3".into(), ..LauncherInfo::default() };
        let (group, images) = (group(), &self.images);
        let open = || Ok(cache);
        phases::export::export(i, &group, analyzed, &metadata, &run, &project, images, open, &lifecycle, &|_| {})
    }

    /// The same with nothing built before, and no cache.
    pub fn export_new(&self, name: &str) -> Report {
        self.export(&self.exporter(name), &self.analyzed(), None).unwrap()
    }

    pub fn restore(&self, metadata: &LayersMetadata, cache: Option<&Cache>) -> anyhow::Result<()> {
        phases::restore::restore(&self.restorer(), &group(), metadata, cache, &|_| {})
    }

    /// Writes a layer of buildpack acme/jvm with one file.
    pub fn layer(&self, name: &str, types: &str, content: Option<&str>) {
        let toml = format!("[types]\n{types}\n[metadata]\nversion = 7\n");
        self.write(&[(&format!("layers/acme_jvm/{name}.toml"), Entry::File(&toml))]);
        if let Some(content) = content {
            self.write(&[(&format!("layers/acme_jvm/{name}/bin/tool"), Entry::Mode(0o755, content))]);
        }
    }

    /// What the next build begins with: no layers.
    pub fn clear_layers(&self) {
        std::fs::remove_dir_all(self.path("layers/acme_jvm")).unwrap();
        let _ = std::fs::remove_dir_all(self.path("layers/sbom"));
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    pub fn inode(&self, path: &str) -> u64 {
        std::os::unix::fs::MetadataExt::ino(&self.path(path).metadata().unwrap())
    }

    pub fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }
}

pub fn group() -> Group {
    Group::parse("[[group]]\nid = \"acme/jvm\"\nversion = \"1.0\"\napi = \"0.11\"\n").unwrap()
}

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs something and gives back what it logged on this thread, a line each, warnings with their level.
pub fn logged<T>(act: impl FnOnce() -> T) -> (T, Vec<String>) {
    // One subscriber for all tests: what a callsite is told is remembered for the whole process.
    let _ = tracing::subscriber::set_global_default(Capture);
    LINES.set(Some(Vec::new()));
    let result = act();
    (result, LINES.take().unwrap_or_default())
}

struct Capture;

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("phases")
    }
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = match *event.metadata().level() {
            tracing::Level::WARN => "Warning: ".to_owned(),
            tracing::Level::DEBUG => "debug: ".to_owned(),
            _ => String::new(),
        };
        event.record(&mut Message(&mut line));
        LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(line.clone())));
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Message<'a>(&'a mut String);

impl tracing::field::Visit for Message<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// All lines that are not debug's.
pub fn shown(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).filter(|line| !line.starts_with("debug: ")).collect()
}

pub fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
