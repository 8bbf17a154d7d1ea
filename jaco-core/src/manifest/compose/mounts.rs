//! Whatever is visible under a path of the container: volumes, binds, tmpfs, secrets, configs.

use super::container::file_mode;
use super::declared::{FileSource, Origin};
use super::{Declared, parts};
use crate::manifest::contents::CarriedFile;
use crate::manifest::findings::listed;
use crate::manifest::read::{
    Fields, View, boolean, bytes, choice, list, mode, non_empty, parse_bytes, string,
};
use crate::manifest::spec::{BindSource, FileEntry, FileKind, FileTree, Mount, MountSource};
use crate::manifest::yaml::{At, Value};

/// A mount and where it is asked for.
struct Asked {
    mount: Mount,
    at: At,
    path: String,
}

/// All mounts of a service, in target order.
pub(super) fn mounts(
    service: &str,
    fields: &mut Fields<'_>,
    declared: &Declared<'_>,
) -> Vec<Mount> {
    let context = Context { service, declared };
    let mut asked = fields.take_or_default("volumes", list(|view| context.volume(view)));
    asked.extend(fields.take_or_default("tmpfs", tmpfs_list));
    asked.extend(fields.take_or_default("secrets", list(|view| context.secret(view))));
    asked.extend(fields.take_or_default("configs", list(|view| context.config(view))));
    asked.sort_by(|a, b| a.mount.target.cmp(&b.mount.target));
    for pair in asked
        .windows(2)
        .filter(|pair| pair[0].mount.target == pair[1].mount.target)
    {
        let message = format!(
            "service {service:?} mounts two things at {:?}",
            pair[1].mount.target
        );
        fields
            .view
            .findings
            .invalid(pair[1].at, &pair[1].path, message);
    }
    asked.into_iter().map(|asked| asked.mount).collect()
}

struct Context<'a> {
    service: &'a str,
    declared: &'a Declared<'a>,
}

/// The kinds of `volumes` entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Volume,
    Bind,
    Tmpfs,
}

const KINDS: &[(&str, Kind)] = &[
    ("volume", Kind::Volume),
    ("bind", Kind::Bind),
    ("tmpfs", Kind::Tmpfs),
];

/// The options of a `volumes` entry, whichever form they came in.
#[derive(Default)]
struct Options {
    read_only: bool,
    nocopy: bool,
    subpath: Option<String>,
    propagation: Option<String>,
    selinux: Option<String>,
    create_host_path: Option<bool>,
}

