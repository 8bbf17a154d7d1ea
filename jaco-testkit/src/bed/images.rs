//! The images of a bed: what they do, and how they get into a registry or an engine.
//!
//! All are made of one static busybox and a start script. They end at once on SIGTERM, so
//! that a rollout in a test does not wait for the engine's grace period; `stubborn` is the
//! one that does not.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::engine::Engine;
use super::layout::CACHE;
use super::namespace::stderr_of;

/// One image: a name with a tag, its start script, and further `docker import` changes.
struct Image {
    name: &'static str,
    script: &'static str,
    changes: &'static [&'static str],
}

/// Version 1 of a web server; see [`names`].
pub const WEB_1: &str = "web:1";
/// Version 2 of the same.
pub const WEB_2: &str = "web:2";

/// The names of all images.
///
/// - `web:1`, `web:2`: HTTP on `$PORT` (80) after `$START_DELAY` (0) seconds. `/` says `web
///   <version> <hostname>`; `/health` says `ok` while `/www/health` exists;
///   `/cgi-bin/hostname` prints the hostname, `/cgi-bin/env` the request's variables,
///   `/cgi-bin/slow?N` answers after N seconds. SIGTERM closes the port, lets requests in
///   flight finish and ends.
/// - `web:broken`: ends with status 1 at once.
/// - `tcp-echo:1`: echoes on `$PORT` (7). `tcp-name:1`: says its hostname and closes.
/// - `job:1`: prints `job <arguments>`, takes `$SECONDS_LONG` (0), ends with `$EXIT` (0).
/// - `sleep:1`: does nothing until SIGTERM. `stubborn:1`: ignores SIGTERM.
pub fn names() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|image| image.name)
}

const WEB: &str = r#"
sleep "${START_DELAY:-0}"
echo "web $VERSION $(hostname)" > /www/index.html
httpd -f -p "${PORT:-80}" -h /www &
server=$!
trap 'kill $server; while pidof httpd >/dev/null; do usleep 20000; done; exit 0' TERM INT
wait $server
"#;

const TCP: &str = r#"
nc -ll -p "${PORT:-7}" -e "$SERVE" &
server=$!
trap 'kill $server; exit 0' TERM INT
wait $server
"#;

const IMAGES: &[Image] = &[
    Image {
        name: WEB_1,
        script: WEB,
        changes: &["ENV VERSION=1", "EXPOSE 80"],
    },
    Image {
        name: WEB_2,
        script: WEB,
        changes: &["ENV VERSION=2", "EXPOSE 80"],
    },
    Image {
        name: "web:broken",
        script: "echo 'cannot start' >&2; exit 1",
        changes: &[],
    },
    Image {
        name: "tcp-echo:1",
        script: TCP,
        changes: &["ENV SERVE=/bin/cat", "EXPOSE 7"],
    },
    Image {
        name: "tcp-name:1",
        script: TCP,
        changes: &["ENV SERVE=/bin/hostname", "EXPOSE 7"],
    },
    Image {
        name: "job:1",
        script: "echo \"job $*\"; sleep \"${SECONDS_LONG:-0}\"; exit \"${EXIT:-0}\"",
        changes: &["ENTRYPOINT [\"/bin/sh\",\"/start\"]", "CMD []"],
    },
    Image {
        name: "sleep:1",
        script: "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done",
        changes: &[],
    },
    Image {
        name: "stubborn:1",
        script: "trap '' TERM INT; while :; do sleep 3600; done",
        changes: &[],
    },
];

const CGI: &[(&str, &str)] = &[
    ("hostname", "hostname"),
    ("env", "env | sort"),
    ("slow", "sleep \"${QUERY_STRING:-1}\"; hostname"),
];

const BUSYBOX: &str = "/usr/bin/busybox";

