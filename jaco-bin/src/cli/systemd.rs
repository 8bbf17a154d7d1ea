//! Making the daemon start with the host, once it is a member (spec 04, Init).

use std::path::Path;
use std::process::Command;

use super::Context;

/// There only where systemd is the init system.
const RUNNING: &str = "/run/systemd/system";
const UNIT: &str = "jaco.service";
const UNIT_DIRS: [&str; 3] = [
    "/etc/systemd/system",
    "/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// Enables the unit where there is one. A failure is told and harms nothing else.
pub(super) fn enable(context: &Context, skip: bool) {
    let installed = || {
        UNIT_DIRS
            .iter()
            .any(|dir| Path::new(dir).join(UNIT).exists())
    };
    if skip || !Path::new(RUNNING).exists() || !installed() {
        return;
    }
    let enabled = Command::new("systemctl").args(["enable", UNIT]).status();
    if !enabled.is_ok_and(|status| status.success()) {
        context
            .printer
            .note("could not enable jaco.service: it will not start with the host");
    }
}
