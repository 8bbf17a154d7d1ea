//! Rights: nothing that a token writes changes anything outside its role and its deployments.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jaco_core::access::rpc::{self, RPCS};
use jaco_core::access::{Author, Caller, Rights, Role, entry, logins};
use jaco_core::cluster::audit::EventType;
use jaco_core::cluster::state::Standing;
use jaco_core::cluster::token::OperatorToken;
use jaco_core::cluster::{Applied, ClusterState, Command, Entry, Proposal, apply};
use jaco_core::error::ErrorCode;
use jaco_core::id::{DeploymentName, Domain, Identity, NodeName, ServiceName};
use jaco_core::manifest::spec::DeploymentSpec;
use jaco_core::time::Timestamp;
use jaco_testkit::builders::{Cluster, bundle, deployment, service};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);

fn two() -> Cluster {
    let mut cluster = Cluster::of(3);
    for name in ["a", "b"] {
        let spec = deployment(name, [("web", service(1, "1"))]);
        cluster.deploy(spec).unwrap();
    }
    cluster.settle();
    cluster
}

fn write(cluster: &mut Cluster, author: Author, command: Command) -> Applied {
    let proposal = Proposal {
        at: cluster.now,
        identity: author.identity(&cluster.state),
        author: Some(author),
        command,
    };
    let index = cluster.state.index + 1;
    apply(&mut cluster.state, &Entry { index, proposal })
}

fn root() -> Author {
    Author::Local {
        node: NodeName::new("n1"),
        uid: 0,
        user: "root".to_owned(),
    }
}

fn token(secret: &str) -> Author {
    Author::Token(secret.to_owned())
}

fn issue(secret: &str, rights: Rights) -> Command {
    Command::TokenIssue {
        hash: secret.to_owned(),
        name: Identity::new(secret),
        rights,
        ttl: None,
    }
}

fn bound_to(name: &str) -> Rights {
    Rights {
        deployments: Some(BTreeSet::from([DeploymentName::new(name)])),
        ..Rights::of(Role::Deploy)
    }
}

fn changed(name: &str, hash: &str) -> Command {
    let spec = deployment(name, [("web", service(2, hash))]);
    applied(spec)
}

fn applied(spec: DeploymentSpec) -> Command {
    Command::Apply {
        bundle: Arc::new(bundle()),
        spec: Arc::new(spec),
        privileged: true,
    }
}

fn code(applied: Applied) -> ErrorCode {
    applied.unwrap_err().code
}

#[test]
fn a_deploy_token_issues_revokes_and_invites_nobody() {
    let mut cluster = two();
    let mut other = issue("other", Rights::of(Role::Read));
    write(&mut cluster, root(), issue("dev", Rights::of(Role::Deploy))).unwrap();
    write(&mut cluster, root(), other.clone()).unwrap();
    if let Command::TokenIssue { name, rights, .. } = &mut other {
        (*name, *rights) = (Identity::new("more"), Rights::every());
    }
    let invite = Command::JoinTokenIssue {
        hash: "j".to_owned(),
        node: None,
        sans: vec![],
        ttl: DAY,
    };
    let revoke = |name: &str| Command::TokenRevoke {
        name: Identity::new(name),
        force: true,
    };
    let remove = Command::NodeRemove {
        node: NodeName::new("n3"),
        force: true,
    };
    for command in [other, invite, revoke("bootstrap"), remove] {
        let error = write(&mut cluster, token("dev"), command).unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied);
        assert_eq!(error.details["right"], "admin");
        assert_eq!(error.details["holders"], "bootstrap");
    }
    // Itself it may.
    write(&mut cluster, token("dev"), revoke("dev")).unwrap();
    let after = write(&mut cluster, token("dev"), changed("a", "2"));
    assert_eq!(code(after), ErrorCode::TokenRevoked);
}

