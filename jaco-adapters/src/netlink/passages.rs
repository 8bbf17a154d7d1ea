//! Accepting rules ahead of the engine's own, in the chains that it leaves to others.
//!
//! Newer engines drop in the raw table what does not come from a container's own bridge, so
//! what the mesh brings is accepted there too.

use std::collections::BTreeSet;
use std::process::Stdio;

use jaco_core::node::mesh::{INTERFACE, Passage};
use jaco_core::ports::HostError;
use tokio::process::Command;

/// Marks our rules, for people and for the check.
const COMMENT: &str = "jaco";

/// The chains that our rules stand in.
const CHAINS: [[&str; 2]; 2] = [["raw", "PREROUTING"], ["filter", "DOCKER-USER"]];

/// Puts each rule in place unless it is there, and takes out rules of ours that are not among
/// them. A chain of the engine's that is not there yet is an error; the next look tries again.
///
/// Each rule is bound to the mesh's interface: an address alone opens nothing.
pub(super) async fn ensure(passages: &[Passage]) -> Result<(), HostError> {
    for [table, chain] in CHAINS {
        let ways: &[&str] = match chain {
            "PREROUTING" => &["-i"],
            _ => &["-i", "-o"],
        };
        let wanted = passages.iter().flat_map(|passage| {
            ways.iter().map(move |way| {
                let mut rule = words(&[way, INTERFACE]);
                rule.extend(ends(passage));
                rule
            })
        });
        let mut wanted: Vec<Vec<String>> = wanted.collect();
        if chain == "DOCKER-USER" {
            let pools: BTreeSet<&str> = passages.iter().map(|it| it.to.as_str()).collect();
            wanted.extend(pools.into_iter().map(closed));
        }
        let found = ours(table, chain).await?;
        let is_in = |rule: &[String], rules: &[Vec<String>]| {
            rules.iter().any(|other| sorted(other) == sorted(rule))
        };
        for stale in found.iter().filter(|rule| !is_in(rule, &wanted)) {
            iptables(table, &["-D", chain], stale).await?;
        }
        for missing in wanted.iter().filter(|rule| !is_in(rule, &found)) {
            iptables(table, &["-I", chain, "1"], missing).await?;
        }
    }
    Ok(())
}

/// The rules of ours that stand in a chain.
async fn ours(table: &str, chain: &str) -> Result<Vec<Vec<String>>, HostError> {
    let listing = iptables(table, &["-S", chain], &[]).await?;
    let marked = listing.lines().filter_map(|line| {
        let rule: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let is_ours = rule.windows(2).any(|pair| pair == ["--comment", COMMENT]);
        // `-A <chain>` comes first.
        is_ours.then(|| rule.get(2..).unwrap_or_default().to_vec())
    });
    Ok(marked.collect())
}

/// A listing has the words of a rule in an order of its own.
fn sorted(rule: &[String]) -> Vec<&str> {
    let mut words: Vec<&str> = rule.iter().map(String::as_str).collect();
    words.sort_unstable();
    words
}

/// Nothing but replies comes into a container network from outside, also while the table is missing
/// that says so and the engine leaves the chain's policy at accept.
fn closed(pool: &str) -> Vec<String> {
    let from = ["!", "-i", "jaco-+", "-d", pool];
    // In the order in which a listing has them.
    let no_reply = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED"];
    let rest = ["-m", "comment", "--comment", COMMENT, "-j", "DROP"];
    words(&[&from[..], &no_reply, &rest].concat())
}

fn ends(passage: &Passage) -> Vec<String> {
    let (from, to) = (passage.from.as_str(), passage.to.as_str());
    let comment = ["-m", "comment", "--comment", COMMENT];
    words(&[&["-s", from, "-d", to], &comment[..], &["-j", "ACCEPT"]].concat())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

async fn iptables(table: &str, verb: &[&str], rule: &[String]) -> Result<String, HostError> {
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
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let line = complaint.lines().next().unwrap_or("no reason given");
    Err(HostError::Failed(line.trim().to_owned()))
}
