//! What services ask of their hosts: no known escape passes for harmless, nothing harmless for an
//! escape. Each line of the two lists is a service, and after `||` what its file declares.
#![allow(clippy::unwrap_used)] // a test that fails says where

use jaco_core::manifest::host_access::{self, Allowed, Class, Granted, class, demands};
use jaco_core::manifest::spec::{DeploymentSpec, ServiceSpec};
use jaco_core::manifest::{Bundle, parse};
use proptest::prelude::*;

const ESCAPES: &str = include_str!("host_access/escapes.txt");
const HARMLESS: &str = include_str!("host_access/harmless.txt");

fn spec(line: &str) -> DeploymentSpec {
    let (service, declared) = line.split_once(" || ").unwrap_or((line, ""));
    let bundle = Bundle {
        jaco: "deployment: x\nservices: [{name: web, allow_privileged: true}]\n".to_owned(),
        compose: format!("services:\n  web:\n    image: a\n    {service}\n{declared}\n"),
        ..Bundle::default()
    };
    parse(&bundle).unwrap_or_else(|report| panic!("{line}: {:?}", report.to_error()))
}

fn only(spec: &DeploymentSpec) -> &ServiceSpec {
    spec.services.values().next().unwrap()
}

fn class_of(line: &str, allowed: &Allowed) -> Class {
    let spec = spec(line);
    class(&demands(&spec, only(&spec), allowed))
}

#[test]
fn no_known_escape_is_baseline() {
    assert!(ESCAPES.lines().count() >= 100);
    for line in ESCAPES.lines() {
        assert!(
            class_of(line, &Allowed::default()) > Class::Baseline,
            "{line}"
        );
    }
}

#[test]
fn everything_harmless_is_baseline() {
    assert!(HARMLESS.lines().count() >= 100);
    for line in HARMLESS.lines() {
        let spec = spec(line);
        let demands = demands(&spec, only(&spec), &Allowed::default());
        assert!(demands.is_empty(), "{line}: {demands:?}");
    }
}

#[test]
fn a_node_allows_what_its_lists_say_and_never_its_own_paths() {
    let allowed = Allowed {
        allow_binds: vec!["/srv".to_owned(), "/".to_owned()],
        allow_devices: vec!["/dev/kvm".to_owned()],
        allow_runtimes: vec!["nvidia".to_owned()],
    };
    for line in [
        "volumes: [\"/srv/www:/www\"]",
        "volumes: [\"/opt/x:/e\"]",
        "devices: [\"/dev/kvm\"]",
        "runtime: nvidia",
    ] {
        assert_eq!(class_of(line, &allowed), Class::Baseline, "{line}");
    }
    for path in [
        "/",
        "/var/run/docker.sock",
        "/run",
        "/etc/../etc/jaco",
        "/var/lib/jaco/raft",
    ] {
        let line = format!("volumes: [\"{path}:/x\"]");
        assert_eq!(class_of(&line, &allowed), Class::Privileged, "{line}");
    }
    let srv = Allowed {
        allow_binds: vec!["/srv".to_owned()],
        ..Allowed::default()
    };
    for path in ["/srv/../etc", "/srvx", "/", "/srv/./../root"] {
        let line = format!("volumes: [\"{path}:/x\"]");
        assert!(class_of(&line, &srv) > Class::Baseline, "{line}");
    }
    let data = Allowed {
        allow_binds: vec!["/srv/data".to_owned(), "/mnt".to_owned()],
        ..Allowed::default()
    };
    assert_eq!(srv.and(&data).allow_binds, ["/srv/data"]);
}

#[test]
fn a_link_that_leads_out_is_found_on_the_node() {
    let spec = spec("volumes: [\"/srv/link:/x\"]");
    let allowed = Allowed {
        allow_binds: vec!["/srv".to_owned()],
        ..Allowed::default()
    };
    let nothing = Granted {
        host: false,
        privileged: false,
    };
    let host = Granted {
        host: true,
        ..nothing
    };
    let judge = |granted, leads_to: &str| {
        let resolve = |path: &str| match path {
            "/srv/link" => leads_to.to_owned(),
            path => path.to_owned(),
        };
        let container = &only(&spec).container;
        let asked = (container, &spec.volumes);
        host_access::may_start(asked, granted, &allowed, &["/var/lib/x"], &resolve).is_ok()
    };
    assert!(judge(nothing, "/srv/www"));
    assert!(!judge(nothing, "/etc"));
    assert!(judge(host, "/etc"));
    assert!(
        !judge(host, "/var/lib/x/raft"),
        "the daemon's own directory"
    );
    assert!(!judge(host, "/var"), "a directory above it");
    let old = Granted::default();
    assert!(judge(old, "/var/lib/x"), "let in before rights were noted");
}

