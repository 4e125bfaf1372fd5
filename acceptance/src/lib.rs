//! The harness of the black-box tests: it builds directory trees, runs the built executables, and reads what they
//! leave behind. It depends on no other crate of the workspace, so that it can judge any lifecycle:
//!
//! ```text
//! cargo build --workspace && cargo test -p acceptance          # what cargo has just built
//! LIFECYCLE=/folder/of/executables cargo test -p acceptance    # another build, or another implementation
//! ```
//!
//! A test of an executable reads like this:
//!
//! ```no_run
//! use acceptance::{
//!     run::{PLATFORM_APIS, command, executable, run},
//!     tree::{Entry::File, temp_dir, write},
//! };
//!
//! let dir = temp_dir();
//! write(dir.path(), &[("layers/config/metadata.toml", File("")), ("app/greeting", File("hello"))]);
//! for api in PLATFORM_APIS {
//!     let mut launcher = command(executable("launcher"));
//!     launcher
//!         .env("CNB_PLATFORM_API", api)
//!         .env("CNB_LAYERS_DIR", dir.path().join("layers"))
//!         .env("CNB_APP_DIR", dir.path().join("app"))
//!         .args(["--", "cat", "greeting"]);
//!     assert_eq!(run(&mut launcher).ok().stdout(), "hello");
//! }
//! ```
//!
//! [`run::Outcome`] has the checks that tests want most (`ok`, `exits`, `says`); [`run::may_differ`] marks a row that
//! another conforming implementation need not pass, with the reason; [`tree::write_buildpack`] writes a buildpack
//! whose executables are shell scripts; [`image::LayoutImage`] opens an exported image.
//! Being a harness, it panics where something is wrong, and says what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a harness panics where something is wrong, and says what it leaves out"
)]
#![allow(clippy::return_self_not_must_use, reason = "the checks of an outcome are statements, too")]

pub mod fault;
pub mod image;
pub mod registry;
pub mod run;
pub mod tree;
