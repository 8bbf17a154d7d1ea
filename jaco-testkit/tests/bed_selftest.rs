//! The bed proves itself: real engines serve, faults bite and heal, nothing is left behind.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Result, ensure};
use jaco_testkit::bed::{Bed, Host, Remains, SOON, poll_ok, poll_until};

/// Starts `web:1` on a JACO-like network and returns the address it answers on.
fn run_web(bed: &Bed, host: &Host) -> Result<String> {
    let (subnet, gateway, address) = ("10.244.3.0/24", "10.244.3.1", "10.244.3.5");
    let bridge = "com.docker.network.bridge.name=jaco-aaaa-bbbb";
    host.docker_text(&[
        "network",
        "create",
        "--subnet",
        subnet,
        "--gateway",
        gateway,
        "-o",
        bridge,
        "shop",
    ])?;
    let name = format!("web-{}", host.index());
    host.docker_text(&[
        "run",
        "--detach",
        "--name=web",
        "--restart=always",
        &format!("--hostname={name}"),
        "--network=shop",
        "--ip",
        address,
        "--publish=8080:80",
        &bed.image("web:1"),
    ])?;
    Ok(format!("{address}:80"))
}

fn ensure_serves(from: &Host, address: &str, expected: &str) -> Result<()> {
    poll_ok(SOON, &format!("{address} says {expected:?}"), || {
        let response = from.http_get("shop.test", address, "/")?;
        ensure!(
            response.status == 200 && response.text().trim() == expected,
            "{response:?}"
        );
        Ok(())
    })
}

fn reaches(from: &Host, to: &Host) -> bool {
    let mut ping = Command::new("busybox");
    ping.args(["ping", "-c1", "-W1", &to.address().to_string()]);
    from.run(&mut ping)
        .is_ok_and(|output| output.status.success())
}

#[test]
fn two_hosts_serve_fail_heal_and_vanish() {
    let bed = Bed::builder().name("selftest").hosts(2).build().unwrap();
    let (one, two) = (bed.host(1), bed.host(2));
    let foreign_sockets = entries("/run/containerd/s");

    // Real engines pull from the registry and run side by side with one address plan.
    for host in bed.hosts() {
        let address = run_web(&bed, host).unwrap();
        ensure_serves(host, &address, &format!("web 1 web-{}", host.index())).unwrap();
        let cgi = host
            .http_get("shop.test", &address, "/cgi-bin/hostname")
            .unwrap();
        assert_eq!(cgi.text().trim(), format!("web-{}", host.index()));
        assert!(Path::new(&format!("/run/netns/jb-selftest-{}", host.index())).exists());
    }
    let two_published = format!("{}:8080", two.address());
    ensure_serves(one, &two_published, "web 1 web-2").unwrap();

    // An engine comes back after a crash, the other does not notice.
    let container_pid = "{{.State.Pid}}";
    let before = two
        .docker_text(&["inspect", "-f", container_pid, "web"])
        .unwrap();
    two.kill_engine().unwrap();
    assert!(
        two.docker(&["ps"])
            .is_ok_and(|output| !output.status.success())
    );
    assert!(one.engine().answers());
    two.start_engine().unwrap();
    ensure_serves(one, &two_published, "web 1 web-2").unwrap();
    let after = two
        .docker_text(&["inspect", "-f", container_pid, "web"])
        .unwrap();
    assert_ne!(
        before, after,
        "without live-restore the engine restarts its containers"
    );

    // A stopped engine stops its containers and frees what they held.
    two.stop_engine().unwrap();
    assert!(one.http_get("shop.test", &two_published, "/").is_err());
    two.start_engine().unwrap();
    ensure_serves(one, &two_published, "web 1 web-2").unwrap();

    // Partition, one-way block, pulled cable: each bites and heals.
    assert!(reaches(one, two) && reaches(two, one));
    bed.partition(&[1], &[2]).unwrap();
    assert!(!reaches(one, two) && !reaches(two, one));
    assert!(one.http_get("r", bed.registry().address(), "/v2/").is_ok());
    bed.heal().unwrap();
    poll_until(SOON, "the partition heals", || reaches(one, two)).unwrap();
    two.link_down().unwrap();
    assert!(!reaches(one, two));
    two.link_up().unwrap();
    poll_until(SOON, "the link heals", || reaches(one, two)).unwrap();

    // Images without a registry.
    bed.registry().stop().unwrap();
    assert!(
        one.docker_text(&["pull", "--quiet", &bed.image("job:1")])
            .is_err()
    );
    one.load_image("job:1").unwrap();
    let job = one
        .docker(&["run", "--rm", "-e", "EXIT=3", "job:1", "a", "b"])
        .unwrap();
    assert_eq!(job.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&job.stdout), "job a b\n");

    // Every kind of leftover is there before the drop, so its absence afterwards says much.
    let remains = Remains::of("selftest");
    assert_eq!(remains.namespaces.len(), 3);
    assert!(remains.processes.len() > 6, "{remains:?}");
    assert!(
        !remains.mounts.is_empty() && !remains.control_groups.is_empty(),
        "{remains:?}"
    );
    assert!(seen_by_others("selftest").len() > 10);
    assert!(entries("/run/containerd/s").len() > foreign_sockets.len());
    drop(bed);
    let remains = Remains::of("selftest");
    assert!(remains.is_empty(), "{remains:?}");
    assert_eq!(seen_by_others("selftest"), Vec::<String>::new());
    assert_eq!(entries("/run/containerd/s"), foreign_sockets);
}

