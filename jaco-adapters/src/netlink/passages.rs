//! Accepting rules ahead of the engine's own, in the chains that it leaves to others.
//!
//! Newer engines drop in the raw table what does not come from a container's own bridge, so
//! what the mesh brings is accepted there too.

use std::process::Stdio;

use jaco_core::node::mesh::{INTERFACE, Passage};
use jaco_core::ports::HostError;
use tokio::process::Command;

/// Marks our rules, for people and for the check.
const COMMENT: &str = "jaco";

/// Puts each rule in place unless it is there. A chain of the engine's that is not there yet is
/// an error; the next look tries again.
pub(super) async fn ensure(passages: &[Passage]) -> Result<(), HostError> {
    let raw = passages.iter().map(|passage| {
        let mut rule = words(&["raw", "PREROUTING", "-i", INTERFACE]);
        rule.extend(ends(passage));
        rule
    });
    let filter = passages.iter().map(|passage| {
        let mut rule = words(&["filter", "DOCKER-USER"]);
        rule.extend(ends(passage));
        rule
    });
    for rule in raw.chain(filter) {
        let [table, chain, matches @ ..] = &rule[..] else {
            continue;
        };
        if iptables(table, &["-C", chain], matches).await.is_err() {
            iptables(table, &["-I", chain, "1"], matches).await?;
        }
    }
    Ok(())
}

fn ends(passage: &Passage) -> Vec<String> {
    let (from, to) = (passage.from.as_str(), passage.to.as_str());
    let comment = ["-m", "comment", "--comment", COMMENT];
    words(&[&["-s", from, "-d", to], &comment[..], &["-j", "ACCEPT"]].concat())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn iptables(table: &str, verb: &[&str], rule: &[String]) -> Result<(), HostError> {
    let output = Command::new("iptables")
        .args(["-w", "5", "-t", table])
        .args(verb)
        .args(rule)
        .env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        )
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| HostError::Unavailable(format!("iptables: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = complaint.lines().next().unwrap_or("no reason given");
    Err(HostError::Failed(line.trim().to_owned()))
}
