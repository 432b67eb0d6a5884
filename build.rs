//! The migrations are embedded by a macro, which Cargo can't see: build again when one is added.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
