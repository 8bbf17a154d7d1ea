//! Letting hosts in that show a join token (spec 04, Join).

use std::net::IpAddr;

use jaco_core::access::Author;
use jaco_core::cluster::admission::{self, Joiner};
use jaco_core::cluster::apply::check_join;
use jaco_core::cluster::command::NewNode;
use jaco_core::cluster::{Command, Outcome};
use jaco_core::error::{Error, ErrorCode};
use jaco_core::manifest::hash::{sha256_hex, unhex};
use jaco_core::ports::control_plane::{Admission, AdmissionRequest};
use jaco_core::ports::{Clock, Consensus, ControlPlane};

use super::{CA_KEY, Plane, SystemClock, wiring};

impl Plane {
    /// Admits a host whose token is right. Nothing is told to one whose token is not.
    pub(super) async fn let_in(&self, request: AdmissionRequest) -> Result<Admission, Error> {
        let from = request.from;
        let attempt = |from: IpAddr| {
            let mut attempts = self.attempts.lock().expect("no holder of this lock panics");
            attempts.begin(from, SystemClock.now())
        };
        from.map(attempt).transpose()?;
        let _alone = self.admitting.lock().await;
        let admission = self.admit_alone(request).await?;
        if let Some(from) = from {
            let mut attempts = self.attempts.lock().expect("no holder of this lock panics");
            attempts.forgive(from);
        }
        Ok(admission)
    }

    async fn admit_alone(&self, request: AdmissionRequest) -> Result<Admission, Error> {
        let membership = self.joined()?;
        let state = self.state(true).await?;
        let token_hash = sha256_hex(request.secret.as_bytes());
        let token = check_join(&state, &token_hash, &request.hostname)?;
        if state.nodes.contains_key(&request.hostname) {
            let message = format!("a node named \"{}\" is a member already", request.hostname);
            return Err(Error::new(ErrorCode::NodeAlreadyMember, message));
        }
        let joiner = Joiner {
            name: &request.hostname,
            from: request.from,
            advertised: [host(&request.api_address), host(&request.cluster_address)],
        };
        let sans = admission::sans(&state, token, joiner)?;
        let cluster = state
            .cluster
            .as_ref()
            .ok_or_else(|| Error::internal("no cluster"))?;
        let sealed = unhex(&cluster.ca_key_sealed).unwrap_or_default();
        let ca_key = membership
            .opened
            .sealer
            .open(CA_KEY, &sealed)
            .map_err(Error::internal)?;
        let ca_key = zeroize::Zeroizing::new(String::from_utf8(ca_key).map_err(Error::internal)?);
        let hostname = request.hostname.as_str();
        let (chain, serial) =
            wiring::sign_node(&cluster.ca_cert, &ca_key, &request.csr, hostname, &sans)?;
        let node = NewNode {
            name: request.hostname.clone(),
            api_address: request.api_address,
            cluster_address: request.cluster_address,
            serial,
            key_hash: wiring::key_hash(&chain)?,
        };
        let author = Author::Member(self.node());
        let command = Command::NodeJoin { token_hash, node };
        let written = membership
            .opened
            .consensus
            .write(&author, command)
            .await??;
        let Outcome::Admitted { member } = written else {
            return Err(Error::internal("a member number was expected"));
        };
        Ok(Admission {
            cluster_id: cluster.id.to_string(),
            member,
            chain,
            state_key: self.state_key()?.to_vec(),
        })
    }
}

/// The host part of `host:port`.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']'])
}
