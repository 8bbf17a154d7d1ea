//! `env_file` into `environment`: what stands in the compose file wins, then the later file.

use super::loader::{Loader, Variables};
use crate::manifest::bounds::MAX_MANIFEST;
use crate::manifest::dotenv::{self, parse, parse_raw};
use crate::manifest::read::{Fields, Path, View, boolean, choice, non_empty};
use crate::manifest::yaml::{At, Mapping, Node, Value};
use crate::ports::{FileError, ProjectFiles};

/// Reads one env file.
pub(super) fn load(
    files: &dyn ProjectFiles,
    path: &str,
    outer: &dotenv::Variables,
) -> Result<dotenv::Variables, String> {
    let bytes = files.read(path).map_err(|error| error.to_string())?;
    let text = text(bytes)?;
    parse(&text, outer).map_err(|error| error.to_string())
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() > MAX_MANIFEST {
        return Err(format!(
            "it has {} bytes; at most {MAX_MANIFEST} are read",
            bytes.len()
        ));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

/// One entry of `env_file`.
struct EnvFile {
    path: String,
    required: bool,
    raw: bool,
    at: At,
}

/// Replaces the `env_file` of each service.
pub(super) struct Reader<'a> {
    loader: &'a Loader<'a>,
    variables: &'a Variables,
}

impl<'a> Reader<'a> {
    pub(super) fn new(loader: &'a Loader<'a>, variables: &'a Variables) -> Self {
        Self { loader, variables }
    }

    pub(super) fn resolve(&self, mut document: Node) -> Node {
        let services = document
            .as_mapping_mut()
            .and_then(|m| m.get_mut("services"));
        let services = services.and_then(Node::as_mapping_mut);
        for service in services
            .into_iter()
            .flat_map(|services| &mut services.entries)
        {
            let path = Path::Key(&Path::Key(&Path::Root, "services"), &service.key).to_string();
            if let Some(mapping) = service.value.as_mapping_mut() {
                self.service(mapping, &path);
            }
        }
        document
    }

    fn service(&self, service: &mut Mapping, path: &str) {
        let Some(entry) = service.remove("env_file") else {
            return;
        };
        let key = format!("{path}.env_file");
        let files = Path::Key(&Path::Root, &key);
        let view = View {
            node: &entry.value,
            path: &files,
            findings: self.loader.findings,
        };
        let mut environment = Mapping::default();
        for file in env_files(view) {
            for (key, value) in self.read(&file, &key) {
                environment.set(&key, file.at, Node::text(value, file.at));
            }
        }
        let at = match service.remove("environment") {
            None => entry.value.at,
            Some(own) => {
                let at = own.value.at;
                match overlay(&mut environment, own.value) {
                    Ok(()) => at,
                    // Not an environment at all, which decoding will say.
                    Err(own) => return service.set("environment", entry.key_at, own),
                }
            }
        };
        let environment = Node::new(Value::Mapping(environment), at);
        service.set("environment", entry.key_at, environment);
    }

    fn read(&self, file: &EnvFile, key: &str) -> dotenv::Variables {
        let path = self.loader.locate(&file.path);
        let read = match self.loader.files.read(&path) {
            Err(FileError::NotFound) if !file.required => return dotenv::Variables::new(),
            Err(error) => Err(error.to_string()),
            Ok(bytes) => text(bytes),
        };
        let variables = read.and_then(|text| {
            let parsed = match file.raw {
                true => parse_raw(&text),
                false => parse(&text, self.variables.values()),
            };
            parsed.map_err(|error| error.to_string())
        });
        variables.unwrap_or_else(|reason| {
            let message = format!("load environment file {path}: {reason}");
            self.loader.findings.invalid(file.at, key, message);
            dotenv::Variables::new()
        })
    }
}

fn env_files(view: View<'_>) -> Vec<EnvFile> {
    let mut files = Vec::new();
    match &view.node.value {
        Value::Sequence(_) => {
            let _ = view.each_item(|item| files.extend(env_file(item)));
        }
        Value::Scalar(_) if view.node.is_null() => {}
        _ => files.extend(env_file(view)),
    }
    files
}

/// A path, or `{path, required, format}`.
fn env_file(view: View<'_>) -> Option<EnvFile> {
    if view.node.as_mapping().is_none() {
        return Some(EnvFile {
            path: non_empty(view)?,
            required: true,
            raw: false,
            at: view.at(),
        });
    }
    let mut fields = view.fields()?;
    let path = fields.require("path", non_empty);
    let required = fields.take("required", boolean).unwrap_or(true);
    let raw = is_raw(&mut fields);
    fields.close();
    Some(EnvFile {
        path: path?,
        required,
        raw,
        at: view.at(),
    })
}

fn is_raw(fields: &mut Fields<'_>) -> bool {
    fields.take("format", choice(&[("raw", ())])).is_some()
}

/// Lays the service's own `environment`, in either form, over what the files gave.
fn overlay(environment: &mut Mapping, own: Node) -> Result<(), Node> {
    match own.value {
        Value::Mapping(mapping) => {
            for entry in mapping.entries {
                environment.set(&entry.key, entry.key_at, entry.value);
            }
        }
        Value::Sequence(items) => {
            for item in items {
                let Some(text) = item.as_text() else {
                    continue;
                };
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                environment.set(key, item.at, Node::text(value, item.at));
            }
        }
        Value::Scalar(_) | Value::Unknown if own.is_null() => {}
        _ => return Err(own),
    }
    Ok(())
}
