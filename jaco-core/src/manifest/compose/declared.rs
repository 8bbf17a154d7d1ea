//! The top-level `networks`, `volumes`, `secrets` and `configs`.

use std::collections::BTreeMap;

use crate::manifest::bounds::is_name;
use crate::manifest::contents::Contents;
use crate::manifest::read::{Fields, View, boolean, key_values, non_empty, string};
use crate::manifest::spec::{NetworkSpec, VolumeSpec};
use crate::manifest::yaml::At;

/// What services may refer to by name.
pub(crate) struct Declared<'a> {
    pub(crate) networks: BTreeMap<String, NetworkSpec>,
    pub(crate) volumes: BTreeMap<String, VolumeSpec>,
    pub(crate) secrets: BTreeMap<String, FileSource>,
    pub(crate) configs: BTreeMap<String, FileSource>,
    pub(crate) contents: &'a dyn Contents,
}

/// Where a secret's or config's content is said to be.
#[derive(Clone)]
pub(crate) struct FileSource {
    pub(crate) origin: Origin,
    pub(crate) path: String,
    pub(crate) at: At,
}

/// One of the three kinds of source.
#[derive(Clone)]
pub(crate) enum Origin {
    File(String),
    Variable(String),
    Inline(String),
    /// Refused already; whoever uses it need not be refused again.
    Unusable,
}

impl<'a> Declared<'a> {
    pub(super) fn take(fields: &mut Fields<'_>, contents: &'a dyn Contents) -> Self {
        Self {
            networks: fields.take_or_default("networks", nullable_map("network", network)),
            volumes: fields.take_or_default("volumes", nullable_map("volume", volume)),
            secrets: fields.take_or_default("secrets", file_sources("secret")),
            configs: fields.take_or_default("configs", file_sources("config")),
            contents,
        }
    }
}

/// A mapping whose null values mean defaults: `volumes: {data: }`. What cannot be decoded is
/// still declared.
fn nullable_map<T: Default>(
    kind: &'static str,
    decode: impl Fn(View<'_>) -> Option<T>,
) -> impl Fn(View<'_>) -> Option<BTreeMap<String, T>> {
    named(kind, move |view| match view.node.is_null() {
        true => T::default(),
        false => decode(view).unwrap_or_default(),
    })
}

fn file_sources(kind: &'static str) -> impl Fn(View<'_>) -> Option<BTreeMap<String, FileSource>> {
    named(kind, move |view| file_source(view, kind))
}

/// A mapping whose keys become names in the engine and the kernel (spec 10, Bounds).
fn named<T>(
    kind: &'static str,
    decode: impl Fn(View<'_>) -> T,
) -> impl Fn(View<'_>) -> Option<BTreeMap<String, T>> {
    move |view| {
        let mut all = BTreeMap::new();
        view.each_entry(|name, at, view| {
            if !is_name(name) {
                let shown: String = name.chars().take(80).collect();
                let message = format!(
                    "{kind} name {shown:?} must be 1 to 63 letters, digits, `.`, `_` or `-`, and \
                     start with a letter or digit"
                );
                view.findings.invalid(at, view.path, message);
            }
            all.insert(name.to_owned(), decode(view));
        })?;
        Some(all)
    }
}

fn network(view: View<'_>) -> Option<NetworkSpec> {
    let mut fields = view.fields()?;
    let network = NetworkSpec {
        internal: fields.take_or_default("internal", boolean),
        labels: fields.take_or_default("labels", key_values),
    };
    fields.take("external", |view| match external(view)? {
        true => view.invalid("an external network is not supported: JACO makes each network"),
        false => Some(()),
    });
    for key in [
        "name",
        "driver",
        "driver_opts",
        "ipam",
        "attachable",
        "enable_ipv4",
    ] {
        fields.ignore(key, "JACO makes the network and assigns its subnet");
    }
    fields.ignore("enable_ipv6", "networks of JACO are IPv4");
    fields.close();
    Some(network)
}

fn volume(view: View<'_>) -> Option<VolumeSpec> {
    let mut fields = view.fields()?;
    let volume = VolumeSpec {
        engine_name: fields.take_or_default("name", non_empty),
        external: fields.take_or_default("external", external),
        driver: fields.take("driver", string),
        driver_opts: fields.take_or_default("driver_opts", key_values),
        labels: fields.take_or_default("labels", key_values),
    };
    fields.close();
    Some(volume)
}

/// `external`: a boolean; the older `{name: …}` is told what to write.
fn external(view: View<'_>) -> Option<bool> {
    match view.node.as_mapping() {
        Some(_) => view.invalid("external takes true or false; put the name in `name:`"),
        None => boolean(view),
    }
}

fn file_source(view: View<'_>, kind: &str) -> FileSource {
    let origin = origin(view, kind).unwrap_or(Origin::Unusable);
    FileSource {
        origin,
        path: view.path.to_string(),
        at: view.at(),
    }
}

fn origin(view: View<'_>, kind: &str) -> Option<Origin> {
    let mut fields = view.fields()?;
    let external = fields.take("external", external);
    let file = fields.take("file", source(Origin::File));
    let variable = fields.take("environment", source(Origin::Variable));
    let inline = match kind {
        "config" => fields.take("content", |view| Some(Origin::Inline(string(view)?))),
        _ => None,
    };
    for key in ["name", "labels"] {
        fields.ignore(key, "the content travels with the deployment");
    }
    fields.close();
    if external == Some(true) {
        return view.invalid(format!(
            "an external {kind} is not supported; give it a `file:`"
        ));
    }
    let mut origins: Vec<_> = [file, variable, inline].into_iter().flatten().collect();
    match origins.len() {
        1 => origins.pop(),
        0 => view.invalid(format!(
            "{} needs a `file:` or `environment:` source",
            view.name()
        )),
        _ => view.invalid(format!("{} has more than one source", view.name())),
    }
}

/// A source that is named but cannot be used still counts as named.
fn source(origin: fn(String) -> Origin) -> impl Fn(View<'_>) -> Option<Origin> {
    move |view| Some(non_empty(view).map_or(Origin::Unusable, origin))
}
