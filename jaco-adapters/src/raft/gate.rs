//! Who may speak to a member: on each call the key that the connection showed must be that of a
//! present member (spec 10, Between members), so that a removed one is out at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use jaco_core::cluster::state::Standing;
use jaco_core::id::NodeName;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::consensus::Shared;
use crate::transport::incoming::Connection;

/// The member that calls.
#[derive(Clone, Debug)]
pub(super) struct CallingMember(pub(super) NodeName);

/// Puts the question before every service of the members' listener.
#[derive(Clone)]
pub struct MemberGate {
    pub(super) shared: Arc<Shared>,
    /// Keys that are no member's here, of those who were let in while nobody led: this copy of the
    /// state was too old to know them.
    pub(super) newer: Arc<Mutex<BTreeSet<String>>>,
}

/// What a member that this copy does not know yet may say: without it the copy stays old.
const CONSENSUS: [&str; 5] = ["Append", "Vote", "PreVote", "TransferLeader", "Snapshot"];

impl MemberGate {
    fn admit(&self, request: &http::Request<Body>) -> Result<Option<NodeName>, Status> {
        let refused = |why: &str| Err(Status::unauthenticated(why.to_owned()));
        let connection = request.extensions().get::<Connection>();
        let Some(shown) = connection.and_then(|it| it.certificate.as_ref()) else {
            return refused("a member's certificate is needed on this address");
        };
        let key = &*shown.key_hash;
        let standing = {
            let state = self.shared.state.borrow();
            match state.cluster.is_some() {
                true => state.standing(key, &shown.serial),
                // Nothing has arrived yet; the handshake checked the CA.
                false => return Ok(None),
            }
        };
        let mut newer = self.newer.lock().expect("no holder of this lock panics");
        match standing {
            Standing::Member(name) => {
                newer.remove(key);
                Ok(Some(name))
            }
            Standing::Removed => {
                newer.remove(key);
                refused("this certificate is of a member that was removed")
            }
            Standing::Unknown => {
                let method = request.uri().path().rsplit('/').next().unwrap_or_default();
                let is_let = newer.contains(key) || !self.shared.hears_leader();
                if is_let && CONSENSUS.contains(&method) {
                    newer.insert(key.to_owned());
                    return Ok(None);
                }
                refused("this certificate is no member's")
            }
        }
    }
}

impl<S> Layer<S> for MemberGate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            gate: self.clone(),
            inner,
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: MemberGate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(member) => {
                if let Some(member) = member {
                    request.extensions_mut().insert(CallingMember(member));
                }
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
