//! Forming a cluster of a bed's daemons through the command line, as an operator does.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bed;
use super::host::Host;
use super::poll::poll_ok;

const JOIN: Duration = Duration::from_secs(60);

impl Bed {
    /// Starts `jacod` on every host, all at once.
    pub fn start_daemons(&self) -> Result<()> {
        thread::scope(|scope| {
            let starting: Vec<_> = self
                .hosts()
                .iter()
                .map(|host| scope.spawn(|| host.start_daemon()))
                .collect();
            starting
                .into_iter()
                .try_for_each(|start| start.join().expect("starting does not panic"))
        })
    }

    /// Starts the daemons that do not run, makes a cluster on host 1, joins the others, and
    /// waits until every node sees all of them ready.
    pub fn form_cluster(&self) -> Result<()> {
        for host in self
            .hosts()
            .iter()
            .filter(|host| host.daemon().pid().is_none())
        {
            host.start_daemon()?;
        }
        let first = self.host(1);
        first.jaco_text(&["cluster", "init", "--no-systemd-enable"])?;
        for host in &self.hosts()[1..] {
            join(first, host)?;
        }
        for host in self.hosts() {
            poll_ok(JOIN, "every node is ready", || {
                let status = cluster_status(host)?;
                let ready = ready_nodes(&status);
                ensure!(
                    ready.len() == self.hosts().len(),
                    "{} sees {ready:?} ready in {status}",
                    host.name()
                );
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// `jaco cluster status -o json` of one host.
pub fn cluster_status(host: &Host) -> Result<Value> {
    host.jaco_json(&["cluster", "status"])
}

/// Issues a token on `member` and runs the printed line on `host`.
fn join(member: &Host, host: &Host) -> Result<()> {
    let line = member.jaco_text(&["node", "issue-join-token"])?;
    let words = join_arguments(&line)?;
    host.jaco_text(&words)
        .with_context(|| format!("{} cannot join", host.name()))?;
    Ok(())
}

/// The printed line without the program's name, as arguments.
fn join_arguments(line: &str) -> Result<Vec<&str>> {
    let mut words = line.split_whitespace();
    ensure!(words.next() == Some("jaco"), "not a line to run: {line:?}");
    let words: Vec<&str> = words.collect();
    ensure!(
        words.starts_with(&["node", "join"]),
        "not a line to join with: {line:?}"
    );
    Ok(words)
}

fn ready_nodes(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    nodes
        .iter()
        .filter(|node| node["status"] == "ready")
        .filter_map(|node| node["hostname"].as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_join_line_is_taken_apart() {
        let words = join_arguments("jaco node join --peer 10.99.0.1:7000 --token 0a\n").unwrap();
        assert_eq!(
            words,
            ["node", "join", "--peer", "10.99.0.1:7000", "--token", "0a"]
        );
        assert!(join_arguments("rm -rf /").is_err());
    }

    #[test]
    fn only_ready_nodes_count() {
        let status = json!({"nodes": [
            {"hostname": "node-1", "status": "ready"},
            {"hostname": "node-2", "status": "unreachable"},
        ]});
        assert_eq!(ready_nodes(&status), ["node-1"]);
        assert!(ready_nodes(&json!({})).is_empty());
    }
}