#[test]
fn a_token_that_expired_or_was_revoked_writes_nothing() {
    let mut cluster = two();
    let mut short = issue("short", Rights::of(Role::Deploy));
    if let Command::TokenIssue { ttl, .. } = &mut short {
        *ttl = Some(DAY);
    }
    write(&mut cluster, root(), short).unwrap();
    write(&mut cluster, token("short"), changed("a", "2")).unwrap();
    cluster.now = cluster.now + DAY;
    let late = write(&mut cluster, token("short"), changed("a", "3"));
    assert_eq!(code(late), ErrorCode::TokenRevoked);
    assert_eq!(
        code(write(&mut cluster, token("?"), changed("a", "3"))),
        ErrorCode::TokenInvalid
    );
    // A slow clock of the node that is asked does not revive it.
    let asked = Caller::of_token(&cluster.state, "short", Timestamp(0));
    assert_eq!(asked.unwrap_err().code, ErrorCode::TokenRevoked);
    // The name is free again, and the old one leaves after 30 days.
    cluster.now = cluster.now + DAY * 30;
    let again = Command::TokenIssue {
        hash: "short2".to_owned(),
        name: Identity::new("short"),
        rights: Rights::default(),
        ttl: None,
    };
    write(&mut cluster, root(), again).unwrap();
    assert!(!cluster.state.tokens.contains_key("short"));
}

#[test]
fn privileged_containers_need_the_right_on_every_way_in() {
    let mut cluster = two();
    let mut spec = deployment("a", [("web", service(1, "p"))]);
    for service in spec.services.values_mut() {
        service.container.privileged = true;
    }
    let privileged = spec.clone();
    write(&mut cluster, root(), issue("dev", Rights::of(Role::Deploy))).unwrap();
    let tried = write(&mut cluster, token("dev"), applied(spec.clone()));
    assert_eq!(code(tried), ErrorCode::PermissionDenied);
    write(&mut cluster, root(), applied(spec)).unwrap();
    // `scale` and `rollback` bring it back without its own manifest.
    let scale = Command::Scale {
        deployment: DeploymentName::new("a"),
        service: ServiceName::new("web"),
        replicas: 3,
    };
    let tried = write(&mut cluster, token("dev"), scale);
    assert_eq!(code(tried), ErrorCode::PermissionDenied);
    let number = cluster.state.deployments[&DeploymentName::new("a")].current;
    write(&mut cluster, token("dev"), changed("a", "9")).unwrap();
    let back = Command::Rollback {
        deployment: DeploymentName::new("a"),
        to: Some(number),
    };
    let tried = write(&mut cluster, token("dev"), back.clone());
    assert_eq!(code(tried), ErrorCode::PermissionDenied);
    write(&mut cluster, root(), back).unwrap();
    let noted = |kind| {
        cluster
            .state
            .audit
            .iter()
            .filter(|e| e.kind == kind)
            .count()
    };
    assert_eq!(noted(EventType::PrivilegedWorkloadAdmitted), 2);
    let rights = Rights::of(Role::Deploy);
    let planned = apply::admits(&cluster.state, &privileged, &rights);
    assert_eq!(planned.unwrap_err().code, ErrorCode::PermissionDenied);
}

#[test]
fn a_member_speaks_for_itself_only() {
    let mut cluster = two();
    let (n1, n2) = (NodeName::new("n1"), NodeName::new("n2"));
    let published = |node: &NodeName| Command::Published {
        node: node.clone(),
        index: 3,
    };
    let member = |node: &NodeName| Author::Member(node.clone());
    write(&mut cluster, member(&n1), published(&n1)).unwrap();
    let forged = write(&mut cluster, member(&n2), published(&n1));
    assert_eq!(code(forged), ErrorCode::PermissionDenied);
    let token = issue("mine", Rights::every());
    let forged = write(&mut cluster, member(&n2), token.clone());
    assert_eq!(code(forged), ErrorCode::PermissionDenied);
    let gone = write(&mut cluster, member(&NodeName::new("n9")), published(&n1));
    assert_eq!(code(gone), ErrorCode::NodeNotFound);
    // On the wire: another's socket, and what only a leader decides.
    let schedule = Command::Schedule {
        after: 0,
        steps: vec![],
    };
    for (author, command, is_let) in [
        (root(), token.clone(), false),
        (member(&n2), schedule, false),
        (member(&n1), published(&n1), false),
        (member(&n2), published(&n2), true),
        (Author::Token("t".to_owned()), token, true),
    ] {
        assert_eq!(entry::may_pass_on(&n2, &author, &command).is_ok(), is_let);
    }
}

