//! A compose document, typed: each service on its own, with the place of whatever a rule
//! across services may have to point at.

mod attach;
mod container;
mod declared;
mod deploy;
mod health;
mod mounts;
mod parts;
mod ports;
mod words;

pub(crate) use container::ALLOW_PRIVILEGED;

use std::collections::BTreeMap;

pub(crate) use declared::Declared;
pub(crate) use deploy::{Deploy, default_rollback};
pub(crate) use parts::platform_architecture;

use super::bounds::is_name;
use super::classify;
use super::contents::Contents;
use super::read::{Fields, Path, View, choice, list, string};
use super::spec::{
    ContainerSpec, Dependency, NetworkAttachment, NetworkMode, NetworkSpec, PublishedPort,
    PullPolicy, VolumeSpec,
};
use super::yaml::At;
use crate::error::ErrorCode;
use crate::id::ServiceName;

/// A decoded compose document.
#[derive(Default)]
pub(crate) struct Compose {
    /// In file order.
    pub(crate) services: Vec<Service>,
    pub(crate) networks: BTreeMap<String, NetworkSpec>,
    /// `engine_name` is still empty unless the file sets it.
    pub(crate) volumes: BTreeMap<String, VolumeSpec>,
}

/// One service as compose has it.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) container: ContainerSpec,
    /// The key by which it asks for privileges, when it does not carry the label for them.
    pub(crate) unlabelled_privilege: Option<Placed<()>>,
    pub(crate) deploy: Deploy,
    pub(crate) network_mode: NetworkMode,
    /// Where `network_mode` stands, when the service sets it.
    pub(crate) network_mode_at: Option<At>,
    pub(crate) networks: Vec<Placed<NetworkAttachment>>,
    pub(crate) ports: Vec<Placed<PublishedPort>>,
    pub(crate) depends_on: Vec<Placed<Dependency>>,
    pub(crate) pull_policy: PullPolicy,
}

/// Something with the name it goes by, and the place to point at.
pub(crate) struct Placed<T> {
    /// A service's or network's name; a port's entry as it is written.
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) at: At,
    pub(crate) value: T,
}

/// Decodes a whole document.
pub(crate) fn compose(view: View<'_>, contents: &dyn Contents) -> Option<Compose> {
    let mut fields = view.fields()?;
    let declared = Declared::take(&mut fields, contents);
    let services = fields.require("services", |view| services(view, &declared));
    for (key, note) in classify::IGNORED_TOP_KEYS {
        fields.ignore(key, note);
    }
    fields.close_with(classify::top_refusal);
    Some(Compose {
        services: services.unwrap_or_default(),
        networks: declared.networks,
        volumes: declared.volumes,
    })
}

fn services(view: View<'_>, declared: &Declared<'_>) -> Option<Vec<Service>> {
    let mut services = Vec::new();
    view.each_entry(|name, at, view| {
        if !is_name(name) {
            let message = format!(
                "service name {name:?} must be 1 to 63 letters, digits, `.`, `_` or `-`, \
                 and start with a letter or digit"
            );
            view.findings.invalid(at, view.path, message);
        }
        services.extend(service(name, view, declared));
    })?;
    if services.is_empty() && !view.findings.has_violations() {
        return view.invalid("the compose file declares no services");
    }
    Some(services)
}

fn service(name: &str, view: View<'_>, declared: &Declared<'_>) -> Option<Service> {
    let mut fields = view.fields()?;
    let deploy = fields.take_or_default("deploy", deploy::deploy);
    let container = container::container(name, &mut fields, declared, &deploy);
    let unlabelled_privilege =
        container::unlabelled_privilege(name, &fields, &container, &declared.volumes);
    let network_mode_at = fields.at("network_mode");
    let network_mode = fields.take("network_mode", attach::network_mode);
    let service = Service {
        name: ServiceName::new(name),
        container,
        unlabelled_privilege,
        network_mode_at: network_mode.as_ref().map(|_| network_mode_at),
        network_mode: network_mode.unwrap_or(NetworkMode::Networks),
        networks: fields.take_or_default("networks", attach::networks),
        ports: fields.take_or_default("ports", |view| ports::ports(name, view)),
        depends_on: fields.take_or_default("depends_on", attach::depends_on),
        pull_policy: fields.take_or_default("pull_policy", pull_policy),
        deploy,
    };
    resolved_by_the_client(&mut fields);
    for (key, note) in classify::IGNORED_SERVICE_KEYS {
        fields.ignore(key, note);
    }
    fields.close_with(classify::service_refusal);
    Some(service)
}

/// Keys that mean something only next to the project's files. The client removes them, so a
/// daemon that still sees one talks to a client that is too old.
fn resolved_by_the_client(fields: &mut Fields<'_>) {
    fields.take("env_file", |view| {
        let message = "env_file reached the daemon unresolved; the client must read it";
        view.refuse::<()>(ErrorCode::EnvFileUnresolved, message, &[])
    });
    fields.take("extends", |view| {
        view.invalid::<()>("extends reached the daemon unresolved; the client must merge it")
    });
    fields.take("profiles", list(string));
}

fn pull_policy(view: View<'_>) -> Option<PullPolicy> {
    choice(&[
        ("always", PullPolicy::Always),
        ("missing", PullPolicy::Missing),
        ("if_not_present", PullPolicy::Missing),
        ("never", PullPolicy::Never),
        ("build", PullPolicy::Missing),
    ])(view)
}

/// A path under a service, for rules that run after decoding.
pub(crate) fn service_path(service: &ServiceName, rest: &str) -> String {
    let services = Path::Key(&Path::Root, "services");
    format!("{}.{rest}", Path::Key(&services, service.as_str()))
}
