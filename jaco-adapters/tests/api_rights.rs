//! The role matrix: every call of the API by everybody who may try it, from the table that the
//! documentation is made of.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use jaco_adapters::api::client::messages as proto;
use jaco_adapters::api::server::{Entrance, Gate, routes};
use jaco_adapters::transport::incoming::Connection;
use jaco_core::access::rpc::{Need, RPCS, Rpc};
use jaco_core::access::{Author, Caller, Rights, Role};
use jaco_core::cluster::{ClusterState, Command, Entry, Outcome, Proposal, apply};
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::{DeploymentName, Identity, NodeName, ReplicaId};
use jaco_core::manifest::Bundle;
use jaco_core::manifest::hash::sha256_hex;
use jaco_core::ports::consensus::ConsensusStatus;
use jaco_core::ports::container_logs::{LogLines, LogOptions};
use jaco_core::ports::control_plane::{
    Admission, AdmissionRequest, Formed, Invitation, Invited, JoinRequest,
};
use jaco_core::ports::{ControlPlane, RuntimeError};
use jaco_core::time::Timestamp;
use jaco_core::view::changes::Applied;
use jaco_core::view::check::NetworkCheck;
use jaco_testkit::builders::{Cluster, deployment, service};
use prost::Message;
use tonic::body::Body;
use tower::{Layer, ServiceExt};

/// A daemon whose cluster is a value; what is written is applied at once.
struct Daemon {
    state: Mutex<Arc<ClusterState>>,
}

fn not_here<T>() -> Result<T, Error> {
    Err(Error::new(ErrorCode::ValidationFailed, "let through"))
}

#[async_trait]
impl ControlPlane for Daemon {
    fn node(&self) -> NodeName {
        NodeName::new("n1")
    }

    async fn form(&self, _: String) -> Result<Formed, Error> {
        not_here()
    }

    async fn join(&self, _: JoinRequest) -> Result<(), Error> {
        not_here()
    }

    async fn admit(&self, _: AdmissionRequest) -> Result<Admission, Error> {
        not_here()
    }

    async fn invite(&self, _: &Caller, _: Invitation) -> Result<Invited, Error> {
        not_here()
    }

    async fn write(&self, caller: &Caller, command: Command) -> Result<Outcome, Error> {
        let mut held = self.state.lock().unwrap();
        let mut state = ClusterState::clone(&held);
        let proposal = Proposal {
            at: state.clock,
            identity: caller.identity.clone(),
            author: Some(caller.author.clone()),
            command,
        };
        let index = state.index + 1;
        let outcome = apply(&mut state, &Entry { index, proposal });
        *held = Arc::new(state);
        outcome
    }

    async fn deploy(&self, caller: &Caller, _: Bundle, _: bool) -> Result<Applied, Error> {
        let state = self.state(false).await?;
        caller.require(&state, Role::Deploy, Some(&DeploymentName::new("other")))?;
        not_here()
    }

    async fn state(&self, _: bool) -> Result<Arc<ClusterState>, Error> {
        Ok(Arc::clone(&self.state.lock().unwrap()))
    }

    fn consensus(&self) -> ConsensusStatus {
        ConsensusStatus::default()
    }

    async fn changed_after(&self, _: u64) {
        std::future::pending::<()>().await;
    }

    async fn logs(&self, _: &ReplicaId, _: &LogOptions) -> Result<Box<dyn LogLines>, RuntimeError> {
        Err(RuntimeError::Unreachable("no engine".to_owned()))
    }

    async fn check_network(&self) -> Result<NetworkCheck, Error> {
        Ok(NetworkCheck::of(Vec::new()))
    }
}

fn root() -> Author {
    Caller::local(NodeName::new("n1"), 0, "root".to_owned()).author
}

fn daemon() -> Arc<Daemon> {
    let mut cluster = Cluster::of(3);
    for name in ["mine", "other"] {
        let spec = deployment(name, [("hush", service(1, "1"))]);
        cluster.deploy(spec).unwrap();
    }
    cluster.settle();
    let mut state = cluster.state;
    // Real clocks are compared with this one.
    state.clock = Timestamp(state.clock.0.max(1_700_000_000_000));
    let mut write = |command: Command| {
        let proposal = Proposal {
            at: state.clock,
            identity: Identity::new("local"),
            author: Some(root()),
            command,
        };
        let index = state.index + 1;
        apply(&mut state, &Entry { index, proposal }).unwrap();
    };
    for (name, rights, ttl) in tokens() {
        write(Command::TokenIssue {
            hash: sha256_hex(name.as_bytes()),
            name: Identity::new(name),
            rights,
            ttl,
        });
    }
    write(Command::TokenRevoke {
        name: Identity::new("revoked"),
        force: true,
    });
    Arc::new(Daemon {
        state: Mutex::new(Arc::new(state)),
    })
}