#[test]
fn a_path_with_dots_is_followed_as_the_engine_follows_it() {
    let allowed = Allowed {
        allow_binds: vec!["/srv".to_owned()],
        ..Allowed::default()
    };
    let nothing = Granted {
        host: false,
        privileged: false,
    };
    // `/srv/d` leads to `/srv/sub/d`, `/srv/link` to `/etc`; what is missing is not resolved.
    let resolve = |path: &str| match path {
        "/srv/d/../link" => "/srv/sub/link".to_owned(),
        "/srv/link" => "/etc".to_owned(),
        "/srv/link/x" => "/etc/x".to_owned(),
        path => path.to_owned(),
    };
    for path in [
        "/srv/d/../link",
        "/srv/link/none/../x",
        "/srv/./link",
        "//srv/link/",
    ] {
        let spec = spec(&format!(
            "volumes: [{{type: bind, source: {path}, target: /x}}]"
        ));
        let asked = (&only(&spec).container, &spec.volumes);
        let judged = host_access::may_start(asked, nothing, &allowed, &[], &resolve);
        assert!(judged.is_err(), "{path}");
    }
}

const NFS: &str = "{type: nfs, o: \"addr=10.0.0.1\", device: \":/export\"}";
const BINDS: [&str; 5] = [
    "{type: none, o: bind, device: /var/run/docker.sock}",
    "{type: none, o: bind, device: //run/./jaco/}",
    "{type: none, o: bind, device: /}",
    "{type: overlay, o: \"ro,lowerdir=/srv:/etc/jaco,upperdir=/a,workdir=/b\", device: overlay}",
    "{type: none, o: \"rbind\", device: /srv/../etc/jaco/state.key}",
];

fn with_options(options: &str) -> String {
    format!("volumes: [\"v:/v\"] || volumes: {{v: {{driver_opts: {options}}}}}")
}

#[test]
fn options_of_a_volume_reach_no_further_than_a_bind() {
    for options in BINDS {
        let line = with_options(options);
        assert_eq!(
            class_of(&line, &Allowed::default()),
            Class::Privileged,
            "{line}"
        );
    }
    let nfs = with_options(NFS);
    assert_eq!(class_of(&nfs, &Allowed::default()), Class::Host);
}

#[test]
fn privilege_through_a_volume_needs_the_label() {
    let errors = |options: &str, labels: &str| {
        let bundle = Bundle {
            jaco: "deployment: x\n".to_owned(),
            compose: format!(
                "services:\n  web:\n    image: a\n    labels: {labels}\n    volumes: [\"v:/v\"]\n\
                 volumes: {{v: {{driver_opts: {options}}}}}\n"
            ),
            ..Bundle::default()
        };
        parse(&bundle).map_err(|report| format!("{:?}", report.to_error()))
    };
    for options in BINDS {
        let refused = errors(options, "{}").unwrap_err();
        assert!(refused.contains("jaco.io/allow-privileged"), "{refused}");
        assert!(
            errors(options, "{jaco.io/allow-privileged: \"true\"}").is_ok(),
            "{options}"
        );
    }
    assert!(errors(NFS, "{}").is_ok());
}

#[test]
fn the_node_judges_the_volumes_too() {
    let judge = |host, device: &str, leads_to: &str| {
        let spec = spec(&with_options(&format!(
            "{{type: none, o: bind, device: {device}}}"
        )));
        let granted = Granted {
            host,
            privileged: false,
        };
        let resolve = |path: &str| match path {
            "/srv/link" => leads_to.to_owned(),
            path => path.to_owned(),
        };
        let asked = (&only(&spec).container, &spec.volumes);
        let reserved = ["/var/lib/x"];
        host_access::may_start(asked, granted, &Allowed::default(), &reserved, &resolve).is_ok()
    };
    assert!(!judge(false, "/srv", ""), "nobody granted it");
    assert!(judge(true, "/srv/link", "/srv/www"));
    assert!(
        !judge(true, "/srv/link", "/var/lib/x/raft"),
        "a link to the daemon's own"
    );
    assert!(!judge(true, "/var/lib/x", ""), "the daemon's own directory");
}

proptest! {
    /// However a path is written, it is judged by where it leads.
    #[test]
    fn spellings_of_a_path_do_not_matter(
        names in proptest::collection::vec("(\\.|\\.\\.|srv|etc|a)", 1..8),
    ) {
        let mut real: Vec<&str> = Vec::new();
        for name in &names {
            match name.as_str() {
                "." => {}
                ".." => drop(real.pop()),
                name => real.push(name),
            }
        }
        let allowed = Allowed { allow_binds: vec!["/srv".to_owned()], ..Allowed::default() };
        let line = format!("volumes: [{{type: bind, source: /{}, target: /x}}]", names.join("/"));
        let is_let = class_of(&line, &allowed) == Class::Baseline;
        prop_assert_eq!(is_let, real.first() == Some(&"srv"));
    }
}
