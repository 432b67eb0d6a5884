//! The version and commit of this build. Must not contain anything else.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build, if the build script could find it.
pub const COMMIT: Option<&str> = option_env!("POINT_SYSTEM_BUILD_COMMIT");

/// Both for people: `0.1.0 (4e200d6bd1e4)`.
pub const FULL: &str = env!("POINT_SYSTEM_BUILD");
