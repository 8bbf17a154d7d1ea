//! CPU and memory in use, read from the kernel's files.

use std::time::Duration;

use jaco_core::cluster::Command;
use jaco_core::id::NodeName;
use jaco_core::manifest::spec::Resources;
use jaco_core::node::containers;
use jaco_core::node::usage::{self, Counters, Sample};
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, deployment, service};
use proptest::prelude::*;

const STAT: &str = "cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 100 20 30 4000 500 6 7 8 90 0\n";
const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\n";

#[test]
fn cgroup_v2_gives_cpu_time_and_memory_without_droppable_cache() {
    let read = usage::cgroup_v2(
        "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
        "5000\n",
        "anon 3000\nfile 2000\ninactive_file 1200\n",
    );
    assert_eq!(read, counters(1500, 3800));
}

#[test]
fn cgroup_v1_gives_cpu_time_and_memory_without_droppable_cache() {
    let stat = "cache 2000\ninactive_file 1\ntotal_inactive_file 1200\n";
    let read = usage::cgroup_v1("1500999\n", "5000\n", stat);
    assert_eq!(read, counters(1500, 3800));
}

#[test]
fn proc_counts_neither_idle_nor_iowait_nor_guest_time_twice() {
    let read = usage::proc(STAT, MEMINFO);
    assert_eq!(read, counters(171 * 10_000, 600 * 1024));
}

#[test]
fn a_file_that_lacks_a_figure_gives_nothing() {
    assert_eq!(
        usage::cgroup_v2("user_usec 1\n", "1", "inactive_file 0"),
        None
    );
    assert_eq!(usage::cgroup_v1("1", "max", "total_inactive_file 0"), None);
    assert_eq!(usage::proc("cpu  1 2 3\n", MEMINFO), None);
    assert_eq!(usage::proc(STAT, "MemTotal: 1 kB\n"), None);
}

#[test]
fn use_between_two_moments_is_in_thousandths_of_a_core() {
    let earlier = Counters {
        cpu_micros: 1_000_000,
        memory_bytes: 1,
    };
    let later = Counters {
        cpu_micros: 4_000_000,
        memory_bytes: 7,
    };
    let used = later.since(&earlier, Duration::from_secs(2));
    assert_eq!(
        used,
        Some(Resources {
            cpu_millis: 1500,
            memory_bytes: 7
        })
    );
    assert_eq!(later.since(&earlier, Duration::ZERO), None);
    assert_eq!(earlier.since(&later, Duration::from_secs(2)), None);
}

#[test]
fn a_report_tells_of_the_containers_that_were_there_all_the_time() {
    let mut cluster = Cluster::of(1);
    let web = deployment("d", [("web", service(2, "a"))]);
    cluster.deploy(web).unwrap();
    cluster.settle();
    let node = NodeName::new("n1");
    let desired = containers::desired(&cluster.state, &node);
    let ids = usage::measured(&desired);
    assert_eq!(ids, ["c-d-web-1-1", "c-d-web-2-1"]);
    let sample = |at, cpu_micros, containers: &[&str]| {
        let counters = Counters {
            cpu_micros,
            memory_bytes: 9,
        };
        let each = containers.iter().map(|id| ((*id).to_owned(), counters));
        Sample {
            at: Timestamp(at),
            host: counters,
            containers: each.collect(),
        }
    };
    let earlier = sample(1_000, 0, &ids);
    let later = sample(3_000, 1_000_000, &ids[1..]);
    let interval = Duration::from_secs(2);
    let told = usage::report(&node, &desired, [&earlier, &later], interval);
    let Some(Command::NodeUsage { used, replicas, .. }) = told else {
        panic!("{told:?}");
    };
    let expected = Resources {
        cpu_millis: 500,
        memory_bytes: 9,
    };
    assert_eq!(used, expected);
    let replicas: Vec<_> = replicas
        .iter()
        .map(|m| (m.replica.as_str(), m.used))
        .collect();
    assert_eq!(replicas, [("d-web-2", expected)]);
    // A clock that stands still or goes back tells nothing.
    for at in [0, 1_000] {
        let later = sample(at, 1_000_000, &ids);
        let told = usage::report(&node, &desired, [&earlier, &later], interval);
        assert_eq!(told, None);
    }
}

proptest! {
    #[test]
    fn the_average_lies_between_what_was_and_what_is_and_comes_near_it(
        start in 0..4_000u64,
        level in 0..4_000u64,
        seconds in 5..90u64,
    ) {
        let mut cluster = Cluster::of(1);
        let mut report = |cpu_millis| {
            cluster.now.0 += seconds * 1_000;
            let used = Resources { cpu_millis, memory_bytes: 0 };
            let interval = Duration::from_secs(seconds);
            let (node, replicas) = (NodeName::new("n1"), Vec::new());
            cluster.must(Command::NodeUsage { node, used, interval, replicas });
            cluster.state.nodes["n1"].usage.unwrap().average.cpu_millis
        };
        prop_assert_eq!(report(start), start);
        let mut before = start;
        for _ in 0..(3_600 / seconds) {
            let now = report(level);
            prop_assert!(now.abs_diff(level) <= before.abs_diff(level));
            before = now;
        }
        // After an hour only rounding is left, which a step of five seconds cannot overcome.
        prop_assert!(before.abs_diff(level) <= 300 / seconds + 1, "{before} of {level}");
    }

    #[test]
    fn no_text_makes_reading_panic(a in text(), b in text(), c in text()) {
        let _ = usage::cgroup_v2(&a, &b, &c);
        let _ = usage::cgroup_v1(&a, &b, &c);
        let _ = usage::proc(&a, &b);
    }

    #[test]
    fn no_figures_make_the_difference_panic(a: [u64; 2], b: [u64; 2], micros: u64) {
        let [cpu_micros, memory_bytes] = a;
        let earlier = Counters { cpu_micros, memory_bytes };
        let [cpu_micros, memory_bytes] = b;
        let later = Counters { cpu_micros, memory_bytes };
        let _ = later.since(&earlier, Duration::from_micros(micros));
    }
}

/// Pieces of such files in any order, and anything else.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("cpu ".to_owned()),
        Just("usage_usec ".to_owned()),
        Just("total_inactive_file ".to_owned()),
        Just("inactive_file ".to_owned()),
        Just("MemTotal: ".to_owned()),
        Just("MemAvailable: ".to_owned()),
        Just("\n".to_owned()),
        Just(":".to_owned()),
        any::<u64>().prop_map(|number| format!("{number} ")),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

#[allow(clippy::unnecessary_wraps)]
fn counters(cpu_micros: u64, memory_bytes: u64) -> Option<Counters> {
    Some(Counters {
        cpu_micros,
        memory_bytes,
    })
}
