//! What members send each other: bytes that make no sense are refused, and change nothing.
#![allow(clippy::unwrap_used)] // a test that fails says where

use std::sync::Arc;
use std::time::{Duration, Instant};

use jaco_adapters::metrics::Metrics;
use jaco_adapters::raft::{self, RaftConsensus, Types};
use jaco_adapters::seal::AesSealer;
use jaco_adapters::system::SystemClock;
use jaco_adapters::transport::proto::internal::raft_client::RaftClient;
use jaco_adapters::transport::proto::internal::{Chunk, Frame};
use jaco_adapters::transport::{pki, tls};
use jaco_core::access::Author;
use jaco_core::cluster::{Command, Proposal};
use jaco_core::id::{Identity, NodeName};
use jaco_core::ports::{Consensus, ConsensusError};
use jaco_core::time::Timestamp;
use openraft::alias::{SnapshotMetaOf, VoteOf};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};

const CASES: usize = 300;
const DEADLINE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A group of one, and the way to it that other members have.
struct Member {
    consensus: RaftConsensus,
    client: RaftClient<Channel>,
    _dir: TempDir,
}

impl Member {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let (ca, ca_key) = pki::new_authority("test").unwrap();
        let (key, request) = pki::new_request("n1").unwrap();
        let (chain, _) = pki::sign_node(&ca, &ca_key, &request, "n1", &[]).unwrap();
        let identity = pki::Identity { chain, key };
        let nobody: tls::Refused = Arc::new(|_, _| false);
        let tls = tls::member_client(&ca, &identity, nobody).unwrap();
        let sealer = Arc::new(AesSealer::new(&[7; 32]));
        let consensus = raft::open(
            dir.path(),
            1,
            sealer,
            Arc::new(SystemClock),
            Arc::new(Metrics::new()),
            tls,
        );
        let consensus = consensus.await.unwrap();
        let node = NodeName::new("n1");
        consensus.initialize(&node, "127.0.0.1:1").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serve = Server::builder()
            .add_service(consensus.service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        let channel = Channel::from_shared(address).unwrap().connect_lazy();
        let client = RaftClient::new(channel);
        Self {
            consensus,
            client,
            _dir: dir,
        }
    }

    /// Writes once it leads; the index that the write has.
    async fn write(&self) -> u64 {
        let (author, command) = (Author::Token("a".to_owned()), command());
        let begin = Instant::now();
        while begin.elapsed() < DEADLINE {
            let written = self.consensus.write(&author, command.clone());
            match written.await {
                Err(ConsensusError::NoLeader) => tokio::time::sleep(POLL).await,
                // The command itself is refused, in order.
                done => {
                    assert!(done.unwrap().is_err());
                    return self.consensus.snapshot().index;
                }
            }
        }
        panic!("it does not lead");
    }
}

fn command() -> Command {
    Command::TokenRevoke {
        name: Identity::new("nobody"),
        force: true,
    }
}

/// Anything, and JSON with a part overwritten, cut out or doubled.
fn spoiled(json: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let part = prop::collection::vec(any::<u8>(), 0..8);
    let spoiled = (any::<Index>(), 0..40usize, part).prop_map(move |(at, length, part)| {
        let from = at.index(json.len());
        let to = (from + length).min(json.len());
        let mut bytes = json.clone();
        bytes.splice(from..to, part);
        bytes
    });
    prop_oneof![spoiled, prop::collection::vec(any::<u8>(), 0..200)]
}

/// Draws frames that are no `T`.
fn malformed<T: DeserializeOwned>(json: Vec<u8>) -> Vec<Vec<u8>> {
    let (mut runner, strategy) = (TestRunner::default(), spoiled(json));
    let draw = |_| strategy.new_tree(&mut runner).unwrap().current();
    let drawn: Vec<Vec<u8>> = (0..CASES).map(draw).collect();
    let no_t = |bytes: &Vec<u8>| serde_json::from_slice::<T>(bytes).is_err();
    drawn.into_iter().filter(no_t).collect()
}

fn refused<T>(answer: Result<T, Status>) {
    let status = answer.err().expect("what does not decode is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn frames_that_do_not_decode_are_refused_and_change_nothing() {
    let member = Member::start().await;
    let before = member.write().await;
    let mut client = member.client.clone();
    let vote = VoteOf::<Types>::new(9, 2);
    let request = serde_json::to_vec(&VoteRequest::<Types>::new(vote, None)).unwrap();
    for json in malformed::<VoteRequest<Types>>(request) {
        refused(client.vote(Frame { json: json.clone() }).await);
        refused(client.pre_vote(Frame { json }).await);
    }
    let request = AppendEntriesRequest::<Types> {
        vote,
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let request = serde_json::to_vec(&request).unwrap();
    for json in malformed::<AppendEntriesRequest<Types>>(request) {
        refused(client.append(Frame { json }).await);
    }
    let request = serde_json::to_vec(&TransferLeaderRequest::<Types>::new(vote, 2, None)).unwrap();
    for json in malformed::<TransferLeaderRequest<Types>>(request) {
        refused(client.transfer_leader(Frame { json }).await);
    }
    let proposal = (Identity::new("a"), command());
    for json in malformed::<(Identity, Command)>(serde_json::to_vec(&proposal).unwrap()) {
        refused(client.propose(Frame { json }).await);
    }
    assert_eq!(member.write().await, before + 1);
}

#[tokio::test]
async fn snapshots_that_make_no_sense_are_refused_and_change_nothing() {
    let member = Member::start().await;
    let before = member.write().await;
    let mut client = member.client.clone();
    let head = (
        VoteOf::<Types>::new(9, 2),
        SnapshotMetaOf::<Types>::default(),
    );
    let head = serde_json::to_vec(&head).unwrap();
    let state = serde_json::to_vec(&*member.consensus.snapshot()).unwrap();
    for head in malformed::<(VoteOf<Types>, SnapshotMetaOf<Types>)>(head.clone()) {
        let data = state.clone();
        let chunks = futures::stream::iter([Chunk { head, data }]);
        refused(client.snapshot(chunks).await);
    }
    for data in malformed::<jaco_core::cluster::ClusterState>(state) {
        let head = head.clone();
        let (first, rest) = data.split_at(data.len() / 2);
        let (first, rest) = (first.to_vec(), rest.to_vec());
        let chunks = [
            Chunk { head, data: first },
            Chunk {
                head: Vec::new(),
                data: rest,
            },
        ];
        refused(client.snapshot(futures::stream::iter(chunks)).await);
    }
    refused(client.snapshot(futures::stream::empty()).await);
    assert_eq!(member.write().await, before + 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_frame_of_another_member_panics(
        bytes in spoiled(serde_json::to_vec(&Proposal {
            at: Timestamp(1),
            identity: Identity::new("a"),
            author: None,
            command: command(),
        }).unwrap()),
    ) {
        let _ = serde_json::from_slice::<VoteRequest<Types>>(&bytes);
        let _ = serde_json::from_slice::<AppendEntriesRequest<Types>>(&bytes);
        let _ = serde_json::from_slice::<SnapshotMetaOf<Types>>(&bytes);
        let _ = serde_json::from_slice::<raft::Record>(&bytes);
    }
}
