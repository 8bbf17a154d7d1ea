//! Every key of a container, and where the engine gets it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jaco_core::id::ReplicaId;
use jaco_core::manifest::spec::{
    BindSource, FileEntry, FileKind, FileTree, Hook, Mount, MountSource, VolumeSpec,
};
use serde_json::{Value, json};

use super::*;
use crate::docker::engine::ApiVersion;
use crate::docker::mounts::mounts;

const OLD: ApiVersion = ApiVersion(1, 41);
const NEW: ApiVersion = ApiVersion(1, 48);

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    pairs.map(owned).into()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn request(spec: ContainerSpec) -> ContainerRequest {
    let volume = VolumeSpec {
        engine_name: "jaco_shop_data".to_owned(),
        ..VolumeSpec::default()
    };
    ContainerRequest {
        granted: Default::default(),
        name: ReplicaId::from("shop-web-1"),
        labels: pairs([("jaco.service", "web"), ("tier", "front")]),
        spec,
        network: ContainerNetwork::None,
        volumes: [("data".to_owned(), volume)].into(),
        contents: BTreeMap::new(),
    }
}

fn converted(request: &ContainerRequest, version: ApiVersion) -> Result<Value, RuntimeError> {
    let trees = BTreeMap::from([(0, PathBuf::from("/run/files/0"))]);
    let body = create_body(request, mounts(request, &trees, version)?)?;
    Ok(serde_json::to_value(body).unwrap())
}

/// Asserts that all of `part` is in `whole`.
fn assert_contains(whole: &Value, part: &Value, path: &str) {
    match part {
        Value::Object(part) => {
            for (key, value) in part {
                assert_contains(&whole[key], value, &format!("{path}.{key}"));
            }
        }
        part => assert_eq!(whole, part, "{path}"),
    }
}

#[track_caller]
fn check(spec: ContainerSpec, expected: &Value) {
    let body = converted(&request(spec), OLD).unwrap();
    assert_contains(&body, expected, "");
}

#[test]
fn an_empty_spec_leaves_everything_to_the_image_and_the_engine() {
    let spec = ContainerSpec {
        image: "web:1".to_owned(),
        ..ContainerSpec::default()
    };
    let expected = json!({
        "Image": "web:1",
        "Env": [],
        "Labels": {"jaco.service": "web", "tier": "front"},
        "Tty": false,
        "OpenStdin": false,
        "HostConfig": {
            "NetworkMode": "none",
            "Privileged": false,
            "ReadonlyRootfs": false,
            "RestartPolicy": {"Name": "no"},
        },
    });
    let body = converted(&request(spec), OLD).unwrap();
    assert_eq!(body, expected);
}

#[test]
fn process_keys_are_converted() {
    let spec = ContainerSpec {
        image: "web:1".to_owned(),
        command: Some(texts(["serve", "--fast"])),
        entrypoint: Some(Vec::new()),
        environment: pairs([("A", "1"), ("EMPTY", "")]),
        user: text("app:app"),
        working_dir: text("/srv"),
        tty: true,
        stdin_open: true,
        hostname: text("h"),
        domainname: text("example.org"),
        stop_signal: text("SIGQUIT"),
        stop_grace_period: Some(Duration::from_millis(1500)),
        ..ContainerSpec::default()
    };
    let expected = json!({
        "Cmd": ["serve", "--fast"],
        "Entrypoint": [],
        "Env": ["A=1", "EMPTY="],
        "User": "app:app",
        "WorkingDir": "/srv",
        "Tty": true,
        "OpenStdin": true,
        "Hostname": "h",
        "Domainname": "example.org",
        "StopSignal": "SIGQUIT",
        "StopTimeout": 2,
    });
    check(spec, &expected);
}

#[test]
fn privileges_are_converted() {
    let ulimit = Ulimit {
        soft: 1024,
        hard: -1,
    };
    let spec = ContainerSpec {
        cap_add: texts(["NET_ADMIN"]),
        cap_drop: texts(["ALL"]),
        group_add: texts(["audio"]),
        privileged: true,
        security_opt: texts(["no-new-privileges:true"]),
        read_only: true,
        sysctls: pairs([("net.core.somaxconn", "512")]),
        ulimits: [("nofile".to_owned(), ulimit)].into(),
        devices: vec![Device {
            host: "/dev/null".to_owned(),
            container: "/dev/nothing".to_owned(),
            permissions: "rw".to_owned(),
        }],
        ..ContainerSpec::default()
    };
    let expected = json!({"HostConfig": {
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["ALL"],
        "GroupAdd": ["audio"],
        "Privileged": true,
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": true,
        "Sysctls": {"net.core.somaxconn": "512"},
        "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": -1}],
        "Devices": [{
            "PathOnHost": "/dev/null",
            "PathInContainer": "/dev/nothing",
            "CgroupPermissions": "rw",
        }],
    }});
    check(spec, &expected);
}

