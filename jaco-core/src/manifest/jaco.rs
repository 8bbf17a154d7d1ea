//! `jaco.yaml`: what the cluster does with the containers of a compose file. A closed schema.

use super::bounds::MAX_REPLICAS;
use super::read::{View, boolean, choice, count, list, non_empty, port, string};
use super::yaml::scalar::parse_bool;
use super::yaml::{At, Node};
use crate::id::is_dns_label;

/// A decoded `jaco.yaml`; rules that need the compose file have not run.
#[derive(Default)]
pub(crate) struct Jaco {
    pub(crate) deployment: String,
    /// False for `acme: off`.
    pub(crate) acme: bool,
    pub(crate) acme_email: Option<String>,
    pub(crate) routes: Vec<Route>,
    pub(crate) overrides: Vec<Override>,
}

/// A value with the place and path that it came from.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: At,
    pub(crate) path: String,
}

/// One entry of `routes`.
pub(crate) struct Route {
    pub(crate) domain: String,
    pub(crate) service: Located<String>,
    pub(crate) port: u16,
    /// Absent: what `acme` says.
    pub(crate) tls: Option<bool>,
    pub(crate) path: String,
    pub(crate) strip_path: bool,
    /// The entry itself.
    pub(crate) whole: Located<()>,
}

/// One entry of `services`.
pub(crate) struct Override {
    pub(crate) service: Located<String>,
    pub(crate) replicas: Option<Located<u32>>,
    pub(crate) placement: Option<Located<PlacementWord>>,
    pub(crate) hosts: Option<Located<Vec<String>>>,
    pub(crate) networks: Option<Vec<Located<String>>>,
    /// Counts as the label that privileged services need.
    pub(crate) allow_privileged: bool,
}

/// The values of `placement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlacementWord {
    Spread,
    Pack,
    Hosts,
    Global,
}

const PLACEMENTS: &[(&str, PlacementWord)] = &[
    ("spread", PlacementWord::Spread),
    ("pack", PlacementWord::Pack),
    ("hosts", PlacementWord::Hosts),
    ("global", PlacementWord::Global),
];

/// The longest deployment name.
const MAX_NAME: usize = 40;

/// Decodes the document.
pub(crate) fn jaco(view: View<'_>) -> Option<Jaco> {
    let mut fields = view.fields()?;
    let jaco = Jaco {
        deployment: fields
            .require("deployment", deployment_name)
            .unwrap_or_default(),
        acme: fields.take("acme", boolean).unwrap_or(true),
        acme_email: fields.take("acme_email", email),
        routes: fields.take_or_default("routes", list(route)),
        overrides: fields.take_or_default("services", list(service)),
    };
    fields.take("environment", non_empty);
    fields.close_without_extensions();
    Some(jaco)
}

/// The `environment:` path, read before anything else is decoded.
pub(crate) fn environment(document: &Node) -> Option<(&str, At)> {
    let node = document.get("environment")?;
    node.as_text()
        .filter(|path| !path.is_empty())
        .map(|path| (path, node.at))
}

fn deployment_name(view: View<'_>) -> Option<String> {
    let name = string(view)?;
    if is_dns_label(&name, MAX_NAME) {
        return Some(name);
    }
    view.invalid(format!(
        "deployment name {name:?} must be a DNS label of at most {MAX_NAME} characters: \
         lower-case letters, digits and inner hyphens"
    ))
}

fn email(view: View<'_>) -> Option<String> {
    let text = string(view)?;
    let sides = text.split_once('@');
    let valid = sides.is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
        && !text.contains(char::is_whitespace);
    if valid {
        Some(text)
    } else {
        view.expected("an email address")
    }
}

fn route(view: View<'_>) -> Option<Route> {
    let mut fields = view.fields()?;
    let domain = fields.require("domain", domain);
    let service = fields.require("service", located(non_empty));
    let port = fields.require("port", port);
    let tls = fields.take("tls", tls);
    let path = fields.take_or_default("path", route_path);
    let strip_path = fields.take_or_default("strip_path", boolean);
    fields.close_without_extensions();
    Some(Route {
        domain: domain?,
        service: service?,
        port: port?,
        tls,
        path,
        strip_path,
        whole: located(|_| Some(()))(view)?,
    })
}

/// `auto` or `off`; YAML 1.1 writers may turn the latter into a boolean.
fn tls(view: View<'_>) -> Option<bool> {
    let text = view.node.as_text();
    match text {
        Some("auto") => Some(true),
        Some(text) if parse_bool(text) == Some(false) => Some(false),
        _ => view.expected("auto or off"),
    }
}

/// A fully qualified domain name, in lower case and without its final dot.
fn domain(view: View<'_>) -> Option<String> {
    let text = string(view)?;
    let name = text.strip_suffix('.').unwrap_or(&text).to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let is_address = labels
        .iter()
        .all(|label| label.bytes().all(|b| b.is_ascii_digit()));
    let is_fqdn = labels.len() > 1
        && name.len() <= 253
        && labels.iter().all(|label| is_dns_label(label, 63))
        && !is_address;
    if is_fqdn {
        return Some(name);
    }
    view.invalid(format!(
        "domain {text:?} must be a fully qualified domain name"
    ))
}

/// A path prefix: absolute, without its final slash; empty is the catch-all. `/api/` and `/api/*`
/// mean `/api`.
fn route_path(view: View<'_>) -> Option<String> {
    let text = string(view)?;
    let unfit = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
    if !(text.is_empty() || text.starts_with('/')) || text.contains(unfit) {
        return view.invalid(format!(
            "path {text:?} must be empty, or start with / and have no query or blanks"
        ));
    }
    let prefix = text.strip_suffix("/*").unwrap_or(&text);
    Some(prefix.trim_end_matches('/').to_owned())
}

/// A replica count within the bound of spec 10.
pub(crate) fn replicas(view: View<'_>) -> Option<u32> {
    let count = count(view)?;
    if count <= MAX_REPLICAS {
        return Some(count);
    }
    view.invalid(format!(
        "{count} replicas; at most {MAX_REPLICAS} are allowed"
    ))
}

fn service(view: View<'_>) -> Option<Override> {
    let mut fields = view.fields()?;
    let service = fields.require("name", located(non_empty));
    let entry = Override {
        replicas: fields.take("replicas", located(replicas)),
        placement: fields.take("placement", located(choice(PLACEMENTS))),
        hosts: fields.take("hosts", located(list(non_empty))),
        networks: fields.take("networks", list(located(non_empty))),
        allow_privileged: fields.take_or_default("allow_privileged", boolean),
        service: service?,
    };
    fields.close_without_extensions();
    Some(entry)
}

/// Keeps where a value came from.
fn located<T>(decode: impl Fn(View<'_>) -> Option<T>) -> impl Fn(View<'_>) -> Option<Located<T>> {
    move |view| {
        Some(Located {
            value: decode(view)?,
            at: view.at(),
            path: view.path.to_string(),
        })
    }
}