fn tokens() -> Vec<(&'static str, Rights, Option<Duration>)> {
    let scoped = Rights {
        deployments: Some(BTreeSet::from([DeploymentName::new("mine")])),
        ..Rights::of(Role::Deploy)
    };
    vec![
        ("read", Rights::of(Role::Read), None),
        ("deploy", Rights::of(Role::Deploy), None),
        ("scoped", scoped, None),
        ("admin", Rights::of(Role::Admin), None),
        ("revoked", Rights::of(Role::Admin), None),
        (
            "expired",
            Rights::of(Role::Admin),
            Some(Duration::from_secs(1)),
        ),
    ]
}

/// A request about the deployment that the scoped token is not for.
fn request(rpc: &Rpc) -> Vec<u8> {
    let name = || "other".to_owned();
    let hush = || "hush".to_owned();
    let document = |kind: &str| proto::GetRequest {
        kind: kind.to_owned(),
        name: name(),
        show_secrets: true,
        consistent: false,
    };
    match (rpc.service, rpc.method) {
        ("Deploy", "Apply") => proto::ApplyRequest {
            bundle: serde_json::to_vec(&jaco_testkit::builders::bundle()).unwrap(),
            dry_run: false,
        }
        .encode_to_vec(),
        ("Deploy", "Delete" | "History") => proto::NameRequest {
            name: name(),
            consistent: false,
        }
        .encode_to_vec(),
        ("Deploy", "Rollback") => proto::RollbackRequest {
            deployment: name(),
            to: None,
        }
        .encode_to_vec(),
        ("Deploy", "Scale") => proto::ScaleRequest {
            deployment: name(),
            service: hush(),
            replicas: 2,
        }
        .encode_to_vec(),
        ("Deploy", "Restart") => proto::RestartRequest {
            deployment: name(),
            service: hush(),
        }
        .encode_to_vec(),
        ("Deploy" | "Watch", "Status") => proto::StatusRequest::default().encode_to_vec(),
        ("Deploy", "Get") => document("deployment").encode_to_vec(),
        ("Logs", "Stream") => proto::LogsRequest {
            deployment: name(),
            service: hush(),
            ..proto::LogsRequest::default()
        }
        .encode_to_vec(),
        ("Token", "Issue") => proto::IssueTokenRequest {
            name: "another".to_owned(),
            ..proto::IssueTokenRequest::default()
        }
        .encode_to_vec(),
        ("Token", "Revoke") => proto::RevokeTokenRequest {
            name: "admin".to_owned(),
            force: true,
        }
        .encode_to_vec(),
        _ => Vec::new(),
    }
}

