//! A bed of one host with the adapter on its engine.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by tests, each of which uses its part"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jaco_adapters::docker::DockerRuntime;
use jaco_core::id::ClusterId;
use jaco_core::manifest::spec::{BindSource, ContainerSpec, Hook, Mount, MountSource};
use jaco_core::ports::ContainerRuntime;
use jaco_testkit::bed::Bed;
use jaco_testkit::contract::container_runtime::{World, request};
use serde_json::Value;
use tempfile::TempDir;

/// One engine, one adapter; `sleep:1` and `job:1` are loaded.
pub(crate) struct Fixture {
    pub(crate) bed: Bed,
    pub(crate) runtime: DockerRuntime,
    pub(crate) files: TempDir,
    pub(crate) cluster: ClusterId,
}

impl Fixture {
    pub(crate) fn new(name: &str) -> Self {
        let bed = Bed::builder().name(name).hosts(1).build().unwrap();
        let host = bed.host(1);
        for image in ["sleep:1", "job:1"] {
            host.load_image(image).unwrap();
        }
        let files = tempfile::tempdir().unwrap();
        let socket = format!("unix://{}", host.engine().socket().display());
        let runtime = DockerRuntime::connect(&socket, files.path().to_owned());
        Self {
            bed,
            runtime,
            files,
            cluster: ClusterId::from("6b1e5bd2-contract"),
        }
    }

    pub(crate) fn world(&self) -> World {
        World {
            cluster: self.cluster.clone(),
            running: self.running(),
            ending: ContainerSpec {
                image: self.bed.image("job:1"),
                environment: [("EXIT".to_owned(), "3".to_owned())].into(),
                ..ContainerSpec::default()
            },
            unstartable: ContainerSpec {
                command: Some(vec!["/no/such/program".to_owned()]),
                ..self.running()
            },
            pullable: self.bed.image("web:1"),
            missing: self.bed.image("nothing:9"),
        }
    }

    pub(crate) fn running(&self) -> ContainerSpec {
        ContainerSpec {
            image: self.bed.image("sleep:1"),
            ..ContainerSpec::default()
        }
    }

    pub(crate) fn shell(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            command: Some(shell(script)),
            ..self.running()
        }
    }

    pub(crate) fn hook(&self, script: &str) -> Hook {
        Hook {
            command: shell(script),
            user: None,
            privileged: false,
            working_dir: None,
            environment: [("SAID".to_owned(), "hello".to_owned())].into(),
        }
    }

    pub(crate) fn bind(&self, path: &Path, target: &str) -> Mount {
        Mount {
            target: target.to_owned(),
            source: MountSource::Bind(BindSource {
                path: path.to_string_lossy().into_owned(),
                create_host_path: false,
                propagation: None,
                selinux: None,
            }),
            read_only: false,
        }
    }

    /// A folder of the host.
    pub(crate) fn host_dir(&self, name: &str) -> PathBuf {
        let path = self.bed.host(1).directory().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub(crate) async fn run(&self, name: &str, spec: ContainerSpec) -> String {
        let request = request(&self.world(), name, &spec);
        self.runtime.start(&request).await.unwrap()
    }

    pub(crate) async fn remove_all(&self) {
        let runtime: &dyn ContainerRuntime = &self.runtime;
        for container in runtime.observe(&self.cluster).await.unwrap() {
            runtime.remove(&container.id).await.unwrap();
        }
    }

    /// The replicas that have files on the node.
    pub(crate) fn laid_out(&self) -> Vec<String> {
        names(self.files.path())
    }

    /// What `docker inspect` says of a container.
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let host = self.bed.host(1);
        let text = host.docker_text(&["inspect", name]).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        all[0].clone()
    }

    /// What a command in a container prints.
    pub(crate) fn exec(&self, name: &str, script: &str) -> String {
        let host = self.bed.host(1);
        host.docker_text(&["exec", name, "/bin/sh", "-c", script])
            .unwrap()
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}
