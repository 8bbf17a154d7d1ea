//! Who calls, and whether they may, before anything of a request's body is read (spec 10).

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::request::Parts;
use http_body_util::Limited;
use jaco_core::access::logins::Logins;
use jaco_core::access::rpc::{self, Need};
use jaco_core::access::{Author, Caller, Rights, Role};
use jaco_core::cluster::Command;
use jaco_core::error::{Error, ErrorCode};
use jaco_core::id::Identity;
use jaco_core::manifest::hash::sha256_hex;
use jaco_core::ports::{Clock, ControlPlane};
use tonic::body::Body;
use tonic::transport::server::UdsConnectInfo;
use tower::{Layer, Service};

use super::Entrance;
use crate::api::convert::to_status;
use crate::system::{SystemClock, user_name};
use crate::transport::incoming;

/// Bytes of a request whose sender has shown nothing yet: a join token and a certificate request.
const MAX_JOIN_REQUEST: usize = 64 << 10;

/// Puts the question before every service of a listener.
#[derive(Clone)]
pub struct Gate {
    plane: Arc<dyn ControlPlane>,
    entrance: Entrance,
    logins: Arc<Mutex<Logins>>,
}

impl Gate {
    /// For one listener.
    pub fn new(plane: Arc<dyn ControlPlane>, entrance: Entrance) -> Self {
        Self {
            plane,
            entrance,
            logins: Arc::default(),
        }
    }

    /// Who calls; nobody where the request itself carries what lets it in.
    async fn admit(&self, request: &Parts) -> Result<Option<Caller>, Error> {
        let path = request.uri.path();
        let Some(rpc) = rpc::of_path(path) else {
            let message = format!("{path} is no call of this version");
            return Err(Error::new(ErrorCode::ValidationFailed, message).with("field", "path"));
        };
        match (self.entrance, rpc.need) {
            (_, Need::JoinToken) => Ok(None),
            (Entrance::Local, _) => {
                let connection = request.extensions.get::<UdsConnectInfo>();
                let uid = connection
                    .and_then(|it| it.peer_cred)
                    .map(|peer| peer.uid());
                // Without the kernel's word it is nobody in particular; the socket let it in.
                let (uid, user) = match uid {
                    Some(uid) => (uid, user_name(uid)),
                    None => (u32::MAX, "unknown".to_owned()),
                };
                Ok(Some(Caller::local(self.plane.node(), uid, user)))
            }
            (Entrance::Remote, Need::Socket) => {
                let message = format!("{} is possible on the host's unix socket only", rpc.command);
                Err(Error::new(ErrorCode::PermissionDenied, message).with("right", "unix socket"))
            }
            (Entrance::Remote, Need::Role(role)) => {
                let caller = self
                    .login(request, incoming::peer(&request.extensions))
                    .await?;
                let state = self.plane.state(false).await?;
                caller.require(&state, role, None)?;
                Ok(Some(caller))
            }
        }
    }

    async fn login(&self, request: &Parts, from: Option<IpAddr>) -> Result<Caller, Error> {
        let now = SystemClock.now();
        let header = request.headers.get(http::header::AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok());
        let secret = header.and_then(|header| header.strip_prefix("Bearer "));
        let found = match secret {
            Some(secret) => {
                let state = self.plane.state(false).await?;
                Caller::of_token(&state, &sha256_hex(secret.as_bytes()), now)
            }
            None => Err(Error::new(
                ErrorCode::TokenInvalid,
                "a bearer token is needed on this address",
            )),
        };
        let (Err(error), Some(from)) = (&found, from) else {
            return found;
        };
        let (limited, told) = {
            let mut logins = self.logins.lock().expect("no holder of this lock panics");
            (logins.admit(from, now), logins.fail(from, now))
        };
        if let Some(told) = told {
            let address = told.address.map_or("many".to_owned(), |it| it.to_string());
            tracing::warn!(
                subsystem = "api",
                address,
                count = told.count,
                code = error.code.as_str(),
                "failed logins"
            );
            self.record(told.address, told.count);
        }
        limited?;
        found
    }

    /// Has the audit log tell of failed logins; nobody waits for it.
    fn record(&self, address: Option<IpAddr>, count: u32) {
        let plane = Arc::clone(&self.plane);
        let node = plane.node();
        let daemon = Caller {
            identity: Identity::new("system"),
            author: Author::Member(node.clone()),
            rights: Rights::of(Role::Read),
        };
        let command = Command::LoginFailed {
            node,
            address,
            count,
        };
        tokio::spawn(async move {
            if let Err(error) = plane.write(&daemon, command).await {
                tracing::debug!(subsystem = "api", %error, "record failed logins");
            }
        });
    }
}

impl<S> Layer<S> for Gate {
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
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // The one that is ready is used; its clone takes its place.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let (mut head, mut body) = request.into_parts();
            match gate.admit(&head).await {
                Ok(Some(caller)) => drop(head.extensions.insert(caller)),
                Ok(None) => body = Body::new(Limited::new(body, MAX_JOIN_REQUEST)),
                Err(error) => return Ok(to_status(&error).into_http()),
            }
            inner.call(http::Request::from_parts(head, body)).await
        })
    }
}