#[test]
fn the_user_of_the_socket_is_in_the_audit_log() {
    let mut cluster = two();
    let author = Author::Local {
        node: NodeName::new("n2"),
        uid: 1000,
        user: "ada".to_owned(),
    };
    let command = Command::NodeDrain {
        node: NodeName::new("n1"),
        drain: true,
    };
    write(&mut cluster, author, command).unwrap();
    let event = cluster.state.audit.last().unwrap();
    assert_eq!(
        (event.kind, event.identity.as_str()),
        (EventType::NodeDrain, "local")
    );
    assert_eq!(
        (&*event.payload["uid"], &*event.payload["user"]),
        ("1000", "ada")
    );
}

#[test]
fn a_removed_members_key_stands_for_nobody() {
    let mut cluster = Cluster::of(3);
    let node = cluster.state.nodes["n3"].clone();
    let standing = |cluster: &Cluster| cluster.state.standing(&node.key_hash, "forged");
    assert_eq!(standing(&cluster), Standing::Member(node.name.clone()));
    assert_eq!(
        cluster.state.standing("forged", &node.serial),
        Standing::Unknown
    );
    let remove = Command::NodeRemove {
        node: node.name.clone(),
        force: true,
    };
    write(&mut cluster, root(), remove).unwrap();
    assert_eq!(standing(&cluster), Standing::Removed);
}