impl Context<'_> {
    fn volume(&self, view: View<'_>) -> Option<Asked> {
        match view.node.as_mapping() {
            Some(_) => self.long(view),
            None => self.short(view),
        }
    }

    /// `[SOURCE:]TARGET[:OPTIONS]`.
    fn short(&self, view: View<'_>) -> Option<Asked> {
        let text = non_empty(view)?;
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, words) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, words] => (Some(source), target, words),
            _ => return view.invalid(format!("volume {text:?} has too many colons")),
        };
        let options = short_options(words, view)?;
        let kind = match source {
            Some(source) if source.starts_with(['/', '.', '~']) => Kind::Bind,
            _ => Kind::Volume,
        };
        self.mount(view, kind, source, target, options)
    }

    fn long(&self, view: View<'_>) -> Option<Asked> {
        let mut fields = view.fields()?;
        let kind = fields.require("type", choice(KINDS));
        let source = fields.take("source", non_empty);
        let target = fields.require("target", string);
        let mut options = Options {
            read_only: fields.take_or_default("read_only", boolean),
            ..Options::default()
        };
        fields.take("bind", |view| bind_options(view, &mut options));
        fields.take("volume", |view| volume_options(view, &mut options));
        let tmpfs = fields.take("tmpfs", tmpfs_options);
        fields.ignore("consistency", "it has no meaning on Linux");
        fields.close();
        let (kind, target) = (kind?, target?);
        if kind != Kind::Tmpfs {
            return self.mount(view, kind, source.as_deref(), &target, options);
        }
        if source.is_some() {
            return view.invalid(format!("{} is a tmpfs and has no source", view.name()));
        }
        let (size_bytes, mode) = tmpfs.unwrap_or_default();
        let memory = MountSource::Tmpfs {
            size_bytes,
            mode,
            options: None,
        };
        asked(view, &target, memory, options.read_only)
    }

    fn mount(
        &self,
        view: View<'_>,
        kind: Kind,
        source: Option<&str>,
        target: &str,
        options: Options,
    ) -> Option<Asked> {
        let read_only = options.read_only;
        let source = match (kind, source) {
            (Kind::Bind, None) => {
                return view.invalid(format!("{} is a bind and needs a source", view.name()));
            }
            (Kind::Bind, Some(path)) if path.starts_with('/') => MountSource::Bind(BindSource {
                path: clean(path),
                create_host_path: options.create_host_path.unwrap_or(true),
                propagation: options.propagation,
                selinux: options.selinux,
            }),
            (Kind::Bind, Some(path)) => self.carried(view, path, read_only)?,
            (_, None) => MountSource::Anonymous,
            (_, Some(key)) => self.named(view, key, options)?,
        };
        asked(view, target, source, read_only)
    }

    fn named(&self, view: View<'_>, key: &str, options: Options) -> Option<MountSource> {
        if !self.declared.volumes.contains_key(key) {
            let declared = self.declared.volumes.keys();
            return view.invalid(format!(
                "service {:?} uses volume {key:?}, which is not declared; declared volumes: {}",
                self.service,
                listed(declared.map(String::as_str))
            ));
        }
        Some(MountSource::Volume {
            key: key.to_owned(),
            nocopy: options.nocopy,
            subpath: options.subpath,
        })
    }

    /// A relative bind: there is no project directory on a node, so its files travel along.
    fn carried(&self, view: View<'_>, path: &str, read_only: bool) -> Option<MountSource> {
        if path.starts_with('~') {
            return view.invalid(format!(
                "bind {path:?}: a node has no home directory to mount"
            ));
        }
        if !read_only {
            return view.invalid(format!(
                "service {:?} mounts {path:?} writable; a node has no project directory, so a \
                 relative bind must be read-only and at most 1 MiB: use a volume, an absolute \
                 path, or `:ro`",
                self.service
            ));
        }
        let files = match self.declared.contents.tree(path) {
            Ok(files) => files,
            Err(reason) => return view.invalid(format!("bind {path:?}: {reason}")),
        };
        Some(MountSource::Files(FileTree {
            kind: FileKind::Bind,
            files: files.into_iter().map(root_owned).collect(),
        }))
    }

    fn secret(&self, view: View<'_>) -> Option<Asked> {
        let sources = &self.declared.secrets;
        self.file(view, FileKind::Secret, sources, |name| {
            format!("/run/secrets/{name}")
        })
    }

    fn config(&self, view: View<'_>) -> Option<Asked> {
        let sources = &self.declared.configs;
        self.file(view, FileKind::Config, sources, |name| format!("/{name}"))
    }

    /// One entry of `secrets` or `configs`: a name, or the long form.
    fn file(
        &self,
        view: View<'_>,
        kind: FileKind,
        sources: &std::collections::BTreeMap<String, FileSource>,
        place: impl Fn(&str) -> String,
    ) -> Option<Asked> {
        let mut wanted = Wanted::default();
        match &view.node.value {
            Value::Scalar(_) => wanted.source = non_empty(view)?,
            _ => wanted.read(view)?,
        }
        let Some(source) = sources.get(&wanted.source) else {
            let declared = sources.keys();
            let word = if kind == FileKind::Secret {
                "secret"
            } else {
                "config"
            };
            return view.invalid(format!(
                "service {:?} uses {word} {:?}, which is not declared; declared {word}s: {}",
                self.service,
                wanted.source,
                listed(declared.map(String::as_str))
            ));
        };
        let entry = FileEntry {
            path: String::new(),
            content: self.content(view, source)?,
            mode: wanted.mode,
            uid: wanted.uid,
            gid: wanted.gid,
        };
        let target = match wanted.target {
            None => place(&wanted.source),
            Some(target) if target.starts_with('/') => target,
            Some(target) => place(&target),
        };
        let files = vec![entry];
        asked(
            view,
            &target,
            MountSource::Files(FileTree { kind, files }),
            true,
        )
    }

    fn content(&self, view: View<'_>, source: &FileSource) -> Option<String> {
        let contents = self.declared.contents;
        let content = match &source.origin {
            Origin::File(path) => {
                let read = contents.file(path);
                read.map_err(|reason| format!("cannot read {path:?}: {reason}"))
            }
            Origin::Variable(name) => contents.variable(name),
            Origin::Inline(text) => Ok(contents.inline(text)),
            Origin::Unusable => return None,
        };
        content
            .map_err(|reason| {
                let message = format!("{}: {reason}", source.path);
                view.findings.invalid(source.at, &source.path, message);
            })
            .ok()
    }
}

