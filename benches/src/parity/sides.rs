//! One topic brought up by docker-compose on one host and by JACO on another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use jaco_core::manifest::KeyClass;
use jaco_core::manifest::output::ValidateOutput;
use jaco_testkit::bed::Host;
use serde_json::Value;

use super::inspect::{Facts, facts};

/// The profile that both sides switch on.
const PROFILE: &str = "parity";

/// The folder of one compose file, copied to where it is filled in.
#[derive(Debug)]
pub struct Topic {
    name: String,
    folder: tempfile::TempDir,
}

/// The folders of this package's `parity/`, in order of name.
///
/// # Errors
/// When the folder cannot be read.
pub fn topics() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("parity");
    let entries = fs::read_dir(&root).with_context(|| format!("read {}", root.display()))?;
    let mut folders = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    folders.sort();
    Ok(folders)
}

impl Topic {
    /// Copies a topic and writes its variables: `IMAGE`, and `WORK`, a folder to mount.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn new(source: &Path, image: &str, work: &Path) -> Result<Self> {
        let name = source.file_name().context("a topic has a name")?;
        let folder = tempfile::tempdir()?;
        copy(source, folder.path())?;
        let variables = format!("IMAGE={image}\nWORK={}\n", work.display());
        fs::write(folder.path().join(".env"), variables)?;
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            folder,
        })
    }

    /// The folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The honoured keys that the file uses: `image`, `deploy.mode`, `volumes:` for top level.
    ///
    /// # Errors
    /// When `jaco validate` finds anything.
    pub fn keys(&self, host: &Host) -> Result<BTreeSet<String>> {
        let answer = host.jaco_json(&[
            "validate",
            "--jaco",
            &self.jaco_yaml(),
            "--profile",
            PROFILE,
        ])?;
        let output: ValidateOutput = serde_json::from_value(answer)?;
        let honoured = output
            .keys
            .iter()
            .filter(|used| used.class == KeyClass::Honoured);
        Ok(honoured.map(|used| short(&used.path)).collect())
    }

    /// Brings the file up with docker-compose; facts by service.
    ///
    /// # Errors
    /// With what docker-compose or the engine said.
    pub fn theirs(&self, host: &Host) -> Result<BTreeMap<String, Facts>> {
        self.compose(host, &["up", "--detach", "--quiet-pull"])?;
        let seen = seen(host, "com.docker.compose.service");
        self.compose(host, &["down", "--volumes", "--timeout", "1"])?;
        seen
    }

    /// Brings the file up with JACO; facts by service.
    ///
    /// # Errors
    /// With what `jaco` or the engine said.
    pub fn ours(&self, host: &Host) -> Result<BTreeMap<String, Facts>> {
        host.jaco_text(&["apply", &self.jaco_yaml(), "--wait", "--profile", PROFILE])?;
        let seen = seen(host, "jaco.service");
        host.jaco_text(&["delete", &self.project()])?;
        seen
    }

    fn project(&self) -> String {
        format!("parity-{}", self.name)
    }

    fn jaco_yaml(&self) -> String {
        self.folder.path().join("jaco.yaml").display().to_string()
    }

    fn compose(&self, host: &Host, words: &[&str]) -> Result<()> {
        let mut command = Command::new("docker-compose");
        command
            .current_dir(self.folder.path())
            .args(["--ansi", "never", "--project-name", &self.project()])
            .args(["--profile", PROFILE])
            .args(words);
        let output = host.run(&mut command)?;
        ensure!(
            output.status.success(),
            "docker-compose {words:?} of {}: {}{}",
            self.name,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// The facts of every container that has the label, by its value.
fn seen(host: &Host, label: &str) -> Result<BTreeMap<String, Facts>> {
    let filter = format!("label={label}");
    let ids = host.docker_text(&["ps", "--all", "--quiet", "--filter", &filter])?;
    let mut services = BTreeMap::new();
    for id in ids.lines() {
        let text = host.docker_text(&["inspect", id])?;
        let inspected: Value = serde_json::from_str(&text)?;
        let inspected = &inspected[0];
        let service = inspected["Config"]["Labels"][label]
            .as_str()
            .unwrap_or_default();
        ensure!(
            inspected["State"]["Running"] == true,
            "{service} does not run: {}",
            inspected["State"]
        );
        let mut facts = facts(inspected);
        look_inside(host, id, &mut facts)?;
        ensure!(
            services.insert(service.to_owned(), facts).is_none(),
            "{service} has two containers"
        );
    }
    Ok(services)
}

/// What inspection does not tell: options of memory mounts, and files with owner and mode.
fn look_inside(host: &Host, id: &str, facts: &mut Facts) -> Result<()> {
    const MEMORY: &str = "grep -E '^tmpfs /(memory|scratch|plain|one) ' /proc/mounts || true";
    const FILES: &str = "for d in /run/secrets /motd /tree; do [ -e $d ] && find $d -type f \
                         -exec stat -c '%n %a %u %g' {} ';' -exec cat {} ';'; done; true";
    let memory = host.docker_text(&["exec", "--user", "0", id, "sh", "-c", MEMORY])?;
    for line in memory.lines() {
        let mut words = line.split(' ').skip(1);
        let target = words.next().unwrap_or_default();
        let mut options: Vec<&str> = words.nth(1).unwrap_or_default().split(',').collect();
        options.sort_unstable();
        facts.insert(format!("Inside.{target}"), options.join(","));
    }
    let files = host.docker_text(&["exec", "--user", "0", id, "sh", "-c", FILES])?;
    for line in files.lines().collect::<Vec<_>>().chunks_exact(2) {
        let (path, owner) = line[0].split_once(' ').unwrap_or((line[0], ""));
        facts.insert(format!("Inside.{path}.mode"), owner.to_owned());
        facts.insert(format!("Inside.{path}.content"), line[1].to_owned());
    }
    Ok(())
}

/// `services.web.deploy.mode` → `deploy.mode`; top-level keys get a colon.
fn short(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts[..] {
        ["services", _, ref key @ ..] => key.join("."),
        _ => format!("{path}:"),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
