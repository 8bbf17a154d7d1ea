//! The manifests under `examples/` resolve without a finding.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a test may read files

mod support;

use std::fs;
use std::path::Path;

use support::Project;

fn check(example: &str, services: &[&str]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example);
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let spec = Project::default().spec(&read("jaco.yaml"), &read("compose.yaml"));
    assert_eq!(spec.name.as_str(), example);
    let names: Vec<&str> = spec.services.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, services);
}

#[test]
fn examples_are_valid() {
    check("hello", &["web"]);
    check("shop", &["api", "cache", "web"]);
}