/// The long form of a `secrets` or `configs` entry.
struct Wanted {
    source: String,
    target: Option<String>,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            source: String::new(),
            target: None,
            mode: 0o444,
            uid: 0,
            gid: 0,
        }
    }
}

impl Wanted {
    fn read(&mut self, view: View<'_>) -> Option<()> {
        let mut fields = view.fields()?;
        let source = fields.require("source", non_empty);
        self.target = fields.take("target", non_empty);
        self.mode = file_mode(&mut fields);
        self.uid = parts::owner(&mut fields, "uid");
        self.gid = parts::owner(&mut fields, "gid");
        fields.close();
        self.source = source?;
        Some(())
    }
}

fn short_options(words: &str, view: View<'_>) -> Option<Options> {
    let mut options = Options::default();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" | "readonly" => options.read_only = true,
            "rw" | "cached" | "delegated" | "consistent" => {}
            "nocopy" | "volume-nocopy" => options.nocopy = true,
            "z" | "Z" => options.selinux = Some(word.to_owned()),
            _ if PROPAGATIONS.contains(&word) => options.propagation = Some(word.to_owned()),
            _ => return view.invalid(format!("unknown volume option {word:?}")),
        }
    }
    Some(options)
}

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "shared", "rshared", "slave", "rslave",
];

fn bind_options(view: View<'_>, options: &mut Options) -> Option<()> {
    let mut fields = view.fields()?;
    options.propagation = fields.take("propagation", |view| {
        let text = string(view)?;
        match PROPAGATIONS.contains(&&*text) {
            true => Some(text),
            false => view.expected(&format!("one of {}", PROPAGATIONS.join(", "))),
        }
    });
    options.create_host_path = fields.take("create_host_path", boolean);
    let selinux = fields.take("selinux", choice(&[("z", "z"), ("Z", "Z")]));
    options.selinux = selinux.map(str::to_owned);
    fields.close();
    Some(())
}

fn volume_options(view: View<'_>, options: &mut Options) -> Option<()> {
    let mut fields = view.fields()?;
    options.nocopy = fields.take_or_default("nocopy", boolean);
    options.subpath = fields.take("subpath", non_empty);
    fields.close();
    Some(())
}

fn tmpfs_options(view: View<'_>) -> Option<(Option<u64>, Option<u32>)> {
    let mut fields = view.fields()?;
    let options = (fields.take("size", bytes), fields.take("mode", mode));
    fields.close();
    Some(options)
}

/// The `tmpfs` key: one or more `PATH[:OPTIONS]`.
fn tmpfs_list(view: View<'_>) -> Option<Vec<Asked>> {
    match &view.node.value {
        Value::Scalar(_) => Some(vec![tmpfs(view)?]),
        _ => list(tmpfs)(view),
    }
}

fn tmpfs(view: View<'_>) -> Option<Asked> {
    let text = non_empty(view)?;
    let (target, words) = text.split_once(':').unwrap_or((&text, ""));
    let (mut size_bytes, mut mode, mut read_only) = (None, None, false);
    let mut others = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("size", size)) if parse_bytes(size).is_some() => size_bytes = parse_bytes(size),
            Some(("mode", bits)) if u32::from_str_radix(bits, 8).is_ok() => {
                mode = u32::from_str_radix(bits, 8).ok();
            }
            _ if word == "ro" => read_only = true,
            _ => others.push(word),
        }
    }
    let options = (!others.is_empty()).then(|| others.join(","));
    let memory = MountSource::Tmpfs {
        size_bytes,
        mode,
        options,
    };
    asked(view, target, memory, read_only)
}

fn asked(view: View<'_>, target: &str, source: MountSource, read_only: bool) -> Option<Asked> {
    if !target.starts_with('/') {
        return view.invalid(format!("mount target {target:?} must be an absolute path"));
    }
    Some(Asked {
        mount: Mount {
            target: clean(target),
            source,
            read_only,
        },
        at: view.at(),
        path: view.path.to_string(),
    })
}

fn root_owned(file: CarriedFile) -> FileEntry {
    FileEntry {
        path: file.path,
        content: file.content,
        mode: file.mode,
        uid: 0,
        gid: 0,
    }
}

/// An absolute path without a slash at its end.
fn clean(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/" } else { trimmed }.to_owned()
}
