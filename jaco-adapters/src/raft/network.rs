//! Sending consensus messages to the other members, over mutual TLS.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;

use super::types::alias::{Snapshot, Vote};
use super::types::{Peer, Types};
use crate::transport::proto::internal::raft_client::RaftClient;
use crate::transport::proto::internal::{Chunk, Frame};
use crate::transport::{MAX_MESSAGE, connect};

const CHUNK: usize = 1 << 20;

/// Channels to the other members by address, shared by everything that talks to them.
#[derive(Clone)]
pub struct Peers {
    tls: Arc<ClientConfig>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Peers {
    /// Dials with this configuration.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            channels: Arc::default(),
        }
    }

    /// A channel to a member's raft listener.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock().expect("no holder of this lock panics");
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = connect::tls(address, Arc::clone(&self.tls))?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    pub(super) fn client(&self, address: &str) -> Result<RaftClient<Channel>, UnreachablePeer> {
        let channel = self
            .channel(address)
            .map_err(|error| unreachable_peer(&error))?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE))
    }
}

type UnreachablePeer = RPCError<Types>;

fn unreachable_peer<E: std::error::Error + 'static>(error: &E) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Link {
        Link {
            peers: self.clone(),
            target,
            address: node.address.clone(),
        }
    }
}

/// The way to one member.
pub struct Link {
    peers: Peers,
    target: u64,
    address: String,
}

/// Which unary call.
#[derive(Clone, Copy)]
enum Call {
    Append,
    Vote,
    PreVote,
    TransferLeader,
}

impl Link {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        call: Call,
        request: &Q,
        option: &RPCOption,
    ) -> Result<A, RPCError<Types>> {
        let mut client = self.peers.client(&self.address)?;
        let frame = encode(request)?;
        let answer = async {
            match call {
                Call::Append => client.append(frame).await,
                Call::Vote => client.vote(frame).await,
                Call::PreVote => client.pre_vote(frame).await,
                Call::TransferLeader => client.transfer_leader(frame).await,
            }
        };
        let limit = option.hard_ttl();
        let answer = tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| RPCError::Timeout(self.timed_out(limit)))?
            .map_err(|status| unreachable_peer(&status))?;
        decode(&answer.into_inner())
    }

    fn timed_out(&self, timeout: Duration) -> Timeout<Types> {
        Timeout {
            action: RPCTypes::AppendEntries,
            id: 0,
            target: self.target,
            timeout,
        }
    }
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Frame, RPCError<Types>> {
    let json =
        serde_json::to_vec(value).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
    Ok(Frame { json })
}

pub(super) fn decode<T: DeserializeOwned>(frame: &Frame) -> Result<T, RPCError<Types>> {
    serde_json::from_slice(&frame.json)
        .map_err(|error| RPCError::Network(NetworkError::new(&error)))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        self.call(Call::Append, &rpc, &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(Call::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(Call::PreVote, &rpc, &option).await
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.call(Call::TransferLeader, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self
            .peers
            .client(&self.address)
            .map_err(StreamingError::from)?;
        let head = serde_json::to_vec(&(&vote, &snapshot.meta))
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let mut chunks = vec![Chunk {
            head,
            data: Vec::new(),
        }];
        let data = snapshot.snapshot.chunks(CHUNK);
        chunks.extend(data.map(|data| Chunk {
            head: Vec::new(),
            data: data.to_vec(),
        }));
        let send = client.snapshot(futures::stream::iter(chunks));
        let answer = tokio::select! {
            answer = send => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let answer =
            answer.map_err(|status| StreamingError::Unreachable(Unreachable::new(&status)))?;
        decode(&answer.into_inner()).map_err(StreamingError::from)
    }
}
