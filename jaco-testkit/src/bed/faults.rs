//! Network faults between hosts, made in the switch.
//!
//! All faults of a bed are one nftables table, rewritten as a whole on every change, so that
//! the rules in force are always exactly the blocked pairs.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;

use super::namespace::Namespace;

/// The directed pairs of switch ports between which nothing passes.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    pairs: BTreeSet<(String, String)>,
}

impl Blocked {
    /// Blocks frames from one port to another, ARP included.
    pub(super) fn add(&mut self, from: String, to: String) {
        self.pairs.insert((from, to));
    }

    /// Forgets all pairs.
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Puts the pairs in force in the switch.
    pub(super) fn enforce(&self, switch: &Namespace) -> Result<()> {
        switch.nft(&self.script())
    }

    fn script(&self) -> String {
        // The first line makes the second valid when there is no table yet.
        let mut script = "table bridge faults\ndelete table bridge faults\n".to_owned();
        if self.pairs.is_empty() {
            return script;
        }
        script.push_str("table bridge faults {\n chain forward {\n");
        script.push_str("  type filter hook forward priority 0\n");
        for (from, to) in &self.pairs {
            writeln!(script, "  iifname \"{from}\" oifname \"{to}\" drop")
                .expect("writing to a string cannot fail");
        }
        script.push_str(" }\n}\n");
        script
    }
}
