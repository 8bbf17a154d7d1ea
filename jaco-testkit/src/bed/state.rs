//! The file that tells a later program about a bed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// What `state.json` in the bed's directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Name, addresses, size.
    #[serde(flatten)]
    pub layout: Layout,
    /// Extra arguments of every engine.
    pub engine_flags: Vec<String>,
    /// Where `jaco` and `jacod` are, unless `$JACO_BIN_DIR` or cargo's folders say it.
    pub binaries: Option<PathBuf>,
    /// True once the bed is to outlive the program that made it.
    pub kept: bool,
}

impl State {
    /// Reads the state of the bed called `name`.
    pub fn load(name: &str) -> Result<Self> {
        let path = Layout::directory_of(name).join("state.json");
        let text = fs::read(&path).with_context(|| format!("there is no bed {name:?}"))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes the state; the bed's directory must exist.
    pub fn save(&self) -> Result<()> {
        let path = self.layout.state_file();
        let staged = path.with_extension("new");
        fs::write(&staged, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&staged, &path)?;
        Ok(())
    }
}
