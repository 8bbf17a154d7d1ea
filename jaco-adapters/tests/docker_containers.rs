//! What a container of the Docker adapter finds inside, on a real engine. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "steps of tests stand in functions of their own"
)]

mod docker;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use docker::{Fixture, seconds};
use jaco_core::manifest::spec::{
    BindSource, ContainerSpec, Content, FileEntry, FileKind, FileTree, Healthcheck, Limits, Mount,
    MountSource, Ulimit, VolumeSpec,
};
use jaco_core::node::bridges::CLUSTER_LABEL;
use jaco_core::ports::container_runtime::{
    ContainerNetwork, ContainerRequest, Endpoint, HealthStatus,
};
use jaco_core::ports::{BridgeNetworks, ContainerRuntime};
use jaco_testkit::bed::poll_until;
use jaco_testkit::contract::bridge_networks::{self, bridge};
use jaco_testkit::contract::container_runtime::request;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_finds_inside_what_was_asked_for() {
    let fixture = Fixture::new("inside");
    files_have_their_content_mode_and_owner(&fixture).await;
    every_kind_of_mount_is_there(&fixture).await;
    endpoints_have_their_fixed_addresses(&fixture).await;
    the_process_gets_its_limits(&fixture).await;
    health_is_seen(&fixture, Some(check("true")), Some(HealthStatus::Healthy)).await;
    health_is_seen(
        &fixture,
        Some(check("false")),
        Some(HealthStatus::Unhealthy),
    )
    .await;
    health_is_seen(&fixture, Some(Healthcheck::Disabled), None).await;
    nothing_is_left(&fixture);
}

async fn files_have_their_content_mode_and_owner(fixture: &Fixture) {
    let mut request = request(&fixture.world(), "files", &fixture.running());
    let secret = [file("", "key", 0o400, 1000)];
    let tree = [
        file("a.conf", "a", 0o444, 0),
        file("sub/deep/run", "b", 0o755, 0),
    ];
    request.spec.mounts = vec![
        files("/run/secrets/key", FileKind::Secret, &secret),
        files("/etc/app", FileKind::Bind, &tree),
    ];
    for (key, text) in [
        ("key", "s3cret"),
        ("a", "alpha"),
        ("b", "#!/bin/sh\necho ran\n"),
    ] {
        let bytes = text.as_bytes().to_vec();
        request.contents.insert(key.to_owned(), Content { bytes });
    }
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let id = runtime.start(&request).await.unwrap();
    let script = "stat -c '%a %u %n' /run/secrets/key /etc/app/*; cat /run/secrets/key; echo; \
                  cat /etc/app/a.conf; echo; /etc/app/sub/deep/run";
    let expected = "400 1000 /run/secrets/key\n444 0 /etc/app/a.conf\n755 0 /etc/app/sub\n\
                    s3cret\nalpha\nran";
    assert_eq!(fixture.exec("files", script), expected);
    let read_only = fixture.exec("files", "echo x > /etc/app/new || echo refused");
    assert!(read_only.ends_with("refused"), "{read_only}");
    assert_eq!(fixture.laid_out(), ["files"]);
    let folder = std::fs::metadata(fixture.files.path().join("files")).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);

    // A refused start does not take the files of the container that runs.
    let mut other = request.clone();
    other.labels.insert("jaco.generation".into(), "2".into());
    let refused = runtime.start(&other).await.unwrap_err().to_string();
    assert!(refused.contains("in use"), "{refused}");
    assert_eq!(fixture.exec("files", "cat /run/secrets/key"), "s3cret");
    assert_eq!(fixture.laid_out(), ["files"]);
    runtime.remove(&id).await.unwrap();
    assert!(fixture.laid_out().is_empty());

    request.spec.mounts = vec![files(
        "/x",
        FileKind::Bind,
        &[file("../out", "a", 0o444, 0)],
    )];
    let refused = runtime.start(&request).await.unwrap_err().to_string();
    assert!(refused.contains("leaves its folder"), "{refused}");
    assert!(fixture.laid_out().is_empty());
}