/// The stored images of this machine, or the place where they will be.
///
/// Holds `registry/` (a registry's storage) and one archive for each image. The folder's
/// name changes with the definitions above and with busybox, so it is never stale.
pub(super) fn cache() -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    for image in IMAGES {
        (image.name, image.script, image.changes).hash(&mut hasher);
    }
    CGI.hash(&mut hasher);
    let busybox = fs::metadata(BUSYBOX).context("there is no busybox (busybox-static)")?;
    busybox.len().hash(&mut hasher);
    Ok(Path::new(CACHE).join(format!("images-{:016x}", hasher.finish())))
}

/// Makes all images with `engine`, pushes them to `registry`, and fills the cache with
/// archives and a copy of `storage`, the registry's folder. Leaves no image in the engine.
pub(super) fn build(engine: &Engine, registry: &str, storage: &Path) -> Result<()> {
    let cache = cache()?;
    fs::create_dir_all(CACHE)?;
    let staged = cache.with_extension("new");
    remove_if_there(&staged)?;
    fs::create_dir_all(&staged)?;
    for image in IMAGES {
        build_one(engine, registry, image, &staged)
            .with_context(|| format!("cannot build image {}", image.name))?;
    }
    copy_tree(storage, &staged.join("registry"))?;
    remove_if_there(&cache)?;
    fs::rename(&staged, &cache)?;
    Ok(())
}

/// Puts an image from the cache into an engine, without a registry, under its short name and
/// under the name that it has in `registry`.
pub(super) fn load(engine: &Engine, registry: &str, name: &str) -> Result<()> {
    let archive = cache()?.join(archive_name(name));
    ensure!(archive.exists(), "there is no image {name}");
    engine.docker_text(&["load", "--input", &archive.to_string_lossy()])?;
    engine.docker_text(&["tag", name, &format!("{registry}/{name}")])?;
    Ok(())
}

/// Copies a folder with all attributes.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output()?;
    ensure!(output.status.success(), "cp: {}", stderr_of(&output));
    Ok(())
}

fn build_one(engine: &Engine, registry: &str, image: &Image, staged: &Path) -> Result<()> {
    let root = staged.join("root");
    remove_if_there(&root)?;
    write_root(&root, image.script)?;
    let tree = staged.join("root.tar");
    let tar = Command::new("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf"])
        .arg(&tree)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .output()?;
    ensure!(tar.status.success(), "tar: {}", stderr_of(&tar));

    let path = "ENV PATH=/bin".to_owned();
    let start = "CMD [\"/bin/sh\",\"/start\"]".to_owned();
    let mut arguments = vec!["import", "--change", &path, "--change", &start];
    for change in image.changes {
        arguments.extend(["--change", change]);
    }
    let tree = tree.to_string_lossy();
    let remote = format!("{registry}/{}", image.name);
    arguments.extend([tree.as_ref(), image.name]);
    engine.docker_text(&arguments)?;
    engine.docker_text(&["tag", image.name, &remote])?;
    engine.docker_text(&["push", "--quiet", &remote])?;
    let archive = staged.join(archive_name(image.name));
    engine.docker_text(&["save", "--output", &archive.to_string_lossy(), image.name])?;
    engine.docker_text(&["rmi", image.name, &remote])?;
    fs::remove_dir_all(&root)?;
    fs::remove_file(tree.as_ref())?;
    Ok(())
}

fn write_root(root: &Path, script: &str) -> Result<()> {
    for folder in ["bin", "etc", "tmp", "www/cgi-bin", "data"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(BUSYBOX, root.join("bin/busybox"))?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?;
    for applet in String::from_utf8(applets.stdout)?
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n")?;
    fs::write(root.join("www/health"), "ok\n")?;
    for (name, body) in CGI {
        let head = "printf 'Content-Type: text/plain\\r\\n\\r\\n'";
        let script = format!("#!/bin/sh\n{head}\n{body}\n");
        write_executable(&root.join("www/cgi-bin").join(name), &script)?;
    }
    write_executable(
        &root.join("start"),
        &format!("#!/bin/sh\n{}\n", script.trim()),
    )
}

fn write_executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn archive_name(name: &str) -> String {
    format!("{}.tar", name.replace(':', "-"))
}

fn remove_if_there(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
