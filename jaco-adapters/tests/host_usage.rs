//! What a host uses is read where its kernel says it: control groups of both versions, `/proc`.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::fs;
use std::path::Path;

use jaco_adapters::system::HostUsage;
use jaco_core::node::usage::Counters;
use jaco_core::ports::SystemProbe;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn seen(root: &Path) -> Option<(u64, u64)> {
    let counters = HostUsage::new(root).counters();
    counters.map(
        |Counters {
             cpu_micros,
             memory_bytes,
         }| (cpu_micros, memory_bytes),
    )
}

fn write_v1(root: &Path) {
    let base = "sys/fs/cgroup";
    write(root, &format!("{base}/cpuacct/cpuacct.usage"), "2000000\n");
    write(
        root,
        &format!("{base}/memory/memory.usage_in_bytes"),
        "900\n",
    );
    write(
        root,
        &format!("{base}/memory/memory.stat"),
        "total_inactive_file 100\n",
    );
}

#[test]
fn a_control_group_in_the_place_of_the_root_is_the_host_and_proc_is_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert_eq!(seen(root), None);
    write(root, "proc/stat", "cpu  1 2 3 4 5 6 7 8 9 0\n");
    write(root, "proc/meminfo", "MemTotal: 9 kB\nMemAvailable: 4 kB\n");
    assert_eq!(seen(root), Some((270_000, 5 * 1024)));
    write_v1(root);
    assert_eq!(seen(root), Some((2_000, 800)));
    write(root, "sys/fs/cgroup/memory/release_agent", "");
    assert_eq!(
        seen(root),
        Some((270_000, 5 * 1024)),
        "the root of version 1"
    );
    write(root, "sys/fs/cgroup/cpu.stat", "usage_usec 77\n");
    write(root, "sys/fs/cgroup/memory.stat", "inactive_file 1\n");
    assert_eq!(
        seen(root),
        Some((270_000, 5 * 1024)),
        "the root of version 2"
    );
    write(root, "sys/fs/cgroup/memory.current", "5\n");
    assert_eq!(seen(root), Some((77, 4)));
}

#[test]
fn this_host_uses_something() {
    let (cpu, memory) = seen(Path::new("/")).unwrap();
    assert!(cpu > 0 && memory > 0);
}
