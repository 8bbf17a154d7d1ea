//! The four classes of compose keys (spec 02): honoured, ignored, refused, legacy.
//!
//! The decoders take the honoured keys; these tables hold all the others and the notes that
//! `jaco validate` prints. `tests/manifest_keys.rs` holds the two in step.

use serde::{Deserialize, Serialize};

use super::read::{KeyRefusal, Path};
use super::yaml::Node;
use crate::error::ErrorCode;

/// What JACO does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyClass {
    /// It has its effect.
    Honoured,
    /// It has none, and a notice says so.
    Ignored,
    /// It stops the deployment.
    Refused,
    /// A spelling of compose v1 or v2, refused with its successor.
    Legacy,
}

/// One key that a compose file uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// `services.web.image`.
    pub path: String,
    /// Its class.
    pub class: KeyClass,
    /// Why it is not simply honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

type Notes = [(&'static str, &'static str)];

/// Honoured under a service; the note says what is particular about it, if anything.
#[rustfmt::skip]
pub const HONOURED_SERVICE_KEYS: &Notes = &[
    ("image", ""), ("command", ""), ("entrypoint", ""), ("environment", ""),
    ("env_file", "read by the client"), ("volumes", ""), ("ports", ""), ("depends_on", ""),
    ("healthcheck", ""), ("labels", ""), ("user", ""), ("working_dir", ""), ("tmpfs", ""),
    ("cap_add", ""), ("cap_drop", ""), ("sysctls", ""), ("ulimits", ""), ("read_only", ""),
    ("networks", ""), ("logging", ""), ("stop_signal", ""), ("stop_grace_period", ""),
    ("hostname", ""), ("domainname", ""), ("extra_hosts", ""), ("dns", ""), ("dns_search", ""),
    ("dns_opt", ""), ("init", ""), ("shm_size", ""), ("ipc", ""), ("pid", ""), ("uts", ""),
    ("userns_mode", ""), ("cgroup", ""), ("cgroup_parent", ""),
    ("network_mode", "none or service:<name>"),
    ("privileged", "needs the label jaco.io/allow-privileged and the right privileged"),
    ("security_opt", "only no-new-privileges needs neither label nor right"),
    ("devices", ""), ("gpus", ""), ("pull_policy", ""), ("deploy", ""), ("cpus", ""),
    ("mem_limit", ""), ("mem_reservation", ""), ("pids_limit", ""), ("cpu_shares", ""),
    ("cpuset", ""), ("secrets", ""), ("configs", ""),
    ("platform", "also a placement constraint on the node's architecture"),
    ("runtime", ""), ("stdin_open", ""), ("tty", ""), ("group_add", ""), ("annotations", ""),
    ("profiles", "switched on with --profile"), ("extends", "merged by the client"),
    ("post_start", ""), ("pre_stop", ""),
];

/// Ignored under a service, and why.
pub const IGNORED_SERVICE_KEYS: &Notes = &[
    ("restart", "the scheduler decides when a container restarts"),
    ("build", "JACO never builds; it runs `image`"),
    ("container_name", "the replica id names the container"),
    (
        "expose",
        "every port is open to the networks of the service",
    ),
    ("attach", "logs are read with `jaco logs`"),
    ("develop", "it is for local development"),
    ("links", "services find each other by name"),
];

/// Ignored at the top level, and why.
pub const IGNORED_TOP_KEYS: &Notes = &[
    ("name", "`deployment` in jaco.yaml names the deployment"),
    ("version", "compose files have no version any more"),
];

/// Spellings of compose v1 and v2, and what to write now.
pub const LEGACY_SERVICE_KEYS: &Notes = &[
    ("log_driver", "logging.driver"),
    ("log_opt", "logging.options"),
    ("net", "network_mode"),
    (
        "volume_driver",
        "no direct equivalent; use long-form `volumes:` with `driver:`",
    ),
    ("dockerfile", "build.dockerfile"),
];

/// Refused under a service although compose knows them, with what to do instead.
const REFUSED_SERVICE_KEYS: &Notes = &[
    ("scale", "use deploy.replicas"),
    (
        "volumes_from",
        "use a named volume that both services mount",
    ),
    ("external_links", "services find each other by name"),
    ("mac_address", "JACO assigns addresses"),
    ("label_file", "write the labels under `labels`"),
    ("cpu_count", "use cpus"),
    ("cpu_percent", "use cpus"),
    ("cpu_quota", "use cpus"),
    ("cpu_period", "use cpus"),
    ("oom_kill_disable", "use mem_limit"),
    ("memswap_limit", "use mem_limit"),
    ("mem_swappiness", "use mem_limit"),
    ("provider", "run the provider outside of the deployment"),
    ("models", "run the model as a service"),
    (
        "use_api_socket",
        "mount the socket's path, if the container may have the engine",
    ),
];

