//! Answering the other members' consensus messages.

use std::sync::Arc;

use futures::StreamExt;
use jaco_core::access::{Author, entry};
use jaco_core::cluster::{Applied, Command};
use openraft::raft::AppendEntriesResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status, Streaming};

use super::consensus::{Refusal, Shared};
use super::gate::CallingMember;
use super::state_machine::read_state;
use super::types::alias::{Snapshot, SnapshotMeta, Vote};
use crate::transport::MAX_MESSAGE;
use crate::transport::proto::internal::raft_server::{Raft as Service, RaftServer};
use crate::transport::proto::internal::{Chunk, Frame};

/// Bytes of the largest snapshot that is taken from another member.
const MAX_SNAPSHOT: usize = 1 << 30;

/// The service for the raft listener.
pub(super) fn service(shared: Arc<Shared>) -> RaftServer<Handler> {
    RaftServer::new(Handler { shared })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// Hands frames to the consensus library. Frames that do not decode change nothing.
pub struct Handler {
    shared: Arc<Shared>,
}

fn decode<T: DeserializeOwned>(request: Request<Frame>) -> Result<T, Status> {
    serde_json::from_slice(&request.into_inner().json)
        .map_err(|error| Status::invalid_argument(format!("malformed frame: {error}")))
}

fn encode<T: Serialize>(answer: &T) -> Result<Response<Frame>, Status> {
    let json = serde_json::to_vec(answer)
        .map_err(|error| Status::internal(format!("encode answer: {error}")))?;
    Ok(Response::new(Frame { json }))
}

fn failed<E: std::fmt::Display>(error: E) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Service for Handler {
    async fn append(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let rpc = decode(request)?;
        let answer = self.shared.raft.append_entries(rpc).await;
        let answer = answer.map_err(failed)?;
        // One with an older vote does not lead any more.
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.shared.note_leader();
        }
        encode(&answer)
    }

    async fn vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let rpc = decode(request)?;
        encode(&self.shared.raft.vote(rpc).await.map_err(failed)?)
    }

    async fn pre_vote(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let rpc = decode(request)?;
        encode(&self.shared.raft.pre_vote(rpc).await.map_err(failed)?)
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let rpc = decode(request)?;
        encode(
            &self
                .shared
                .raft
                .handle_transfer_leader(rpc)
                .await
                .map_err(failed)?,
        )
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<Frame>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.next().await.transpose()?;
        let first = first.ok_or_else(|| Status::invalid_argument("empty snapshot stream"))?;
        let (vote, meta): (Vote, SnapshotMeta) = serde_json::from_slice(&first.head)
            .map_err(|error| Status::invalid_argument(format!("malformed head: {error}")))?;
        let mut data = first.data;
        while let Some(chunk) = chunks.next().await {
            data.extend(chunk?.data);
            if data.len() > MAX_SNAPSHOT {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
        }
        // A state machine that cannot take a snapshot ends the member, so look at it before.
        let (data, read) = tokio::task::spawn_blocking(move || {
            let read = read_state(&data).map(drop);
            (data, read)
        })
        .await
        .map_err(failed)?;
        read.map_err(|error| Status::invalid_argument(format!("malformed snapshot: {error}")))?;
        let snapshot = Snapshot {
            meta,
            snapshot: data,
        };
        let installed = self.shared.raft.install_full_snapshot(vote, snapshot).await;
        encode(&installed.map_err(failed)?)
    }

    async fn propose(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let member = request.extensions().get::<CallingMember>().cloned();
        let (author, command): (Author, Command) = decode(request)?;
        let CallingMember(member) =
            member.ok_or_else(|| Status::unauthenticated("only a member can propose"))?;
        if let Err(refused) = entry::may_pass_on(&member, &author, &command) {
            return encode(&Ok::<Applied, Refusal>(Err(refused)));
        }
        encode(&self.shared.lead_write(&author, command).await)
    }

    async fn read_index(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        encode(&self.shared.read_index().await)
    }
}
