//! `include`: the sections of other compose files, with their paths seen from this one.

use super::loader::{Loader, Variables};
use super::{env_files, extends, paths};
use crate::manifest::bounds::MAX_INCLUDES;
use crate::manifest::classify::{self, KeyUse};
use crate::manifest::merge;
use crate::manifest::read::{Path, View, list, non_empty, strings};
use crate::manifest::yaml::{At, Mapping, Node, Value};

/// How deep includes may nest.
const MAX_DEPTH: usize = 16;
/// The sections that an included file may add to.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

/// The document with each `include` merged. `name` is the file's path.
pub(super) fn resolve(
    document: Node,
    name: &str,
    loader: &Loader<'_>,
    variables: &Variables,
    keys: &mut Vec<KeyUse>,
) -> Node {
    let mut includer = Includer {
        loader,
        keys,
        open: vec![paths::join("", name)],
        count: 0,
    };
    includer.document(document, "", variables)
}

struct Includer<'a> {
    loader: &'a Loader<'a>,
    keys: &'a mut Vec<KeyUse>,
    /// The files from the first to the current one, as the port takes them.
    open: Vec<String>,
    /// How many files were included so far.
    count: usize,
}

/// One entry of `include`.
struct Included {
    /// Later ones are laid over earlier ones.
    paths: Vec<String>,
    project_directory: Option<String>,
    env_files: Vec<String>,
    at: At,
    path: String,
}

impl Includer<'_> {
    /// `directory` is the file's, as seen from the first file's.
    fn document(&mut self, mut document: Node, directory: &str, variables: &Variables) -> Node {
        let entry = document
            .as_mapping_mut()
            .and_then(|mapping| mapping.remove("include"));
        let Some(entry) = entry else {
            return document;
        };
        let path = Path::Key(&Path::Root, "include");
        let view = View {
            node: &entry.value,
            path: &path,
            findings: self.loader.findings,
        };
        for included in list(included)(view).unwrap_or_default() {
            if let Some(other) = self.load(&included, directory, variables) {
                self.add(&mut document, other, &included);
            }
        }
        document
    }

    /// An included file with what it includes itself, seen from the including one.
    fn load(&mut self, included: &Included, from: &str, variables: &Variables) -> Option<Node> {
        let variables = self.variables(included, from, variables);
        let mut merged: Option<Node> = None;
        for path in &included.paths {
            let seen = paths::join(from, path);
            let located = self.loader.locate(&seen);
            self.count += 1;
            let is_circle = self.open.contains(&located);
            if is_circle || self.open.len() >= MAX_DEPTH || self.count > MAX_INCLUDES {
                let message = match is_circle {
                    _ if self.count > MAX_INCLUDES + 1 => continue,
                    _ if self.count > MAX_INCLUDES => {
                        format!("include: more than {MAX_INCLUDES} files")
                    }
                    true => format!("include: {located} includes itself in a circle"),
                    false => format!("include: more than {MAX_DEPTH} files deep"),
                };
                self.loader
                    .findings
                    .invalid(included.at, &included.path, message);
                continue;
            }
            let by = (included.at, &*included.path);
            let Some(loaded) = self.loader.load(&seen, by) else {
                continue;
            };
            let mut document = loaded.document.clone();
            self.keys.extend(classify::keys(&document));
            self.loader
                .fill(&mut document, &loaded.text, &variables, &Path::Root);
            let document = extends::resolve(document, &seen, self.loader, &variables);
            self.open.push(located);
            let directory = paths::parent(&seen).to_owned();
            let mut document = self.document(document, &directory, &variables);
            self.open.pop();
            let project = included.project_directory.as_deref();
            rebase(&mut document, project.unwrap_or(paths::parent(path)));
            merged = Some(match merged {
                Some(base) => merge::document(base, document),
                None => document,
            });
        }
        merged
    }

    /// Variables of the including file win over those that the entry names for itself.
    fn variables(&self, included: &Included, from: &str, outer: &Variables) -> Variables {
        let mut own = super::loader::Variables::known(crate::manifest::dotenv::Variables::new());
        for path in &included.env_files {
            let path = self.loader.locate(&paths::join(from, path));
            match env_files::load(self.loader.files, &path, outer.values()) {
                Ok(values) => own = Variables::known(values).or(own.values().clone()),
                Err(reason) => {
                    let message = format!("load environment file {path}: {reason}");
                    self.loader
                        .findings
                        .invalid(included.at, &included.path, message);
                    return Variables::unknown();
                }
            }
        }
        outer.or(own.values().clone())
    }

    fn add(&self, document: &mut Node, other: Node, included: &Included) {
        let Value::Mapping(other) = other.value else {
            return;
        };
        for section in other.entries {
            if SECTIONS.contains(&&*section.key) {
                self.add_section(document, &section.key, section.value, included);
            }
        }
    }

    fn add_section(&self, document: &mut Node, section: &str, other: Node, included: &Included) {
        let at = other.at;
        let (Some(document), Value::Mapping(other)) = (document.as_mapping_mut(), other.value)
        else {
            return;
        };
        if document.get(section).is_none_or(Node::is_null) {
            document.set(
                section,
                at,
                Node::new(Value::Mapping(Mapping::default()), at),
            );
        }
        let Some(mine) = document.get_mut(section).and_then(Node::as_mapping_mut) else {
            return;
        };
        for entry in other.entries {
            match mine.get(&entry.key) {
                None => mine.entries.push(entry),
                Some(_) => {
                    let path = format!("{section}.{}", entry.key);
                    let by = self.loader.findings.file_name(included.at.file);
                    let message = format!("{path} is also declared by {by}, which includes this");
                    self.loader.findings.invalid(entry.key_at, path, message);
                }
            }
        }
    }
}