/// Looks for the bed without the bed's own code: by the text of command lines and mounts.
fn seen_by_others(bed: &str) -> Vec<String> {
    let directory = format!("/var/lib/jaco-bed/{bed}/");
    let mounts = fs::read_to_string("/proc/mounts").expect("proc is mounted");
    let mounts = mounts
        .lines()
        .filter(|line| line.contains(&directory))
        .map(str::to_owned);
    let command_lines = entries("/proc").into_iter().filter_map(|path| {
        let text = fs::read(path.join("cmdline")).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        text.contains(&directory).then_some(text)
    });
    let named = ["/run/netns", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .into_iter()
        .flat_map(entries)
        .map(|path| path.display().to_string())
        .filter(|path| path.contains(&format!("/jb-{bed}-")));
    mounts.chain(command_lines).chain(named).collect()
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

#[test]
fn a_crashed_bed_is_removed_by_the_next() {
    const CRASHING: &str = "JACO_BED_SELFTEST_CRASHES";
    if env::var_os(CRASHING).is_some() {
        let bed = Bed::builder().name("crashed").hosts(1).build().unwrap();
        let host = bed.host(1);
        host.load_image("stubborn:1").unwrap();
        host.docker_text(&["run", "--detach", "--name=stays", "stubborn:1"])
            .unwrap();
        // Only the shim and the container go on.
        host.kill_engine().unwrap();
        println!("ready to crash");
        loop {
            thread::park();
        }
    }

    let mut crashing = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "a_crashed_bed_is_removed_by_the_next",
            "--nocapture",
        ])
        .env(CRASHING, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(crashing.stdout.take().unwrap());
    assert!(
        output
            .lines()
            .any(|line| line.unwrap().contains("ready to crash"))
    );
    crashing.kill().unwrap();
    crashing.wait().unwrap();
    assert!(!Remains::of("crashed").processes.is_empty());

    let next = Bed::builder().name("next").hosts(1).build().unwrap();
    let remains = Remains::of("crashed");
    assert!(remains.is_empty(), "{remains:?}");
    drop(next);
}

#[test]
fn a_kept_bed_is_attached_to_and_left_alone_by_others() {
    let bed = Bed::builder().name("kept").hosts(1).build().unwrap();
    bed.keep().unwrap();
    let other = Bed::builder().name("other").hosts(1).build().unwrap();
    drop(other);

    let again = Bed::attach("kept").unwrap();
    assert!(again.host(1).engine().answers());
    again.host(1).stop_engine().unwrap();
    assert!(again.host(1).engine().pid().is_none());
    again.host(1).start_engine().unwrap();
    drop(again);
    assert!(!Remains::of("kept").is_empty());
    Bed::destroy("kept").unwrap();
    assert!(Remains::of("kept").is_empty());
    assert!(Bed::attach("kept").is_err());
}

#[test]
fn processes_and_sockets_are_born_inside() {
    let bed = Bed::builder().name("inside").hosts(2).build().unwrap();
    let listener = bed
        .host(1)
        .enter(|| std::net::TcpListener::bind("0.0.0.0:4444"))
        .unwrap()
        .unwrap();
    let outside = std::net::TcpStream::connect_timeout(
        &"127.0.0.1:4444".parse().unwrap(),
        Duration::from_secs(1),
    );
    assert!(
        outside.is_err(),
        "the socket must not be in the test's own namespace"
    );
    let target = format!("{}:4444", bed.host(1).address());
    assert!(
        bed.host(2)
            .enter(|| std::net::TcpStream::connect(&target))
            .unwrap()
            .is_ok()
    );
    assert!(listener.accept().is_ok());

    let route = bed
        .host(1)
        .run(Command::new("ip").args(["route", "get", "1.1.1.1"]))
        .unwrap();
    assert!(!route.status.success(), "a host must have no way out");
}

#[test]
fn a_daemon_is_started_stopped_killed_and_found_again() {
    // A stand-in that knows SIGTERM; the test itself listens where jacod would.
    let binaries = env::temp_dir().join(format!("jaco-selftest-{}", std::process::id()));
    fs::create_dir_all(&binaries).unwrap();
    let script = "#!/bin/sh\ntrap 'echo stopping; exit 0' TERM\necho \"$*\" \"$JACO_STATE_KEY\"\n\
                  while :; do sleep 60 & wait $!; done\n";
    fs::write(binaries.join("jacod"), script).unwrap();
    fs::set_permissions(binaries.join("jacod"), fs::Permissions::from_mode(0o755)).unwrap();
    let bed = Bed::builder()
        .name("daemon")
        .hosts(1)
        .binaries(&binaries)
        .build()
        .unwrap();
    let host = bed.host(1);
    let _listener = UnixListener::bind(host.daemon().socket()).unwrap();

    host.write_config(&[
        ("node_unreachable_after", "2s".into()),
        ("https_addr", ().into()),
    ])
    .unwrap();
    let config = fs::read(host.daemon().config_file()).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["listen_addr"], "10.99.0.1:7000");
    assert_eq!(config["node_unreachable_after"], "2s");
    assert!(config.get("https_addr").is_none());

    let log = || fs::read_to_string(host.daemon().log()).unwrap_or_default();
    host.start_daemon().unwrap();
    assert!(host.start_daemon().is_err(), "one daemon a host");
    poll_until(SOON, "the daemon prints", || log().contains("1/jacod.yaml")).unwrap();
    assert!(log().contains("1/state.key"));
    host.stop_daemon().unwrap();
    assert!(log().contains("stopping"));

    host.start_daemon().unwrap();
    let pid = host.daemon().pid().unwrap();
    host.kill_daemon().unwrap();
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "a killed child is reaped"
    );
    assert!(host.daemon().pid().is_none());
    assert_eq!(log().matches("stopping").count(), 1);
    drop(bed);
    fs::remove_dir_all(&binaries).unwrap();
}

