//! Which build this is. Nothing else may enter.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where that is known: the build script finds it.
pub const COMMIT: Option<&str> = option_env!("POINT_SYSTEM_BUILD_COMMIT");

/// Both, for people: `0.1.0 (4e200d6bd1e4)`.
pub const FULL: &str = env!("POINT_SYSTEM_BUILD");
