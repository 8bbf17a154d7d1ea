//! The client's side: two files in, everything that a daemon needs out (spec 02).
//!
//! In order: variables from the `environment:` file, `include`, `extends`, profiles, env files,
//! then secrets, configs and binds while the document is decoded. Whatever is wrong is reported
//! and the rest goes on, so that one run tells everything.

mod env_files;
mod extends;
mod fill;
mod include;
mod leaving;
mod loader;
mod paths;
mod profiles;
mod reading;
mod stdin;

use super::assemble::assemble;
use super::bounds::MAX_MANIFEST;
use super::bundle::Bundle;
use super::classify::{self, KeyUse};
use super::findings::{Findings, Notice};
use super::read::Path;
use super::spec::DeploymentSpec;
use super::yaml::{self, Node};
use super::{jaco, merge};
use crate::error::Report;
use crate::ports::ProjectFiles;
use leaving::Leaving;
use loader::{Loader, Variables};
use reading::Reading;

/// A manifest's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its path as the user named it; relative paths inside count from its directory.
    pub name: String,
    /// The YAML.
    pub text: String,
}

/// What to resolve.
#[derive(Clone, Copy, Debug)]
pub struct ResolveRequest<'a> {
    /// `jaco.yaml`.
    pub jaco: &'a Source,
    /// The compose file.
    pub compose: &'a Source,
    /// False when the compose file came from standard input.
    pub compose_has_base_dir: bool,
    /// The profiles that are on.
    pub profiles: &'a [String],
    /// Refuses to send files from outside the project, and variables of the process.
    pub strict: bool,
}

/// What came of it. Bundle and spec are there when the report is empty.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Every violation of both files.
    pub report: Report,
    /// The compose keys that the files use, with their classes.
    pub keys: Vec<KeyUse>,
    /// What has no effect, or not the one that it may seem to have.
    pub notices: Vec<Notice>,
    /// To be sent.
    pub bundle: Option<Bundle>,
    /// What a daemon will make of the bundle.
    pub spec: Option<DeploymentSpec>,
}

/// Reads, merges, fills in, checks.
pub fn resolve(request: &ResolveRequest<'_>, files: &dyn ProjectFiles) -> Resolved {
    let findings = Findings::default();
    let mut keys = Vec::new();
    let files = Leaving::new(files, &request.jaco.name, &request.compose.name);
    let parts = resolve_parts(request, &files, &findings, &mut keys);
    let (report, notices) = findings.into_parts();
    let (bundle, spec) = match parts.filter(|_| report.is_empty()) {
        Some((bundle, spec)) => (Some(bundle), Some(spec)),
        None => (None, None),
    };
    Resolved {
        report,
        keys,
        notices,
        bundle,
        spec,
    }
}

fn resolve_parts(
    request: &ResolveRequest<'_>,
    files: &Leaving<'_>,
    findings: &Findings,
    keys: &mut Vec<KeyUse>,
) -> Option<(Bundle, DeploymentSpec)> {
    let jaco_file = findings.open(&request.jaco.name);
    let compose_file = findings.open(&request.compose.name);
    for (file, source) in [(jaco_file, request.jaco), (compose_file, request.compose)] {
        let bytes = source.text.len();
        if bytes > MAX_MANIFEST {
            let message = format!("the file has {bytes} bytes; at most {MAX_MANIFEST} are read");
            findings.invalid_file(file, message);
            return None;
        }
    }
    let jaco = yaml::parse(&request.jaco.text, jaco_file, findings);
    let variables = variables(request, jaco.as_ref(), files, findings);
    let loader = Loader::new(files, findings, paths::parent(&request.compose.name));
    let compose = yaml::parse(&request.compose.text, compose_file, findings);
    let compose = compose.map(|document| {
        keys.extend(classify::keys(&document));
        merged(request, document, &loader, &variables, keys)
    });
    let (compose, inactive) = match compose {
        Some(document) => {
            let (document, inactive) = profiles::select(document, request.profiles);
            let files = env_files::Reader::new(&loader, &variables);
            (Some(files.resolve(document)), inactive)
        }
        None => (None, std::collections::BTreeSet::new()),
    };
    let reading = Reading::new(files, &request.compose.name, request.compose_has_base_dir);
    let spec = assemble(
        jaco.as_ref(),
        compose.as_ref(),
        &inactive,
        &reading,
        findings,
    )?;
    for message in files.told() {
        match request.strict {
            true => {
                findings.invalid_file(compose_file, format!("{message}; --strict refuses that"));
            }
            false => findings.notice_file(compose_file, message),
        }
    }
    let mut text = String::with_capacity(request.compose.text.len() * 2);
    yaml::write_json(&compose?, &mut text);
    let bundle = reading.into_bundle(request.jaco.text.clone(), text, inactive);
    Some((bundle, spec))
}

/// The document with its variables filled in and everything that it points at merged.
fn merged(
    request: &ResolveRequest<'_>,
    mut document: Node,
    loader: &Loader<'_>,
    variables: &Variables,
    keys: &mut Vec<KeyUse>,
) -> Node {
    let source = request.compose;
    loader.fill(&mut document, &source.text, variables, &Path::Root);
    if !request.compose_has_base_dir {
        stdin::refuse(&mut document, loader.findings);
    }
    let name = paths::file_name(&source.name);
    let document = extends::resolve(document, name, loader, variables);
    let mut document = include::resolve(document, &source.name, loader, variables, keys);
    merge::drop_resets(&mut document);
    document
}

/// The variables of the `environment:` file; unknown when it, or what names it, cannot be read.
fn variables(
    request: &ResolveRequest<'_>,
    jaco: Option<&Node>,
    files: &dyn ProjectFiles,
    findings: &Findings,
) -> Variables {
    let Some(jaco) = jaco else {
        return Variables::unknown();
    };
    let Some((path, at)) = jaco::environment(jaco) else {
        return Variables::known(super::dotenv::Variables::new());
    };
    let path = paths::join(paths::parent(&request.jaco.name), path);
    match env_files::load(files, &path, &super::dotenv::Variables::new()) {
        Ok(variables) => Variables::known(variables),
        Err(reason) => {
            let message = format!("load environment file {path}: {reason}");
            findings.invalid(at, "environment", message);
            Variables::unknown()
        }
    }
}