/// A path, or `{path, project_directory, env_file}`.
fn included(view: View<'_>) -> Option<Included> {
    let mut included = Included {
        paths: Vec::new(),
        project_directory: None,
        env_files: Vec::new(),
        at: view.at(),
        path: view.path.to_string(),
    };
    if view.node.as_mapping().is_none() {
        included.paths.push(non_empty(view)?);
        return Some(included);
    }
    let mut fields = view.fields()?;
    included.paths = fields.require("path", strings).unwrap_or_default();
    included.project_directory = fields.take("project_directory", non_empty);
    included.env_files = fields.take_or_default("env_file", strings);
    fields.close();
    Some(included)
}

/// Rewrites every relative path of a document, to be seen from where `directory` is named.
fn rebase(document: &mut Node, directory: &str) {
    let Some(document) = document.as_mapping_mut() else {
        return;
    };
    for entry in &mut document.entries {
        let children = entry.value.as_mapping_mut();
        for child in children
            .into_iter()
            .flat_map(|mapping| &mut mapping.entries)
        {
            match &*entry.key {
                "services" => rebase_service(&mut child.value, directory),
                "secrets" | "configs" => rebase_key(&mut child.value, "file", directory),
                _ => {}
            }
        }
    }
}

/// Rewrites the relative paths of one service.
pub(super) fn rebase_service(service: &mut Node, directory: &str) {
    let Some(service) = service.as_mapping_mut() else {
        return;
    };
    if let Some(files) = service.get_mut("env_file") {
        each_item(files, |file| match file.as_mapping() {
            Some(_) => rebase_key(file, "path", directory),
            None => rebase_text(file, |path| Some(paths::join(directory, path))),
        });
    }
    if let Some(volumes) = service.get_mut("volumes") {
        each_item(volumes, |volume| rebase_volume(volume, directory));
    }
}

fn rebase_volume(volume: &mut Node, directory: &str) {
    let is_bind = volume.get("type").and_then(Node::as_text) == Some("bind");
    if is_bind {
        return rebase_key(volume, "source", directory);
    }
    rebase_text(volume, |text| {
        let (source, rest) = text.split_once(':')?;
        let relative = source.starts_with('.');
        relative.then(|| format!("{}:{rest}", paths::join_explicit(directory, source)))
    });
}

fn rebase_key(node: &mut Node, key: &str, directory: &str) {
    if let Some(node) = node
        .as_mapping_mut()
        .and_then(|mapping| mapping.get_mut(key))
    {
        rebase_text(node, |path| match path.starts_with('~') {
            true => None,
            false => Some(paths::join_explicit(directory, path)),
        });
    }
}

fn rebase_text(node: &mut Node, change: impl Fn(&str) -> Option<String>) {
    if let Some(text) = node.as_text().and_then(change) {
        *node = Node::text(text, node.at);
    }
}

fn each_item(node: &mut Node, visit: impl Fn(&mut Node)) {
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(visit),
        _ => visit(node),
    }
}
