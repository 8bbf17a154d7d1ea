//! A project in memory, and one-line renderings of what resolution finds.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::collections::BTreeMap;

use jaco_core::error::{Report, Violation};
use jaco_core::manifest::spec::{DeploymentSpec, ServiceSpec};
use jaco_core::manifest::{ResolveRequest, Resolved, Source, parse, resolve};
use jaco_core::ports::{FileError, ListedFile, ProjectFiles};

/// The smallest `jaco.yaml`.
pub const JACO: &str = "deployment: shop\n";

/// Files and variables, and how the manifests are named.
#[derive(Clone, Default)]
pub struct Project {
    pub files: BTreeMap<String, (u32, Vec<u8>)>,
    pub variables: BTreeMap<String, String>,
    pub profiles: Vec<String>,
    pub stdin: bool,
    pub strict: bool,
    pub directory: String,
}

impl Project {
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files
            .insert(path.to_owned(), (0o644, text.as_bytes().to_vec()));
        self
    }

    pub fn file_with_mode(mut self, path: &str, mode: u32, bytes: Vec<u8>) -> Self {
        self.files.insert(path.to_owned(), (mode, bytes));
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn profile(mut self, name: &str) -> Self {
        self.profiles.push(name.to_owned());
        self
    }

    pub fn resolve(&self, jaco: &str, compose: &str) -> Resolved {
        let jaco = Source {
            name: format!("{}jaco.yaml", self.directory),
            text: jaco.to_owned(),
        };
        let compose = Source {
            name: format!("{}compose.yaml", self.directory),
            text: compose.to_owned(),
        };
        let request = ResolveRequest {
            strict: self.strict,
            jaco: &jaco,
            compose: &compose,
            compose_has_base_dir: !self.stdin,
            profiles: &self.profiles,
        };
        resolve(&request, self)
    }

    /// The spec, which the daemon must arrive at too.
    pub fn spec(&self, jaco: &str, compose: &str) -> DeploymentSpec {
        let resolved = self.resolve(jaco, compose);
        assert_eq!(lines(&resolved.report), "", "{compose}");
        let bundle = resolved
            .bundle
            .expect("a bundle comes with an empty report");
        let spec = resolved.spec.expect("a spec comes with an empty report");
        match parse(&bundle) {
            Ok(parsed) => assert_eq!(parsed, spec, "{}", bundle.compose),
            Err(report) => panic!("the daemon refuses: {}\n{}", lines(&report), bundle.compose),
        }
        spec
    }

    /// The service `web` of the spec.
    pub fn web(&self, jaco: &str, compose: &str) -> ServiceSpec {
        self.spec(jaco, compose).services["web"].clone()
    }

    pub fn refused(&self, jaco: &str, compose: &str) -> String {
        lines(&self.resolve(jaco, compose).report)
    }
}

impl ProjectFiles for Project {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let (_, bytes) = self.files.get(path).ok_or(FileError::NotFound)?;
        Ok(bytes.clone())
    }

    fn list(&self, path: &str) -> Result<Vec<ListedFile>, FileError> {
        let listed = |path: &str, (mode, bytes): &(u32, Vec<u8>)| ListedFile {
            path: path.to_owned(),
            mode: *mode,
            size: bytes.len() as u64,
        };
        if let Some(file) = self.files.get(path) {
            return Ok(vec![listed("", file)]);
        }
        let prefix = format!("{path}/");
        let inside = self
            .files
            .iter()
            .filter_map(|(name, file)| Some(listed(name.strip_prefix(&prefix)?, file)));
        let inside: Vec<_> = inside.collect();
        if inside.is_empty() {
            Err(FileError::NotFound)
        } else {
            Ok(inside)
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// `file:line:column code path: message`, one violation a line.
pub fn lines(report: &Report) -> String {
    let lines: Vec<String> = report.violations.iter().map(line).collect();
    lines.join("\n")
}

fn line(violation: &Violation) -> String {
    let Violation {
        code,
        message,
        file,
        path,
        span,
        ..
    } = violation;
    let place = span
        .map(|span| format!(":{}:{}", span.line, span.column))
        .unwrap_or_default();
    format!("{file}{place} {code} {path}: {message}")
}

/// Checks what a compose file is refused for, under the smallest `jaco.yaml`.
pub fn check_compose(compose: &str, expect: &[&str]) {
    let got = Project::default().refused(JACO, compose);
    assert_eq!(got, expect.join("\n"), "\n{compose}");
}

/// Checks what a `jaco.yaml` is refused for, over two plain services.
pub fn check_jaco(jaco: &str, expect: &[&str]) {
    let got = Project::default().refused(jaco, TWO_SERVICES);
    assert_eq!(got, expect.join("\n"), "\n{jaco}");
}

/// `web` and `db`.
pub const TWO_SERVICES: &str = "services:\n  web: {image: w}\n  db: {image: d}\n";

/// Checks what the keys of one service are refused for; the first stands on line 4.
pub fn check_service(keys: &str, expect: &[&str]) {
    check_compose(&service(keys), expect);
}

/// A compose file of one service `web` with these keys.
pub fn service(keys: &str) -> String {
    let mut text = "services:\n  web:\n    image: w\n".to_owned();
    for line in keys.lines() {
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    }
    text
}
