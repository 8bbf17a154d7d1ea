//! A compose document from standard input has no directory: what needs one is refused up front.

use crate::manifest::findings::Findings;
use crate::manifest::read::Path;
use crate::manifest::yaml::{Mapping, Node, Value};

/// Refuses `include`, `extends`, `env_file` and file sources, and takes them out.
pub(super) fn refuse(document: &mut Node, findings: &Findings) {
    let Some(document) = document.as_mapping_mut() else {
        return;
    };
    remove(document, "include", &Path::Root, findings);
    each(document, "services", |service, path| {
        remove(service, "extends", path, findings);
        remove(service, "env_file", path, findings);
    });
    for section in ["secrets", "configs"] {
        each(document, section, |source, path| {
            if let Some(file) = source.get_mut("file") {
                say(file, "file", path, findings);
                file.value = Value::Unknown;
            }
        });
    }
}

fn remove(mapping: &mut Mapping, key: &str, path: &Path<'_>, findings: &Findings) {
    if let Some(entry) = mapping.remove(key) {
        say(&entry.value, key, path, findings);
    }
}

fn say(node: &Node, key: &str, path: &Path<'_>, findings: &Findings) {
    let path = Path::Key(path, key);
    let message =
        format!("{path} needs a base directory, and a compose file from standard input has none");
    findings.invalid(node.at, path, message);
}

fn each(document: &mut Mapping, section: &str, mut visit: impl FnMut(&mut Mapping, &Path<'_>)) {
    let section_path = Path::Key(&Path::Root, section);
    let section = document.get_mut(section).and_then(Node::as_mapping_mut);
    for entry in section.into_iter().flat_map(|mapping| &mut mapping.entries) {
        let path = Path::Key(&section_path, &entry.key);
        if let Some(mapping) = entry.value.as_mapping_mut() {
            visit(mapping, &path);
        }
    }
}
