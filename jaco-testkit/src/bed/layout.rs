//! Names, addresses and paths of a bed: everything that can be computed from its name.
//!
//! Invariant (tests below): every name that the kernel shows to others starts with
//! `jb-<bed>-`, so that whatever a crashed bed left behind can be found by name alone.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Where the working directories of all beds are, one folder each.
pub const BEDS: &str = "/var/lib/jaco-bed";
/// What survives a bed: the images of its registry.
pub(super) const CACHE: &str = "/var/cache/jaco-bed";
/// Environment variable that marks every process of a bed with the bed's name.
pub(super) const OWNER: &str = "JACO_BED_OWNER";
/// Port of the bed's image registry.
pub(super) const REGISTRY_PORT: u16 = 5000;

/// The computed side of one bed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The bed's name: 1 to 16 lower-case letters and digits.
    pub name: String,
    /// The first three octets of the hosts' /24.
    pub subnet: [u8; 3],
    /// How many hosts there are.
    pub hosts: usize,
}

impl Layout {
    /// Checks name and host count; 250 hosts fit the subnet beside the switch.
    pub fn new(name: &str, subnet: [u8; 3], hosts: usize) -> Result<Self> {
        check_name(name)?;
        if hosts == 0 || hosts > 250 {
            bail!("a bed has 1 to 250 hosts, not {hosts}");
        }
        Ok(Self {
            name: name.to_owned(),
            subnet,
            hosts,
        })
    }

    /// The working directory of the bed called `name`.
    pub fn directory_of(name: &str) -> PathBuf {
        Path::new(BEDS).join(name)
    }

    /// The bed's working directory.
    pub fn directory(&self) -> PathBuf {
        Self::directory_of(&self.name)
    }

    /// The file that describes the bed to a later process.
    pub fn state_file(&self) -> PathBuf {
        self.directory().join("state.json")
    }

    /// The namespace that holds the switch and the registry.
    pub fn switch_namespace(&self) -> String {
        format!("jb-{}-sw", self.name)
    }

    /// The namespace of host `index` (from 1).
    pub fn host_namespace(&self, index: usize) -> String {
        format!("jb-{}-{index}", self.name)
    }

    /// The switch's address, on which the registry listens.
    pub fn switch_address(&self) -> Ipv4Addr {
        self.address(254)
    }

    /// The address of host `index` (from 1).
    pub fn host_address(&self, index: usize) -> Ipv4Addr {
        let last = u8::try_from(index).expect("a layout has at most 250 hosts");
        self.address(last)
    }

    /// The registry as it is written in an image reference.
    pub fn registry(&self) -> String {
        format!("{}:{REGISTRY_PORT}", self.switch_address())
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// Tells whether `namespace` (or a control group) belongs to the bed called `name`.
pub(super) fn belongs_to(name: &str, namespace: &str) -> bool {
    let Some(rest) = namespace
        .strip_prefix("jb-")
        .and_then(|rest| rest.strip_prefix(name))
    else {
        return false;
    };
    match rest.strip_prefix('-') {
        Some("sw") => true,
        Some(index) => !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit()),
        None => false,
    }
}

/// A bed's name goes into paths, namespaces and control groups, so it is kept plain.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if name.is_empty() || name.len() > 16 || !plain {
        bail!("a bed's name is 1 to 16 lower-case letters and digits, not {name:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_found_by_the_beds_name() {
        let layout = Layout::new("x", [10, 99, 0], 12).unwrap();
        assert!(belongs_to("x", &layout.switch_namespace()));
        for index in 1..=12 {
            assert!(belongs_to("x", &layout.host_namespace(index)));
        }
    }

    #[test]
    fn another_beds_namespace_is_left_alone() {
        for namespace in [
            "jb-xy-1", "jb-x-", "jb-x-1-1", "jb-x-s", "x-1", "jb-x", "jb-y-1",
        ] {
            assert!(!belongs_to("x", namespace), "{namespace}");
        }
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "..", "a/b", "a-b", "A", "seventeenletters1"] {
            assert!(Layout::new(name, [10, 99, 0], 1).is_err(), "{name}");
        }
    }

    #[test]
    fn addresses_follow_the_index() {
        let layout = Layout::new("x", [10, 99, 7], 3).unwrap();
        assert_eq!(layout.host_address(3).to_string(), "10.99.7.3");
        assert_eq!(layout.registry(), "10.99.7.254:5000");
    }
}