#[test]
fn tokens_of_versions_without_roles_deploy_and_the_first_one_runs_the_cluster() {
    let read = |identity: &str| -> OperatorToken {
        let text = format!(
            r#"{{"identity":"{identity}","allow_privileged":true,"issued_at":"2026-01-01T00:00:00Z",
                "revoked_at":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(read("bootstrap").rights.role, Role::Admin);
    let dev = read("dev");
    assert_eq!(
        (dev.rights.role, dev.rights.allow_privileged),
        (Role::Deploy, true)
    );
    assert!(!dev.rights.allow_host);
    let again: OperatorToken = serde_json::from_value(serde_json::to_value(&dev).unwrap()).unwrap();
    assert_eq!(again, dev);
    let old = r#"{"token_issue":{"hash":"h","name":"dev","allow_privileged":false}}"#;
    let Command::TokenIssue { rights, .. } = serde_json::from_str(old).unwrap() else {
        panic!("another command");
    };
    assert_eq!(rights, Rights::default());
}

#[test]
fn a_flood_of_failed_logins_is_told_once_a_minute_and_address() {
    let mut logins = logins::Logins::default();
    let start = Timestamp(1_000_000);
    let address = |n: u32| std::net::Ipv4Addr::from(n).into();
    let mut told = 0;
    for n in 0..5_000u64 {
        let now = start + Duration::from_millis(n);
        told += u32::from(logins.fail(address(7), now).is_some());
    }
    assert_eq!(told, 1);
    assert!(logins.admit(address(7), start).is_err());
    assert!(logins.admit(address(8), start).is_ok());
    let later = start + logins::REPORT_INTERVAL;
    assert!(logins.admit(address(7), later).is_ok());
    assert_eq!(logins.fail(address(7), later).unwrap().count, 5_000);
    // A crowd is told of together.
    let crowd = (0..10_000).filter(|n| logins.fail(address(100 + n), later).is_some());
    assert!(crowd.count() <= logins::MAX_ADDRESSES);
}

#[test]
#[allow(clippy::disallowed_methods)] // the page is read from disk
fn the_page_of_rights_is_that_of_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/rights.md");
    let page = rpc::page();
    if std::env::var_os("JACO_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "write it anew with JACO_WRITE_DOCS=1");
    let paths: BTreeSet<_> = RPCS.iter().map(|rpc| (rpc.service, rpc.method)).collect();
    assert_eq!(paths.len(), RPCS.len(), "a row stands there twice");
}

/// A state as a token that is bound to `a` must leave and must see it.
fn outside(state: &ClusterState) -> impl PartialEq + std::fmt::Debug + use<> {
    let others = state
        .deployments
        .iter()
        .filter(|(name, _)| name.as_str() != "a");
    let others: Vec<_> = others.map(|(_, d)| Arc::clone(d)).collect();
    let tokens: Vec<_> = state.tokens.values().cloned().collect();
    let nodes: Vec<_> = state.nodes.values().cloned().collect();
    (
        others,
        tokens,
        nodes,
        state.join_tokens.clone(),
        state.certs.clone(),
    )
}

fn any_command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(DeploymentName::new);
    let node = || prop_oneof![Just("n1"), Just("n2")].prop_map(NodeName::new);
    let who = || prop_oneof![Just("dev"), Just("bootstrap"), Just("x")].prop_map(Identity::new);
    prop_oneof![
        (name(), "[a-z]").prop_map(|(name, hash)| changed(name.as_str(), &hash)),
        name().prop_map(|deployment| Command::Delete { deployment }),
        name().prop_map(|deployment| Command::Rollback {
            deployment,
            to: None
        }),
        name().prop_map(|deployment| Command::ShowSecrets { deployment }),
        (name(), 0..5u32).prop_map(|(deployment, replicas)| Command::Scale {
            deployment,
            service: ServiceName::new("web"),
            replicas,
        }),
        name().prop_map(|deployment| Command::Restart {
            deployment,
            service: None
        }),
        (who(), any::<bool>()).prop_map(|(name, every)| Command::TokenIssue {
            hash: format!("of-{name}"),
            name,
            rights: if every {
                Rights::every()
            } else {
                Rights::default()
            },
            ttl: None,
        }),
        who()
            .prop_filter("itself it may", |name| name.as_str() != "dev")
            .prop_map(|name| Command::TokenRevoke { name, force: true }),
        node().prop_map(|node| Command::NodeDrain { node, drain: true }),
        node().prop_map(|node| Command::NodeRemove { node, force: true }),
        node().prop_map(|node| Command::Published { node, index: 1 }),
        Just(Command::CertificateRenew {
            domain: Domain::new("a.test")
        }),
        Just(Command::Schedule {
            after: 0,
            steps: vec![]
        }),
    ]
}

proptest! {
    #[test]
    fn a_token_changes_nothing_outside_its_role_and_its_deployments(
        commands in proptest::collection::vec((any_command(), 0..3usize), 1..20),
    ) {
        let mut cluster = two();
        let reader = Rights { role: Role::Read, ..bound_to("a") };
        for (name, rights) in [("dev", bound_to("a")), ("reader", reader)] {
            write(&mut cluster, root(), issue(name, rights)).unwrap();
        }
        for (command, who) in commands {
            let before = outside(&cluster.state);
            let everything = cluster.state.clone();
            let secret = ["dev", "reader", "unknown"][who];
            let applied = write(&mut cluster, token(secret), command);
            prop_assert_eq!(before, outside(&cluster.state));
            if who > 0 {
                prop_assert!(applied.is_err());
            }
            if applied.is_err() {
                let mut same = everything;
                same.index = cluster.state.index;
                same.clock = cluster.state.clock;
                prop_assert_eq!(&same, &cluster.state);
            }
        }
        let seen = Arc::new(cluster.state.clone()).seen_with(&bound_to("a"));
        prop_assert!(seen.deployments.keys().all(|name| name.as_str() == "a"));
        let named = seen.audit.iter().map(|event| event.payload.get("deployment"));
        prop_assert!(named.flatten().all(|name| name == "a"));
    }
}
