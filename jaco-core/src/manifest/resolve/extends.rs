//! `extends`: a service starts from another one, of the same file or of another.

use super::include::rebase_service;
use super::loader::{Loader, Variables};
use super::paths;
use crate::manifest::merge;
use crate::manifest::read::{Path, View, non_empty};
use crate::manifest::yaml::{At, Entry, Node};

/// How many services may stand between one and its last base.
const MAX_CHAIN: usize = 32;

/// The document, already filled in, with each `extends` merged. `name` is the file's path as
/// seen from the first file's directory.
pub(super) fn resolve(
    document: Node,
    name: &str,
    loader: &Loader<'_>,
    variables: &Variables,
) -> Node {
    let extends = |entry: &Entry| entry.value.get("extends").is_some();
    let services = document.get("services").and_then(Node::as_mapping);
    if !services.is_some_and(|services| services.entries.iter().any(extends)) {
        return document;
    }
    let resolver = Resolver { loader, variables };
    let mut resolved = document.clone();
    let services = resolved
        .as_mapping_mut()
        .and_then(|m| m.get_mut("services"));
    for entry in services
        .and_then(Node::as_mapping_mut)
        .into_iter()
        .flat_map(|m| &mut m.entries)
    {
        let mut chain = vec![(name.to_owned(), entry.key.clone())];
        let service = std::mem::replace(&mut entry.value, Node::null(entry.key_at));
        let file = File {
            document: &document,
            unfilled: None,
        };
        entry.value = resolver.service(service, file, &entry.key, &mut chain);
    }
    resolved
}

struct Resolver<'a> {
    loader: &'a Loader<'a>,
    variables: &'a Variables,
}

/// What `extends` says.
struct Base {
    service: String,
    file: Option<String>,
    at: At,
    path: String,
}

/// Where bases are looked up.
#[derive(Clone, Copy)]
struct File<'a> {
    document: &'a Node,
    /// The text, when variables are still to be filled in: only services that are used are.
    unfilled: Option<&'a str>,
}

/// File and service, for every service from the first to the current one.
type Chain = Vec<(String, String)>;

impl Resolver<'_> {
    /// The service laid over its base, and that over its own.
    fn service(&self, mut service: Node, file: File<'_>, name: &str, chain: &mut Chain) -> Node {
        let extends = service
            .as_mapping_mut()
            .and_then(|mapping| mapping.remove("extends"));
        let Some(base) = extends.and_then(|entry| self.base(&entry.value, name)) else {
            return service;
        };
        match self.find(&base, file, chain) {
            Some(found) => merge::service(found, service),
            None => service,
        }
    }

    fn base(&self, extends: &Node, name: &str) -> Option<Base> {
        let services = Path::Key(&Path::Root, "services");
        let service = Path::Key(&services, name);
        let path = Path::Key(&service, "extends");
        let view = View {
            node: extends,
            path: &path,
            findings: self.loader.findings,
        };
        let (service, file) = match extends.as_mapping() {
            None => (non_empty(view)?, None),
            Some(_) => {
                let mut fields = view.fields()?;
                let service = fields.require("service", non_empty);
                let file = fields.take("file", non_empty);
                fields.close();
                (service?, file)
            }
        };
        Some(Base {
            service,
            file,
            at: extends.at,
            path: path.to_string(),
        })
    }

    /// The base with its own bases merged, its paths as seen from the extending file.
    fn find(&self, base: &Base, from: File<'_>, chain: &mut Chain) -> Option<Node> {
        let current = chain
            .last()
            .map(|(file, _)| file.clone())
            .unwrap_or_default();
        let Some(path) = &base.file else {
            return self.pick(base, from, current, chain);
        };
        let seen = paths::join(paths::parent(&current), path);
        let loaded = self.loader.load(&seen, (base.at, &base.path))?;
        let file = File {
            document: &loaded.document,
            unfilled: Some(&loaded.text),
        };
        let mut found = self.pick(base, file, seen, chain)?;
        rebase_service(&mut found, paths::parent(path));
        Some(found)
    }

    fn pick(&self, base: &Base, file: File<'_>, path: String, chain: &mut Chain) -> Option<Node> {
        let findings = self.loader.findings;
        let services = file.document.get("services");
        let Some(service) = services.and_then(|services| services.get(&base.service)) else {
            let message = format!("extends: service {:?} is not in {path}", base.service);
            findings.invalid(base.at, &base.path, message);
            return None;
        };
        let step = (path, base.service.clone());
        if chain.contains(&step) || chain.len() >= MAX_CHAIN {
            let message = match chain.contains(&step) {
                true => format!(
                    "extends: service {:?} extends itself in a circle",
                    base.service
                ),
                false => format!("extends: more than {MAX_CHAIN} services in a chain"),
            };
            findings.invalid(base.at, &base.path, message);
            return None;
        }
        chain.push(step);
        let mut service = service.clone();
        if let Some(text) = file.unfilled {
            let services = Path::Key(&Path::Root, "services");
            let path = Path::Key(&services, &base.service);
            self.loader.fill(&mut service, text, self.variables, &path);
        }
        let resolved = self.service(service, file, &base.service, chain);
        chain.pop();
        Some(resolved)
    }
}