#[test]
fn namespaces_and_the_environment_of_the_container_are_converted() {
    let spec = ContainerSpec {
        annotations: pairs([("note", "x")]),
        extra_hosts: texts(["db:10.0.0.9"]),
        dns: texts(["10.244.1.1"]),
        dns_search: texts(["example.org"]),
        dns_opt: texts(["ndots:0"]),
        init: Some(true),
        runtime: text("runc"),
        shm_size: Some(1 << 20),
        ipc: text("shareable"),
        pid: text("host"),
        uts: text("host"),
        userns_mode: text("host"),
        cgroup: text("private"),
        cgroup_parent: text("/jaco"),
        logging: Some(Logging {
            driver: text("json-file"),
            options: pairs([("max-size", "10m")]),
        }),
        ..ContainerSpec::default()
    };
    let expected = json!({"HostConfig": {
        "Annotations": {"note": "x"},
        "ExtraHosts": ["db:10.0.0.9"],
        "Dns": ["10.244.1.1"],
        "DnsSearch": ["example.org"],
        "DnsOptions": ["ndots:0"],
        "Init": true,
        "Runtime": "runc",
        "ShmSize": 1 << 20,
        "IpcMode": "shareable",
        "PidMode": "host",
        "UTSMode": "host",
        "UsernsMode": "host",
        "CgroupnsMode": "private",
        "CgroupParent": "/jaco",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
    }});
    check(spec, &expected);
}

#[test]
fn limits_and_accelerators_are_converted() {
    let gpu = GpuRequest {
        driver: text("nvidia"),
        count: None,
        device_ids: Vec::new(),
        capabilities: Vec::new(),
        options: pairs([("a", "b")]),
    };
    let chosen = GpuRequest {
        device_ids: texts(["0"]),
        capabilities: texts(["gpu", "utility"]),
        ..gpu.clone()
    };
    let spec = ContainerSpec {
        limits: Limits {
            cpu_millis: Some(1500),
            memory_bytes: Some(64 << 20),
            memory_reservation_bytes: Some(32 << 20),
            pids: Some(50),
            cpu_shares: Some(512),
            cpuset: text("0-1"),
        },
        gpus: vec![gpu, chosen],
        ..ContainerSpec::default()
    };
    let expected = json!({"HostConfig": {
        "NanoCpus": 1_500_000_000u64,
        "Memory": 64 << 20,
        "MemoryReservation": 32 << 20,
        "PidsLimit": 50,
        "CpuShares": 512,
        "CpusetCpus": "0-1",
        "DeviceRequests": [
            {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]], "Options": {"a": "b"}},
            {"Driver": "nvidia", "DeviceIDs": ["0"], "Capabilities": [["gpu", "utility"]],
             "Options": {"a": "b"}},
        ],
    }});
    check(spec, &expected);
}

#[test]
fn a_health_check_is_converted_inherited_or_switched_off() {
    let with = |healthcheck| ContainerSpec {
        healthcheck,
        ..ContainerSpec::default()
    };
    let test = |test, interval| Healthcheck::Test {
        test,
        interval,
        timeout: Some(Duration::from_millis(300)),
        start_period: Some(Duration::from_secs(1)),
        retries: Some(4),
    };
    let interval = Some(Duration::from_secs(2));
    let expected = json!({"Healthcheck": {
        "Test": ["CMD", "true"],
        "Interval": 2_000_000_000u64,
        "Timeout": 300_000_000,
        "StartPeriod": 1_000_000_000,
        "Retries": 4,
    }});
    check(
        with(Some(test(texts(["CMD", "true"]), interval))),
        &expected,
    );
    let inherited = json!({"Healthcheck": {"Test": [], "Interval": null, "Retries": 4}});
    check(with(Some(test(Vec::new(), None))), &inherited);
    let off = json!({"Healthcheck": {"Test": ["NONE"]}});
    check(with(Some(Healthcheck::Disabled)), &off);
    check(with(None), &json!({"Healthcheck": null}));
}

#[test]
fn only_the_first_endpoint_is_in_the_create_call() {
    let endpoint = |network: &str, last| Endpoint {
        network: network.to_owned(),
        address: [10, 244, 1, last].into(),
    };
    let mut request = request(ContainerSpec::default());
    request.network = ContainerNetwork::Endpoints(vec![endpoint("front", 2), endpoint("back", 3)]);
    let expected = json!({
        "HostConfig": {"NetworkMode": "front"},
        "NetworkingConfig": {"EndpointsConfig": {"front": {
            "IPAMConfig": {"IPv4Address": "10.244.1.2"},
        }}},
    });
    let body = converted(&request, OLD).unwrap();
    assert_contains(&body, &expected, "");
    let endpoints = body["NetworkingConfig"]["EndpointsConfig"].as_object();
    assert_eq!(endpoints.unwrap().len(), 1);
    request.network = ContainerNetwork::SharedWith("shop-db-1".to_owned());
    let shared = json!({
        "HostConfig": {"NetworkMode": "container:shop-db-1"},
        "NetworkingConfig": null,
    });
    assert_contains(&converted(&request, OLD).unwrap(), &shared, "");
}

