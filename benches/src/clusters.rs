//! JACO and Docker Swarm on one bed: making them, finding leaders, waiting until all is well.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use jaco_testkit::bed::{Bed, Host, cluster_status, poll_ok, poll_until};
use serde_json::Value;

/// How long a cluster may take for anything that is waited for.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Makes a swarm of the bed's engines, all of them managers.
///
/// # Errors
/// When an engine refuses.
pub fn form_swarm(bed: &Bed) -> Result<()> {
    let first = bed.host(1);
    let address = first.address().to_string();
    first.docker_text(&["swarm", "init", "--advertise-addr", &address])?;
    let token = first.docker_text(&["swarm", "join-token", "-q", "manager"])?;
    let peer = format!("{address}:2377");
    for host in &bed.hosts()[1..] {
        host.docker_text(&["swarm", "join", "--token", token.trim(), &peer])?;
    }
    Ok(())
}

/// The host that leads the swarm.
///
/// # Errors
/// When there is none within [`LIMIT`].
pub fn swarm_leader(bed: &Bed) -> Result<&Host> {
    let format = "{{.ManagerStatus.Leader}}";
    poll_ok(LIMIT, "the swarm has a leader", || {
        let mut hosts = bed.hosts().iter();
        let leads = |host: &&Host| {
            let answer = host.docker_text(&["node", "inspect", "self", "--format", format]);
            answer.is_ok_and(|text| text.trim() == "true")
        };
        hosts.find(leads).context("no manager leads")
    })
}

/// The host that leads the cluster, by the word of those in `witnesses`.
///
/// # Errors
/// When none of them knows it within [`LIMIT`].
pub fn jaco_leader<'a>(bed: &'a Bed, witnesses: &[&Host]) -> Result<&'a Host> {
    poll_ok(LIMIT, "the cluster has a leader", || {
        let statuses = witnesses
            .iter()
            .filter_map(|host| cluster_status(host).ok());
        let mut names = statuses.filter_map(|status| status["leader"].as_str().map(str::to_owned));
        let name = names.next().context("no node knows the leader")?;
        let mut hosts = bed.hosts().iter();
        let leader = hosts.find(|host| host.name() == name);
        leader.context("the leader is no host of the bed")
    })
}

/// All hosts but one.
pub fn others<'a>(bed: &'a Bed, host: &Host) -> Vec<&'a Host> {
    let all = bed.hosts().iter();
    all.filter(|other| other.index() != host.index()).collect()
}

/// Waits until every node of JACO sees all of them ready, as voters.
///
/// # Errors
/// When they are not within [`LIMIT`].
pub fn wait_for_jaco(bed: &Bed) -> Result<()> {
    let ready = |host: &Host| {
        let status = cluster_status(host).unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.len() == bed.hosts().len() && nodes.iter().all(|node| node["status"] == "ready")
    };
    poll_until(LIMIT, "every node of JACO is ready", || {
        bed.hosts().iter().all(ready)
    })?;
    let voters = |host: &Host| {
        let status = cluster_status(host).unwrap_or_default();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        !nodes.is_empty() && nodes.iter().all(|node| node["suffrage"] == "voter")
    };
    poll_until(LIMIT, "every node of JACO is a voter", || {
        bed.hosts().iter().any(voters)
    })
}

/// Waits until every manager of the swarm sees all of them ready.
///
/// # Errors
/// When they are not within [`LIMIT`].
pub fn wait_for_swarm(bed: &Bed) -> Result<()> {
    let ready = |host: &Host| {
        let list = host.docker_text(&["node", "ls", "--format", "{{.Status}} {{.ManagerStatus}}"]);
        let list = list.unwrap_or_default();
        list.lines().count() == bed.hosts().len()
            && list
                .lines()
                .all(|line| line == "Ready Leader" || line == "Ready Reachable")
    };
    poll_until(LIMIT, "every manager of the swarm is ready", || {
        bed.hosts().iter().all(ready)
    })
}

/// Waits until the engines of some hosts list exactly `count` running containers with a label.
///
/// # Errors
/// When they do not within [`LIMIT`].
pub fn wait_for_containers(hosts: &[&Host], label: &str, count: usize) -> Result<()> {
    let counted = || -> Result<usize> { hosts.iter().map(|host| running(host, label)).sum() };
    poll_until(LIMIT, &format!("{count} containers with {label}"), || {
        counted().is_ok_and(|found| found == count)
    })
}

/// How many containers with a label the engine lists as running, asked on its own socket: a
/// command line in between would take longer than what is measured.
///
/// # Errors
/// When the engine does not answer.
pub fn running(host: &Host, label: &str) -> Result<usize> {
    let filters = format!("{{\"label\":[\"{label}\"],\"status\":[\"running\"]}}");
    let encoded: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut socket = UnixStream::connect(host.engine().socket())?;
    write!(
        socket,
        "GET /v1.41/containers/json?filters={encoded} HTTP/1.0\r\nHost: d\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("the engine's answer has no body")?;
    let list: Value = serde_json::from_str(body).context("the engine's answer is no JSON")?;
    Ok(list.as_array().map_or(0, Vec::len))
}