async fn every_kind_of_mount_is_there(fixture: &Fixture) {
    let mut request = request(&fixture.world(), "mounts", &fixture.running());
    let labels = [
        (CLUSTER_LABEL, fixture.cluster.as_str()),
        ("jaco.deployment", "shop"),
        ("jaco.volume_key", "data"),
    ];
    let volume = VolumeSpec {
        engine_name: "jaco_shop_data".to_owned(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..VolumeSpec::default()
    };
    request.volumes.insert("data".to_owned(), volume);
    let made = fixture.host_dir("srv").join("made/here");
    let bind = BindSource {
        path: made.to_string_lossy().into_owned(),
        create_host_path: true,
        propagation: Some("rprivate".to_owned()),
        selinux: Some("z".to_owned()),
    };
    let named = MountSource::Volume {
        key: "data".to_owned(),
        nocopy: true,
        subpath: None,
    };
    let tmpfs = MountSource::Tmpfs {
        size_bytes: Some(1 << 20),
        mode: Some(0o1770),
        options: Some("uid=1000".to_owned()),
    };
    request.spec.mounts = vec![
        mount("/named", named),
        mount("/unnamed", MountSource::Anonymous),
        mount("/bound", MountSource::Bind(bind)),
        mount("/memory", tmpfs),
    ];
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let id = runtime.start(&request).await.unwrap();
    let written = "for folder in named unnamed bound memory; do echo $folder > /$folder/f; done; \
                   stat -c '%a %u' /memory; df -k /memory | tail -n 1 | tr -s ' ' | cut -d' ' -f2";
    assert_eq!(fixture.exec("mounts", written), "1770 1000\n1024");
    assert_eq!(std::fs::read_to_string(made.join("f")).unwrap(), "bound\n");
    runtime.remove(&id).await.unwrap();
    let volumes = fixture
        .bed
        .host(1)
        .docker_text(&["volume", "ls", "--quiet"]);
    assert_eq!(
        volumes.unwrap(),
        "jaco_shop_data",
        "the unnamed one goes, the named one stays"
    );

    // What the named volume holds outlives its containers.
    let id = runtime.start(&request).await.unwrap();
    assert_eq!(fixture.exec("mounts", "cat /named/f"), "named");
    runtime.remove(&id).await.unwrap();

    let missing = BindSource {
        path: "/no/such/folder".to_owned(),
        create_host_path: false,
        propagation: None,
        selinux: None,
    };
    request.spec.mounts = vec![mount("/bound", MountSource::Bind(missing))];
    let refused = runtime.start(&request).await.unwrap_err().to_string();
    assert!(refused.contains("/no/such/folder"), "{refused}");
}

async fn endpoints_have_their_fixed_addresses(fixture: &Fixture) {
    let networks: &dyn BridgeNetworks = &fixture.runtime;
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let world = bridge_networks::World {
        cluster: fixture.cluster.clone(),
        occupy: &|_| (),
        vacate: &|_| (),
    };
    let (front, back) = (bridge(&world, "front", 7), bridge(&world, "back", 8));
    for bridge in [&front, &back] {
        networks.ensure(bridge).await.unwrap();
    }
    let endpoints = |last| {
        let endpoint = |network: &str, third| Endpoint {
            network: network.to_owned(),
            address: [10, 244, third, last].into(),
        };
        let all = vec![
            endpoint(&front.engine_name, 7),
            endpoint(&back.engine_name, 8),
        ];
        ContainerNetwork::Endpoints(all)
    };
    let on_both = |name, last| ContainerRequest {
        network: endpoints(last),
        ..request(&fixture.world(), name, &fixture.running())
    };
    let first = runtime.start(&on_both("net-1", 77)).await.unwrap();
    let second = runtime.start(&on_both("net-2", 78)).await.unwrap();
    let addresses = "ip -o -4 addr show | tr -s ' ' | cut -d' ' -f4 | grep ^10 | sort";
    let expected = "10.244.7.77/24\n10.244.8.77/24";
    assert_eq!(fixture.exec("net-1", addresses), expected);
    fixture.exec(
        "net-1",
        "ping -c 1 -W 5 10.244.7.78 && ping -c 1 -W 5 10.244.8.78",
    );

    // An address that is taken is refused in the engine's words, and is free after the removal.
    let refused = runtime
        .start(&on_both("net-3", 78))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("in use"), "{refused}");
    runtime.remove(&second).await.unwrap();
    let third = runtime.start(&on_both("net-3", 78)).await.unwrap();
    for id in [&first, &third] {
        runtime.remove(id).await.unwrap();
    }
    for bridge in [&front, &back] {
        networks.remove(&bridge.engine_name).await.unwrap();
    }
}

