//! A project folder for tests: `jaco.yaml` and a compose file that are easy to write again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder with manifests, removed on drop.
#[derive(Debug)]
pub struct Project {
    dir: PathBuf,
}

impl Project {
    /// Makes an empty folder below the system's temporary one.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("jaco-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Writes a file of the project.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<&Self> {
        fs::write(self.dir.join(name), text).with_context(|| format!("write {name}"))?;
        Ok(self)
    }

    /// The path of a file, for a command line.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
