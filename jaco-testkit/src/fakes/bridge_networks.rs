//! Engine networks in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jaco_core::id::ClusterId;
use jaco_core::node::bridges::{Bridge, CLUSTER_LABEL, ObservedBridge};
use jaco_core::ports::{BridgeNetworks, RuntimeError};

/// The networks of one node. Subnets and interfaces may be taken once, as in a kernel.
#[derive(Debug, Default)]
pub struct FakeBridges(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    bridges: BTreeMap<String, Bridge>,
    occupied: BTreeSet<String>,
}

impl FakeBridges {
    /// Makes every call fail as without an engine, or ends that.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().unreachable = !reachable;
    }

    /// Says that the network has containers, so that it cannot be removed.
    pub fn occupy(&self, engine_name: &str) {
        self.lock().occupied.insert(engine_name.to_owned());
    }

    /// Says that the network has no container any more.
    pub fn vacate(&self, engine_name: &str) {
        self.lock().occupied.remove(engine_name);
    }

    /// The networks as they were asked for.
    pub fn bridges(&self) -> Vec<Bridge> {
        self.lock().bridges.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine(&self) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let state = self.lock();
        if state.unreachable {
            return Err(RuntimeError::Unreachable("connection refused".to_owned()));
        }
        Ok(state)
    }
}

#[async_trait]
impl BridgeNetworks for FakeBridges {
    async fn observe(&self, cluster: &ClusterId) -> Result<Vec<ObservedBridge>, RuntimeError> {
        let state = self.engine()?;
        let ours = state.bridges.values().filter(|bridge| {
            let label = bridge.labels.get(CLUSTER_LABEL);
            label.map(String::as_str) == Some(cluster.as_str())
        });
        Ok(ours.map(observed).collect())
    }

    async fn ensure(&self, bridge: &Bridge) -> Result<(), RuntimeError> {
        let mut state = self.engine()?;
        if state.bridges.get(&bridge.engine_name) == Some(bridge) {
            return Ok(());
        }
        let clash = |other: &&Bridge| {
            other.engine_name == bridge.engine_name
                || other.subnet == bridge.subnet
                || other.interface == bridge.interface
        };
        if let Some(other) = state.bridges.values().find(clash) {
            let (name, other) = (&bridge.engine_name, &other.engine_name);
            let reason = format!("network {name} clashes with {other}");
            return Err(RuntimeError::Refused(reason));
        }
        let name = bridge.engine_name.clone();
        state.bridges.insert(name, bridge.clone());
        Ok(())
    }

    async fn remove(&self, engine_name: &str) -> Result<(), RuntimeError> {
        let mut state = self.engine()?;
        if state.occupied.contains(engine_name) {
            let reason = format!("network {engine_name} has active endpoints");
            return Err(RuntimeError::Refused(reason));
        }
        state.bridges.remove(engine_name);
        Ok(())
    }
}

fn observed(bridge: &Bridge) -> ObservedBridge {
    ObservedBridge {
        engine_name: bridge.engine_name.clone(),
        interface: bridge.interface.clone(),
        subnet: bridge.subnet.clone(),
    }
}