#[test]
fn the_certificate_authority_answers_and_resolves() {
    let bed = Bed::builder().name("acme").hosts(1).build().unwrap();
    let (acme, host) = (bed.acme(), bed.host(1));
    acme.start(&[]).unwrap();
    assert!(
        acme.issuer_root()
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );

    acme.set_addresses("app.test", &[host.address()]).unwrap();
    let lookup = |name: &str| {
        let mut lookup = Command::new("busybox");
        lookup.args(["nslookup", "-type=a", name, &acme.dns_address()]);
        String::from_utf8(host.run(&mut lookup).unwrap().stdout).unwrap()
    };
    let answer = lookup("app.test");
    assert!(
        answer.contains("Name:\tapp.test\nAddress: 10.99.0.1"),
        "{answer}"
    );
    assert!(
        !lookup("other.test").contains("Name:"),
        "unknown names resolve to nothing"
    );

    acme.stop().unwrap();
    assert!(acme.issuer_root().is_err());
    acme.start(&[]).unwrap();
    assert!(acme.issuer_root().is_ok());
}

#[test]
fn the_images_do_what_they_say() {
    let bed = Bed::builder().name("images").hosts(1).build().unwrap();
    let host = bed.host(1);
    let start = |name: &str, image: &str| {
        let image = bed.image(image);
        let hostname = format!("--hostname={name}");
        host.docker_text(&["run", "--detach", "--name", name, &hostname, &image])
            .unwrap();
        let address = "{{.NetworkSettings.IPAddress}}";
        host.docker_text(&["inspect", "--format", address, name])
            .unwrap()
    };
    let talk = |address: &str, input: &str| -> Result<String> {
        host.enter(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(SOON))?;
            stream.write_all(input.as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
    };

    let echo = format!("{}:7", start("echo", "tcp-echo:1"));
    let answer = poll_ok(SOON, "the echo answers", || talk(&echo, "hello"));
    assert_eq!(answer.unwrap(), "hello");
    let name = format!("{}:7", start("says-its-name", "tcp-name:1"));
    let answer = poll_ok(SOON, "the name is told", || talk(&name, ""));
    assert_eq!(answer.unwrap(), "says-its-name\n");

    // SIGTERM closes the port at once and lets the slow request finish.
    let web = format!("{}:80", start("web", "web:2"));
    ensure_serves(host, &web, "web 2 web").unwrap();
    assert_eq!(host.http_get("x", &web, "/health").unwrap().text(), "ok\n");
    let seen = host
        .http_get("shop.test", &web, "/cgi-bin/env")
        .unwrap()
        .text();
    assert!(seen.contains("HTTP_HOST=shop.test"), "{seen}");
    thread::scope(|scope| {
        let slow = scope.spawn(|| host.http_get("x", &web, "/cgi-bin/slow?2"));
        poll_until(SOON, "the slow request is in flight", || {
            host.docker_text(&["top", "web"])
                .is_ok_and(|processes| processes.contains("sleep 2"))
        })
        .unwrap();
        host.docker_text(&["kill", "--signal=TERM", "web"]).unwrap();
        poll_until(SOON, "the port is closed", || talk(&web, "").is_err()).unwrap();
        let slow = slow.join().unwrap().unwrap();
        assert_eq!((slow.status, slow.text().trim()), (200, "web"));
    });

    // Exit codes: graceful ones end with 0, the stubborn one has to be killed.
    start("sleeps", "sleep:1");
    start("stubborn", "stubborn:1");
    start("broken", "web:broken");
    host.docker_text(&["stop", "--time=1", "sleeps", "stubborn", "echo"])
        .unwrap();
    let codes = ["web", "sleeps", "echo", "stubborn", "broken"]
        .map(|name| host.docker_text(&["wait", name]).unwrap());
    assert_eq!(codes, ["0", "0", "0", "137", "1"]);
}
