//! Compiles the protobuf files without an external compiler.

use std::path::Path;

const ROOT: &str = "src/api/proto";
const FILES: &[&str] = &["jaco/v1/jaco.proto", "jaco/internal/v1/internal.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let paths = FILES.iter().map(|file| Path::new(ROOT).join(file));
    let descriptors = protox::compile(paths, [ROOT])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
