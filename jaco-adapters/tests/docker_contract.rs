//! The Docker adapter against a real engine: the contracts of its ports, and what only a real
//! engine can show. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "steps of tests stand in functions of their own"
)]

mod docker;

use std::process::Command;

use docker::{Fixture, names, seconds};
use jaco_adapters::docker::DockerRuntime;
use jaco_core::id::{ClusterId, ReplicaId};
use jaco_core::manifest::spec::ContainerSpec;
use jaco_core::ports::container_logs::{LogLine, LogOptions};
use jaco_core::ports::container_runtime::ContainerStatus;
use jaco_core::ports::{BridgeNetworks, ContainerLogs, ContainerRuntime, RuntimeError};
use jaco_testkit::bed::poll_until;
use jaco_testkit::contract::{self, container_runtime::request};

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_keeps_the_contracts() {
    let fixture = Fixture::new("contract");
    let world = fixture.world();
    contract::container_runtime::suite(&fixture.runtime, &world).await;

    let host = fixture.bed.host(1);
    let image = fixture.bed.image("sleep:1");
    let world = contract::bridge_networks::World {
        cluster: fixture.cluster.clone(),
        occupy: &|network| {
            let name = format!("--name=on-{network}");
            let network = format!("--network={network}");
            host.docker_text(&["run", "--detach", &name, &network, &image])
                .unwrap();
        },
        vacate: &|network| {
            let name = format!("on-{network}");
            host.docker_text(&["rm", "--force", &name]).unwrap();
        },
    };
    contract::bridge_networks::suite(&fixture.runtime, &world).await;
    logs_keep_the_contract(&fixture).await;
    lines_of_a_terminal_are_clean(&fixture).await;
    assert!(fixture.laid_out().is_empty());
}

async fn logs_keep_the_contract(fixture: &Fixture) {
    let host = fixture.bed.host(1);
    let long = "x".repeat(40_000);
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; usleep 20000; echo error >&2; \
                  usleep 20000; echo; usleep 20000; printf 'no end'";
    fixture.run("logs-ended", fixture.shell(script)).await;
    let waits = fixture.shell("trap 'exit 0' TERM; while :; do usleep 50000; done");
    fixture.run("logs-running", waits).await;
    let written = [
        (false, long.as_str()),
        (true, "error"),
        (false, ""),
        (false, "no end"),
    ];
    assert_eq!(host.docker_text(&["wait", "logs-ended"]).unwrap(), "0");
    let world = contract::container_logs::World {
        ended: ReplicaId::from("logs-ended"),
        written: written
            .map(|(stderr, text)| (stderr, text.to_owned()))
            .to_vec(),
        running: ReplicaId::from("logs-running"),
        write: &|text| {
            let script = format!("echo {text} > /proc/1/fd/1");
            fixture.exec("logs-running", &script);
        },
        absent: ReplicaId::from("logs-absent"),
    };
    contract::container_logs::suite(&fixture.runtime, &world).await;
    fixture.remove_all().await;
}

async fn lines_of_a_terminal_are_clean(fixture: &Fixture) {
    let script = "echo one; head -c 40000 /dev/zero | tr '\\0' x; echo; echo three";
    let spec = ContainerSpec {
        tty: true,
        ..fixture.shell(script)
    };
    fixture.run("logs-tty", spec).await;
    let host = fixture.bed.host(1);
    host.docker_text(&["wait", "logs-tty"]).unwrap();
    let lines = read_log(&fixture.runtime, "logs-tty").await;
    let long = "x".repeat(40_000);
    let texts: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["one", long.as_str(), "three"]);
    assert!(lines.iter().all(|line| line.at.is_some() && !line.stderr));
    fixture.remove_all().await;
}