const TOP_KEYS: &Notes = &[
    ("services", ""),
    ("networks", ""),
    ("volumes", ""),
    ("secrets", ""),
    ("configs", ""),
    ("include", "merged by the client"),
];

const DEPLOY_KEYS: &Notes = &[
    ("replicas", ""),
    ("mode", ""),
    ("resources", ""),
    ("update_config", ""),
    ("rollback_config", ""),
    ("restart_policy", ""),
    ("placement", ""),
];

const IGNORED_DEPLOY_KEYS: &Notes =
    &[("endpoint_mode", "every service has its replicas' addresses")];

/// Every honoured key: `image` under a service, `deploy.mode` under its `deploy`, and with a
/// colon, as `volumes:`, at the top level.
pub fn honoured_keys() -> impl Iterator<Item = String> {
    let service = HONOURED_SERVICE_KEYS
        .iter()
        .map(|(key, _)| (*key).to_owned());
    let deploy = DEPLOY_KEYS.iter().map(|(key, _)| format!("deploy.{key}"));
    let top = TOP_KEYS.iter().map(|(key, _)| format!("{key}:"));
    service
        .chain(deploy)
        .chain(top.filter(|key| key != "services:"))
}

/// The keys that a compose document uses, in file order, with their classes.
pub(crate) fn keys(document: &Node) -> Vec<KeyUse> {
    let mut uses = Vec::new();
    each_key(document, &Path::Root, |key, path, value| {
        if key != "services" {
            uses.push(used(path, top_class(key)));
            return;
        }
        each_key(value, path, |_, path, service| {
            each_key(service, path, |key, path, value| {
                uses.push(used(path, service_class(key)));
                if key == "deploy" {
                    each_key(value, path, |key, path, _| {
                        uses.push(used(path, deploy_class(key)));
                    });
                }
            });
        });
    });
    uses
}

/// Why a service key that no decoder took is refused.
pub(crate) fn service_refusal(key: &str) -> Option<KeyRefusal> {
    if let Some(modern) = find(LEGACY_SERVICE_KEYS, key) {
        return Some(KeyRefusal {
            code: ErrorCode::LegacyComposeField,
            message: format!("legacy key {key:?} (modern equivalent: {modern})"),
            details: vec![
                ("field", key.to_owned()),
                ("modern_equivalent", modern.to_owned()),
            ],
        });
    }
    find(REFUSED_SERVICE_KEYS, key).map(|note| KeyRefusal {
        code: ErrorCode::ValidationFailed,
        message: format!("unsupported key {key:?} ({note})"),
        details: Vec::new(),
    })
}

/// Why a top-level key that no decoder took is refused.
pub(crate) fn top_refusal(key: &str) -> Option<KeyRefusal> {
    (key == "include").then(|| KeyRefusal {
        code: ErrorCode::ValidationFailed,
        message: "unresolved key \"include\" (the client must merge it)".to_owned(),
        details: Vec::new(),
    })
}

type Class = (KeyClass, &'static str);

fn service_class(key: &str) -> Class {
    let tables = [
        (HONOURED_SERVICE_KEYS, KeyClass::Honoured),
        (IGNORED_SERVICE_KEYS, KeyClass::Ignored),
        (LEGACY_SERVICE_KEYS, KeyClass::Legacy),
        (REFUSED_SERVICE_KEYS, KeyClass::Refused),
    ];
    class(key, &tables)
}

fn top_class(key: &str) -> Class {
    class(
        key,
        &[
            (TOP_KEYS, KeyClass::Honoured),
            (IGNORED_TOP_KEYS, KeyClass::Ignored),
        ],
    )
}

fn deploy_class(key: &str) -> Class {
    class(
        key,
        &[
            (DEPLOY_KEYS, KeyClass::Honoured),
            (IGNORED_DEPLOY_KEYS, KeyClass::Ignored),
        ],
    )
}

fn class(key: &str, tables: &[(&Notes, KeyClass)]) -> Class {
    if key.starts_with("x-") {
        return (KeyClass::Ignored, "extension");
    }
    let found = tables
        .iter()
        .find_map(|(notes, class)| Some((*class, find(notes, key)?)));
    found.unwrap_or((KeyClass::Refused, "unknown key"))
}

fn find(notes: &Notes, key: &str) -> Option<&'static str> {
    notes
        .iter()
        .find(|(name, _)| *name == key)
        .map(|(_, note)| *note)
}

fn used(path: &Path<'_>, (class, note): Class) -> KeyUse {
    KeyUse {
        path: path.to_string(),
        class,
        note: (!note.is_empty()).then(|| note.to_owned()),
    }
}

fn each_key(node: &Node, path: &Path<'_>, mut visit: impl FnMut(&str, &Path<'_>, &Node)) {
    for entry in node
        .as_mapping()
        .into_iter()
        .flat_map(|mapping| &mapping.entries)
    {
        visit(&entry.key, &Path::Key(path, &entry.key), &entry.value);
    }
}
