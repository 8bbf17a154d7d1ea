//! What a node lets workloads have, and what it gives those that say nothing (spec 10).
//!
//! The defaults keep one workload from wearing out the host of all: processes and logs have an
//! end, and raw sockets are for those that ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::host_access::Allowed;
use crate::manifest::spec::{ContainerSpec, Logging};

/// The key `workloads` of the daemon's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workloads {
    /// Host directories that may be mounted, with all below them.
    pub allow_binds: Vec<String>,
    /// Devices, by their path on the host.
    pub allow_devices: Vec<String>,
    /// Runtimes of the engine.
    pub allow_runtimes: Vec<String>,
    /// Processes of a container that sets no limit.
    pub pids_limit: i64,
    /// Bytes of a log file, as the engine's `json-file` driver takes them: `10m`.
    pub log_max_size: String,
    /// Log files that are kept.
    pub log_max_file: u32,
}

impl Default for Workloads {
    fn default() -> Self {
        Self {
            allow_binds: Vec::new(),
            allow_devices: Vec::new(),
            allow_runtimes: Vec::new(),
            pids_limit: 4_096,
            log_max_size: "10m".to_owned(),
            log_max_file: 3,
        }
    }
}

impl Workloads {
    /// What is wrong with a value, with the key that it stands at.
    pub fn violations(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (key, paths) in [
            ("workloads.allow_binds", &self.allow_binds),
            ("workloads.allow_devices", &self.allow_devices),
        ] {
            let relative = paths.iter().filter(|path| !path.starts_with('/'));
            found.extend(relative.map(|path| (key, format!("\"{path}\" is not an absolute path"))));
        }
        if self.pids_limit < 1 {
            let message = format!("{} is not a number of processes", self.pids_limit);
            found.push(("workloads.pids_limit", message));
        }
        let size = self.log_max_size.trim_end_matches(['k', 'm', 'g']);
        if size.parse::<u32>().is_ok_and(|number| number > 0) && self.log_max_file > 0 {
            return found;
        }
        let message = format!(
            "\"{}\" in {} files is not a size like 10m in 1 file or more",
            self.log_max_size, self.log_max_file
        );
        found.push(("workloads.log_max_size", message));
        found
    }

    /// What every workload may have of this host.
    pub fn allowed(&self) -> Allowed {
        Allowed {
            allow_binds: self.allow_binds.clone(),
            allow_devices: self.allow_devices.clone(),
            allow_runtimes: self.allow_runtimes.clone(),
        }
    }

    /// A container's spec with what it leaves to JACO.
    pub fn complete(&self, mut spec: ContainerSpec) -> ContainerSpec {
        if !(spec.privileged || asks_for_raw_sockets(&spec)) {
            spec.cap_drop.push("NET_RAW".to_owned());
        }
        spec.limits.pids.get_or_insert(self.pids_limit);
        let logging = spec.logging.get_or_insert_with(|| Logging {
            driver: Some("json-file".to_owned()),
            options: BTreeMap::new(),
        });
        if logging.driver.as_deref().is_none_or(|it| it == "json-file") {
            logging.driver = Some("json-file".to_owned());
            let mut default = |key: &str, value: String| {
                logging.options.entry(key.to_owned()).or_insert(value);
            };
            default("max-size", self.log_max_size.clone());
            default("max-file", self.log_max_file.to_string());
        }
        spec
    }
}

/// Adds the capability, or drops it along with all others.
fn asks_for_raw_sockets(spec: &ContainerSpec) -> bool {
    let is_named = |names: &[String], wanted: &[&str]| {
        names.iter().any(|name| {
            let name = name.to_ascii_uppercase();
            wanted.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
        })
    };
    is_named(&spec.cap_add, &["NET_RAW", "ALL"]) || is_named(&spec.cap_drop, &["NET_RAW", "ALL"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(change: impl FnOnce(&mut ContainerSpec)) -> ContainerSpec {
        let mut spec = ContainerSpec::default();
        change(&mut spec);
        Workloads::default().complete(spec)
    }

    #[test]
    fn what_a_manifest_leaves_open_has_an_end() {
        let spec = complete(|_| {});
        assert_eq!(spec.limits.pids, Some(4_096));
        assert_eq!(spec.cap_drop, ["NET_RAW"]);
        let options = spec.logging.map(|it| it.options).unwrap_or_default();
        assert_eq!(options.get("max-size").map(String::as_str), Some("10m"));
        assert_eq!(options.get("max-file").map(String::as_str), Some("3"));
    }

    #[test]
    fn what_a_manifest_says_stands() {
        let spec = complete(|spec| {
            spec.limits.pids = Some(-1);
            spec.cap_add = vec!["cap_net_raw".to_owned()];
            spec.logging = Some(Logging {
                driver: Some("journald".to_owned()),
                options: BTreeMap::new(),
            });
        });
        assert_eq!((spec.limits.pids, spec.cap_drop.len()), (Some(-1), 0));
        assert!(spec.logging.is_some_and(|it| it.options.is_empty()));
        let all = complete(|spec| spec.cap_drop = vec!["ALL".to_owned()]);
        assert_eq!(all.cap_drop, ["ALL"]);
    }
}