async fn read_log(logs: &dyn ContainerLogs, replica: &str) -> Vec<LogLine> {
    let replica = ReplicaId::from(replica);
    let mut log = logs.open(&replica, &LogOptions::default()).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = log.next().await {
        lines.push(line.unwrap());
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_hung_engine_fails_calls_in_time_and_is_found_again() {
    let fixture = Fixture::new("outage");
    let host = fixture.bed.host(1);
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let observe = || runtime.observe(&fixture.cluster);
    let id = fixture.run("outage-1", fixture.running()).await;

    let mut events = runtime.watch(&fixture.cluster).await.unwrap();
    host.kill_engine().unwrap();
    let ended = async {
        loop {
            if let broken @ Err(_) = events.changed().await {
                return broken;
            }
        }
    };
    let ended = tokio::time::timeout(seconds(10), ended).await;
    assert!(is_unreachable(&ended.unwrap()));
    assert!(is_unreachable(&observe().await));
    assert!(is_unreachable(&runtime.watch(&fixture.cluster).await));

    host.start_engine().unwrap();
    let seen = observe().await.unwrap();
    assert_eq!((seen.len(), seen[0].id.as_str()), (1, id.as_str()));
    assert_eq!(seen[0].status, ContainerStatus::Exited);

    let pid = host.engine().pid().unwrap().to_string();
    signal("-STOP", &pid);
    // A call that was under way when the signal came may still be answered.
    let refused = async {
        loop {
            if let broken @ Err(_) = observe().await {
                return broken;
            }
        }
    };
    let hung = tokio::time::timeout(seconds(60), refused).await;
    signal("-CONT", &pid);
    assert!(is_unreachable(&hung.expect("the call has a deadline")));
    poll_until(seconds(20), "the engine goes on", || {
        host.engine().answers()
    })
    .unwrap();
    assert_eq!(observe().await.unwrap().len(), 1);
    fixture.remove_all().await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_an_error_of_the_call_and_not_of_the_setup() {
    let files = tempfile::tempdir().unwrap();
    for host in ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1", ""] {
        let runtime = DockerRuntime::connect(host, files.path().to_owned());
        let described = runtime.describe().await;
        assert!(is_unreachable(&described), "{host}: {described:?}");
        let cluster = ClusterId::from("c");
        let networks: &dyn BridgeNetworks = &runtime;
        assert!(is_unreachable(&networks.observe(&cluster).await));
        assert!(is_unreachable(&runtime.watch(&cluster).await));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_after_the_start_and_before_the_stop() {
    let fixture = Fixture::new("hooks");
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let shared = fixture.host_dir("shared");
    let mut request = request(&fixture.world(), "hooked", &fixture.running());
    request.spec.mounts = vec![fixture.bind(&shared, "/shared")];
    request.spec.post_start = vec![fixture.hook("echo $SAID > /shared/started")];
    request.spec.pre_stop = vec![fixture.hook("echo $SAID > /shared/stopping")];
    let id = runtime.start(&request).await.unwrap();
    assert_eq!(names(&shared), ["started"]);
    runtime.remove(&id).await.unwrap();
    assert_eq!(names(&shared), ["started", "stopping"]);
    let said = std::fs::read_to_string(shared.join("stopping")).unwrap();
    assert_eq!(said, "hello\n");
    assert!(fixture.laid_out().is_empty());

    request.spec.post_start = vec![fixture.hook("echo not today; exit 4")];
    let refused = runtime.start(&request).await.unwrap_err().to_string();
    assert!(refused.contains("status 4: not today"), "{refused}");
    poll_until(seconds(20), "the container is killed", || {
        let state = &fixture.inspect("hooked")["State"];
        state["Status"] == "exited" && state["ExitCode"] == 137
    })
    .unwrap();
    fixture.remove_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_its_own_signal_and_its_grace_period() {
    let fixture = Fixture::new("grace");
    let runtime: &dyn ContainerRuntime = &fixture.runtime;
    let shared = fixture.host_dir("shared");
    let script = "trap 'echo got it > /shared/said' USR1; while :; do usleep 50000; done";
    let spec = ContainerSpec {
        stop_signal: Some("SIGUSR1".to_owned()),
        stop_grace_period: Some(std::time::Duration::from_millis(600)),
        mounts: vec![fixture.bind(&shared, "/shared")],
        ..fixture.shell(script)
    };
    let id = fixture.run("stubborn", spec).await;
    assert_eq!(fixture.inspect("stubborn")["Config"]["StopTimeout"], 1);
    // The engine's own grace period alone would be ten seconds.
    let removed = tokio::time::timeout(seconds(9), runtime.remove(&id)).await;
    removed.expect("it is killed after a second").unwrap();
    assert_eq!(names(&shared), ["said"]);
    assert_eq!(runtime.observe(&fixture.cluster).await, Ok(Vec::new()));
}

fn is_unreachable<T>(outcome: &Result<T, RuntimeError>) -> bool {
    matches!(outcome, Err(RuntimeError::Unreachable(reason)) if !reason.is_empty())
}

fn signal(signal: &str, pid: &str) {
    let status = Command::new("kill").args([signal, pid]).status();
    assert!(status.unwrap().success());
}
