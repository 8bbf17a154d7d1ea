//! The host: its clock, its source of random values, its name and addresses.

mod usage;

pub use usage::HostUsage;

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use jaco_core::ports::{Clock, Ids};
use jaco_core::time::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The host's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The operating system's cryptographic random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemIds;

impl Ids for SystemIds {
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// Has the kernel back this process with small pages alone, also where it prefers huge ones: what
/// many idle connections hold is little of each (ADR 0013). A kernel that cannot do it leaves all
/// as it was.
pub fn use_small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay in use");
    }
}

/// The addresses of this host's interfaces, loopback excluded.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| interface.address);
    let v4 = addresses.filter_map(|address| address.as_sockaddr_in().map(|v4| v4.ip()));
    v4.filter(|address| !address.is_loopback())
        .map(IpAddr::V4)
        .collect()
}

/// What the host says about its resolvers; nothing when it says nothing.
pub fn resolv_conf() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// The operating system's hostname.
pub fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// The number of the user that this process runs as.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Does something under another file mode mask. The mask is the process's: for a moment at start.
pub fn with_umask<T>(mask: u32, act: impl FnOnce() -> T) -> T {
    let mask = nix::sys::stat::Mode::from_bits_truncate(mask);
    let before = nix::sys::stat::umask(mask);
    let done = act();
    nix::sys::stat::umask(before);
    done
}

/// What this host calls a user; its number when it has no name.
pub fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// Raises the limit of open files to what the host allows; gives it.
///
/// # Errors
/// When the host does not say or does not let.
pub fn raise_file_limit() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Keeps what this process holds in memory out of core dumps and away from its equals.
///
/// # Errors
/// When the host does not let.
pub fn forbid_core_dumps() -> std::io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

/// The number of a group of this host.
pub fn group(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw())
}