/// The code of what came back, or what was told.
async fn call(daemon: &Arc<Daemon>, who: Option<&str>, rpc: &Rpc) -> Result<String, ErrorCode> {
    let entrance = match who {
        Some("socket") => Entrance::Local,
        _ => Entrance::Remote,
    };
    let plane = || Arc::clone(daemon) as Arc<dyn ControlPlane>;
    let service = Gate::new(plane(), entrance).layer(routes(plane()));
    let message = request(rpc);
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let mut request = http::Request::post(format!(
        "http://daemon/jaco.v1.{}/{}",
        rpc.service, rpc.method
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers");
    if let Some(token) = who {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut request = request
        .body(Body::new(Full::new(Bytes::from(framed))))
        .unwrap();
    request.extensions_mut().insert(Connection {
        address: Some(SocketAddr::from(([192, 0, 2, 1], 9))),
        certificate: None,
    });
    let answer = service.oneshot(request).await.unwrap();
    let (head, mut body) = answer.into_parts();
    let mut told = String::new();
    let mut trailers = head.headers;
    while let Ok(Some(Ok(frame))) =
        tokio::time::timeout(Duration::from_millis(200), body.frame()).await
    {
        match frame.into_data() {
            Ok(data) => told.push_str(&String::from_utf8_lossy(&data)),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let status = tonic::Status::from_header_map(&trailers);
    match status.filter(|status| status.code() != tonic::Code::Ok) {
        None => Ok(told),
        Some(status) => {
            let error = status.metadata().get_bin("jaco-error-bin");
            let json = error.unwrap().to_bytes().unwrap();
            Err(serde_json::from_slice::<Error>(&json).unwrap().code)
        }
    }
}

const REFUSALS: [ErrorCode; 3] = [
    ErrorCode::TokenInvalid,
    ErrorCode::TokenRevoked,
    ErrorCode::PermissionDenied,
];

#[tokio::test]
async fn every_call_takes_whom_its_row_takes_and_nobody_else() {
    let roles = HashMap::from([
        ("read", Role::Read),
        ("deploy", Role::Deploy),
        ("scoped", Role::Deploy),
        ("admin", Role::Admin),
    ]);
    let everybody = [
        None,
        Some("unknown"),
        Some("read"),
        Some("deploy"),
        Some("scoped"),
        Some("admin"),
        Some("revoked"),
        Some("expired"),
        Some("socket"),
    ];
    for rpc in RPCS {
        for who in everybody {
            let daemon = daemon();
            let got = call(&daemon, who, rpc).await;
            let refusal = got.as_ref().err().copied();
            let refusal = refusal.filter(|code| REFUSALS.contains(code));
            let expected = match (who, rpc.need) {
                (Some("socket"), _) | (_, Need::JoinToken) => None,
                (_, Need::Socket) => Some(ErrorCode::PermissionDenied),
                (None | Some("unknown"), _) => Some(ErrorCode::TokenInvalid),
                (Some("revoked" | "expired"), _) => Some(ErrorCode::TokenRevoked),
                (Some(name), Need::Role(role)) => {
                    let is_let = roles[name] >= role;
                    // Of another identity; the row says so.
                    let is_revoking = rpc.method == "Revoke" && name != "admin";
                    (!is_let || is_revoking).then_some(ErrorCode::PermissionDenied)
                }
            };
            // What a token is not bound to does not exist for it, or is refused.
            if who == Some("scoped") && rpc.is_scoped && expected.is_none() {
                match got {
                    Ok(told) => assert!(!told.contains("other"), "{rpc:?}: {told}"),
                    Err(code) => assert!(
                        code == ErrorCode::PermissionDenied
                            || code == ErrorCode::DeploymentNotFound,
                        "{rpc:?}: {code:?}"
                    ),
                }
                continue;
            }
            // To look at secrets takes more than to look.
            let is_secret = rpc.service == "Deploy" && rpc.method == "Get" && who == Some("read");
            let expected = match is_secret {
                true => Some(ErrorCode::PermissionDenied),
                false => expected,
            };
            assert_eq!(
                refusal, expected,
                "{} {}, {who:?}: {got:?}",
                rpc.service, rpc.method
            );
        }
    }
}

#[test]
fn every_call_of_the_interface_has_a_row() {
    let text = include_str!("../src/api/proto/jaco/v1/jaco.proto");
    let mut service = "";
    let mut calls = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        let word = |after: &str| {
            let rest = line.strip_prefix(after)?;
            rest.split([' ', '(', '{']).next()
        };
        service = word("service ").unwrap_or(service);
        if let Some(method) = word("rpc ") {
            calls.insert((service, method));
        }
    }
    let rows: BTreeSet<_> = RPCS.iter().map(|rpc| (rpc.service, rpc.method)).collect();
    assert_eq!(calls, rows);
}

#[tokio::test]
async fn failed_logins_are_told_once_and_secrets_shown_are_told_first() {
    let daemon = daemon();
    let find = |service: &str, method: &str| {
        let is_it = |rpc: &&Rpc| rpc.service == service && rpc.method == method;
        RPCS.iter().find(is_it).unwrap()
    };
    // One gate counts; each call here makes a new one, so each tells once.
    assert!(
        call(&daemon, Some("unknown"), find("Deploy", "Status"))
            .await
            .is_err()
    );
    assert!(
        call(&daemon, Some("deploy"), find("Deploy", "Get"))
            .await
            .is_ok()
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    let state = daemon.state(false).await.unwrap();
    let events = state.audit.iter().map(|event| event.kind.as_str());
    let events: BTreeSet<&str> = events.collect();
    assert!(events.contains("login_failed") && events.contains("secrets_shown"));
}

#[tokio::test]
async fn a_stranger_is_refused_before_its_body_is_read() {
    let daemon = daemon();
    let plane = || Arc::clone(&daemon) as Arc<dyn ControlPlane>;
    let service = Gate::new(plane(), Entrance::Remote).layer(routes(plane()));
    let endless = futures::stream::pending::<Result<hyper::body::Frame<Bytes>, tonic::Status>>();
    let body = Body::new(http_body_util::StreamBody::new(endless));
    let request = http::Request::post("http://daemon/jaco.v1.Deploy/Apply")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), service.oneshot(request)).await;
    let answer = answer.expect("it does not wait for the body").unwrap();
    let status = tonic::Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}