async fn the_process_gets_its_limits(fixture: &Fixture) {
    let limit = Ulimit {
        soft: 123,
        hard: 456,
    };
    let spec = ContainerSpec {
        user: Some("1000:1000".to_owned()),
        working_dir: Some("/tmp".to_owned()),
        group_add: vec!["77".to_owned()],
        hostname: Some("named".to_owned()),
        extra_hosts: vec!["db:10.0.0.9".to_owned()],
        ulimits: [("nofile".to_owned(), limit)].into(),
        cap_drop: vec!["ALL".to_owned()],
        read_only: true,
        limits: Limits {
            cpu_millis: Some(500),
            memory_bytes: Some(64 << 20),
            pids: Some(50),
            ..Limits::default()
        },
        shm_size: Some(1 << 20),
        ..fixture.running()
    };
    fixture.run("limits", spec).await;
    let script = "id -u; id -G; hostname; ulimit -n; pwd; grep -c 10.0.0.9 /etc/hosts; \
                  grep CapEff /proc/self/status | cut -f2; touch /x 2>/dev/null || echo sealed";
    let expected = "1000\n1000 77\nnamed\n123\n/tmp\n1\n0000000000000000\nsealed";
    assert_eq!(fixture.exec("limits", script), expected);
    let config = &fixture.inspect("limits")["HostConfig"];
    assert_eq!(config["NanoCpus"], 500_000_000);
    assert_eq!(
        (&config["Memory"], &config["ShmSize"]),
        (&(64 << 20).into(), &(1 << 20).into())
    );
    assert_eq!(config["RestartPolicy"]["Name"], "no");
    fixture.remove_all().await;
}

async fn health_is_seen(
    fixture: &Fixture,
    healthcheck: Option<Healthcheck>,
    expected: Option<HealthStatus>,
) {
    let spec = ContainerSpec {
        healthcheck,
        ..fixture.running()
    };
    fixture.run("healthy", spec).await;
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let handle = tokio::runtime::Handle::current();
    let health = || {
        let observed = runtime.observe(&fixture.cluster);
        let seen = tokio::task::block_in_place(|| handle.block_on(observed));
        seen.unwrap()[0].health
    };
    poll_until(seconds(30), "the health is known", || health() == expected).unwrap();
    fixture.remove_all().await;
}

fn check(command: &str) -> Healthcheck {
    Healthcheck::Test {
        test: vec!["CMD-SHELL".to_owned(), command.to_owned()],
        interval: Some(Duration::from_millis(200)),
        timeout: Some(seconds(5)),
        start_period: None,
        retries: Some(1),
    }
}

fn nothing_is_left(fixture: &Fixture) {
    assert!(fixture.laid_out().is_empty());
    let containers = fixture.bed.host(1).docker_text(&["ps", "--all", "--quiet"]);
    assert_eq!(containers.unwrap(), "");
}

fn mount(target: &str, source: MountSource) -> Mount {
    Mount {
        target: target.to_owned(),
        source,
        read_only: false,
    }
}

fn files(target: &str, kind: FileKind, files: &[FileEntry]) -> Mount {
    let tree = FileTree {
        kind,
        files: files.to_vec(),
    };
    mount(target, MountSource::Files(tree))
}

fn file(path: &str, content: &str, mode: u32, owner: u32) -> FileEntry {
    FileEntry {
        path: path.to_owned(),
        content: content.to_owned(),
        mode,
        uid: owner,
        gid: owner,
    }
}