fn mount(target: &str, source: MountSource, read_only: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        source,
        read_only,
    }
}

fn bind(path: &str, create_host_path: bool) -> BindSource {
    BindSource {
        path: path.to_owned(),
        create_host_path,
        propagation: None,
        selinux: None,
    }
}

fn volume(subpath: Option<&str>) -> MountSource {
    MountSource::Volume {
        key: "data".to_owned(),
        nocopy: true,
        subpath: subpath.map(str::to_owned),
    }
}

#[test]
fn mounts_are_told_in_the_form_that_can_say_them() {
    let files = FileTree {
        kind: FileKind::Secret,
        files: vec![FileEntry {
            path: String::new(),
            content: "00".to_owned(),
            mode: 0o444,
            uid: 0,
            gid: 0,
        }],
    };
    let relabelled = BindSource {
        propagation: text("rslave"),
        selinux: text("Z"),
        ..bind("/tmp", false)
    };
    let propagated = BindSource {
        propagation: text("rshared"),
        ..bind("/srv", false)
    };
    let tmpfs = MountSource::Tmpfs {
        size_bytes: Some(1 << 20),
        mode: Some(0o1770),
        options: text("uid=1000"),
    };
    let spec = ContainerSpec {
        mounts: vec![
            mount("/run/secrets/key", MountSource::Files(files), true),
            mount("/data", volume(None), true),
            mount("/cache", MountSource::Anonymous, false),
            mount("/made", MountSource::Bind(bind("/srv/made", true)), false),
            mount("/labelled", MountSource::Bind(relabelled), true),
            mount("/strict", MountSource::Bind(propagated), true),
            mount("/odd", MountSource::Bind(bind("/srv/a:b", true)), false),
            mount("/tmp", tmpfs, true),
        ],
        ..ContainerSpec::default()
    };
    let expected = json!({"HostConfig": {
        "Binds": [
            "/run/files/0:/run/secrets/key:ro,z",
            "/srv/made:/made:rw",
            "/tmp:/labelled:ro,rslave,Z",
        ],
        "Mounts": [
            {"Type": "volume", "Source": "jaco_shop_data", "Target": "/data", "ReadOnly": true,
             "VolumeOptions": {"NoCopy": true}},
            {"Type": "volume", "Target": "/cache", "ReadOnly": false},
            {"Type": "bind", "Source": "/srv", "Target": "/strict", "ReadOnly": true,
             "BindOptions": {"Propagation": "rshared"}},
            {"Type": "bind", "Source": "/srv/a:b", "Target": "/odd", "ReadOnly": false,
             "BindOptions": {"CreateMountpoint": true}},
        ],
        "Tmpfs": {"/tmp": "ro,size=1048576,mode=1770,uid=1000"},
    }});
    check(spec, &expected);
}

#[test]
fn what_an_old_engine_would_ignore_is_refused() {
    let spec = ContainerSpec {
        mounts: vec![mount("/data", volume(Some("part")), false)],
        ..ContainerSpec::default()
    };
    let request = request(spec);
    let refused = converted(&request, OLD).unwrap_err().to_string();
    assert!(refused.contains("1.45"), "{refused}");
    let body = converted(&request, NEW).unwrap();
    let options = &body["HostConfig"]["Mounts"][0]["VolumeOptions"];
    assert_eq!(options["Subpath"], "part");
}

#[test]
fn words_that_the_engine_does_not_have_are_refused() {
    let missing = BindSource {
        selinux: text("z"),
        ..bind("/no/such/folder", false)
    };
    let odd = BindSource {
        propagation: text("sideways"),
        ..bind("/srv", false)
    };
    let with = |source| ContainerSpec {
        mounts: vec![mount("/x", MountSource::Bind(source), false)],
        ..ContainerSpec::default()
    };
    let cgroup = ContainerSpec {
        cgroup: text("elsewhere"),
        ..ContainerSpec::default()
    };
    for (spec, said) in [
        (with(missing), "does not exist: /no/such/folder"),
        (with(odd), "sideways"),
        (cgroup, "elsewhere"),
    ] {
        let refused = converted(&request(spec), NEW).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn hooks_stay_out_of_the_create_call() {
    let hook = Hook {
        command: texts(["true"]),
        user: None,
        privileged: false,
        working_dir: None,
        environment: BTreeMap::new(),
    };
    let spec = ContainerSpec {
        post_start: vec![hook.clone()],
        pre_stop: vec![hook],
        ..ContainerSpec::default()
    };
    let with = converted(&request(spec), OLD).unwrap();
    let without = converted(&request(ContainerSpec::default()), OLD).unwrap();
    assert_eq!(with, without);
}
